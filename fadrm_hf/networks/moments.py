"""Means and variances of feature maps, per channel and per block of positions, with closed-form gradients.

Shapes: N images, G groups of N / G consecutive ones; maps (N, C, H, W); P blocks of side x side positions. Moments are
fp32 (or float64) whatever the type of the maps. Their gradient with respect to a map is affine in it, a + b x with
coefficients of the channel or block, so nothing but the map is kept and the backward pass reads it once.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor


class _ChannelMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, centre: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
        # Moments about the targets' mean do not cancel; two plain means are 4 to 6 times faster than `torch.var_mean`.
        grouped = maps.unflatten(0, (num_groups, -1))  # (G, N / G, C, H, W)
        shifted = grouped.to(centre.dtype) - centre.view(1, 1, -1, 1, 1)
        gap = shifted.mean((1, 3, 4))  # (G, C)
        var = shifted.square_().mean((1, 3, 4)) - gap.square()
        ctx.save_for_backward(maps, gap + centre)
        return gap, var

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        maps, mean = ctx.saved_tensors
        grouped = maps.unflatten(0, (len(mean), -1))
        offset, slope = affine_gradient(grad_outputs[0], grad_outputs[1], mean, grouped[0].numel() // mean.shape[1])
        shape = (len(mean), 1, -1, 1, 1)
        gradient = torch.addcmul(offset.view(shape), grouped, slope.view(shape))
        return gradient.flatten(0, 1).to(maps.dtype), None, None


def affine_gradient(grad_gap: Tensor, grad_var: Tensor, mean: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return a and b of the gradient a + b x, from those of a mean and a biased variance over `count` values x."""
    slope = grad_var * (2.0 / count)
    return grad_gap * (1.0 / count) - slope * mean, slope


def channel_moments(maps: Tensor, centre: Tensor, num_groups: int = 1) -> tuple[Tensor, Tensor]:
    """Return the channel statistics of consecutive groups of images.

    Args:
        maps: (N, C, H, W), any floating type; N is a multiple of `num_groups`.
        centre: (C,) float32 or float64, subtracted from the means; the nearer to them, the less is lost to rounding.
        num_groups: G.

    Returns:
        Means minus `centre` and biased variances, each (G, C) in `centre`'s type, differentiable with respect to
        `maps`.
    """
    return cast(tuple[Tensor, Tensor], _ChannelMoments.apply(maps, centre, num_groups))


def block_view(maps: Tensor, side: int) -> Tensor:
    """Cut maps into square blocks of positions.

    Args:
        maps: (N, C, H, W); first enlarged (bilinear) to the next multiples of `side` where H and W are none.
        side: Side of a block.

    Returns:
        (N, C, rows, side, columns, side): block (i, j) of a map is [:, :, i, :, j, :].
    """
    return _enlarged(maps, side).unflatten(3, (-1, side)).unflatten(2, (-1, side))


def _enlarged(maps: Tensor, side: int) -> Tensor:
    height, width = (-(-length // side) * side for length in maps.shape[2:])
    if (height, width) == maps.shape[2:]:
        return maps
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)


class _BlockMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, centre: Tensor, side: int, num_groups: int) -> tuple[Tensor, Tensor]:
        grouped = maps.unflatten(0, (num_groups, -1))
        shifted = grouped.to(centre.dtype) - _at_positions(centre[None], maps, side)
        # Of each position over channels, then over images: 4 to 8 times faster than over all that a block holds.
        gap = _block_means(shifted.mean(2).mean(1), side)  # (G, P)
        var = _block_means(shifted.square_().mean(2).mean(1), side) - gap.square()
        ctx.save_for_backward(maps, gap + centre)
        ctx.side = side
        return gap, var

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        maps, mean = ctx.saved_tensors
        grouped = maps.unflatten(0, (len(mean), -1))
        offset, slope = affine_gradient(grad_outputs[0], grad_outputs[1], mean, grouped[0].numel() // mean.shape[1])
        gradient = torch.addcmul(_at_positions(offset, maps, ctx.side), grouped, _at_positions(slope, maps, ctx.side))
        return gradient.flatten(0, 1).to(maps.dtype), None, None, None


def _block_means(positions: Tensor, side: int) -> Tensor:
    """(G, H, W) values of positions -> (G, P) their means over blocks."""
    return positions.unflatten(2, (-1, side)).unflatten(1, (-1, side)).mean((2, 4)).flatten(1)


def _at_positions(blocks: Tensor, maps: Tensor, side: int) -> Tensor:
    """(G, P) values of blocks -> (G, 1, 1, H, W), as the positions of `maps` (N, C, H, W) have them."""
    values = blocks.view(len(blocks), 1, 1, -1, maps.shape[3] // side)
    return values.repeat_interleave(side, 3).repeat_interleave(side, 4)


def block_moments(maps: Tensor, centre: Tensor, side: int, num_groups: int = 1) -> tuple[Tensor, Tensor]:
    """Return the statistics of each block of positions, over images, channels and positions (G-VBSM's patches).

    Args:
        maps: (N, C, H, W), any floating type; N is a multiple of `num_groups`. Enlarged as by `block_view`.
        centre: (P,) float32 or float64, subtracted from the means.
        side: Side of a block.
        num_groups: G.

    Returns:
        Means minus `centre` and biased variances, each (G, P) in `centre`'s type, differentiable with respect to
        `maps`.
    """
    return cast(tuple[Tensor, Tensor], _BlockMoments.apply(_enlarged(maps, side), centre, side, num_groups))


def pool_groups(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance, (C,) each, of the union of equally large groups with these, (G, C) each.

    The variance is that within groups plus that of the group means.
    """
    between, pooled = torch.var_mean(mean, dim=0, correction=0)
    return pooled, var.mean(dim=0) + between
