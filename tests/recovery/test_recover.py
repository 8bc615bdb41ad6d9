"""The optimisation of pixels against a plain loop written from the equations, in float64 where it matters."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fixtures.small import digits, small_teacher
from torch import nn
from torchvision.transforms.v2.functional import crop as crop_image

from fadrm_hf.config import RecoverConfig
from fadrm_hf.data.views import BatchViews, apply_view
from fadrm_hf.errors import ConfigError, TeacherError
from fadrm_hf.recovery.matcher import FrozenMatcher, MatchableCheck, open_matchers
from fadrm_hf.recovery.recover import Recovery, ShardContext, resample, valid_range
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
CONFIG = RecoverConfig(flip_probability=0.5, max_roll=2, crop_area=(0.3, 1.0))


@pytest.fixture(scope="module")
def source():
    return digits()


@pytest.fixture(scope="module")
def teachers(source):
    return [small_teacher(source, seed) for seed in range(3)]


def start(source, num=10):
    rows = [int((source.labels("train") == label).argmax()) for label in range(num)]
    return source.normalise(source.pixels("train", rows)), torch.arange(num)


def run(source, teachers, iterations, config=CONFIG, budgets=None, report=lambda done, losses: None):
    images, labels = start(source)
    with open_matchers(teachers, config, CPU) as matchers:
        recovery = Recovery(matchers, labels, source, config, iterations, generator(0, "test"), report)
        for budget in budgets or [iterations]:
            images = recovery.optimise(images, budget)
    return images


def plain_loss(module, shown, labels, config):
    """Eq. 53 and the divergence to the running statistics of one network."""
    inputs = []
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(lambda _, x, to=inputs: to.append(x[0])) for layer in layers]
    logits = module(shown)
    for hook in hooks:
        hook.remove()
    loss = -F.log_softmax(logits, 1)[torch.arange(len(labels)), labels].mean()
    for index, (layer, x) in enumerate(zip(layers, inputs, strict=True)):
        gap = (x.mean((0, 2, 3)) - layer.running_mean).norm()
        gap = gap + (x.var((0, 2, 3), correction=0) - layer.running_var).norm()
        loss = loss + config.statistics_weight * (10.0 if index == 0 else 1.0) * gap
    return loss


def plain_run(source, teachers, iterations, config=CONFIG, budgets=None, members=None):
    """Eq. 52-53 and Table 8, written out: autograd through norms of statistics, Adam from its formula, in float64."""
    images, labels = start(source)
    images = images.double()
    low, high = (bound.double() for bound in valid_range(source, CPU))
    modules = [teacher.module.double() for teacher in teachers]
    rng, done = generator(0, "test"), 0
    for budget in budgets or [iterations]:
        momentum, square = torch.zeros_like(images), torch.zeros_like(images)
        views = BatchViews.draw(budget, 16, config.crop_area, config.flip_probability, config.max_roll, rng)
        rows, columns = views.matrices(16, torch.float32)
        for t in range(budget):
            images = images.detach().requires_grad_()
            shown = apply_view(images, rows[t].double(), columns[t].double())
            turn = members(done) if members else [(done % len(modules), 1.0)]
            loss = sum(weight * plain_loss(modules[index], shown, labels, config) for index, weight in turn)
            (grad,) = torch.autograd.grad(loss, images)
            lr = config.lr * 0.5 * (1 + math.cos(math.pi * done / iterations))
            momentum, square = 0.5 * momentum + 0.5 * grad, 0.9 * square + 0.1 * grad**2
            update = (momentum / (1 - 0.5 ** (t + 1))) / ((square / (1 - 0.9 ** (t + 1))).sqrt() + 1e-8)
            images = torch.maximum(torch.minimum(images.detach() - lr * update, high), low)
            done += 1
    for module in modules:
        module.float()
    return images


def losses(matcher, pixels, labels):
    """Cross-entropy (Eq. 53) and D_global of one batch."""
    return F.cross_entropy(matcher.logits(pixels), labels), matcher.distance()


def test_losses_equal_eq_53_and_the_divergence(source, teachers):
    images, labels = start(source)
    with open_matchers(teachers[:1], CONFIG, CPU) as (matcher,):
        cross_entropy, distance = losses(matcher, images, labels)
    module = teachers[0].module
    probabilities = module(images).double().softmax(1)
    expected = -probabilities[torch.arange(10), labels].log().mean()
    torch.testing.assert_close(cross_entropy.double(), expected, rtol=1e-5, atol=0)
    first = module.conv1(images).double()
    second = module.conv2(torch.relu(module.bn1(module.conv1(images)))).double()
    gaps = [
        (x.mean((0, 2, 3)) - bn.running_mean).norm() + (x.var((0, 2, 3), correction=0) - bn.running_var).norm()
        for x, bn in ((first, module.bn1), (second, module.bn2))
    ]
    torch.testing.assert_close(distance.double(), 10 * gaps[0] + gaps[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize(("num_teachers", "budgets"), [(1, [6]), (3, [4, 5])])
def test_iterates_equal_the_plain_loop(source, teachers, num_teachers, budgets):
    ours = run(source, teachers[:num_teachers], sum(budgets), budgets=budgets)
    theirs = plain_run(source, teachers[:num_teachers], sum(budgets), budgets=budgets)
    difference = (ours.double() - theirs).abs()
    # Adam divides by the root of tiny second moments, which amplifies fp32 rounding on a few pixels.
    assert difference.median() < 1e-4
    assert (difference > 0.05).double().mean() < 0.02


def test_optimisation_lowers_the_objective(source, teachers):
    seen = []
    result = run(source, teachers[:1], 60, report=lambda done, losses: seen.append((done, losses)))
    assert sum(done for done, _ in seen) == 60
    assert seen[-1][1]["iteration"] == 60
    images, labels = start(source)
    with open_matchers(teachers[:1], CONFIG, CPU) as (matcher,):
        before, after = (losses(matcher, pixels, labels) for pixels in (images, result))
    assert after[0] + 0.01 * after[1] < 0.85 * (before[0] + 0.01 * before[1])


def test_same_generator_same_bits_other_seed_other_bits(source, teachers):
    assert torch.equal(run(source, teachers, 5), run(source, teachers, 5))
    other = replace(CONFIG, lr=0.2)
    assert not torch.equal(run(source, teachers, 5), run(source, teachers, 5, config=other))


def test_start_is_left_unchanged_and_result_is_valid(source, teachers):
    images, labels = start(source)
    before = images.clone()
    with open_matchers(teachers[:1], CONFIG, CPU) as matchers:
        recovery = Recovery(matchers, labels, source, CONFIG, 8, generator(0, "test"), lambda done, losses: None)
        result = recovery.optimise(images, 8)
    low, high = valid_range(source, CPU)
    assert torch.equal(images, before)
    assert bool((result >= low).all() and (result <= high).all())
    assert bool((result == low).any()), "a learning rate of 0.25 drives some pixels to the bound"


def test_teacher_is_left_unchanged(source, teachers):
    before = {name: value.clone() for name, value in teachers[0].module.state_dict().items()}
    run(source, teachers[:1], 3)
    after = teachers[0].module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_points_the_same_way(source, teachers, precision):
    """One step's gradient in a reduced format, against fp32: loss scaling keeps fp16 from underflowing."""
    images, labels = start(source)
    gradients = []
    for format_ in ("fp32", precision):
        matcher = FrozenMatcher(teachers[0], replace(CONFIG, precision=format_), CPU)
        pixels = images.clone().requires_grad_()
        cross_entropy, distance = losses(matcher, pixels, labels)
        assert distance.dtype == cross_entropy.dtype == torch.float32
        scale = 65536.0 if format_ == "fp16" else 1.0
        (gradient,) = torch.autograd.grad(scale * (cross_entropy + 0.01 * distance), pixels)
        assert gradient.dtype == torch.float32
        gradients.append(gradient.flatten().double() / scale)
    assert F.cosine_similarity(*gradients, dim=0) > (0.999 if precision == "fp16" else 0.95)


def test_fp16_run_is_finite_and_near_fp32(source, teachers):
    fp32, fp16 = (run(source, teachers[:1], 4, config=replace(CONFIG, precision=p)) for p in ("fp32", "fp16"))
    assert bool(torch.isfinite(fp16).all())
    assert (fp32 - fp16).abs().median() < 0.02


def test_resample_equals_eq_56(source):
    images = torch.randn((2, 3, 8, 8), dtype=torch.float64, generator=generator(0, "test"))
    result = resample(images, 11)
    for i in range(11):
        for j in range(11):
            y, x = (min(max((k + 0.5) * 8 / 11 - 0.5, 0.0), 7.0) for k in (i, j))
            top, left = min(int(y), 6), min(int(x), 6)
            a, b = y - top, x - left
            expected = (
                (1 - a) * (1 - b) * images[..., top, left]
                + a * (1 - b) * images[..., top + 1, left]
                + (1 - a) * b * images[..., top, left + 1]
                + a * b * images[..., top + 1, left + 1]
            )
            torch.testing.assert_close(result[..., i, j], expected, rtol=0, atol=1e-12)
    assert resample(images, 8) is images


def test_a_pool_in_which_no_member_has_anything_to_match_is_refused():
    bare = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    check = MatchableCheck(2, CONFIG)
    check("a", bare)
    with pytest.raises(TeacherError, match=r"no teacher of \['a', 'b'\] has a layer.*--recover\.statistics_weight 0"):
        check("b", bare)
    mixed = MatchableCheck(2, CONFIG)
    for name, network in (("a", bare), ("b", nn.Conv2d(3, 10, 3)), ("a", bare)):
        mixed(name, network)
    MatchableCheck(1, replace(CONFIG, statistics_weight=0.0))("a", bare)


def test_unmeasured_layers_are_refused_and_not_skipped(source):
    plain = small_teacher(source, 0, 1, nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(TeacherError, match="layer '0' keeps no statistics and none were measured"):
        FrozenMatcher(plain, CONFIG, CPU)
    assert FrozenMatcher(plain, replace(CONFIG, statistics_weight=0.0), CPU).statistics.num_layers == 0


def test_a_committee_sees_the_same_views_and_its_losses_are_weighted(source, teachers):
    """Two teachers at once equal the plain loop of a network that is their weighted sum of losses."""
    committee = [(0, 0.7), (2, 0.3)]
    images, labels = start(source)
    with open_matchers(teachers, CONFIG, CPU) as matchers:
        recovery = Recovery(matchers, labels, source, CONFIG, 5, generator(0, "test"), lambda done, losses: None)
        ours = recovery.optimise(images, 5, members=lambda iteration: committee)
    theirs = plain_run(source, teachers, 5, members=lambda iteration: committee)
    difference = (ours.double() - theirs).abs()
    assert difference.median() < 1e-4 and (difference > 0.05).double().mean() < 0.02
    alone = plain_run(source, teachers, 5, members=lambda iteration: committee[:1])
    assert (ours.double() - alone).abs().median() > 1e-3, "ten times what both may differ by"


def test_turns_go_on_where_the_shard_before_ended(source, teachers):
    images, labels = start(source)
    seen = {}
    for turn in (0, 1, 3):
        with open_matchers(teachers, CONFIG, CPU) as matchers:
            rng, context = generator(0, "test"), ShardContext(turn=turn)
            recovery = Recovery(matchers, labels, source, CONFIG, 4, rng, lambda done, losses: None, context)
            seen[turn] = recovery.optimise(images, 4)
    assert torch.equal(seen[0], seen[3]), "of three teachers the fourth turn is the first one's"
    assert not torch.equal(seen[0], seen[1])


def test_crops_follow_the_areas_of_their_iterations(source, teachers):
    asked = []

    def whole_images_first(iteration):
        asked.append(iteration)
        return (1.0, 1.0) if iteration < 3 else (0.3, 1.0)

    upright = replace(CONFIG, flip_probability=0.0, max_roll=0)
    shown = []
    images, labels = start(source)
    with open_matchers(teachers[:1], upright, CPU) as matchers:
        recovery = Recovery(matchers, labels, source, upright, 6, generator(0, "test"), lambda done, losses: None)

        def unchanged(step):
            shown.append(torch.equal(step.view, step.images))
            return step.images.sum() * 0.0

        first = recovery.optimise(images, 2, crop_area=whole_images_first, terms=[unchanged])
        recovery.optimise(first, 4, crop_area=whole_images_first, terms=[unchanged])
    assert asked == [0, 1, 2, 3, 4, 5], "iterations are those of the whole recovery"
    assert shown[:3] == [True] * 3 and not all(shown[3:])


def test_padded_windows_equal_torchvision(source):
    config = replace(CONFIG, crop="pad", padding=4)
    images = torch.randn((2, 3, 16, 16), dtype=torch.float64, generator=generator(0, "images"))
    views = BatchViews.draw(20, 16, config.crop_area, 0.0, 3, generator(0, "test"), padding=4, symmetric_roll=True)
    rows, columns = views.matrices(16, torch.float64)
    for crop, roll, row, column in zip(views.crop.tolist(), views.roll.tolist(), rows, columns, strict=True):
        expected = crop_image(images, *crop).roll(roll, dims=(2, 3))
        torch.testing.assert_close(apply_view(images, row, column), expected, rtol=1e-14, atol=1e-15)
    assert set(views.crop[:, :2].flatten().tolist()) >= {-4, 4} and set(views.crop[:, 2:].flatten().tolist()) == {16}
    assert set(views.roll.flatten().tolist()) == set(range(-3, 4))


def test_divergence_is_refused_with_a_remedy(source, teachers):
    with pytest.raises(ConfigError, match=r"diverged before iteration 2.*--recover\.lr"):
        run(source, teachers[:1], 2, config=replace(CONFIG, statistics_weight=math.inf))


@pytest.mark.parametrize("form", ["plain", "eager"])
def test_factors_are_rounded_to_tf32_where_the_setting_says_so(source, teachers, form):
    """On a GPU; for a processor both are the same."""
    images = []
    for precision in ("fp32", "tf32"):
        config, seen = replace(CONFIG, form=form, precision=precision), set()
        with open_matchers(teachers[:1], config, CPU) as matchers:
            matchers[0].module.register_forward_pre_hook(
                lambda *_, seen=seen: seen.add(torch.backends.cudnn.allow_tf32)
            )
            recovery = Recovery(matchers, start(source)[1], source, config, 2, generator(0, "test"), lambda *_: None)
            images.append(recovery.optimise(start(source)[0], 2))
        assert seen == {precision == "tf32"}
    assert torch.equal(*images)
