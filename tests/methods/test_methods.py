"""Methods: Algorithm 1 step by step, Eq. 8-10, and a contract that every entry of the registry keeps."""

import math
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from fixtures.small import digits, small_teacher

from fadrm_hf.config import RecoverConfig
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods import METHODS, find_method
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.methods.fadrm_plus import FADRMPlus
from fadrm_hf.methods.random_real import RandomReal
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.recover import Recovery, ShardContext
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")


class Recorder:
    """A GRADSTEP that adds one and notes what it was called with."""

    def __init__(self):
        self.calls = []

    def optimise(self, images, iterations):
        self.calls.append((images.clone(), iterations))
        return images + 1.0


def bilinear(images, size):
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def patches(size=16):
    return torch.randn((2, 3, size, size), dtype=torch.float64, generator=generator(0, "test"))


def test_algorithm_1():
    p, recorder = patches(), Recorder()
    result = FADRM(alpha=0.4, iterations=11, num_residuals=2, sizes=(12, 16, 16)).recover(p, recorder)
    x = bilinear(p, 12)
    seen = []
    for budget, size in ((3, 16), (3, 16)):
        seen.append((x, budget))
        x = bilinear(x + 1.0, size) if x.shape[-1] != size else x + 1.0
        x = 0.4 * x + 0.6 * p  # Eq. 9-10 with RESAMPLE(P_s, 16) = P_s
    seen.append((x, 5))
    for (images, iterations), (expected, budget) in zip(recorder.calls, seen, strict=True):
        assert iterations == budget
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(result, x + 1.0, rtol=0, atol=1e-12)


def test_residual_is_resampled_from_the_full_size_patch():
    p, recorder = patches(), Recorder()
    FADRM(alpha=0.25, iterations=4, num_residuals=3, sizes=(12, 16, 12, 16)).recover(p, recorder)
    second, third = recorder.calls[1][0], recorder.calls[2][0]
    expected = 0.25 * bilinear(second + 1.0, 12) + 0.75 * bilinear(p, 12)
    torch.testing.assert_close(third, expected, rtol=0, atol=1e-12)


def test_alpha_0_starts_again_from_the_patch_and_alpha_1_is_no_residual():
    p = patches()
    none, full = Recorder(), Recorder()
    FADRM(alpha=0.0, iterations=2, num_residuals=1, sizes=(16, 16)).recover(p, none)
    FADRM(alpha=1.0, iterations=2, num_residuals=1, sizes=(16, 16)).recover(p, full)
    assert torch.equal(none.calls[1][0], p)
    assert torch.equal(full.calls[1][0], p + 1.0)


@pytest.mark.parametrize("k", range(7))
def test_budget_is_spent_exactly(k):
    budgets = FADRM(iterations=2000, num_residuals=k).budgets()
    assert len(budgets) == k + 1 and sum(budgets) == 2000
    assert set(budgets[:-1]) <= {2000 // (k + 1)}


@pytest.mark.parametrize("k", range(1, 8))
def test_relative_cost_is_eq_8(k):
    iterations = 1000 * (k + 1)
    method = FADRM(iterations=iterations, num_residuals=k).resolve(224)
    b, r = iterations / (k + 1), (200 / 224) ** 2
    assert method.relative_cost() == pytest.approx(1 - b / iterations * (math.ceil(k / 2) * (1 - r)), rel=1e-12)


@pytest.mark.parametrize(
    ("k", "size", "expected"),
    [
        (3, 224, (200, 224, 200, 224)),
        (2, 224, (200, 224, 224)),
        (1, 224, (200, 224)),
        (0, 224, (224,)),
        (3, 32, (32,) * 4),
        (3, 64, (64,) * 4),
    ],
)
def test_sizes_alternate_and_end_with_the_full_size(k, size, expected):
    assert FADRM(num_residuals=k).resolve(size).sizes == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.5}, r"method\.alpha must be a merge ratio in \[0, 1\], got 1\.5"),
        ({"alpha": -0.1}, r"method\.alpha"),
        ({"alpha": float("nan")}, r"method\.alpha"),
        ({"num_residuals": -1}, r"method\.num_residuals"),
        ({"iterations": 3, "num_residuals": 3}, r"method\.iterations must be at least one per segment \(4\), got 3"),
        ({"sizes": (200, 224)}, r"method\.sizes must be one size per segment: 4 for num_residuals=3"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        FADRM(**settings)


@pytest.mark.parametrize("sizes", [(200, 224, 224, 200), (256, 224, 200, 224), (4, 224, 200, 224)])
def test_sizes_must_fit_the_source(sizes):
    with pytest.raises(ConfigError, match=r"must end with source\.size \(224\) and stay within 8 and 224"):
        FADRM(sizes=sizes).resolve(224)


def test_defaults_are_table_8():
    method = FADRM().resolve(224)
    assert (method.alpha, method.iterations, method.num_residuals) == (0.5, 2000, 3)
    config = RecoverConfig()
    assert (config.lr, config.betas) == (0.25, (0.5, 0.9))
    assert [FADRM().batch_size(num) for num in (2, 10, 20, 99, 100, 1000)] == [10, 10, 10, 10, 100, 100]


def test_unknown_method_gives_near_names():
    with pytest.raises(ConfigError, match="unknown method 'fadmr'; did you mean 'fadrm'"):
        find_method("fadmr")


def test_fadrm_plus_is_fadrm_with_more_teachers():
    assert issubclass(FADRMPlus, FADRM) and FADRMPlus.min_teachers == 2


def test_random_real_leaves_images_alone():
    p = patches()
    assert RandomReal().recover(p, Recorder()) is p


@pytest.fixture(scope="module")
def world():
    source = digits()
    return source, [small_teacher(source, seed) for seed in range(2)]


@pytest.mark.parametrize("name", METHODS)
def test_contract(name, world):
    """Every method: shape kept, finite, within valid pixels, the same bits for the same generator."""
    source, teachers = world
    assert (METHODS[name].__doc__ or "").strip()
    settings = {field.name for field in fields(METHODS[name])}
    method = METHODS[name](**({"iterations": 8} if "iterations" in settings else {})).resolve(16)
    rows = [int((source.labels("train") == label).argmax()) for label in range(10)]
    start = source.normalise(source.pixels("train", rows))
    config = RecoverConfig(flip_probability=0.0, max_roll=2)
    results = []
    for _ in range(2):
        with open_matchers(teachers if method.iterations else [], config, CPU) as matchers:
            recovery = Recovery(
                matchers, torch.arange(10), source, config, method.iterations, generator(0, name), lambda d, m: None,
                ShardContext(votes=[0.6, 0.4]),
            )  # fmt: skip
            results.append(method.recover(start.clone(), recovery))
    assert results[0].shape == start.shape and bool(torch.isfinite(results[0]).all())
    assert torch.equal(*results)
    black, white = source.normalise(torch.tensor([[0], [255]], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1))
    assert bool((results[0] >= black).all() and (results[0] <= white).all())


def test_the_catalogue_of_methods_needs_no_torch():
    """So that `--help`, `methods` and a reader's card answer at once."""
    program = "import fadrm_hf.methods, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
