"""The fused normalisation on a GPU, in Triton: each map is read once and written once, in either direction.

A forward pass is two kernels. The first writes the outputs and, of each block of positions, sums for every channel;
the second makes moments of these sums, in a fixed order, so that the same maps have the same moments. A backward pass
is one kernel, in which the arithmetic on single channels is included.

Loads are as wide as the number of channels allows, which Triton has to know of when it compiles: that it is a multiple
of 16, which one kernel serves, or else the number itself. Images and positions may be any number.

Kernels see maps as (R, C), positions of all images before channels, as channels_last stores them; R / G of them belong
to each of G groups. Import this module only where Triton is.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 4096  # values that a program holds at once: 16 for each of its threads
_WIDEST = 128  # channels of a tile
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}
_PROGRAMS = 1024  # of a group, at most: as many as a large GPU runs at once
_REDUCED = 32  # channels of which one program reduces the sums, and blocks that it reads at once


@triton.jit
def _value(u, ACTIVATION: tl.constexpr):
    """Return the activation; what is no number stays so."""
    result = u
    if ACTIVATION == "relu":
        result = tl.where(u < 0, 0.0, u)
    elif ACTIVATION == "relu6":
        result = tl.where(u < 0, 0.0, tl.where(u > 6, 6.0, u))
    elif ACTIVATION == "silu":
        result = u / (1.0 + tl.exp(-u))
    return result


@triton.jit
def _slope(u, ACTIVATION: tl.constexpr):
    """Return the derivative of the activation."""
    result = u * 0.0 + 1.0
    if ACTIVATION == "relu":
        result = tl.where(u > 0, 1.0, 0.0)
    elif ACTIVATION == "relu6":
        result = tl.where((u > 0) & (u < 6), 1.0, 0.0)
    elif ACTIVATION == "silu":
        gate = 1.0 / (1.0 + tl.exp(-u))
        result = gate * (1.0 + u * (1.0 - gate))
    return result


@triton.jit(do_not_specialize=["num_rows"])
def forward_kernel(
    maps,  # (R, C)
    residual,  # (R, C); not read without one
    scale,  # (C,)
    shift,  # (C,)
    centre,  # (C,)
    outputs,  # (R, C)
    mask,  # (R, C) bytes, where u > 0; not written unless MASKS
    sums,  # (2, G, programs, C) of x - centre and of its square; not written unless SUMS
    num_rows,  # R / G
    num_channels,  # C, if it is a multiple of 16
    CHANNELS: tl.constexpr,  # C, if it is not; else 0
    ACTIVATION: tl.constexpr,
    ADDS: tl.constexpr,
    MASKS: tl.constexpr,
    SUMS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write act(scale * maps + shift + residual), and sums of the maps."""
    num_channels = CHANNELS if CHANNELS > 0 else num_channels
    program, programs, group = tl.program_id(0), tl.num_programs(0), tl.program_id(2)
    channels = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    exists = channels < num_channels
    s = tl.load(scale + channels, mask=exists, other=0.0)[None, :]
    t = tl.load(shift + channels, mask=exists, other=0.0)[None, :]
    c = tl.load(centre + channels, mask=exists, other=0.0)[None, :]
    gaps = tl.zeros((ROWS, WIDTH), dtype=scale.dtype.element_ty)
    squares = tl.zeros((ROWS, WIDTH), dtype=scale.dtype.element_ty)
    for start in range(program * ROWS, num_rows, programs * ROWS):
        rows = start + tl.arange(0, ROWS)
        here = (rows < num_rows)[:, None] & exists[None, :]
        places = (group.to(tl.int64) * num_rows + rows)[:, None] * num_channels + channels[None, :]
        x = tl.load(maps + places, mask=here, other=0.0).to(scale.dtype.element_ty)
        u = x * s + t
        if ADDS:
            u += tl.load(residual + places, mask=here, other=0.0).to(scale.dtype.element_ty)
        tl.store(outputs + places, _value(u, ACTIVATION).to(outputs.dtype.element_ty), mask=here)
        if MASKS:
            tl.store(mask + places, (u > 0).to(tl.uint8), mask=here)
        if SUMS:
            gap = tl.where(here, x - c, 0.0)
            gaps += gap
            squares += gap * gap
    if SUMS:
        place = (group * programs + program).to(tl.int64) * num_channels + channels
        tl.store(sums + place, tl.sum(gaps, 0), mask=exists)
        tl.store(
            sums + tl.num_programs(2).to(tl.int64) * programs * num_channels + place, tl.sum(squares, 0), mask=exists
        )


@triton.jit(do_not_specialize=["num_programs", "count", "num_channels"])
def moments_kernel(
    sums,  # (2, G, programs, C)
    centre,  # (C,)
    gap,  # (G, C) means less the centre
    var,  # (G, C) biased variances
    mean,  # (G, C)
    num_programs,
    count,  # of values, R / G
    num_channels,
    SIDE: tl.constexpr,
):
    """Write the moments of each group that follow from the sums of its programs."""
    group, channels = tl.program_id(1), tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    exists = channels < num_channels
    first = tl.zeros((SIDE, SIDE), dtype=centre.dtype.element_ty)
    second = tl.zeros((SIDE, SIDE), dtype=centre.dtype.element_ty)
    half = tl.num_programs(1) * num_programs * num_channels
    for start in range(0, num_programs, SIDE):
        programs = start + tl.arange(0, SIDE)
        here = (programs < num_programs)[:, None] & exists[None, :]
        places = (group * num_programs + programs)[:, None] * num_channels + channels[None, :]
        first += tl.load(sums + places, mask=here, other=0.0)
        second += tl.load(sums + half + places, mask=here, other=0.0)
    gaps, powers = tl.sum(first, 0) / count, tl.sum(second, 0) / count
    places = group * num_channels + channels
    tl.store(gap + places, gaps, mask=exists)
    tl.store(var + places, powers - gaps * gaps, mask=exists)
    tl.store(mean + places, gaps + tl.load(centre + channels, mask=exists, other=0.0), mask=exists)


@triton.jit(do_not_specialize=["num_rows"])
def backward_kernel(
    grad,  # (R, C) of the outputs
    maps,  # (R, C)
    mask,  # (R, C) bytes; not read unless MASKS
    scale,  # (C,)
    shift,  # (C,)
    mean,  # (G, C)
    grad_gap,  # (G, C)
    grad_var,  # (G, C)
    of_maps,  # (R, C)
    of_residual,  # (R, C); not written unless MASKS
    num_rows,  # R / G
    num_channels,  # C, if it is a multiple of 16
    CHANNELS: tl.constexpr,  # C, if it is not; else 0
    ACTIVATION: tl.constexpr,
    MASKS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write the gradients of maps and residual: that of the moments is affine, `moments.affine_gradient`."""
    num_channels = CHANNELS if CHANNELS > 0 else num_channels
    program, programs, group = tl.program_id(0), tl.num_programs(0), tl.program_id(2)
    channels = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    exists, of_group = channels < num_channels, group * num_channels + channels
    s = tl.load(scale + channels, mask=exists, other=0.0)[None, :]
    t = tl.load(shift + channels, mask=exists, other=0.0)[None, :]
    slope = 2.0 * tl.load(grad_var + of_group, mask=exists, other=0.0) / num_rows
    offset = tl.load(grad_gap + of_group, mask=exists, other=0.0) / num_rows
    offset -= slope * tl.load(mean + of_group, mask=exists, other=0.0)
    for start in range(program * ROWS, num_rows, programs * ROWS):
        rows = start + tl.arange(0, ROWS)
        here = (rows < num_rows)[:, None] & exists[None, :]
        places = (group.to(tl.int64) * num_rows + rows)[:, None] * num_channels + channels[None, :]
        x = tl.load(maps + places, mask=here, other=0.0).to(scale.dtype.element_ty)
        inner = tl.load(grad + places, mask=here, other=0.0).to(scale.dtype.element_ty)
        if MASKS:
            inner *= tl.load(mask + places, mask=here, other=0).to(scale.dtype.element_ty)
            tl.store(of_residual + places, inner.to(of_residual.dtype.element_ty), mask=here)
        elif ACTIVATION != "none":
            inner *= _slope(x * s + t, ACTIVATION)
        result = inner * s + offset[None, :] + slope[None, :] * x
        tl.store(of_maps + places, result.to(of_maps.dtype.element_ty), mask=here)


def tile(num_channels: int) -> tuple[int, int]:
    """Return rows and channels of a tile, powers of two."""
    width = min(triton.next_power_of_2(num_channels), _WIDEST)
    return _TILE // width, width


def known(num_channels: int) -> tuple[int, int]:
    """Return what kernels take as `num_channels` and `CHANNELS`."""
    return (16, num_channels) if num_channels % 16 else (num_channels, 0)


def grid(num_rows: int, num_channels: int, num_groups: int) -> tuple[int, int, int]:
    """Return programs per group and part of the channels, parts, and groups, for so many rows of each group."""
    rows, width = tile(num_channels)
    parts = triton.cdiv(num_channels, width)
    return min(triton.cdiv(num_rows, rows), max(1, _PROGRAMS // parts)), parts, num_groups


def normalise(
    maps: Tensor,
    residual: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    centre: Tensor,
    activation: str,
    num_groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Return outputs, gaps, variances and means, (G, C) each, and bytes where u > 0; maps are channels_last."""
    num_channels, num_rows = maps.shape[1], _rows(maps) // num_groups
    programs = grid(num_rows, num_channels, num_groups)
    has_mask = residual is not None and activation != "none"
    outputs = torch.empty_like(maps)
    mask = torch.empty_like(maps, dtype=torch.uint8) if has_mask else None
    sums = scale.new_empty((2, num_groups, programs[0], num_channels))
    gap, var, mean = scale.new_empty((3, num_groups, num_channels)).unbind()
    forward_kernel[programs](
        *(maps, residual, scale, shift, centre, outputs, mask, sums, num_rows, *known(num_channels)),
        *(activation, residual is not None, has_mask, True, *tile(num_channels)),
        **OPTIONS,
    )
    moments_kernel[triton.cdiv(num_channels, _REDUCED), num_groups](
        *(sums, centre, gap, var, mean, programs[0], num_rows, num_channels, _REDUCED),
        **OPTIONS,
    )
    return outputs, gap, var, mean, mask


def outputs_of(maps: Tensor, residual: Tensor | None, scale: Tensor, shift: Tensor, activation: str) -> Tensor:
    """Return the outputs alone."""
    num_channels = maps.shape[1]
    outputs = torch.empty_like(maps)
    forward_kernel[grid(_rows(maps), num_channels, 1)](
        *(maps, residual, scale, shift, shift, outputs, None, None, _rows(maps), *known(num_channels)),
        *(activation, residual is not None, False, False, *tile(num_channels)),
        **OPTIONS,
    )
    return outputs


def gradients(
    grad: Tensor,
    maps: Tensor,
    mask: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    moments: tuple[Tensor, Tensor, Tensor],  # means, and gradients of gaps and variances, (G, C) each
    activation: str,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of maps and, where there are bytes, of the residual; all maps are channels_last."""
    num_channels, num_groups = maps.shape[1], len(moments[0])
    num_rows = _rows(maps) // num_groups
    of_maps = torch.empty_like(maps)
    of_residual = None if mask is None else torch.empty_like(maps)
    backward_kernel[grid(num_rows, num_channels, num_groups)](
        *(grad, maps, mask, scale, shift, *(moment.contiguous() for moment in moments), of_maps, of_residual),
        *(num_rows, *known(num_channels), activation, mask is not None, *tile(num_channels)),
        **OPTIONS,
    )
    return of_maps, of_residual


def _rows(maps: Tensor) -> int:
    return maps.shape[0] * maps.shape[2] * maps.shape[3]
