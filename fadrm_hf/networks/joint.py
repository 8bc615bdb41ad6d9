"""Weighted sum of the Euclidean norms of many vectors, by a few operations in place of a few for each vector."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor


class JointNorms:
    """Sum over k of w_k || v_k - goal_k || of vectors v_k that are laid end to end.

    Args:
        goals: The vectors that are subtracted first, float32 or float64.
        weights: Weight of each norm.
    """

    def __init__(self, goals: Sequence[Tensor], weights: Sequence[float]) -> None:
        self._goals = torch.cat(list(goals))  # (n,), n elements of all K vectors
        device = self._goals.device
        lengths = torch.tensor([len(goal) for goal in goals])
        self._weights = torch.tensor(weights, dtype=self._goals.dtype, device=device)  # (K,)
        self._lengths = lengths.to(device)  # (K,)
        self._vector_of = torch.arange(len(lengths)).repeat_interleave(lengths).to(device)  # (n,) k of each element

    def __call__(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return the sum, a scalar, for vectors like the goals; the gradient at a norm of 0 is 0."""
        gaps = torch.cat(list(vectors)) - self._goals
        return cast(Tensor, _SumOfNorms.apply(gaps, self._weights, self._lengths, self._vector_of))


class _SumOfNorms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gaps: Tensor, weights: Tensor, lengths: Tensor, vector_of: Tensor) -> Tensor:
        # Unchecked: a check of the lengths would make the host wait for the device.
        norms = torch.segment_reduce(gaps.square(), "sum", lengths=lengths, unsafe=True).sqrt_()
        ctx.save_for_backward(gaps, torch.where(norms > 0, weights / norms, 0.0)[vector_of])
        return weights @ norms

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        gaps, factors = ctx.saved_tensors
        return grads[0] * factors * gaps, None, None, None
