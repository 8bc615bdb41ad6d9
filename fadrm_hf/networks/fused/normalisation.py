"""BatchNorm in eval mode, residual, activation and channel statistics: one pass over the map each way.

    u = s x + t + r,  y = act(u),  s = gamma / sqrt(RV + eps),  t = beta - s RM

with moments of x itself. Those are differentiable: their gradient with respect to x is affine per channel, a_c + b_c
x, so the backward pass reads the map once, together with the gradient of the output, and nothing but x is kept: the
activation's derivative is computed again. Only a residual needs one byte per element more, the sign of u.

The kernels see maps as (N, P, C), positions before channels, as channels_last stores them. Those of a CPU are compiled
by torch, those of a GPU are written in Triton (`gpu_kernels`).
"""

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from fadrm_hf.networks.moments import affine_gradient
from fadrm_hf.runtime.compilation import compiled

MomentsCallback = Callable[[Tensor, Tensor], None]  # gaps and variances of groups of images, (G, C) each


class Activation(NamedTuple):
    """A pointwise function and its derivative."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def _silu_slope(u: Tensor) -> Tensor:
    gate = torch.sigmoid(u)
    return gate * (1.0 + u * (1.0 - gate))


ACTIVATIONS: dict[str, Activation] = {
    "none": Activation(lambda u: u, torch.ones_like),
    "relu": Activation(F.relu, lambda u: (u > 0).to(u.dtype)),
    "relu6": Activation(F.relu6, lambda u: ((u > 0) & (u < 6)).to(u.dtype)),
    "silu": Activation(F.silu, _silu_slope),
}
WITH_RESIDUAL = ("none", "relu")  # those whose derivative after a residual follows from the sign of u

_OF_MODULES = {nn.Identity: "none", nn.ReLU: "relu", nn.ReLU6: "relu6", nn.SiLU: "silu"}


def activation_of(module: nn.Module) -> str | None:
    """Return the name of a module among `ACTIVATIONS`, if it is one."""
    return _OF_MODULES.get(type(module))


@cache
def _forward_kernel(activation: str, has_residual: bool) -> Callable[..., tuple[Tensor, ...]]:
    """Return (N, C, H, W) maps -> outputs; (N, C) sums and sums of squares over positions, about a centre; bytes.

    Bytes tell where u > 0; there are some with a residual and an activation only.
    """
    value = ACTIVATIONS[activation].value

    def forward(maps: Tensor, residual: Tensor | None, scale: Tensor, shift: Tensor, centre: Tensor) -> Any:
        precise = _positions_first(maps).to(centre.dtype)  # (N, P, C)
        gap = precise - centre
        u = precise * scale + shift
        if residual is not None:
            u = u + _positions_first(residual).to(centre.dtype)
        sums = gap.sum(1), gap.square().sum(1)
        # Bytes by way of floats: torch's C++ has vector instructions for that, and none for truth values.
        mask = ((u > 0).to(u.dtype).to(torch.uint8),) if has_residual and activation != "none" else ()
        return _channels_first(value(u).to(maps.dtype), maps.shape), *sums, *mask

    return compiled(forward, dynamic=True)


@cache
def _value_kernel(activation: str, has_residual: bool) -> Callable[..., Tensor]:
    """Return (N, C, H, W) maps -> outputs alone."""
    value = ACTIVATIONS[activation].value

    def forward(maps: Tensor, residual: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
        u = _positions_first(maps).to(scale.dtype) * scale + shift
        if residual is not None:
            u = u + _positions_first(residual).to(scale.dtype)
        return _channels_first(value(u).to(maps.dtype), maps.shape)

    return compiled(forward, dynamic=True)


@cache
def _backward_kernel(activation: str, has_residual: bool) -> Callable[..., tuple[Tensor, ...]]:
    """Return what gives the gradients of map and residual from that of the output and from a and b, (N, 1, C) each."""
    slope = ACTIVATIONS[activation].slope

    def backward(
        grad: Tensor,
        maps: Tensor,
        mask: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        offset: Tensor,
        factor: Tensor,
    ) -> Any:
        precise, inner = _positions_first(maps).to(scale.dtype), _positions_first(grad).to(scale.dtype)
        if mask is not None:
            inner = inner * mask.to(scale.dtype)
        elif activation != "none":
            inner = inner * slope(precise * scale + shift)
        of_maps = inner * scale + offset + factor * precise
        gradients = (of_maps, inner) if has_residual and activation != "none" else (of_maps,)
        return tuple(_channels_first(gradient.to(maps.dtype), maps.shape) for gradient in gradients)

    return compiled(backward, dynamic=True)


class _Normalise(torch.autograd.Function):
    """Return y, and the moments of x about a centre; see `channel_moments`."""

    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        residual: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        centre: Tensor,
        activation: str,
        num_groups: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        maps, residual = _channels_last(maps), None if residual is None else _channels_last(residual)
        if maps.is_cuda:
            y, gap, var, mean, mask = _gpu().normalise(maps, residual, scale, shift, centre, activation, num_groups)
            masks = [] if mask is None else [mask]
        else:
            kernel = _forward_kernel(activation, residual is not None)
            y, sums, squares, *masks = kernel(maps, residual, scale, shift, centre)
            count = len(maps) // num_groups * maps.shape[2] * maps.shape[3]
            gap, power = (part.unflatten(0, (num_groups, -1)).sum(1) / count for part in (sums, squares))
            var, mean = power - gap.square(), gap + centre
        ctx.save_for_backward(maps, scale, shift, mean, *masks)
        ctx.activation, ctx.has_residual = activation, residual is not None
        return y, gap, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        maps, scale, shift, mean, *masks = ctx.saved_tensors
        grad, mask = _channels_last(grads[0]), masks[0] if masks else None
        if maps.is_cuda:
            moments = mean, grads[1], grads[2]
            of_maps, inner = _gpu().gradients(grad, maps, mask, scale, shift, moments, ctx.activation)
        else:
            count = len(maps) // len(mean) * maps.shape[2] * maps.shape[3]
            affine = affine_gradient(grads[1], grads[2], mean, count)
            of_images = [part.repeat_interleave(len(maps) // len(part), 0)[:, None] for part in affine]
            kernel = _backward_kernel(ctx.activation, ctx.has_residual)
            of_maps, *rest = kernel(grad, maps, mask, scale, shift, *of_images)
            inner = rest[0] if rest else None
        of_residual = (grads[0] if inner is None else inner) if ctx.has_residual else None
        return of_maps, of_residual, None, None, None, None, None


def _gpu() -> ModuleType:
    """Return the kernels of a GPU, which need Triton."""
    from fadrm_hf.networks.fused import gpu_kernels

    return gpu_kernels


def _channels_last(maps: Tensor) -> Tensor:
    """Lay maps out for a kernel, which has nothing to do with their history."""
    return maps.detach().contiguous(memory_format=torch.channels_last)


def _positions_first(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C)."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def _channels_first(values: Tensor, shape: torch.Size) -> Tensor:
    """(N, H * W, C) -> (N, C, H, W) of `shape`."""
    return values.unflatten(1, shape[2:]).permute(0, 3, 1, 2)


class FrozenNorm2d(nn.BatchNorm2d):
    """A BatchNorm layer of a frozen network, with what follows it.

    Args:
        layer: The layer that it replaces, in eval mode, with running statistics.
        activation: What follows, one of `ACTIVATIONS`.

    Attributes:
        moments_callback: Called, if set, with the moments of the layer's input about its running mean
            (`channel_moments`), in every pass with gradients.
        num_groups: How many groups of consecutive images have moments of their own.
    """

    def __init__(self, layer: nn.BatchNorm2d, activation: str) -> None:
        super().__init__(layer.num_features, layer.eps, affine=False)
        assert isinstance(layer.running_mean, Tensor) and isinstance(layer.running_var, Tensor)
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        scale = (layer.running_var + layer.eps).rsqrt()
        scale = scale if layer.weight is None else scale * layer.weight.detach()
        shift = -scale * layer.running_mean
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift if layer.bias is None else shift + layer.bias.detach())
        self.activation = activation
        self.moments_callback: MomentsCallback | None = None
        self.num_groups = 1
        self.eval()

    def forward(self, maps: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return act(BN(maps) + residual), all (N, C, H, W)."""
        scale, shift = cast(Tensor, self.scale), cast(Tensor, self.shift)
        if not torch.is_grad_enabled():
            maps, other = _channels_last(maps), None if residual is None else _channels_last(residual)
            if maps.is_cuda:
                return _gpu().outputs_of(maps, other, scale, shift, self.activation)
            return _value_kernel(self.activation, residual is not None)(maps, other, scale, shift)
        y, gap, var = _Normalise.apply(
            maps, residual, scale, shift, self.running_mean, self.activation, self.num_groups
        )
        if self.moments_callback is not None:
            self.moments_callback(gap, var)
        return cast(Tensor, y)

    def extra_repr(self) -> str:
        """Return channels and activation, for printing."""
        return f"{self.num_features}, activation={self.activation}"


def activation_inside(layer: nn.BatchNorm2d) -> str | None:
    """Return the activation inside a normalisation layer of timm; "none" for plain BatchNorm; `None` if unknown."""
    if type(layer) is nn.BatchNorm2d:
        return "none"
    if isinstance(layer, BatchNormAct2d) and isinstance(layer.drop, nn.Identity):
        return activation_of(layer.act)
    return None
