"""Targets: a layer's statistics of the real images, which a batch of distilled images is matched to."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Goal:
    """Statistics of n channels or blocks that are to be reached."""

    mean: Tensor  # (n,) of all training images
    var: Tensor
    class_mean: Tensor | None  # (K, n) of each class's images
    class_var: Tensor | None


@dataclass(frozen=True, eq=False)
class Targets:
    """Statistics of one layer's input over the training images, float32; variances are biased.

    Those of blocks are over images, channels and the positions of each block of the map (G-VBSM's patches).
    """

    mean: Tensor  # (C,) of each channel
    var: Tensor
    block_mean: Tensor | None = None  # (P,) of each block
    block_var: Tensor | None = None
    class_mean: Tensor | None = None  # (K, C) of each class's images
    class_var: Tensor | None = None
    class_block_mean: Tensor | None = None  # (K, P)
    class_block_var: Tensor | None = None

    @property
    def channels(self) -> Goal:
        """Means and variances of channels."""
        return Goal(self.mean, self.var, self.class_mean, self.class_var)

    @property
    def blocks(self) -> Goal | None:
        """Means and variances of blocks, if they were measured."""
        if self.block_mean is None or self.block_var is None:
            return None
        return Goal(self.block_mean, self.block_var, self.class_block_mean, self.class_block_var)

    def tensors(self) -> dict[str, Tensor]:
        """Return the statistics that there are, by name."""
        return {item.name: value for item in fields(self) if (value := getattr(self, item.name)) is not None}

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Targets":
        """Apply `function` to every tensor."""
        return Targets(**{name: function(value) for name, value in self.tensors().items()})

    def with_running(self, layer: nn.BatchNorm2d) -> "Targets":
        """Put a BatchNorm layer's own running statistics in place of the global ones."""
        running = running_targets(layer)
        return replace(self, mean=running.mean, var=running.var)


def running_targets(layer: nn.BatchNorm2d) -> Targets:
    """Return the running statistics of a BatchNorm layer."""
    assert isinstance(layer.running_mean, Tensor) and isinstance(layer.running_var, Tensor)
    return Targets(mean=layer.running_mean.detach(), var=layer.running_var.detach())
