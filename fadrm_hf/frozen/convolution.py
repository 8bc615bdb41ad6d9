"""Convolutions whose weights get no gradient: the backward pass needs the weights alone, so no input is kept.

Where the stride is 1 the gradient is itself a convolution, with the flipped and transposed weights. On a CPU both are
laid out once as oneDNN wants them, and not anew in every call.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]

_ONEDNN_TYPES = (torch.float32, torch.bfloat16)


class _Geometry:
    """One convolution: its weights, and where it reads.

    Args:
        weight: (O, I / groups, h, w), channels_last.
        bias: (O,) or none.
        stride: Of rows and columns, likewise the rest.
        padding: Zeros on each side.
        dilation: Distance of taps.
        groups: Number of groups of channels.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
    ) -> None:
        self.weight, self.bias = weight, bias
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self._packed: tuple[torch.Size, Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        if not _packs(images):
            return F.conv2d(images, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        settings = [list(pair) for pair in (self.padding, self.stride, self.dilation)]
        if self._packed is None or self._packed[0] != images.shape:
            pack = torch.ops.mkldnn._reorder_convolution_weight
            self._packed = images.shape, pack(self.weight, *settings, self.groups, list(images.shape))
        convolve = torch.ops.mkldnn._convolution_pointwise
        packed = self._packed[1]
        return cast(Tensor, convolve(images, packed, self.bias, *settings, self.groups, "none", [], ""))

    def transposed(self) -> "_Geometry | None":
        """The convolution that takes gradients of outputs to gradients of inputs, if there is one."""
        height, width = self.weight.shape[2:]
        padding = [d * (k - 1) - p for d, k, p in zip(self.dilation, (height, width), self.padding, strict=True)]
        if self.stride != (1, 1) or min(padding) < 0:
            return None
        grouped = self.weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)
        weight = grouped.flip((2, 3)).contiguous(memory_format=torch.channels_last)
        return _Geometry(weight, None, (1, 1), (padding[0], padding[1]), self.dilation, self.groups)


def _packs(images: Tensor) -> bool:
    return images.device.type == "cpu" and images.dtype in _ONEDNN_TYPES and torch.backends.mkldnn.is_available()


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, forwards: _Geometry, backwards: _Geometry | None) -> Tensor:
        ctx.shape, ctx.forwards, ctx.backwards = images.shape, forwards, backwards
        return forwards(images)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad, one = grads[0].contiguous(memory_format=torch.channels_last), ctx.forwards
        if ctx.backwards is not None:
            return ctx.backwards(grad), None, None
        images = grad.new_empty(1).expand(ctx.shape)  # only its shape is read
        settings = [list(pair) for pair in (one.stride, one.padding, one.dilation)]
        found = torch.ops.aten.convolution_backward(
            grad, images, one.weight, None, *settings, False, [0, 0], one.groups, [True, False, False]
        )
        return found[0], None, None


class FrozenConv2d(nn.Conv2d):
    """A convolution of a frozen network; keeps no input and gets no gradient of its weights.

    Args:
        layer: The layer as it was, on its device and in its format. Padding is zeros.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        assert not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
        nn.Module.__init__(self)
        self.__dict__.update({k: v for k, v in vars(layer).items() if k not in ("_parameters", "_forward_pre_hooks")})
        weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)
        bias = None if layer.bias is None else layer.bias.detach()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        places = cast("tuple[Pair, Pair, Pair]", (layer.stride, layer.padding, layer.dilation))
        self._forwards = _Geometry(weight, bias, *places, layer.groups)
        # On a GPU the library's own backward pass chooses better than we could.
        self._backwards = self._forwards.transposed() if weight.device.type == "cpu" else None

    def forward(self, images: Tensor) -> Tensor:
        """(N, I, H, W) -> (N, O, h, w)."""
        images = images.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, _Convolve.apply(images, self._forwards, self._backwards))
