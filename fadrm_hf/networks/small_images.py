"""Architectures that timm lacks, registered with timm when this module is imported.

Images of 64 px or less need networks that do not shrink their input in the first layers; these are in
`fadrm_hf.networks.released`, `fadrm_hf.networks.small_stems` and `fadrm_hf.networks.convnets`. The narrow ResNets are
for demos.
"""

from typing import Any, NamedTuple

import timm
import torchvision
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from fadrm_hf.config import LARGEST_SMALL_SIZE
from fadrm_hf.config.architectures import Implementation
from fadrm_hf.networks.convnets import ConvNet, SmallAlexNet, SmallVGG, WideResNet
from fadrm_hf.networks.released import (
    PointwiseShuffleNetV2,
    SmallDenseNet,
    SmallMobileNetV2,
    fill_zero_residuals,
    start_as_released,
)
from fadrm_hf.networks.small_stems import ShuffleNetV2, SmallStemDenseNet, SmallStemMobileNetV2, SmallStemResNet


class _Architecture(NamedTuple):
    """A network and its arguments; the names of its first and last layer, and the images that it is made for."""

    network: type[nn.Module]
    arguments: dict[str, Any]
    first_conv: str
    classifier: str = "fc"
    size: int = 32
    has_fixed_size: bool = False


def _resnet(block: type[nn.Module], *layers: int, **arguments: Any) -> _Architecture:
    return _Architecture(SmallStemResNet, {"block": block, "layers": layers, **arguments}, "conv1")


_TIMMS = {"mobilenet_v2": "mobilenetv2_100"}  # torchvision's names of networks that timm spells otherwise


def _shufflenet(*channels: int, size: int = 224, **arguments: Any) -> _Architecture:
    return _Architecture(ShuffleNetV2, {"channels": channels, **arguments}, "conv1.0", size=size)


def _convnet(size: int = 32, **arguments: Any) -> _Architecture:
    return _Architecture(ConvNet, arguments, "layers.0", size=size, has_fixed_size=True)


# A deep stem is timm's only way to begin with fewer than 64 channels; SmallStemResNet then puts one convolution there.
_NARROW: dict[str, Any] = {"channels": (16, 32, 64, 128), "stem_type": "deep", "stem_width": 8}
_HALF_WIDTH = (24, 48, 96, 192, 1024)  # channels of ShuffleNetV2 x0.5
_HALF_MOBILE = {"factor": 0.5, "stem_stride": 2, "projects_shortcuts": False}
_DENSE = {"growth_rate": 32, "block_config": (6, 12, 24, 16)}

_ARCHITECTURES = {
    "resnet18_small_stem": _resnet(BasicBlock, 2, 2, 2, 2),  # 11.2 M parameters
    "resnet50_small_stem": _resnet(Bottleneck, 3, 4, 6, 3),  # 23.5 M
    "resnet101_small_stem": _resnet(Bottleneck, 3, 4, 23, 3),  # 42.5 M
    "resnet10_narrow": _resnet(BasicBlock, 1, 1, 1, 1, **_NARROW),  # 0.3 M
    "resnet18_narrow": _resnet(BasicBlock, 2, 2, 2, 2, **_NARROW),  # 0.7 M
    "densenet121_small_stem": _Architecture(SmallStemDenseNet, _DENSE, "features.conv0", "classifier"),  # 7.0 M
    "densenet121_small": _Architecture(SmallDenseNet, _DENSE, "features.conv0", "classifier"),  # 7.0 M, FADRM's
    "mobilenetv2_100_small": _Architecture(SmallMobileNetV2, {}, "layers.0.0"),  # 2.3 M, FADRM's
    "mobilenetv2_050_small": _Architecture(SmallMobileNetV2, _HALF_MOBILE, "layers.0.0"),  # 0.7 M, G-VBSM's and EDC's
    "mobilenetv2_100_small_stem": _Architecture(SmallStemMobileNetV2, {}, "conv_stem", "classifier"),  # 2.2 M
    "shufflenet_v2_x0_5_small_stem": _shufflenet(*_HALF_WIDTH, size=32, small_stem=True),  # 0.4 M with ten classes
    "shufflenet_v2_x0_5_1x1_stem": _Architecture(  # 0.4 M, G-VBSM's and EDC's
        PointwiseShuffleNetV2, {"channels": _HALF_WIDTH}, "conv1.0"
    ),
    "shufflenet_v2_x0_5": _shufflenet(*_HALF_WIDTH),  # 1.4 M
    "shufflenet_v2_x1_0": _shufflenet(24, 116, 232, 464, 1024),  # 2.3 M
    "convnet1": _convnet(depth=1),  # "ConvNetD1", 0.3 M
    "convnet2": _convnet(depth=2),  # "ConvNetD2", 0.2 M
    "convnet3": _convnet(),  # "ConvNet", "ConvNetW128", 0.3 M
    "convnet3_narrow": _convnet(width=32),  # "ConvNetW32", 0.02 M
    "convnet3_bn": _convnet(norm=nn.BatchNorm2d),  # RDED's "Conv3", 0.3 M
    "convnet4_bn": _convnet(depth=4, norm=nn.BatchNorm2d, size=64),  # RDED's "Conv4", 0.5 M
    "alexnet_small": _Architecture(SmallAlexNet, {}, "layers.0", has_fixed_size=True),  # 1.9 M
    "vgg11_bn_small": _Architecture(SmallVGG, {}, "layers.0"),  # 9.2 M
    "vgg11_bn_narrow": _Architecture(SmallVGG, {"factor": 1 / 8}, "layers.0"),  # 8 to 64 channels, 0.1 M
    "wrn16_2": _Architecture(WideResNet, {"depth": 16, "factor": 2}, "layers.0"),  # 0.7 M
}


# The twins of networks whose released code for small images differs from timm's by more than its stem.
_RELEASED = {name: f"{name}_small" for name in ("mobilenetv2_100", "mobilenetv2_050", "densenet121")}


def create_network(
    library: str, architecture: str, num_classes: int, size: int, implementation: Implementation = "released"
) -> nn.Module:
    """Create an untrained network; its weights come from torch's global random state.

    Args:
        library: "timm" or "torchvision".
        architecture: The library's name; 64 px or less use the twin for small images where there is one.
        num_classes: Number of logits.
        size: Side of the images in pixels.
        implementation: Whose network it is where released code and library differ (`fadrm_hf.networks.released`).
    """
    twin = architecture_for(architecture, size, implementation)
    if library == "torchvision" and twin != small_variant(architecture, implementation):
        network: nn.Module = torchvision.models.get_model(architecture, num_classes=num_classes)
        return network
    network = timm.create_model(twin, num_classes=num_classes, **size_arguments(twin, size))
    if implementation == "released":
        start_as_released(network)
    elif library == "torchvision":
        fill_zero_residuals(network)
    return network


def architecture_for(name: str, size: int, implementation: Implementation = "released") -> str:
    """Return the timm architecture for `name` at `size` pixels: its twin up to 64 px where one exists."""
    small = small_variant(name, implementation)
    if small is not None and size <= LARGEST_SMALL_SIZE:
        return small
    return _TIMMS.get(name, name)


def is_registered_here(architecture: str) -> bool:
    """Return whether timm knows `architecture` only because this module was imported."""
    return architecture in _ARCHITECTURES


def small_variant(name: str, implementation: Implementation = "released") -> str | None:
    """Return the twin for small images of timm's or torchvision's architecture `name`; `None` where there is none."""
    base = _TIMMS.get(name, name)
    if implementation == "released" and base in _RELEASED:
        return _RELEASED[base]
    twin = f"{base}_small_stem"
    return twin if timm.is_model(twin) else None


def size_arguments(architecture: str, size: int) -> dict[str, Any]:
    """Return the arguments of `timm.create_model` for images of `size` pixels: networks of a fixed size need it."""
    config = timm.models.get_pretrained_cfg(architecture)
    is_other_size = config is not None and config.fixed_input_size and config.input_size[-1] != size
    return {"img_size": size} if is_other_size else {}


def _default_cfg(architecture: _Architecture) -> dict[str, Any]:
    """Describe an architecture to timm; weights carry their own normalisation, so ImageNet's is nominal."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, architecture.size, architecture.size),
        "fixed_input_size": architecture.has_fixed_size,
        "pool_size": None,
        "crop_pct": 0.875 if architecture.size > LARGEST_SMALL_SIZE else 1.0,
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": architecture.first_conv,
        "classifier": architecture.classifier,
    }


def _register(name: str, architecture: _Architecture) -> None:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build_model_with_cfg(architecture.network, name, pretrained, **{**architecture.arguments, **kwargs})

    create.__name__ = name  # which is what timm registers a function by
    register_model(create)


default_cfgs = generate_default_cfgs({name: _default_cfg(entry) for name, entry in _ARCHITECTURES.items()})
for _name, _entry in _ARCHITECTURES.items():
    _register(_name, _entry)
