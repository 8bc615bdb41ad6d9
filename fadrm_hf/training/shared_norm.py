"""BatchNorm over micro-batches whose rows lie with several processes: their statistics are those of all rows.

Each process measures mean and variance of the rows that it holds; those of the whole are put together from all of
these (Chan, Golub and LeVeque 1983), which loses no digits where means are large. One message per layer and pass
carries the moments of all its micro-batches, and one the sums that the gradient needs. torch's SyncBatchNorm does the
same for one batch of one GPU; it knows neither micro-batches nor CPUs.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from fadrm_hf.errors import StudentError
from fadrm_hf.training.student_group import StudentGroup

_KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)


def check_shareable(network: nn.Module) -> None:
    """Refuse a network some layer of which keeps statistics that are not known to be divisible.

    Raises:
        StudentError: If there is such a layer.
    """
    for name, layer in network.named_modules():
        if layer._buffers.get("running_var") is not None and type(layer) not in _KNOWN:
            known = ", ".join(kind.__name__ for kind in _KNOWN)
            raise StudentError(
                f"layer {name} is a {type(layer).__name__}, expected one of {known} where several processes train one "
                "student; launch at most as many processes as there are seeds, or choose another --student.student"
            )


def normalise_together(layer: _BatchNorm, sizes: Sequence[int], group: StudentGroup, inputs: Tensor) -> Tensor:
    """What a BatchNorm layer in training mode makes of this process's rows of some micro-batches.

    Args:
        layer: Of one of the kinds that `check_shareable` lets pass; its running statistics see each whole micro-batch,
            one after the other.
        sizes: Rows of each micro-batch, in order, those of all processes.
        group: The processes.
        inputs: (n, C, ...) the rows that this one holds, or one row that stands in for none: it counts for nothing and
            leaves as zeros.

    Returns:
        (n, C, ...).

    Raises:
        StudentError: If a micro-batch has one value per channel, which has no variance.
    """
    portions = group.portions(sizes)
    own, positions = portions[group.rank], inputs[0, 0].numel()
    counts = [[positions * rows for rows in held] for held in portions]
    totals = [sum(counted) for counted in zip(*counts, strict=True)]
    if min(totals) < 2:
        raise StudentError(
            f"a micro-batch of {min(sizes)} view has one value per channel, expected two or more for BatchNorm; set "
            "another --student.batch_size or --student.accumulation"
        )
    held, stand_in = inputs.split([sum(own), len(inputs) - sum(own)])
    mean, variance = _moments(held.detach(), own, counts, group)
    _track(layer, mean, variance, totals)
    outputs: Tensor = _Normalise.apply(held, layer.weight, layer.bias, mean, variance, own, totals, group, layer.eps)
    outputs = torch.cat([outputs, 0 * stand_in]) if len(stand_in) else outputs
    return layer.act(layer.drop(outputs)) if isinstance(layer, BatchNormAct2d) else outputs


def _moments(
    held: Tensor, own: Sequence[int], counts: Sequence[Sequence[int]], group: StudentGroup
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each whole micro-batch, in fp32 at least.

    Args:
        held: (n, C, ...) the rows of this process.
        own: How many of them belong to each micro-batch.
        counts: Values per channel, by process and by micro-batch.
        group: The processes.

    Returns:
        Each (micro-batches, C).
    """
    exact = held.to(torch.promote_types(held.dtype, torch.float32))
    nothing = exact.new_zeros((2, held.shape[1]))
    # Not torch.var_mean: forty times as slow where channels come last in memory.
    parts = [
        torch.stack(torch.batch_norm_update_stats(part, None, None, 0.0)) if len(part) else nothing
        for part in exact.split(list(own))
    ]
    means, variances = group.gather(torch.stack(parts)).unbind(2)  # (processes, micro-batches, C)
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
        held: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        own: Sequence[int],
        counts: Sequence[int],
        group: StudentGroup,
        eps: float,
    ) -> Tensor:
        """(n, C, ...) this process's rows, normalised.

        Args:
            ctx: Keeps what `backward` needs.
            held: (n, C, ...) the rows.
            weight: (C,) or none.
            bias: (C,) or none.
            mean: (micro-batches, C) of all rows.
            variance: (micro-batches, C) of all rows, biased.
            own: How many rows belong to each micro-batch.
            counts: Values per channel of each micro-batch, over all processes.
            group: The processes.
            eps: Added to the variance.
        """
        ctx.save_for_backward(held, weight, mean, (variance + eps).rsqrt())
        ctx.own, ctx.counts, ctx.group, ctx.eps = list(own), counts, group, eps
        parts = zip(held.split(ctx.own), mean, variance, strict=True)
        return _cat([F.batch_norm(part, m, v, weight, bias, eps=eps) for part, m, v in parts])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the rows, the weight and the bias; those of the latter two are this process's part."""
        held, weight, mean, scale = ctx.saved_tensors
        parts = list(zip(gradient.split(ctx.own), held.split(ctx.own), mean, scale, strict=True))
        sums = torch.stack([_sums(*part, weight, ctx.eps) for part in parts])  # (micro-batches, 2, C)
        of_weight, of_bias = sums.sum(0)
        ctx.group.add_up([sums])
        rows = _cat(
            [
                _of_rows(*part, weight, *total / count)
                for part, total, count in zip(parts, sums, ctx.counts, strict=True)
            ]
        )
        is_affine = weight is not None
        return rows, of_weight if is_affine else None, of_bias if is_affine else None, *[None] * 6


def _cat(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _sums(gradient: Tensor, part: Tensor, mean: Tensor, scale: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """(2, C) over the rows at hand: of gradient times normalised value, and of the gradient."""
    if not len(part):
        return torch.zeros((2, len(mean)), dtype=mean.dtype, device=mean.device)
    wanted = [False, True, True]
    _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
        gradient, part, weight, None, None, mean, scale, True, eps, wanted
    )
    return torch.stack((of_weight, of_bias))


def _of_rows(
    gradient: Tensor,
    part: Tensor,
    mean: Tensor,
    scale: Tensor,
    weight: Tensor | None,
    of_scale: Tensor,
    of_shift: Tensor,
) -> Tensor:
    """The gradient of some rows of a micro-batch: g = w s (y - mean(y) - xn mean(y xn)), with xn = (x - m) s.

    Args:
        gradient: y, (n, C, ...).
        part: x, (n, C, ...).
        mean: m, (C,).
        scale: s, (C,) 1 / standard deviation.
        weight: w, (C,) or none, which is 1.
        of_scale: mean(y xn) over the whole micro-batch, (C,).
        of_shift: mean(y) over the whole micro-batch, (C,).
    """
    factor = scale if weight is None else scale * weight
    m, slope, offset, factor = (
        values.view(-1, *[1] * (part.ndim - 2))
        for values in (mean, -factor * scale * of_scale, -factor * of_shift, factor)
    )
    return torch.addcmul(offset, part - m, slope).addcmul_(gradient, factor).to(part.dtype)
