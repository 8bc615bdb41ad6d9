"""BatchNorm over micro-batches whose rows are divided over several processes: its statistics are those of all rows.

Each process measures mean and variance of its own rows; they are combined as in Chan, Golub and LeVeque (1983), which
loses no digits where means are large. One message per layer and pass carries the moments of all its micro-batches,
and one the sums that the gradient needs. torch's SyncBatchNorm does the same for one batch on GPUs; it knows neither
micro-batches nor CPUs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from fadrm_hf.errors import StudentError
from fadrm_hf.training.student_group import StudentGroup

_DIVISIBLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)


@dataclass(frozen=True)
class _Division:
    """The division of some micro-batches over processes.

    Attributes:
        rows: Rows of each micro-batch that this process holds.
        totals: Values per channel of each micro-batch, over all processes.
        group: The processes.
        eps: Added to the variance.
    """

    rows: list[int]
    totals: list[int]
    group: StudentGroup
    eps: float


def check_shareable(network: nn.Module) -> None:
    """Refuse a network with a layer that tracks statistics and cannot be divided over processes.

    Raises:
        StudentError: If there is such a layer.
    """
    for name, layer in network.named_modules():
        if layer._buffers.get("running_var") is not None and type(layer) not in _DIVISIBLE:
            kinds = ", ".join(kind.__name__ for kind in _DIVISIBLE)
            raise StudentError(
                f"layer {name} is a {type(layer).__name__}, expected one of {kinds} if several processes train one "
                "student; launch at most as many processes as there are seeds, or choose another --student.student"
            )


def normalise_together(layer: _BatchNorm, sizes: Sequence[int], group: StudentGroup, inputs: Tensor) -> Tensor:
    """Apply a BatchNorm layer in training mode to this process's rows of some micro-batches.

    Args:
        layer: Of a kind that `check_shareable` accepts; its running statistics see each whole micro-batch, one after
            the other.
        sizes: Rows of each micro-batch, in order, over all processes.
        group: The processes.
        inputs: (n, C, ...) this process's rows, or a single row in place of none, which counts for nothing and leaves
            as zeros.

    Returns:
        (n, C, ...).

    Raises:
        StudentError: If a micro-batch has one value per channel, which has no variance.
    """
    portions = group.portions(sizes)
    positions = inputs[0, 0].numel()
    counts = [[positions * rows for rows in portion] for portion in portions]
    totals = [sum(counted) for counted in zip(*counts, strict=True)]
    if min(totals) < 2:
        raise StudentError(
            f"a micro-batch of {min(sizes)} view has one value per channel, expected two or more for BatchNorm; set "
            "another --student.batch_size or --student.accumulation"
        )
    division = _Division(portions[group.rank], totals, group, layer.eps)
    num_rows = sum(division.rows)
    rows, placeholder = inputs.split([num_rows, len(inputs) - num_rows])
    mean, variance = _moments(rows.detach(), division, counts)
    _track(layer, mean, variance, totals)
    outputs: Tensor = _Normalise.apply(rows, layer.weight, layer.bias, mean, variance, division)
    outputs = torch.cat([outputs, 0 * placeholder]) if len(placeholder) else outputs
    return layer.act(layer.drop(outputs)) if isinstance(layer, BatchNormAct2d) else outputs


def _moments(
    rows: Tensor,  # (n, C, ...) of this process
    division: _Division,
    counts: list[list[int]],  # values per channel, by process and by micro-batch
) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each whole micro-batch, (micro-batches, C) each, in fp32 at least."""
    exact = rows.to(torch.promote_types(rows.dtype, torch.float32))
    nothing = exact.new_zeros((2, rows.shape[1]))
    # Not torch.var_mean: forty times as slow where channels come last in memory.
    parts = [
        torch.stack(torch.batch_norm_update_stats(part, None, None, 0.0)) if len(part) else nothing
        for part in exact.split(division.rows)
    ]
    means, variances = division.group.all_gather(torch.stack(parts)).unbind(2)  # (processes, micro-batches, C)
    shares = torch.tensor(counts, dtype=exact.dtype, device=exact.device)[..., None]
    shares = shares / shares.sum(0)
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(0)


@torch.no_grad()
def _track(layer: _BatchNorm, means: Tensor, variances: Tensor, counts: Sequence[int]) -> None:
    """Update running statistics as if each micro-batch had gone through the layer by itself."""
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    for mean, variance, count in zip(means, variances, counts, strict=True):
        layer.num_batches_tracked.add_(1)
        newest = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
        layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), newest)
        layer.running_var.lerp_((variance * (count / (count - 1))).to(layer.running_var.dtype), newest)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, whose gradient knows that all rows made mean and variance."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,  # (n, C, ...) of this process
        weight: Tensor | None,  # (C,)
        bias: Tensor | None,  # (C,)
        mean: Tensor,  # (micro-batches, C) of all rows
        variance: Tensor,  # (micro-batches, C) of all rows, biased
        division: _Division,
    ) -> Tensor:
        """Return (n, C, ...) this process's rows, normalised."""
        ctx.save_for_backward(rows, weight, mean, (variance + division.eps).rsqrt())
        ctx.division = division
        parts = zip(rows.split(division.rows), mean, variance, strict=True)
        return _cat([F.batch_norm(part, m, v, weight, bias, eps=division.eps) for part, m, v in parts])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the rows, the weight and the bias; the latter two are this process's part."""
        rows, weight, mean, scale = ctx.saved_tensors
        division: _Division = ctx.division
        parts = list(zip(gradient.split(division.rows), rows.split(division.rows), mean, scale, strict=True))
        sums = torch.stack([_sums(*part, weight, division.eps) for part in parts])  # (micro-batches, 2, C)
        of_weight, of_bias = sums.sum(0)
        division.group.all_reduce_([sums])
        of_rows = _cat(
            [
                _row_gradient(*part, weight, total / count)
                for part, total, count in zip(parts, sums, division.totals, strict=True)
            ]
        )
        is_affine = weight is not None
        return of_rows, of_weight if is_affine else None, of_bias if is_affine else None, None, None, None


def _cat(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _sums(gradient: Tensor, part: Tensor, mean: Tensor, scale: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Sum over the rows at hand, (2, C): gradient times normalised value, and the gradient."""
    if not len(part):
        return torch.zeros((2, len(mean)), dtype=mean.dtype, device=mean.device)
    wanted = [False, True, True]
    _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
        gradient, part, weight, None, None, mean, scale, True, eps, wanted
    )
    return torch.stack((of_weight, of_bias))


def _row_gradient(
    gradient: Tensor,  # y, (n, C, ...)
    part: Tensor,  # x, (n, C, ...)
    mean: Tensor,  # m, (C,)
    scale: Tensor,  # s, (C,) 1 / standard deviation
    weight: Tensor | None,  # w, (C,); `None` is 1
    averages: Tensor,  # (2, C) mean(y xn) and mean(y) over the whole micro-batch
) -> Tensor:
    """Return the gradient of some rows: g = w s (y - mean(y) - xn mean(y xn)), with xn = (x - m) s."""
    factor = scale if weight is None else scale * weight
    m, slope, offset, factor = (
        values.view(-1, *[1] * (part.ndim - 2))
        for values in (mean, -factor * scale * averages[0], -factor * averages[1], factor)
    )
    return torch.addcmul(offset, part - m, slope).addcmul_(gradient, factor).to(part.dtype)
