"""LPLD, DELT and PSM: what they publish, and what is new in them against direct formulas in float64."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fixtures.plain_matching import channel_statistics, measured, network, seen
from fixtures.small import digits, small_teacher

from fadrm_hf.config import RecoverConfig
from fadrm_hf.data.views import BatchViews, apply_view
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.delt import DELT
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.methods.lpld import LPLD
from fadrm_hf.methods.psm import PSM
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.matching.distance import MatchedStatistics
from fadrm_hf.recovery.recover import Recovery, ShardContext, valid_range
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.shards import recovery_shards

pytestmark = pytest.mark.numerical


def run_of(method, dataset, ipc=10):
    return parse_run([f"--method={method}", f"--source.name={dataset}", f"--ipc={ipc}"])


def images(num, seed):
    return torch.randn((num, 3, 9, 9), dtype=torch.float64, generator=generator(seed, "newer"))


def test_lpld_matches_a_class_to_its_own_statistics_and_to_no_others():
    module, labels = network(), torch.arange(4).repeat_interleave(5)
    targets = measured(module, images(20, 0) + 0.4 * labels.view(-1, 1, 1, 1), labels, 4)
    watch = MatchedStatistics(module, LPLD().matching, 10.0, targets)
    watch.begin(torch.full((6,), 2), generator(0, "unused"))
    batch = images(6, 1).requires_grad_()
    module(batch)
    found = watch.loss()
    expected, maps = 0.0, seen(network(), batch)[1]
    for factor, name in ((10.0, "1"), (1.0, "4")):
        mean, var = channel_statistics(maps[name])
        goal = targets[name].class_mean[2], targets[name].class_var[2]
        expected = expected + factor * ((goal[0] - mean).norm() + (goal[1] - var).norm())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, batch, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("dataset", "iterations", "lr", "weight", "batch_size", "epochs", "stored", "cutmix"),
    [
        ("imagenet1k", 4000, 0.25, 0.01, 128, 300, 8, True),
        ("tiny_imagenet", 4000, 0.1, 0.05, 64, 100, 3, False),
        ("imagenet21k_p", 2000, 0.05, 0.25, 32, 300, 8, False),
        ("cifar100", 4000, 0.25, 0.01, 128, 300, 8, True),
    ],
)
def test_published_settings_of_lpld(dataset, iterations, lr, weight, batch_size, epochs, stored, cutmix):
    run = run_of("lpld", dataset, 50)
    assert (run.method.iterations, run.method.init, run.method.category) == (iterations, "noise", 1.0)
    assert (run.recover.lr, run.recover.statistics_weight, run.recover.first_bn_multiplier) == (lr, weight, 10.0)
    assert (run.relabel.batch_size, run.relabel.accumulation, run.relabel.batch_statistics) == (batch_size, 1, False)
    assert (run.relabel.epochs, run.relabel.stored_epochs, run.relabel.cutmix) == (epochs, stored, cutmix)
    assert run.student.batch_size == batch_size
    assert run.student.name == ("cda" if batch_size == 128 else "sre2l")


def test_a_batch_of_lpld_is_a_class():
    shards = recovery_shards(10, 50, run_of("lpld", "imagenette", 50).recover)
    assert [(shard.classes, shard.num_images) for shard in shards] == [(range(k, k + 1), 50) for k in range(10)]


@pytest.mark.parametrize(
    ("ipc", "rounds"),
    [
        (10, [0, 0, 1, 1, 2, 3, 4, 5, 6, 7]),
        (50, [0] * 7 + [1] * 7 + [r for r in range(2, 8) for _ in range(6)]),
        (3, [0, 1, 2]),
        (1, [0]),
    ],
)
def test_images_of_delt_join_in_groups_that_are_as_equal_as_can_be(ipc, rounds):
    assert [DELT().first_round(index, ipc) for index in range(ipc)] == rounds


def test_recovery_of_delt_is_the_plain_loop_of_joining_images():
    """Four steps of two images per class, of which the second joins after two: one Adam over all of them."""
    source, config = digits(), RecoverConfig(flip_probability=0.5, max_roll=0, form="plain", layout="class_major")
    teacher = small_teacher(source)
    labels, indices = torch.arange(10).repeat_interleave(2), torch.arange(2).repeat(10)
    rows = [int(row) for of_class in source.rows_by_class for row in of_class[:2]]
    start = source.normalise(source.pixels("train", rows)).double()
    method, module = DELT(iterations=4, round_iterations=2), teacher.module.double()
    with open_matchers([teacher], config, torch.device("cpu")) as matchers:
        context = ShardContext(ipc_indices=indices)
        rng = generator(0, "delt")
        recovery = Recovery(matchers, labels, source, config, 4, rng, lambda done, losses: None, context)
        found = method.recover(start, recovery)

    areas = torch.tensor([method.crop_area(step) for step in range(4)], dtype=torch.float64)
    views = BatchViews.draw(4, 16, areas, 0.5, 0, generator(0, "delt")).matrices(16, torch.float64)
    low, high = (bound.double() for bound in valid_range(source, torch.device("cpu")))
    images, first, second = start, torch.zeros_like(start), torch.zeros_like(start)
    for step in range(4):
        images = images.detach().requires_grad_()
        shown = torch.arange(20) if step >= 2 else torch.arange(0, 20, 2)
        maps, loss = apply_view(images[shown], views[0][step], views[1][step]), 0.0
        for factor, layer, norm in ((10.0, module.conv1, module.bn1), (1.0, module.conv2, module.bn2)):
            maps = layer(maps)
            mean, var = channel_statistics(maps)
            loss = loss + 0.01 * factor * ((mean - norm.running_mean).norm() + (var - norm.running_var).norm())
            maps = torch.relu(norm(maps))
        loss = loss + F.cross_entropy(module.head(maps.mean((2, 3))), labels[shown])
        (gradient,) = torch.autograd.grad(loss, images)
        first, second = 0.5 * first + 0.5 * gradient, 0.9 * second + 0.1 * gradient**2
        rate = 0.25 * 0.5 * (1 + math.cos(math.pi * step / 4))
        update = first / (1 - 0.5 ** (step + 1)) / ((second / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8)
        images = (images.detach() - rate * update).maximum(low).minimum(high)
        if step == 1:
            assert torch.equal(images[1::2], start[1::2]), "what has not joined rests"
    module.float()
    difference = (found - images).abs()
    assert difference.median() < 1e-6 and (difference > 1e-4).double().mean() < 1e-3
    assert bool((found != start).flatten(1).any(1).all()), "in the end all have moved"


def joined(form, iterations, device="cpu"):
    """Images of DELT after two rounds."""
    source, config = digits(), RecoverConfig(flip_probability=0.5, max_roll=0, form=form)
    labels, indices = torch.arange(10).repeat_interleave(2), torch.arange(2).repeat(10)
    start = torch.randn((20, 3, 16, 16), generator=generator(0, "start")).to(device)
    with open_matchers([small_teacher(source)], config, torch.device(device)) as matchers:
        recovery = Recovery(
            matchers, labels.to(device), source, config, iterations, generator(0, "rows"), lambda done, losses: None,
            ShardContext(ipc_indices=indices),
        )  # fmt: skip
        return DELT(iterations=iterations, round_iterations=iterations // 2).recover(start, recovery).cpu()


def test_rows_of_the_fast_form_are_those_of_the_plain_one():
    difference = (joined("plain", 6) - joined("eager", 6)).abs()
    assert difference.median() < 1e-4 and (difference > 0.05).double().mean() < 0.02


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["plain", "eager", "compiled"])
def test_rows_on_a_gpu_are_those_on_a_cpu(form):
    """Enough iterations for each round to be captured and replayed."""
    difference = (joined(form, 120, "cuda") - joined("plain", 120)).abs()
    assert difference.median() < 1e-2


def test_classes_are_matched_among_the_images_that_are_shown():
    """The groups of class-wise statistics follow the rows, in the fused layers as well."""
    source, labels = digits(), torch.arange(5).repeat_interleave(2)
    teacher, config = small_teacher(source), RecoverConfig(flip_probability=0.0, max_roll=0, form="eager")
    real = source.normalise(source.pixels("train", range(200)))
    targets = measured(teacher.module, real, torch.as_tensor(source.labels("train")[:200]), 4)
    start, shown = 0.1 * torch.randn((10, 3, 16, 16), generator=generator(0, "start")), torch.arange(0, 10, 2)
    results = []
    for rows in (shown, None):
        images, own = (start, labels) if rows is not None else (start[shown], labels[shown])
        with open_matchers([teacher], config, torch.device("cpu"), LPLD().matching, [targets]) as matchers:
            recovery = Recovery(matchers, own, source, config, 3, generator(0, "rows"), lambda done, losses: None)
            results.append(recovery.optimise(images, 3, rows=None if rows is None else lambda step: shown))
    torch.testing.assert_close(results[0][shown], results[1], rtol=0, atol=1e-5)
    assert torch.equal(results[0][1::2], start[1::2])


def test_published_settings_of_delt():
    run = run_of("delt", "imagenet1k")
    assert (run.method.iterations, run.method.round_iterations, run.method.curve, run.method.milestone) == (
        4000, 500, "cosine", 1.0,
    )  # fmt: skip
    assert (run.recover.lr, run.recover.statistics_weight, run.recover.max_roll, run.recover.batch_size) == (
        0.25,
        0.01,
        0,
        100,
    )
    assert (run.recover.layout, run_of("delt", "imagenet1k", 200).recover.batch_size) == ("class_major", 200)
    assert (run.patches.difficulty, run.patches.crop_area, run.patches.crops_per_image) == ("medium", (1.0, 1.0), 1)
    assert run.relabel.crop_area == run.student.relabel.crop_area == (0.25, 1.0)
    assert (run.student.name, run.student.eta, run.relabel.epochs) == ("rded", 2.0, 300)
    sizes = [run_of("delt", name, ipc).relabel.batch_size for name in ("cifar10", "imagenet1k") for ipc in (1, 10, 50)]
    assert sizes == [10, 50, 100, 20, 100, 200] and run_of("delt", "tiny_imagenet").relabel.batch_size == 100


@pytest.mark.parametrize("change", [{"layout": "ipc_major"}, {"batch_size": 9}])
def test_delt_refuses_batches_without_all_images_of_a_class(change):
    run = run_of("delt", "cifar10")
    run.method.check(run)
    other = replace(run, recover=replace(run.recover, **change))
    with pytest.raises(ConfigError, match=r"all 10 images of a class in one batch.*--recover\.layout class_major"):
        other.method.check(other)


def test_published_settings_of_psm_are_those_of_fadrm_by_groups():
    run, fadrm = run_of("psm", "cifar100", 50), run_of("fadrm", "cifar100", 50)
    assert (run.method.num_groups, run.method.init, run.patches.difficulty) == (50, "graded", "hard")
    assert run_of("psm", "imagenette").patches.difficulty == "easy"
    assert (run.recover, run.relabel, run.student, run.teachers) == (
        fadrm.recover, fadrm.relabel, fadrm.student, fadrm.teachers,
    )  # fmt: skip
    run.method.check(run)


def test_psm_refuses_other_groups_than_images_and_batches_of_several_groups():
    run = run_of("psm", "cifar10")
    other = replace(run, method=replace(run.method, num_groups=5))
    with pytest.raises(ConfigError, match=r"method\.num_groups 5 and ipc 10; leave --method\.num_groups out"):
        other.method.check(other)
    other = replace(run, recover=replace(run.recover, layout="class_major"))
    with pytest.raises(ConfigError, match=r"--recover\.layout ipc_major"):
        other.method.check(other)


def test_psm_runs_algorithm_1():
    assert PSM(num_groups=1).budgets() == FADRM().budgets() and PSM().resolve(224).sizes == (200, 224, 200, 224)


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"method\.num_groups must be at least 1, got 0"):
        PSM(num_groups=0)
    with pytest.raises(ConfigError, match=r"method\.round_iterations must be at least 1, got 0"):
        DELT(round_iterations=0)
    with pytest.raises(ConfigError, match=r"method\.category must be a fraction in \[0, 1\], got 1\.5"):
        LPLD(category=1.5)
