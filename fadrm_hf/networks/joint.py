"""Weighted sum of the Euclidean norms of many vectors, by a few operations in place of a few for each vector."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor


class JointNorms:
    """Remembers how vectors lie one behind the other.

    Args:
        goals: Vectors that are subtracted first, float32 or float64.
        weights: Weight of the norm of each difference.
    """

    def __init__(self, goals: Sequence[Tensor], weights: Sequence[float]) -> None:
        self._goals, lengths = torch.cat(list(goals)), [len(goal) for goal in goals]
        self._weights = torch.tensor(weights, dtype=self._goals.dtype, device=self._goals.device)
        self._lengths = torch.tensor(lengths, device=self._goals.device)
        self._places = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(self._goals.device)

    def __call__(self, vectors: Sequence[Tensor]) -> Tensor:
        """sum_k w_k || v_k - goal_k ||; the gradient at a norm of 0 is 0.

        Args:
            vectors: Like the goals.

        Returns:
            Scalar.
        """
        gaps = torch.cat(list(vectors)) - self._goals
        return cast(Tensor, _SumOfNorms.apply(gaps, self._weights, self._lengths, self._places))


class _SumOfNorms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gaps: Tensor, weights: Tensor, lengths: Tensor, places: Tensor) -> Tensor:
        # Unchecked: a check of the lengths would make the host wait for the device.
        norms = torch.segment_reduce(gaps.square(), "sum", lengths=lengths, unsafe=True).sqrt_()
        ctx.save_for_backward(gaps, torch.where(norms > 0, weights / norms, 0.0)[places])
        return weights @ norms

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        gaps, factors = ctx.saved_tensors
        return grads[0] * factors * gaps, None, None, None
