"""The layers of a network whose inputs are matched, and these inputs as feature maps.

BatchNorm layers keep running statistics of what they were trained on. Every other layer has none, so theirs are
measured over the training set (`fadrm_hf.recovery.matching.gathering`): those of convolutions where a method asks for
them (G-VBSM, EDC), and those of convolutions and normalisations in a network without BatchNorm (AlexNet, InstanceNorm
ConvNets, ViT, ConvNeXt), which would otherwise have nothing to match.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Kind = Literal["bn", "conv", "norm"]
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)


@dataclass(frozen=True, eq=False)
class MatchedLayer:
    """A layer whose input is matched, its name in the network, and its kind."""

    name: str
    kind: Kind
    layer: nn.Module


def matched_layers(module: nn.Module, convolutions: bool = False) -> list[MatchedLayer]:
    """Return the layers of a network that are matched, in module order.

    Args:
        module: A classifier of images.
        convolutions: Whether convolutions are matched beside BatchNorm layers.

    Returns:
        BatchNorm layers (and convolutions); of a network without BatchNorm its convolutions and other normalisations.
    """
    layers = [MatchedLayer(name, kind, layer) for name, layer in module.named_modules() if (kind := _kind_of(layer))]
    has_bn = any(layer.kind == "bn" for layer in layers)
    kinds = {"bn", *(["conv"] if convolutions else [])} if has_bn else {"conv", "norm"}
    return [layer for layer in layers if layer.kind in kinds]


def as_maps(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return the input of a matched layer as feature maps (N, C, H, W).

    Tokens (N, T, C) become maps of T x 1 positions, features (N, C) maps of one. A LayerNorm's channels are the last
    axis, unless only the second has their number (ConvNeXt's norms of images).
    """
    if isinstance(layer, nn.LayerNorm) and not _is_channels_first(layer, inputs):
        inputs = inputs.movedim(-1, 1)
    return inputs if inputs.ndim == 4 else inputs.reshape(*inputs.shape[:2], -1, 1)


def _is_channels_first(layer: nn.LayerNorm, inputs: Tensor) -> bool:
    channels = layer.normalized_shape[-1]
    return inputs.ndim == 4 and inputs.shape[1] == channels and inputs.shape[-1] != channels


def _kind_of(layer: nn.Module) -> Kind | None:
    if isinstance(layer, nn.BatchNorm2d):
        return "bn" if isinstance(layer.running_mean, Tensor) else "norm"
    if isinstance(layer, nn.Conv2d):
        return "conv"
    return "norm" if isinstance(layer, _NORMS) else None
