"""Which layers of a network are matched, and their inputs as feature maps.

BatchNorm layers keep running statistics of what they were trained on. Every other layer has none, so theirs are
measured over the training set (`fadrm_hf.recovery.matching.gathering`): those of convolutions where a method asks for
them (G-VBSM, EDC), and those of convolutions and normalisations in a network without BatchNorm (AlexNet, InstanceNorm
ConvNets, ViT, ConvNeXt), which would otherwise have nothing to match.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Kind = Literal["bn", "conv", "norm"]
Receive = Callable[[Tensor, Tensor], None]  # moments of groups of images, (G, C) each, as of `channel_moments`
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)


@runtime_checkable
class GivesMoments(Protocol):
    """A BatchNorm layer that computes the moments of its input by itself.

    Attributes:
        receive: Is given them, about the running mean, in every pass with gradients.
        num_groups: How many groups of consecutive images have moments of their own.
    """

    receive: Receive | None
    num_groups: int


@dataclass(frozen=True, eq=False)
class Watched:
    """One layer whose input is matched.

    Attributes:
        name: Its name in the network.
        kind: What it is.
        layer: The layer itself.
    """

    name: str
    kind: Kind
    layer: nn.Module


def watched_layers(module: nn.Module, convolutions: bool = False) -> list[Watched]:
    """The layers of a network that are matched, in module order.

    Args:
        module: A classifier of images.
        convolutions: Whether convolutions are watched beside BatchNorm layers.

    Returns:
        BatchNorm layers (and convolutions); of a network without BatchNorm its convolutions and other normalisations.
    """
    found = [Watched(name, kind, layer) for name, layer in module.named_modules() if (kind := _kind_of(layer))]
    has_bn = any(watched.kind == "bn" for watched in found)
    kinds = {"bn", *(["conv"] if convolutions else [])} if has_bn else {"conv", "norm"}
    return [watched for watched in found if watched.kind in kinds]


def as_maps(layer: nn.Module, inputs: Tensor) -> Tensor:
    """A layer's input as feature maps (N, C, H, W).

    Tokens (N, T, C) become maps of T x 1 positions, features (N, C) maps of one. A LayerNorm's channels are the last
    axis, unless only the second has their number (ConvNeXt's norms of images).

    Args:
        layer: A watched layer.
        inputs: What it is given.
    """
    if isinstance(layer, nn.LayerNorm) and not _is_channels_first(layer, inputs):
        inputs = inputs.movedim(-1, 1)
    return inputs if inputs.ndim == 4 else inputs.reshape(*inputs.shape[:2], -1, 1)


def _is_channels_first(layer: nn.LayerNorm, inputs: Tensor) -> bool:
    channels = layer.normalized_shape[-1]
    return inputs.ndim == 4 and inputs.shape[1] == channels and inputs.shape[-1] != channels


def _kind_of(layer: nn.Module) -> Kind | None:
    if isinstance(layer, nn.BatchNorm2d):
        return "bn" if isinstance(layer.running_mean, torch.Tensor) else "norm"
    if isinstance(layer, nn.Conv2d):
        return "conv"
    return "norm" if isinstance(layer, _NORMS) else None
