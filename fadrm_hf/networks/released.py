"""Small networks of the papers' released code, where those of timm and torchvision differ; and how networks start.

Released code: Jiacheng8/FADRM @ f445e38 and Jiacheng8/CV-DD @ 24097e9 (MobileNetV2, DenseNet-121),
shaoshitong/EDC @ 80116a7 and shaoshitong/G_VBSM_Dataset_Condensation @ 1ed80b0 (MobileNetV2 of half width,
ShuffleNetV2). Read for facts, not copied.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from fadrm_hf.networks.convnets import MapClassifier
from fadrm_hf.networks.small_stems import ShuffleNetV2, SmallStemDenseNet, SmallStemResNet

_STAGES = (  # expansion, channels, blocks, stride; the second has stride 2 in the network for 224 px
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """A 1x1 convolution that expands, a depthwise 3x3 and a 1x1 that projects, each with BatchNorm; ReLU, not ReLU6.

    Args:
        channels: Channels of the input.
        width: Channels of the output.
        stride: Of the depthwise convolution; 1 has a shortcut.
        expansion: Factor on the channels between.
        projects_shortcut: Whether a shortcut between different numbers of channels is a 1x1 convolution with
            BatchNorm; otherwise there is none.
    """

    def __init__(self, channels: int, width: int, stride: int, expansion: int, projects_shortcut: bool) -> None:
        super().__init__()
        inner = channels * expansion
        self.layers = nn.Sequential(
            Conv2dNormActivation(channels, inner, 1),
            Conv2dNormActivation(inner, inner, 3, stride, groups=inner),
            Conv2dNormActivation(inner, width, 1, activation_layer=None),
        )
        self.shortcut: nn.Module | None = None
        if stride == 1 and channels == width:
            self.shortcut = nn.Identity()
        elif stride == 1 and projects_shortcut:
            self.shortcut = Conv2dNormActivation(channels, width, 1, activation_layer=None)

    def forward(
        self,
        x: Tensor,  # (B, channels, H, W)
    ) -> Tensor:  # (B, width, H / stride, W / stride)
        """Return the output of the convolutions, plus the shortcut where there is one."""
        out = self.layers(x)
        return out if self.shortcut is None else out + self.shortcut(x)


class SmallMobileNetV2(MapClassifier):
    """MobileNetV2 for images of 64 px or less.

    Args:
        factor: Multiple of the published channels; the last convolution has 1,280 all the same.
        stem_stride: 1 as FADRM and CV-DD, 2 as G-VBSM and EDC.
        projects_shortcuts: As `InvertedResidual`; FADRM's and CV-DD's does.
        num_classes: Number of logits.
        in_chans: Channels of the input.
    """

    def __init__(
        self,
        factor: float = 1.0,
        stem_stride: int = 1,
        projects_shortcuts: bool = True,
        num_classes: int = 1000,
        in_chans: int = 3,
    ) -> None:
        channels = int(32 * factor)
        layers: list[nn.Module] = [Conv2dNormActivation(in_chans, channels, 3, stem_stride)]
        for expansion, whole, num_blocks, first_stride in _STAGES:
            width = int(whole * factor)
            for stride in (first_stride, *[1] * (num_blocks - 1)):
                layers.append(InvertedResidual(channels, width, stride, expansion, projects_shortcuts))
                channels = width
        layers.append(Conv2dNormActivation(channels, 1280, 1))
        super().__init__(nn.Sequential(*layers), 1280, 1, num_classes)
        if not projects_shortcuts:
            _start_by_fan_out(self)


class SmallDenseNet(SmallStemDenseNet):
    """DenseNet whose first block sees the first convolution itself, without BatchNorm and ReLU between."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        layers: Any = self.features
        layers.norm0 = nn.Identity()


class PointwiseShuffleNetV2(ShuffleNetV2):
    """ShuffleNetV2 that begins with a 1x1 convolution of the pixels, at full resolution."""

    def __init__(self, channels: tuple[int, ...], **settings: Any) -> None:
        super().__init__(channels, small_stem=True, **settings)
        self.conv1[0] = nn.Conv2d(3, channels[0], 1, bias=False)


_OF_TIMM = (SmallStemResNet, SmallStemDenseNet)  # timm draws their weights; those of the others here are as released


@torch.no_grad()
def start_as_released(network: nn.Module) -> None:
    """Give an untrained network the first weights of the released one; they come from torch's global random state.

    No residual branch starts at zero, as timm's do. ResNets and DenseNets for small images have torch's default
    weights of convolutions and linear layers; larger ones keep timm's, which are torchvision's (normal, by fan-out).
    """
    fill_zero_residuals(network)
    for layer in network.modules() if isinstance(network, _OF_TIMM) else ():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.reset_parameters()


@torch.no_grad()
def fill_zero_residuals(network: nn.Module) -> None:
    """Let every BatchNorm layer of an untrained network start at 1; timm zeroes the last of each residual branch."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.affine:
            nn.init.ones_(layer.weight)


@torch.no_grad()
def _start_by_fan_out(network: MapClassifier) -> None:
    """Draw weights as G-VBSM's and EDC's MobileNetV2 does: normal, by the kernel and all output channels."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, (2.0 / (layer.out_channels * layer.kernel_size[0] ** 2)) ** 0.5)
    if isinstance(network.fc, nn.Linear):  # without classes there is none
        nn.init.normal_(network.fc.weight, 0.0, 0.01)
        nn.init.zeros_(network.fc.bias)
