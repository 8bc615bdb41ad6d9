"""Learning rates over a training.

A schedule takes the peak rate, a step from 0 to `num_steps` - 1 (iterations or epochs), the length `num_steps` of the
training, and `eta`, by which it is slowed down.
"""

import math
from collections.abc import Callable

Schedule = Callable[[float, int, int, float], float]

_SSRS_TURN = 5 / 6
_HALVED_AT = (0.8, 0.9, 0.95)
_COLD = 0.01  # share of the peak with which a warm-up begins


def cosine(peak: float, step: int, num_steps: int, eta: float = 1.0) -> float:
    """Anneal by a cosine without warm-up (Eq. 57 times the peak rate, which it leaves out).

    With an `eta` of 1 it ends at 0; with 2 it follows the first half of the cosine, down to half of the peak.
    """
    return peak * 0.5 * (1.0 + math.cos(math.pi * step / (num_steps * eta)))


def ssrs(peak: float, step: int, num_steps: int, eta: float = 1.0) -> float:
    """Follow the cosine until 5/6 of the training, then a lower line that ends at 0 (EDC, arXiv 2404.13733, Eq. 33).

    The line is the cosine's last value times the remaining fraction of the training, so the rate drops to a sixth at
    once where it begins; that is the paper's formula.
    """
    if 6 * step <= 5 * num_steps:
        return cosine(peak, step, num_steps, eta)
    return peak * 0.5 * (1.0 + math.cos(math.pi * _SSRS_TURN / eta)) * (1.0 - step / num_steps)


def linear(peak: float, step: int, num_steps: int, eta: float = 1.0) -> float:
    """Follow a line that reaches 0 after `eta` trainings (EDC's code for ImageNet-1k, shaoshitong/EDC @ 80116a7)."""
    return peak * (1.0 - step / (num_steps * eta))


def steps(peak: float, step: int, num_steps: int, eta: float = 1.0) -> float:
    """Halve the rate at 80, 90 and 95 % of the training (EDC on CIFAR-10: epochs 800, 900 and 950 of 1000)."""
    return peak * 0.5 ** sum(step >= round(share * num_steps) for share in _HALVED_AT)


def constant(peak: float, step: int, num_steps: int, eta: float = 1.0) -> float:
    """Stay at the peak."""
    return peak


SCHEDULES: dict[str, Schedule] = {entry.__name__: entry for entry in (cosine, ssrs, linear, steps, constant)}


def learning_rate(schedule: str, peak: float, step: int, num_steps: int, eta: float = 1.0, warmup: int = 0) -> float:
    """Return the rate of the schedule of that name after a linear warm-up from 1 % of the peak.

    The steps of the warm-up count as steps of the training, which may be all warm-up.
    """
    if step < warmup:
        return peak * (_COLD + (1.0 - _COLD) * step / warmup)
    return SCHEDULES[schedule](peak, step - warmup, num_steps - warmup, eta)
