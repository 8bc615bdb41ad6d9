"""Entropies, Rademacher complexities and the condition of Theorem 2, by enumeration, search and hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from fadrm_hf.evaluation.generalisation import (
    Complexities,
    Estimate,
    Residual,
    Setting,
    complexities,
    draw_signs,
    empirical_risk,
    largest_stretch,
    loss_lipschitz,
    loss_range,
    output_entropy,
    rademacher_ceiling,
    rademacher_draws,
)
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical


def points(num: int, dims: int, *key: str) -> torch.Tensor:
    return torch.randn((num, dims), generator=generator(0, "points", *key))


def all_signs(num: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=num)), dtype=torch.float64)


def residual(num: int = 7, dims: int = 5, alpha: float = 0.3) -> Residual:
    before, patches = points(num, dims, "before"), points(num, dims, "patches")
    return Residual(before, alpha * before + (1 - alpha) * patches, patches)


def test_the_supremum_is_that_over_all_functions_of_the_class():
    """In the plane, where the weights of norm 3 can be gone through."""
    cloud, signs = points(6, 2), draw_signs(5, 6, generator(0, "signs"))
    angles = np.linspace(0, 2 * np.pi, 20_000)
    weights = 3.0 * np.stack([np.cos(angles), np.sin(angles)])
    values = signs.numpy() @ (cloud.double().numpy() @ weights) / 6
    np.testing.assert_allclose(rademacher_draws(cloud, signs, 3.0).numpy(), values.max(axis=1), rtol=1e-6)


@pytest.mark.parametrize("dims", [2, 5000])
def test_random_signs_estimate_what_all_signs_give(dims):
    cloud = points(9, dims)
    exact = rademacher_draws(cloud, all_signs(9), 2.0).mean().item()
    estimate = Estimate.of(rademacher_draws(cloud, draw_signs(4000, 9, generator(1, "signs")), 2.0))
    assert abs(estimate.value - exact) < 4 * estimate.error
    assert estimate.error < 0.02 * exact
    assert exact <= rademacher_ceiling(cloud, 2.0)


def test_the_closed_form_is_exact_for_orthogonal_points():
    cloud = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    found = rademacher_draws(cloud, all_signs(3), 6.0)
    assert found.tolist() == pytest.approx([2.0 * math.sqrt(14)] * 8)
    assert rademacher_ceiling(cloud, 6.0) == pytest.approx(2.0 * math.sqrt(14))


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_equation_42_and_the_largest_gap_bound_what_is_there(alpha):
    """For linear functions, whose constant is the norm of their weights."""
    images = residual(alpha=alpha)
    found = complexities(images, all_signs(7), 2.0)
    delta = (images.before - images.patches).norm(dim=1).mean().item()
    setting = Setting(alpha, 2.0, 2.0, delta, 0.05, 3.0)
    assert found.after.value <= found.after_ceiling(setting)
    assert found.after_ceiling(setting) == pytest.approx(
        alpha * found.before.value + (1 - alpha) * found.patches.value + 2.0 * alpha * (1 - alpha) * delta
    )
    assert found.gap.value == pytest.approx(found.patches.value - found.before.value)
    assert abs(found.gap.value) <= found.largest_gap
    assert all(getattr(found, name).value <= ceiling for name, ceiling in found.ceilings.items())


def test_equation_11_by_hand():
    setting = Setting(alpha=0.5, norm_bound=1.0, lipschitz=2.0, discrepancy=3.0, loss_lipschitz=0.5, loss_range=4.0)
    assert setting.needed_gap == pytest.approx(-2 * 3 * (0.5 + 2 * 4 * 0.5) / (2 * 4))
    assert setting.risk_ceiling == pytest.approx(0.5 * 2 * 0.5 * 3)


@pytest.mark.parametrize(
    ("gap", "error", "verdict"),
    [(-4.0, 0.1, "holds"), (-3.5, 0.1, "open"), (-3.3, 0.1, "open"), (-2.0, 0.1, "fails"), (0.0, 0.0, "fails")],
)
def test_a_verdict_needs_two_standard_errors(gap, error, verdict):
    setting = Setting(0.5, 1.0, 2.0, 3.0, 0.5, 4.0)  # -3.375
    none = Estimate(0.0, 0.0)
    assert Complexities(none, none, none, Estimate(gap, error), {}, 0.0).condition(setting) == verdict


def test_nothing_is_gained_where_images_are_their_patches():
    same = points(5, 4)
    found = complexities(Residual(same, same, same), all_signs(5), 1.0)
    setting = Setting(0.5, 1.0, 1.0, 0.0, 0.05, 3.0)
    assert (found.gap.value, setting.needed_gap, found.condition(setting)) == (0.0, 0.0, "fails")
    assert largest_stretch(Residual(same, same, same), Residual(same, same, same)) == 0.0


def test_no_divergence_exceeds_its_range_nor_its_slope():
    """Theorem 3, for random targets and logits within the largest one."""
    rng = np.random.default_rng(0)
    largest, temperature, num_classes = 6.0, 2.0, 5
    bound = loss_range(num_classes, largest, temperature)
    assert bound == pytest.approx(math.log(5) + 6)
    logits = rng.uniform(-largest, largest, (2000, num_classes))
    moved = np.clip(logits + rng.normal(0, 1, logits.shape), -largest, largest)
    targets = rng.dirichlet(np.full(num_classes, 0.1), 2000) + 1e-300

    def divergence(values: np.ndarray) -> np.ndarray:
        exponents = np.exp(values / temperature)
        return stats.entropy(targets, exponents / exponents.sum(1, keepdims=True), axis=1)

    assert divergence(logits).max() <= bound
    slopes = np.abs(divergence(moved) - divergence(logits)) / np.abs(moved - logits).max(axis=1)
    assert slopes.max() <= loss_lipschitz(temperature)
    opposite = largest / 100 * np.sign(targets.max(1, keepdims=True) - targets - 1e-12)  # from the target to others
    steps = np.abs(divergence(opposite) - divergence(-opposite)) / np.abs(2 * opposite).max(axis=1)
    assert 1 / temperature < steps.max() <= loss_lipschitz(temperature), "1 / T, as printed, would not do"


def test_entropies_and_risks_by_scipy():
    logits = 3 * points(6, 4, "logits")
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    shares = torch.softmax(logits.double(), 1).numpy()
    np.testing.assert_allclose(output_entropy(logits).numpy(), stats.entropy(shares, base=2, axis=1), rtol=1e-9)
    extremes = output_entropy(torch.tensor([[0.0] * 8, [1e4] + [0.0] * 7]))
    assert extremes.tolist() == pytest.approx([3.0, 0.0])
    tempered = torch.softmax(logits.double() / 20, 1).numpy()
    expected = stats.entropy(np.eye(4)[labels], tempered, axis=1).mean()
    assert empirical_risk(logits, labels, 20.0) == pytest.approx(expected)


def test_the_largest_stretch_of_a_linear_map_is_below_its_norm_and_reaches_it():
    linear = points(4, 3, "map")
    images = residual(num=200, dims=4)
    mapped = Residual(**{name: each @ linear for name, each in vars(images).items()})
    norm = torch.linalg.matrix_norm(linear, 2).item()
    assert 0.8 * norm < largest_stretch(images, mapped) <= norm * (1 + 1e-6)
    direction = torch.linalg.svd(linear.T)[2][:1]
    along = Residual(direction, 0 * direction, -direction)
    reached = largest_stretch(along, Residual(**{name: each @ linear for name, each in vars(along).items()}))
    assert reached == pytest.approx(norm, rel=1e-5)
