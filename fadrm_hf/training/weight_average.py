"""An exponential average of a student's weights, which is evaluated in the student's place (EDC, arXiv 2404.13733)."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn


class WeightAverage:
    """The student as it was on average, recent steps counting more.

    BatchNorm statistics are no weights: those of the student belong to its own weights of the last steps, those of the
    average have to be measured with the averaged weights. The released code evaluates the average with the student's
    (shaoshitong/EDC @ 80116a7).

    Args:
        student: At its initial weights, from which the average begins.
        decay: What the average keeps of itself at each step.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(student)
        self._decay = decay

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """After a step: average <- decay * average + (1 - decay) * student; parameters only."""
        for mean, weight in zip(self.module.parameters(), student.parameters(), strict=True):
            mean.lerp_(weight, 1.0 - self._decay)

    @torch.no_grad()
    def copy_buffers(self, student: nn.Module) -> None:
        """Take the student's buffers."""
        for mine, its in zip(self.module.buffers(), student.buffers(), strict=True):
            mine.copy_(its)

    def estimate_buffers(self, micro_batches: Iterable[Tensor]) -> None:
        """Measure BatchNorm statistics anew: their mean over micro-batches, each (n, 3, S, S) where the student is."""
        update_bn(micro_batches, self.module)
