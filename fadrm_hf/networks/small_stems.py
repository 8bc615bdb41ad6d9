"""Networks of timm and torchvision that keep the resolution of small images in their first layers.

A 3x3 stem of stride 1 and no max-pooling: the "kuangliu" style in which the distillation papers train and test at 32
and 64 px. ShuffleNetV2 is torchvision's network behind timm's interface, with torchvision's parameter names.

References: ResNet https://arxiv.org/abs/1512.03385, DenseNet https://arxiv.org/abs/1608.06993,
MobileNetV2 https://arxiv.org/abs/1801.04381, ShuffleNetV2 https://arxiv.org/abs/1807.11164.
"""

from typing import Any

from timm.models._efficientnet_builder import decode_arch_def
from timm.models.densenet import DenseNet
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torchvision.models import shufflenetv2

from fadrm_hf.networks.convnets import TimmClassifier


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
    """ResNet of timm with a 3x3 stride-1 stem and without max-pooling."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        _open_stem(self, "conv1", "bn1", "maxpool", settings.get("in_chans", 3))
        _divide_reductions(self, 4)


class SmallStemDenseNet(DenseNet):
    """DenseNet of timm with a 3x3 stride-1 stem and without max-pooling."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        _open_stem(self.features, "conv0", "norm0", "pool0", settings.get("in_chans", 3))
        _divide_reductions(self, 4)


class SmallStemMobileNetV2(EfficientNet):
    """MobileNetV2 of timm whose stem and first reducing stage have stride 1."""

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


class ShuffleNetV2(TimmClassifier, shufflenetv2.ShuffleNetV2):
    """ShuffleNetV2 of torchvision behind timm's interface.

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

    def forward_features(
        self,
        x: Tensor,  # (B, 3, H, W) normalised
    ) -> Tensor:  # (B, D, h, w)
        """Return the last feature map."""
        x = self.maxpool(self.conv1(x))
        return self.conv5(self.stage4(self.stage3(self.stage2(x))))

    def forward_head(
        self,
        x: Tensor,  # (B, D, h, w)
        pre_logits: bool = False,
    ) -> Tensor:  # (B, C) logits, or (B, D) with `pre_logits`
        """Return the logits of a feature map, or its pooled features."""
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)
