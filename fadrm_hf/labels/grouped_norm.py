"""BatchNorm by the statistics of groups of consecutive images, so that one forward pass serves many micro-batches.

A network whose BatchNorm layers use batch statistics gives each micro-batch other results, so it seems to need a pass
for each. Only these layers look across images, though: where they normalise each group by its own statistics, all
other layers may see hundreds of images at once, and small feature maps no longer leave a processor idle.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Grouping:
    """The sizes of the groups of consecutive images that all layers of a network normalise by."""

    sizes: Sequence[int] = ()


class GroupedBatchNorm(nn.Module):
    """A BatchNorm layer whose input is normalised group by group; its running statistics stay what they were.

    Args:
        layer: A BatchNorm layer of any kind, which becomes part of this one.
        grouping: The groups of its inputs.
        at_once: Whether groups of one size share a few calls, where a call costs more than the memory it touches, as
            on a GPU; or each takes a call of its own, and stays in a processor's cache from the first to the last.
    """

    def __init__(self, layer: _BatchNorm, grouping: Grouping, at_once: bool) -> None:
        super().__init__()
        self.layer, self._grouping = layer.train(), grouping
        self.layer.momentum = 0.0
        self._at_once = at_once and type(layer) in (nn.BatchNorm2d, BatchNormAct2d)

    def forward(self, images: Tensor) -> Tensor:
        """(n, C, ...) features of all images of all groups -> the same, normalised."""
        sizes = self._grouping.sizes
        if not self._at_once:
            return torch.cat([self.layer(group) for group in images.split(list(sizes))])
        runs = [(size, len(list(run))) for size, run in groupby(sizes)]
        parts = images.split([size * number for size, number in runs])
        normalised = [self._equal_groups(part, size) for part, (size, _) in zip(parts, runs, strict=True)]
        features = torch.cat(normalised) if len(normalised) > 1 else normalised[0]
        return self.layer.act(self.layer.drop(features)) if isinstance(self.layer, BatchNormAct2d) else features

    def _equal_groups(self, images: Tensor, size: int) -> Tensor:
        """Normalise groups of `size` images by mean and biased variance, in fp32 at least."""
        num, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(num // size, size * height * width, channels)
        exact = rows.to(torch.promote_types(rows.dtype, torch.float32))  # (groups, positions, C)
        variance, mean = torch.var_mean(exact, dim=1, correction=0, keepdim=True)
        scale = (variance + self.layer.eps).rsqrt()
        scale = scale if self.layer.weight is None else scale * self.layer.weight
        shift = -mean * scale if self.layer.bias is None else self.layer.bias - mean * scale
        normalised = torch.addcmul(shift, exact, scale).to(images.dtype)
        return normalised.view(num, height, width, channels).permute(0, 3, 1, 2)


def use_group_statistics(network: nn.Module, at_once: bool = False) -> Grouping:
    """Let every BatchNorm layer of a network, in place, normalise groups of images by their own statistics.

    The mathematics is that of a forward pass for each group with BatchNorm layers in training mode, all others in
    evaluation mode, and a momentum of 0.

    Args:
        network: In evaluation mode, and no BatchNorm layer itself. Its BatchNorm layers must see one row per image, as
            those of convolutional networks do.
        at_once: See `GroupedBatchNorm`.

    Returns:
        The grouping, whose sizes must be set before each forward pass.
    """
    grouping = Grouping()
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, _BatchNorm) and not isinstance(parent, GroupedBatchNorm):
                setattr(parent, name, GroupedBatchNorm(layer, grouping, at_once))
    return grouping
