"""Learning rates over a training."""

import math
from collections.abc import Callable

Schedule = Callable[[float, int, int, float], float]

_SSRS_TURN = 5 / 6
_HALVED_AT = (0.8, 0.9, 0.95)
_COLD = 0.01  # share of the peak with which a warm-up begins


def cosine(peak: float, step: int, num_steps: int, eta: float = 1.0) -> float:
    """Cosine annealing without warm-up, slowed down by `eta` (Eq. 57 times the peak rate, which it leaves out).

    Args:
        peak: Learning rate at step 0.
        step: From 0 to `num_steps` - 1, in iterations or epochs.
        num_steps: Length of the training.
        eta: 1 anneals to 0; 2 follows the first half of the cosine, down to half of the peak.
    """
    return peak * 0.5 * (1.0 + math.cos(math.pi * step / (num_steps * eta)))


def ssrs(peak: float, step: int, num_steps: int, eta: float = 1.0) -> float:
    """The slow cosine until 5/6 of the training, then a lower line that ends at 0 (EDC, arXiv 2404.13733, Eq. 33).

    The line is the cosine's last value times the share of the training that is left, so the rate drops to a sixth at
    once where it begins; that is the paper's formula.

    Args:
        peak: Learning rate at step 0.
        step: From 0 to `num_steps` - 1.
        num_steps: Length of the training.
        eta: Slow-down of the cosine.
    """
    if 6 * step <= 5 * num_steps:
        return cosine(peak, step, num_steps, eta)
    return peak * 0.5 * (1.0 + math.cos(math.pi * _SSRS_TURN / eta)) * (1.0 - step / num_steps)


def linear(peak: float, step: int, num_steps: int, eta: float = 1.0) -> float:
    """A line that would reach 0 after `eta` trainings (EDC's code for ImageNet-1k, shaoshitong/EDC @ 80116a7).

    Args:
        peak: Learning rate at step 0.
        step: From 0 to `num_steps` - 1.
        num_steps: Length of the training.
        eta: Slow-down.
    """
    return peak * (1.0 - step / (num_steps * eta))


def steps(peak: float, step: int, num_steps: int, eta: float = 1.0) -> float:
    """Halved at 80, 90 and 95 % of the training (EDC on CIFAR-10: epochs 800, 900 and 950 of 1000).

    Args:
        peak: Learning rate at step 0.
        step: From 0 to `num_steps` - 1.
        num_steps: Length of the training.
        eta: Without effect: there is nothing to slow down.
    """
    return peak * 0.5 ** sum(step >= round(share * num_steps) for share in _HALVED_AT)


SCHEDULES: dict[str, Schedule] = {"cosine": cosine, "ssrs": ssrs, "linear": linear, "steps": steps}


def learning_rate(schedule: str, peak: float, step: int, num_steps: int, eta: float = 1.0, warmup: int = 0) -> float:
    """The rate of a schedule of this name, which begins after `warmup` steps from 1 % of the peak up to it.

    Args:
        schedule: A key of `SCHEDULES`.
        peak: The greatest rate.
        step: From 0 to `num_steps` - 1, warm-up included.
        num_steps: Length of the training, warm-up included.
        eta: Slow-down of the schedule.
        warmup: Steps over which the rate rises linearly; all of a training that is no longer than these.
    """
    if step < warmup:
        return peak * (_COLD + (1.0 - _COLD) * step / warmup)
    return SCHEDULES[schedule](peak, step - warmup, num_steps - warmup, eta)
