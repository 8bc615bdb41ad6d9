"""The time of a unit of work, from steps that do as many units at once as a budget of seconds allows."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Step = Callable[[int], int]  # does about so many units of work, and returns how many it did


@dataclass(frozen=True)
class Timing:
    """Time of a unit of work.

    Attributes:
        seconds: Of one.
        units: How many were timed together.
    """

    seconds: float
    units: int


def time_units(step: Step, units: int, device: torch.device, budget: float, warm_up: int = 0) -> Timing:
    """Time a step per unit of work, with as many units together as a budget of seconds allows.

    Args:
        step: The work.
        units: The most units in one step.
        device: Where it runs.
        budget: Seconds; a few times as many are spent.
        warm_up: Steps that are taken first and not counted, because graphs are captured in them.
    """
    num = min(2, units)
    seconds, _ = _timed(step, num, device)
    while num < units and seconds < budget / 2:
        num = min(units, max(num + 1, int(num * min(budget / seconds, 16.0))))
        seconds, _ = _timed(step, num, device)
    for _ in range(warm_up):
        step(num)
    runs = [_timed(step, num, device) for _ in range(3)]
    return Timing(statistics.median(seconds for seconds, _ in runs) / runs[0][1], runs[0][1])


def _timed(step: Step, units: int, device: torch.device) -> tuple[float, int]:
    """Return the seconds of a step, and how many units it did."""
    _wait(device)
    started = time.perf_counter()
    done = step(units)
    _wait(device)
    return max(time.perf_counter() - started, 1e-6), done


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
