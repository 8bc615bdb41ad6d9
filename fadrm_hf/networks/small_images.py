"""Architectures that timm lacks, registered with timm when this module is imported.

Small images (64 px or less) need networks that do not shrink their input in the first layers: a 3x3 stem of stride 1
and no max-pooling, the "kuangliu" style in which the distillation papers train and test at 32 and 64 px. ShuffleNetV2
is torchvision's network behind timm's factory, with torchvision's parameter names. The narrow ResNets are for demos.
ConvNets, AlexNet and WRN for small images are in `fadrm_hf.networks.convnets`, which importing this module registers
too.

References: ResNet https://arxiv.org/abs/1512.03385, DenseNet https://arxiv.org/abs/1608.06993,
MobileNetV2 https://arxiv.org/abs/1801.04381, ShuffleNetV2 https://arxiv.org/abs/1807.11164.
"""

from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.densenet import DenseNet
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn
from torchvision.models import shufflenetv2

from fadrm_hf.config import LARGEST_SMALL_SIZE
from fadrm_hf.networks import convnets


def architecture_for(name: str, size: int) -> str:
    """The timm architecture to use for `name` at `size` pixels: its small-stem twin up to 64 px where one exists."""
    small = small_variant(name)
    if small is not None and size <= LARGEST_SMALL_SIZE:
        return small
    return "mobilenetv2_100" if name == "mobilenet_v2" else name


def is_registered_here(architecture: str) -> bool:
    """Whether timm knows `architecture` only because this module was imported."""
    return architecture in default_cfgs or architecture in convnets.default_cfgs


def small_variant(name: str) -> str | None:
    """The small-stem twin of timm's or torchvision's architecture `name`, or `None` where there is none."""
    twin = {"mobilenet_v2": "mobilenetv2_100"}.get(name, name) + "_small_stem"
    return twin if timm.is_model(twin) else None


def size_arguments(architecture: str, size: int) -> dict[str, Any]:
    """What `timm.create_model` must be told for images of `size` pixels: transformers of a fixed size their size."""
    config = timm.models.get_pretrained_cfg(architecture)
    is_other_size = config is not None and config.fixed_input_size and config.input_size[-1] != size
    return {"img_size": size} if is_other_size else {}


def _open_stem(layers: Any, conv: str, norm: str, pool: str, in_channels: int) -> None:
    """Put a 3x3 convolution of stride 1 at `layers.conv`, and nothing at `layers.pool`."""
    stem = nn.Conv2d(in_channels, getattr(layers, norm).num_features, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    setattr(layers, conv, stem)
    setattr(layers, pool, nn.Identity())


def _divide_reductions(network: Any, factor: int) -> None:
    """Correct what `features_only=True` reports, since the stem no longer shrinks its input."""
    for info in network.feature_info:
        info["reduction"] = max(1, info["reduction"] // factor)


class SmallStemResNet(ResNet):
    """timm's ResNet with a 3x3 stride-1 stem and without max-pooling."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        _open_stem(self, "conv1", "bn1", "maxpool", settings.get("in_chans", 3))
        _divide_reductions(self, 4)


class SmallStemDenseNet(DenseNet):
    """timm's DenseNet with a 3x3 stride-1 stem and without max-pooling."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        _open_stem(self.features, "conv0", "norm0", "pool0", settings.get("in_chans", 3))
        _divide_reductions(self, 4)


class SmallStemMobileNetV2(EfficientNet):
    """timm's MobileNetV2 whose stem and first reducing stage have stride 1."""

    STAGES = (
        ["ds_r1_k3_s1_c16"],
        ["ir_r2_k3_s1_e6_c24"],  # stride 2 in the network for 224 px
        ["ir_r3_k3_s2_e6_c32"],
        ["ir_r4_k3_s2_e6_c64"],
        ["ir_r3_k3_s1_e6_c96"],
        ["ir_r3_k3_s2_e6_c160"],
        ["ir_r1_k3_s1_e6_c320"],
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(decode_arch_def(list(self.STAGES)), act_layer=nn.ReLU6, **settings)
        self.conv_stem.stride = (1, 1)
        _divide_reductions(self, 2)


class ShuffleNetV2(shufflenetv2.ShuffleNetV2):
    """torchvision's ShuffleNetV2 behind timm's factory.

    Args:
        channels: Output channels of the stem, the three stages and the last convolution.
        num_classes: Number of logits.
        in_chans: Channels of the input; timm passes 3, and only 3 is supported.
        global_pool: Pooling before the head; timm passes "avg", and only "avg" is supported.
        small_stem: Whether the stem keeps the resolution (stride 1, no max-pooling).
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        small_stem: bool = False,
    ) -> None:
        if in_chans != 3 or global_pool != "avg":
            raise ValueError(f"ShuffleNetV2 has in_chans 3 and global_pool 'avg', got {in_chans} and {global_pool!r}")
        super().__init__([4, 8, 4], list(channels), num_classes=num_classes)
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = channels[-1]
        if small_stem:
            self.conv1[0].stride = (1, 1)
            self.maxpool = nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The layer that gives the logits."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the layer that gives the logits; 0 classes leaves the features."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(
        self,
        x: Tensor,  # (B, 3, H, W) normalised
    ) -> Tensor:  # (B, D, h, w)
        """The last feature map."""
        x = self.maxpool(self.conv1(x))
        return self.conv5(self.stage4(self.stage3(self.stage2(x))))

    def forward_head(
        self,
        x: Tensor,  # (B, D, h, w)
        pre_logits: bool = False,
    ) -> Tensor:  # (B, C) logits, or (B, D) with `pre_logits`
        """Pooled features, and their logits."""
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def forward(
        self,
        x: Tensor,  # (B, 3, H, W) normalised
    ) -> Tensor:  # (B, C) logits
        """Logits of a batch."""
        return self.forward_head(self.forward_features(x))


def _defaults(size: int, first_conv: str, classifier: str) -> dict[str, Any]:
    """What timm wants to know of an architecture; weights carry their own normalisation, so ImageNet's is nominal."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, size, size),
        "pool_size": None,
        "crop_pct": 0.875 if size > LARGEST_SMALL_SIZE else 1.0,
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": first_conv,
        "classifier": classifier,
    }


default_cfgs = generate_default_cfgs(
    {
        "resnet18_small_stem": _defaults(32, "conv1", "fc"),
        "resnet50_small_stem": _defaults(32, "conv1", "fc"),
        "resnet101_small_stem": _defaults(32, "conv1", "fc"),
        "resnet10_narrow": _defaults(32, "conv1", "fc"),
        "resnet18_narrow": _defaults(32, "conv1", "fc"),
        "densenet121_small_stem": _defaults(32, "features.conv0", "classifier"),
        "mobilenetv2_100_small_stem": _defaults(32, "conv_stem", "classifier"),
        "shufflenet_v2_x0_5_small_stem": _defaults(32, "conv1.0", "fc"),
        "shufflenet_v2_x0_5": _defaults(224, "conv1.0", "fc"),
        "shufflenet_v2_x1_0": _defaults(224, "conv1.0", "fc"),
    }
)


def _build(network: type[nn.Module], variant: str, pretrained: bool, fixed: dict[str, Any], given: Any) -> nn.Module:
    return build_model_with_cfg(network, variant, pretrained, **{**fixed, **given})


@register_model
def resnet18_small_stem(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-18 for small images, 11.2 M parameters."""
    layers = {"block": BasicBlock, "layers": (2, 2, 2, 2)}
    return _build(SmallStemResNet, "resnet18_small_stem", pretrained, layers, kwargs)


@register_model
def resnet50_small_stem(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-50 for small images, 23.5 M parameters."""
    layers = {"block": Bottleneck, "layers": (3, 4, 6, 3)}
    return _build(SmallStemResNet, "resnet50_small_stem", pretrained, layers, kwargs)


@register_model
def resnet101_small_stem(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-101 for small images, 42.5 M parameters."""
    layers = {"block": Bottleneck, "layers": (3, 4, 23, 3)}
    return _build(SmallStemResNet, "resnet101_small_stem", pretrained, layers, kwargs)


# A deep stem is timm's only way to begin with fewer than 64 channels; SmallStemResNet then puts one convolution there.
_NARROW = {"block": BasicBlock, "channels": (16, 32, 64, 128), "stem_type": "deep", "stem_width": 8}


@register_model
def resnet10_narrow(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet of one block per stage and 16 to 128 channels for small images, 0.3 M parameters."""
    return _build(SmallStemResNet, "resnet10_narrow", pretrained, {**_NARROW, "layers": (1, 1, 1, 1)}, kwargs)


@register_model
def resnet18_narrow(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet of two blocks per stage and 16 to 128 channels for small images, 0.7 M parameters."""
    return _build(SmallStemResNet, "resnet18_narrow", pretrained, {**_NARROW, "layers": (2, 2, 2, 2)}, kwargs)


@register_model
def densenet121_small_stem(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """DenseNet-121 of growth 32 for small images, 7.0 M parameters."""
    blocks = {"growth_rate": 32, "block_config": (6, 12, 24, 16)}
    return _build(SmallStemDenseNet, "densenet121_small_stem", pretrained, blocks, kwargs)


@register_model
def mobilenetv2_100_small_stem(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """MobileNetV2 for small images, 2.2 M parameters."""
    return _build(SmallStemMobileNetV2, "mobilenetv2_100_small_stem", pretrained, {}, kwargs)


@register_model
def shufflenet_v2_x0_5(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """torchvision's ShuffleNetV2 of half width, 1.4 M parameters."""
    return _build(ShuffleNetV2, "shufflenet_v2_x0_5", pretrained, {"channels": (24, 48, 96, 192, 1024)}, kwargs)


@register_model
def shufflenet_v2_x1_0(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """torchvision's ShuffleNetV2, 2.3 M parameters."""
    return _build(ShuffleNetV2, "shufflenet_v2_x1_0", pretrained, {"channels": (24, 116, 232, 464, 1024)}, kwargs)


@register_model
def shufflenet_v2_x0_5_small_stem(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ShuffleNetV2 of half width for small images, 0.4 M parameters at ten classes."""
    fixed = {"channels": (24, 48, 96, 192, 1024), "small_stem": True}
    return _build(ShuffleNetV2, "shufflenet_v2_x0_5_small_stem", pretrained, fixed, kwargs)
