"""Learning rates against their papers' formulas, written out, and against torch's own schedulers."""

import math
from itertools import pairwise

import pytest
import torch
from torch.optim import lr_scheduler

from fadrm_hf.networks.schedules import SCHEDULES, cosine, learning_rate, linear, ssrs, steps

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.25), (500, 0.125 * (1 + math.sqrt(0.5))), (1000, 0.125), (2000, 0.0)]
)
def test_plain_cosine(step, expected):
    assert cosine(0.25, step, 2000) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("eta", [1.0, 2.0, 3.0])
def test_eq_57(eta):
    for step in range(300):
        expected = 0.5 * (1 + math.cos(math.pi * step / (300 * eta)))
        assert cosine(1.0, step, 300, eta) == pytest.approx(expected, rel=1e-15)


def test_eta_2_ends_at_half_the_peak():
    assert cosine(1e-3, 300, 300, 2.0) == pytest.approx(0.5e-3, rel=1e-12)


def test_ssrs_drops_to_a_sixth_at_five_sixths():
    """EDC, Eq. 33: .629 falls to .105 for a slow-down of 2, then to 0 in a line."""
    rates = [ssrs(1.0, epoch, 6000, 2.0) for epoch in range(6001)]
    assert rates[:5001] == [cosine(1.0, epoch, 6000, 2.0) for epoch in range(5001)]
    assert (round(rates[5000], 3), round(rates[5001], 3)) == (0.629, 0.105)
    assert rates[5000] / rates[5001] == pytest.approx(6, rel=2e-3)
    falls = [before - after for before, after in pairwise(rates[5001:])]
    assert falls == pytest.approx([rates[5000] / 6000] * len(falls), rel=1e-9)
    assert rates[6000] == 0.0


@pytest.mark.parametrize("num_epochs", [1, 4, 7, 300])
def test_ssrs_has_no_gap_for_any_length(num_epochs):
    for epoch in range(num_epochs):
        is_late = epoch > 5 * num_epochs / 6
        level = 0.5 * (1 + math.cos(math.pi * (5 / 6 if is_late else epoch / num_epochs) / 2))
        expected = level * (1 - epoch / num_epochs) if is_late else level
        assert ssrs(0.1, epoch, num_epochs, 2.0) == pytest.approx(0.1 * expected, rel=1e-12)


def test_the_line_of_edcs_code_is_above_half_at_the_end_and_below_the_cosine():
    assert [linear(1.0, epoch, 300, 2.0) for epoch in (0, 150, 300)] == [1.0, 0.75, 0.5]
    assert cosine(1.0, 150, 300, 2.0) == pytest.approx(0.854, abs=5e-4)


def torch_rates(num_epochs, build):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, rates = build(optimizer), []
    for _ in range(num_epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("num_epochs", "milestones"), [(1000, [800, 900, 950]), (20, [16, 18, 19])])
def test_steps_are_those_of_torch(num_epochs, milestones):
    expected = torch_rates(num_epochs, lambda o: lr_scheduler.MultiStepLR(o, milestones, 0.5))
    assert [steps(0.1, epoch, num_epochs, 2.0) for epoch in range(num_epochs)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore:The epoch parameter")  # torch 2.7's own call of its own schedule
def test_a_warm_up_then_the_cosine_are_those_of_torch():
    def build(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=5)
        return lr_scheduler.SequentialLR(
            optimizer, [rise, lr_scheduler.CosineAnnealingLR(optimizer, T_max=95)], milestones=[5]
        )

    expected = torch_rates(100, build)
    found = [learning_rate("cosine", 0.1, epoch, 100, 1.0, 5) for epoch in range(100)]
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_begins_at_the_peak_and_never_rises(name):
    rates = [learning_rate(name, 0.1, epoch, 30, 2.0) for epoch in range(30)]
    assert rates[0] == 0.1 and rates == sorted(rates, reverse=True) and rates[-1] > 0
