"""Convolutions whose weights get no gradient: the backward pass needs the weights alone, so no input is kept.

Where the stride is 1 the gradient is itself a convolution, with the flipped and transposed weights. On a CPU both are
laid out once as oneDNN wants them, and not anew in every call.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from fadrm_hf.networks.fused.geometry import Geometry, Pair
from fadrm_hf.networks.fused.stem import BlockGradient


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, forwards: Geometry, backwards: Geometry | BlockGradient | None) -> Tensor:
        ctx.shape, ctx.forwards, ctx.backwards = images.shape, forwards, backwards
        return forwards(images)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        if isinstance(ctx.backwards, BlockGradient):
            return ctx.backwards(grad, ctx.shape), None, None
        if ctx.backwards is not None:
            return ctx.backwards(grad), None, None
        return ctx.forwards.gradient(grad, ctx.shape), None, None


def _gradient_of(convolution: Geometry) -> Geometry | BlockGradient | None:
    """Return what takes gradients of outputs to gradients of inputs, where that is a convolution too."""
    return BlockGradient(convolution) if BlockGradient.fits(convolution) else convolution.transposed()


class FrozenConv2d(nn.Conv2d):
    """A convolution of a frozen network; keeps no input and gets no gradient of its weights.

    Args:
        layer: The layer that it replaces, on its device and in its format. Padding is zeros.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        assert not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
        nn.Module.__init__(self)
        self.__dict__.update({k: v for k, v in vars(layer).items() if k not in ("_parameters", "_forward_pre_hooks")})
        weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)
        bias = None if layer.bias is None else layer.bias.detach()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        geometry = cast("tuple[Pair, Pair, Pair]", (layer.stride, layer.padding, layer.dilation))
        self._forwards = Geometry(weight, bias, *geometry, layer.groups)
        # On a GPU the library's own backward pass chooses better than we could.
        self._backwards = _gradient_of(self._forwards) if weight.device.type == "cpu" else None

    def forward(self, images: Tensor) -> Tensor:
        """(N, I, H, W) -> (N, O, h, w)."""
        images = images.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, _Convolve.apply(images, self._forwards, self._backwards))
