"""A convolution with fixed weights, which are laid out for the machine it runs on."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from fadrm_hf.runtime.number_format import is_native

Pair = tuple[int, int]

_ONEDNN_TYPES = (torch.float32, torch.bfloat16)


class Geometry:
    """A convolution with fixed weights (O, I / groups, h, w), channels_last, and zeros for padding.

    In a format that the machine has no instructions for, products are computed in fp32 from the rounded numbers, and
    rounded once: that is what such instructions do, and it is as fast as fp32.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
    ) -> None:
        self.weight, self.bias = weight, bias
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self._packed: tuple[torch.Size, Tensor] | None = None
        self._in_fp32: Geometry | None = None
        if not is_native(weight.dtype, weight.device.type):
            wide_bias = None if bias is None else bias.float()
            self._in_fp32 = Geometry(weight.float(), wide_bias, stride, padding, dilation, groups)

    def __call__(self, images: Tensor) -> Tensor:
        """(N, I, H, W), channels_last -> (N, O, h, w)."""
        if self._in_fp32 is not None:
            return self._in_fp32(images.float()).to(images.dtype)
        if not _packs(images):
            return F.conv2d(images, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        settings = [list(pair) for pair in (self.padding, self.stride, self.dilation)]
        if self._packed is None or self._packed[0] != images.shape:
            pack = torch.ops.mkldnn._reorder_convolution_weight
            self._packed = images.shape, pack(self.weight, *settings, self.groups, list(images.shape))
        convolve = torch.ops.mkldnn._convolution_pointwise
        packed = self._packed[1]
        return cast(Tensor, convolve(images, packed, self.bias, *settings, self.groups, "none", [], ""))

    def gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """Return the gradient of inputs of `shape` (N, I, H, W) for that of the outputs, by torch's own function."""
        if self._in_fp32 is not None:
            return self._in_fp32.gradient(grad.float(), shape).to(grad.dtype)
        if grad.device.type != "cpu":
            return self.transposed_gradient(grad, shape)
        images = grad.new_empty(1).expand(shape)  # only its shape is read
        settings = [list(pair) for pair in (self.stride, self.padding, self.dilation)]
        gradients = torch.ops.aten.convolution_backward(
            grad, images, self.weight, None, *settings, False, [0, 0], self.groups, [True, False, False]
        )
        return cast(Tensor, gradients[0])

    def transposed_gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """Return what `gradient` returns as a transposed convolution: on a GPU one kernel, and no copy of `grad`.

        `convolution_backward` looks at the layout of the inputs, which are not kept, and would first copy the
        gradient into the layout of what stands in for them.
        """
        inputs, outputs, kernel = shape[2:], grad.shape[2:], self.weight.shape[2:]
        axes = zip(inputs, outputs, self.stride, self.padding, self.dilation, kernel, strict=True)
        rest = [size - ((out - 1) * s - 2 * p + d * (k - 1) + 1) for size, out, s, p, d, k in axes]
        settings = [list(pair) for pair in (self.stride, self.padding, self.dilation)]
        transpose = torch.ops.aten.convolution
        return cast(Tensor, transpose(grad, self.weight, None, *settings, True, rest, self.groups))

    def transposed(self) -> "Geometry | None":
        """Return the convolution that takes gradients of outputs to gradients of inputs, if there is one."""
        height, width = self.weight.shape[2:]
        padding = [d * (k - 1) - p for d, k, p in zip(self.dilation, (height, width), self.padding, strict=True)]
        if self.stride != (1, 1) or min(padding) < 0:
            return None
        grouped = self.weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)
        weight = grouped.flip((2, 3)).contiguous(memory_format=torch.channels_last)
        return Geometry(weight, None, (1, 1), (padding[0], padding[1]), self.dilation, self.groups)


def _packs(images: Tensor) -> bool:
    return images.device.type == "cpu" and images.dtype in _ONEDNN_TYPES and torch.backends.mkldnn.is_available()
