"""The gradient of a network's first convolution, whose three input channels leave vector instructions mostly idle.

It is computed for blocks of 2 x 2 pixels at once, as a convolution of the outputs' gradient with four times as many
output channels, of which pixels are then unshuffled. For kernel k, padding p, stride s and pixel 2 u + r of a row,

    dx[2 u + r] = sum_d g[(2 / s) u + d] w[r + p - s d],    0 <= r + p - s d < k.
"""

from math import ceil, floor

import torch
import torch.nn.functional as F
from torch import Tensor

from fadrm_hf.networks.fused.geometry import Geometry

_BLOCK = 2
_FEW_CHANNELS = 4  # with these four times as many fit into one vector


class BlockGradient:
    """A function from gradients of outputs to gradients of images, for a first convolution that `fits`."""

    def __init__(self, convolution: Geometry) -> None:
        self._stride = _BLOCK // convolution.stride[0]
        weight, padding, stride = convolution.weight, convolution.padding[0], convolution.stride[0]
        kernel = weight.shape[2]
        self._first = ceil((padding - kernel + 1) / stride)  # least and largest d that a pixel of a block reads
        self._last = floor((_BLOCK - 1 + padding) / stride)
        taps = self._last - self._first + 1
        blocks = weight.new_zeros((weight.shape[1], _BLOCK, _BLOCK, weight.shape[0], taps, taps))
        reads = [  # r, place of d among the taps, place in the kernel
            (r, d - self._first, r + padding - stride * d)
            for r in range(_BLOCK)
            for d in range(self._first, self._last + 1)
            if 0 <= r + padding - stride * d < kernel
        ]
        for row, down, y in reads:
            for column, right, x in reads:
                blocks[:, row, column, :, down, right] = weight[:, :, y, x].T
        self._weight = blocks.flatten(0, 2).contiguous(memory_format=torch.channels_last)
        self._convolutions: dict[int, Geometry] = {}

    @staticmethod
    def fits(convolution: Geometry) -> bool:
        """Return whether a convolution is square, undilated, of few channels, and of stride 1 or 2."""
        weight = convolution.weight
        return (
            weight.shape[1] <= _FEW_CHANNELS
            and weight.shape[2] == weight.shape[3]
            and convolution.groups == 1
            and convolution.dilation == (1, 1)
            and convolution.stride in ((1, 1), (2, 2))
            and convolution.padding[0] == convolution.padding[1] < weight.shape[2]
        )

    def __call__(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """Return the gradient of images of `shape` (N, I, H, W) from that of the outputs (N, O, h, w)."""
        margins = [self._margins(*lengths) for lengths in zip(shape[2:], grad.shape[2:], strict=True)]
        padding = max(max(pair) for pair in margins)
        if self._stride > 1 and any(pair[0] != padding or pair[1] > padding for pair in margins):
            before, after = -self._first, max(pair[1] for pair in margins)
            grad, padding = F.pad(grad, (before, after, before, after)), 0
            skip = 0
        else:
            skip = padding + self._first
        blocks = self._convolve(grad, padding)[:, :, skip:, skip:]
        return F.pixel_shuffle(blocks, _BLOCK)[:, :, : shape[2], : shape[3]]

    def _margins(self, length: int, outputs: int) -> tuple[int, int]:
        """Return how many zeros are read before and after a row of outputs."""
        num_blocks = ceil(length / _BLOCK)
        return -self._first, max(0, self._stride * (num_blocks - 1) + self._last - (outputs - 1))

    def _convolve(self, grad: Tensor, padding: int) -> Tensor:
        if padding not in self._convolutions:
            stride = (self._stride, self._stride)
            self._convolutions[padding] = Geometry(self._weight, None, stride, (padding, padding), (1, 1), 1)
        return self._convolutions[padding](grad)
