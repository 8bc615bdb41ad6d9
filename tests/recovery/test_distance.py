"""Statistics of convolutions, averages over iterations and statistics of classes, against plain float64 forms."""

from itertools import product

import pytest
import timm
import torch
from fixtures.plain_matching import PlainMatching, measured, network, seen
from torch import nn

from fadrm_hf import networks  # noqa: F401  registers the small networks
from fadrm_hf.config import Matching
from fadrm_hf.recovery.matching.distance import MatchedStatistics
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

SIDE = 4
LABELS = torch.tensor([1, 1, 2, 2, 4, 4])  # class-major: two images of each of three classes


def real_images(num_per_class=3, num_classes=5, size=9):
    rng = generator(0, "real")
    labels = torch.arange(num_classes).repeat_interleave(num_per_class)
    images = torch.randn((len(labels), 3, size, size), dtype=torch.float64, generator=rng)
    return images + labels.view(-1, 1, 1, 1) * 0.3, labels


def batch(step=0, size=9):
    return 2.0 * torch.randn((6, 3, size, size), dtype=torch.float64, generator=generator(step, "batch")) + 0.5


def targets_of(images, labels):
    return measured(network(), images, labels, SIDE)


def assert_like_the_plain_form(matching, steps=1, **options):
    """Values and gradients of several iterations."""
    watched, module, targets = network(), network(), targets_of(*real_images())
    watch = MatchedStatistics(watched, matching, 10.0, targets, SIDE)
    watch.begin(LABELS, generator(0, "drop"))
    plain = PlainMatching(module, targets, SIDE, **options)
    for step in range(steps):
        images = batch(step).requires_grad_()
        watched(images)
        value, expected = watch.loss(), plain.loss(seen(module, images)[1], LABELS)
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
        (gradient,) = torch.autograd.grad(value, images)
        (wanted,) = torch.autograd.grad(expected, images)
        torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-12)


def test_convolutions_are_matched_by_channel_and_by_block():
    assert_like_the_plain_form(Matching(convolutions=True))


@pytest.mark.parametrize("from_zero", [False, True])
def test_averages_have_the_value_of_the_past_and_the_gradient_of_the_present(from_zero):
    matching = Matching(convolutions=True, momentum=0.6, from_zero=from_zero)
    assert_like_the_plain_form(matching, steps=4, momentum=0.6, from_zero=from_zero)


def losses(matching, *steps):
    """D of BatchNorm layers, iteration after iteration of one batch of images."""
    module = network()
    watch = MatchedStatistics(module, matching)
    watch.begin(LABELS, generator(0, "drop"))
    values = []
    for step in steps:
        module(batch(step).requires_grad_())
        values.append(watch.loss())
    return values


def test_averages_start_at_the_first_statistics_unless_released():
    (plain,), (first,) = losses(Matching(), 0), losses(Matching(momentum=0.8), 0)
    torch.testing.assert_close(first, plain, rtol=1e-12, atol=0)
    (released,) = losses(Matching(momentum=0.8, from_zero=True), 0)
    module, expected = network(), 0.0
    _, found = seen(module, batch(0))
    for name, weight in (("1", 10.0), ("4", 1.0)):
        layer, maps = module.get_submodule(name), found[name]
        mean, var = maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)
        expected += weight * ((layer.running_mean - 0.2 * mean).norm() + (layer.running_var - 0.2 * var).norm())
    torch.testing.assert_close(released, expected, rtol=1e-12, atol=0)


def test_another_batch_of_images_begins_its_own_averages():
    module = network()
    watch = MatchedStatistics(module, Matching(momentum=0.9))
    for step in (0, 1):
        watch.begin(LABELS, generator(0, "drop"))
        module(batch(step).requires_grad_())
        value = watch.loss()
    torch.testing.assert_close(value, losses(Matching(), 1)[0], rtol=1e-12, atol=0)
    assert not torch.isclose(value, losses(Matching(momentum=0.9), 0, 1)[1])


def test_convolutions_are_left_out_one_by_one_and_batchnorm_never():
    module, targets, images = network(), targets_of(*real_images()), batch()
    plain = PlainMatching(module, targets, SIDE)
    terms = [plain.of_layer(name, maps, LABELS).item() for name, maps in seen(module, images)[1].items()]
    possible = [10.0 * a * terms[0] + terms[1] + b * terms[2] + terms[3] for a, b in product((0, 1), repeat=2)]
    watch = MatchedStatistics(module, Matching(convolutions=True, drop=0.3), 10.0, targets, SIDE)
    watch.begin(LABELS, generator(0, "drop"))
    counts = [0] * 4
    for _ in range(200):
        module(images.requires_grad_())
        value = watch.loss().item()
        gaps = [abs(value - one) for one in possible]
        assert min(gaps) < 1e-8
        counts[gaps.index(min(gaps))] += 1
    for count, probability in zip(counts, (0.09, 0.21, 0.21, 0.49), strict=True):
        assert abs(count / 200 - probability) < 4 * (probability * (1 - probability) / 200) ** 0.5


@pytest.mark.parametrize("form", ["classes", "mixture", "average"])
@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_classes_own_statistics(form, momentum):
    matching = Matching(convolutions=True, momentum=momentum, category=0.4, category_form=form)
    assert_like_the_plain_form(matching, steps=3, momentum=momentum, category=0.4, form=form)


def category_distance(form):
    """Of the real images themselves, ten of five classes, with nothing but the classes' statistics."""
    images, labels = real_images(num_per_class=2)
    module, targets = network(), targets_of(images, labels)
    matching = Matching(convolutions=True, category=1.0, category_form=form)
    watch = MatchedStatistics(module, matching, 1.0, targets, SIDE)
    watch.begin(labels, generator(0, "drop"))
    module(images.requires_grad_())
    return watch.loss().item(), targets


def test_real_images_are_at_their_classes_statistics_but_not_at_the_plain_average_of_variances():
    assert category_distance("classes")[0] < 1e-9 and category_distance("mixture")[0] < 1e-9
    value, targets = category_distance("average")
    between = [
        mean.var(0, correction=0).norm() for t in targets.values() for mean in (t.class_mean, t.class_block_mean)
        if mean is not None
    ]  # fmt: skip
    assert value == pytest.approx(sum(between).item(), rel=1e-9) and value > 0.1


WITHOUT_BATCHNORM = {
    "alexnet_small": {"img_size": 32},
    "convnet3_narrow": {"img_size": 32},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (6, 12, 24, 32)},
}


def as_channels_first(layer, values):
    """Tokens (N, T, C) as (N, C, T, 1), ConvNeXt's inner maps (N, H, W, C) as (N, C, H, W)."""
    if isinstance(layer, nn.LayerNorm) and values.shape[1] != layer.normalized_shape[0]:
        values = values.transpose(1, -1) if values.ndim == 3 else values.permute(0, 3, 1, 2)
    return values if values.ndim == 4 else values[..., None]


def maps_of(module, images):
    logits, found = seen(module, images)
    return logits, {name: as_channels_first(module.get_submodule(name), values) for name, values in found.items()}


def built(name):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5, **WITHOUT_BATCHNORM[name]).double().eval().requires_grad_(False)


@pytest.mark.parametrize("name", WITHOUT_BATCHNORM)
def test_networks_without_batchnorm_take_part(name):
    module, watched = built(name), built(name)
    real, labels = real_images(num_per_class=2, num_classes=2, size=32)
    targets = measured(module, real, labels, SIDE, maps_of)
    assert len(targets) >= 3
    watch = MatchedStatistics(watched, Matching(), 10.0, targets, SIDE)
    watched(real.requires_grad_())
    assert watch.loss() < 1e-8, "the images that were measured are where they should be"
    images = batch(size=32).requires_grad_()
    watched(images)
    value = watch.loss()
    torch.testing.assert_close(value, PlainMatching(module, targets, SIDE).loss(maps_of(module, images)[1], LABELS))
    (gradient,) = torch.autograd.grad(value, images)
    assert bool((gradient != 0).any(dim=1).all()), "every pixel is drawn somewhere"


@pytest.mark.parametrize("from_zero", [False, True])
def test_what_is_left_out_may_be_drawn_ahead(from_zero):
    """As steps need that a CUDA graph holds: all terms are computed, and averages stay where they are."""
    matching = Matching(convolutions=True, momentum=0.6, from_zero=from_zero, drop=0.5)
    targets, places, results = targets_of(*real_images()), {}, []

    def hold(name, value):
        return places.setdefault(name, value.clone()).copy_(value)

    for ahead in (False, True):
        module = network()
        watch = MatchedStatistics(module, matching, 10.0, targets, SIDE)
        watch.begin(LABELS, generator(0, "drop"))
        for step in range(6):
            images = batch(step).requires_grad_()
            is_fresh = watch.is_fresh
            if ahead:
                watch.draw(hold)
            module(images)
            loss = watch.loss()
            results.append((loss.detach(), *torch.autograd.grad(loss, images)))
            if ahead and is_fresh:
                watch.settle(hold)
    assert len({float(loss) for loss, _ in results[:6]}) == 6
    torch.testing.assert_close(results[6:], results[:6], rtol=1e-12, atol=1e-12)
