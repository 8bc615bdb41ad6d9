"""SRe2L, CDA, SRe2L++ and RDED: what they publish, and the one thing in each that is not shared."""

import math

import pytest
import torch
from fixtures.small import digits, small_teacher

from fadrm_hf.config import RecoverConfig
from fadrm_hf.data.views import BatchViews
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.cda import CDA
from fadrm_hf.methods.rded import RDED
from fadrm_hf.methods.sre2l import SRe2L
from fadrm_hf.methods.sre2l_pp import SRe2LPlusPlus
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.patches.noise import noise_start
from fadrm_hf.recovery.recover import Recovery
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")


def run_of(method, dataset, ipc=10):
    return parse_run([f"--method={method}", f"--source.name={dataset}", f"--ipc={ipc}"])


def test_the_least_area_of_a_crop_follows_a_cosine():
    """a_t = 0.08 + (1 - 0.08) / 2 (1 + cos(pi t / T)) at every iteration, and the largest is the whole image."""
    method = CDA(iterations=50)
    for t in range(50):
        low, high = method.crop_area(t)
        assert low == pytest.approx(0.08 + 0.92 * 0.5 * (1.0 + math.cos(math.pi * t / 50)), abs=1e-15)
        assert high == 1.0
    assert method.crop_area(0) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"milestone": 0.5}, {0: 1.0, 25: 0.54, 50: 0.08, 99: 0.08}),
        ({"milestone": 0.0}, {0: 0.08, 99: 0.08}),  # the released argument's default: no curriculum
        ({"curve": "linear"}, {0: 1.0, 50: 0.54, 75: 0.31}),
        ({"curve": "step", "milestone": 0.3}, {0: 1.0, 29: 1.0, 30: 0.08}),
        ({"first_area": 0.5, "least_area": 0.1}, {0: 0.5, 50: 0.3}),
    ],
)
def test_other_curves(settings, expected):
    method = CDA(iterations=100, **settings)
    assert {t: method.crop_area(t)[0] for t in expected} == pytest.approx(expected, abs=1e-12)


def test_views_of_cda_are_never_smaller_than_the_curriculum_says():
    method = CDA(iterations=400)
    areas = torch.tensor([method.crop_area(t) for t in range(400)], dtype=torch.float64)
    crops = BatchViews.draw(400, 64, areas, 0.5, 4, generator(0, "test")).crop
    shares = crops[:, 2] * crops[:, 3] / 64**2
    assert bool((shares >= areas[:, 0] - 0.03).all()), "up to rounding to whole pixels"
    assert shares[:20].min() > 0.9 and shares[300:].min() < 0.3


def test_cda_recovers_under_its_curriculum_and_sre2l_under_the_same_crops_throughout():
    source = digits()
    teacher = small_teacher(source)
    config = RecoverConfig(flip_probability=0.0, max_roll=0)
    start = torch.stack([noise_start(label, 0, 16, 0) for label in range(10)])
    results = {}
    for name, method in {
        "cda": CDA(6),
        "sre2l": SRe2L(6),
        "no curriculum": CDA(6, milestone=0.0),
        "patches": SRe2LPlusPlus(6),
    }.items():
        with open_matchers([teacher], config, CPU) as matchers:
            recovery = Recovery(
                matchers, torch.arange(10), source, config, 6, generator(0, "test"), lambda done, losses: None
            )
            results[name] = method.recover(start, recovery)
    assert torch.equal(results["sre2l"], results["no curriculum"])
    assert torch.equal(results["sre2l"], results["patches"]), "they differ in their start alone"
    assert not torch.equal(results["sre2l"], results["cda"])


@pytest.mark.parametrize(
    ("method", "dataset", "iterations", "lr", "weight"),
    [
        ("sre2l", "imagenet1k", 4000, 0.25, 0.01),
        ("sre2l", "tiny_imagenet", 4000, 0.1, 1.0),
        ("sre2l", "cifar100", 1000, 0.25, 0.01),
        ("cda", "tiny_imagenet", 4000, 0.4, 0.05),
        ("cda", "imagenet1k", 4000, 0.25, 0.01),
        ("cda", "imagenet21k_p", 2000, 0.05, 0.25),
        ("sre2l_pp", "imagenet1k", 4000, 0.25, 0.01),
        ("sre2l_pp", "cifar10", 4000, 0.25, 0.01),
    ],
)
def test_published_recovery(method, dataset, iterations, lr, weight):
    run = run_of(method, dataset)
    assert (run.method.iterations, run.recover.lr, run.recover.statistics_weight) == (iterations, lr, weight)
    assert run.recover.layout == "ipc_major" and run.method.batch_size(10) == run.method.batch_size(1000) == 100
    assert run.method.init == ("patches" if method == "sre2l_pp" else "noise")


def test_published_views_and_labels():
    tiny, cifar, large = (run_of("sre2l", name) for name in ("tiny_imagenet", "cifar100", "imagenet1k"))
    assert tiny.recover.symmetric_roll and not large.recover.symmetric_roll
    assert (cifar.recover.crop_area, cifar.recover.flip_probability) == ((1.0, 1.0), 0.0)
    assert (large.relabel.batch_size, large.relabel.accumulation, large.relabel.batch_statistics) == (1024, 2, False)
    assert run_of("cda", "imagenet1k").relabel.batch_size == 128
    small_batches = run_of("sre2l_pp", "imagenet1k").relabel
    assert (small_batches.batch_size, small_batches.accumulation, small_batches.batch_statistics) == (16, 2, True)
    assert run_of("sre2l_pp", "imagenette", ipc=1).relabel.batch_size == 10
    assert large.teachers.names == ("timm/resnet18.tv_in1k",) and tiny.teachers.names == ("squeeze/resnet18",)


@pytest.mark.parametrize(
    ("dataset", "grid", "sizes"),
    [
        ("cifar10", 1, (10, 50, 100)),
        ("cifar100", 1, (20, 100, 200)),
        ("tiny_imagenet", 1, (100, 100, 100)),
        ("imagenette", 2, (10, 50, 100)),
        ("imagenet1k", 2, (20, 100, 200)),
    ],
)
def test_published_settings_of_rded(dataset, grid, sizes):
    runs = [run_of("rded", dataset, ipc) for ipc in (1, 10, 50)]
    assert tuple(run.relabel.batch_size for run in runs) == sizes
    for run in runs:
        patches, labels = run.patches, run.relabel
        assert (patches.difficulty, patches.grid, patches.pool, patches.crops_per_image) == ("easy", grid, 300, 5)
        assert (labels.crop_area, labels.shuffle_tiles) == ((1.0 / grid, 1.0), grid)
        assert not labels.batch_statistics and labels.epochs == 300
    assert RDED().iterations == 0 and RDED.init == "patches"


def test_any_start_is_a_setting():
    run = parse_run(["--method=sre2l", "--source.name=cifar10", "--method.init=patches"])
    assert run.method == SRe2L(init="patches")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, r"method\.iterations must be at least 1, got 0"),
        ({"milestone": 1.5}, r"method\.milestone must be a fraction in \[0, 1\], got 1\.5"),
        ({"least_area": 0.6, "first_area": 0.5}, r"0 < least_area <= first_area <= 1, got \(0\.6, 0\.5\)"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        CDA(**settings)
