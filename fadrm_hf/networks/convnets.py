"""The networks of the small-image literature.

ConvNets are a few blocks of convolution, normalisation, ReLU and average pooling with one linear layer on the last
map: the networks of dataset condensation (arXiv 2006.05929; VICO-UoE/DatasetCondensation), of G-VBSM and EDC
(InstanceNorm) and of RDED (BatchNorm). AlexNet for small images comes from there too and has no normalisation at all.
WRN-16-2 is the wide residual network of arXiv 1605.07146. VGG-11 for small images (arXiv 1409.1556) has BatchNorm and,
in place of the three layers behind its last map, one, as where networks are slimmed (arXiv 1708.06519).

The linear layer of a ConvNet or AlexNet expects a map of one size. Images of another size are taken all the same,
their last map being averaged to that size: recovery at several resolutions relies on it.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]  # makes the normalisation of so many channels


def _instance_norm(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)


class TimmClassifier:
    """The methods that timm expects of a network whose last layer is `fc`, on `head_hidden_size` features."""

    fc: nn.Module
    head_hidden_size: int
    forward_features: Callable[[Tensor], Tensor]
    forward_head: Callable[[Tensor], Tensor]

    def get_classifier(self) -> nn.Module:
        """Return the layer that gives the logits."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the layer that gives the logits; 0 classes leaves the features."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward(
        self,
        x: Tensor,  # (B, in_chans, H, W) normalised
    ) -> Tensor:  # (B, C) logits
        """Return the logits of a batch."""
        return self.forward_head(self.forward_features(x))


class MapClassifier(TimmClassifier, nn.Module):
    """Layers that end in a feature map, and one linear layer on that map.

    Args:
        layers: (B, in_chans, H, W) -> (B, num_features, h, w).
        num_features: Channels of the last map.
        grid: Side of the map that the linear layer expects; 1 is global average pooling.
        num_classes: Number of logits; 0 leaves the features.
    """

    def __init__(self, layers: nn.Sequential, num_features: int, grid: int, num_classes: int) -> None:
        super().__init__()
        self.layers = layers
        self.grid = grid
        self.num_features = num_features
        self.head_hidden_size = num_features * grid**2
        self.reset_classifier(num_classes)

    def forward_features(
        self,
        x: Tensor,  # (B, in_chans, H, W) normalised
    ) -> Tensor:  # (B, num_features, h, w)
        """Return the last feature map."""
        return self.layers(x)

    def forward_head(
        self,
        x: Tensor,  # (B, num_features, h, w)
        pre_logits: bool = False,
    ) -> Tensor:  # (B, C) logits, or (B, num_features * grid * grid) with `pre_logits`
        """Return the logits of a map, or the map as the linear layer takes it."""
        features = F.adaptive_avg_pool2d(x, self.grid).flatten(1)  # at the network's own size this changes nothing
        return features if pre_logits else self.fc(features)


class ConvNet(MapClassifier):
    """Blocks of 3x3 convolution, normalisation, ReLU and 2x2 average pooling, for images of 2 ** depth px or more."""

    def __init__(
        self,
        depth: int = 3,
        width: int = 128,
        norm: Norm = _instance_norm,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 32,
    ) -> None:
        blocks: list[nn.Module] = []
        for channels in [in_chans] + [width] * (depth - 1):
            blocks += [nn.Conv2d(channels, width, 3, padding=1), norm(width), nn.ReLU(), nn.AvgPool2d(2)]
        super().__init__(nn.Sequential(*blocks), width, _grid(img_size, depth), num_classes)


class SmallAlexNet(MapClassifier):
    """AlexNet for images of 8 px or more: five convolutions without any normalisation, three poolings."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, img_size: int | tuple[int, int] = 32) -> None:
        layers: list[nn.Module] = []
        channels = in_chans
        blocks = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))
        for width, kernel, is_pooled in blocks:
            layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if is_pooled else []
            channels = width
        super().__init__(nn.Sequential(*layers), channels, _grid(img_size, 3), num_classes)


class SmallVGG(MapClassifier):
    """VGG-11 with BatchNorm for small images, with `factor` times its 64 to 512 channels."""

    def __init__(self, factor: float = 1.0, num_classes: int = 1000, in_chans: int = 3) -> None:
        layers: list[nn.Module] = []
        channels = in_chans
        for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
            for width in (round(whole * factor) for whole in stage):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # a map of one pixel stays one: 16 px are taken too
        super().__init__(nn.Sequential(*layers), channels, 1, num_classes)


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU; where the shape changes the shortcut is a convolution."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        is_same = channels == width and stride == 1
        self.shortcut = None if is_same else nn.Conv2d(channels, width, 1, stride=stride, bias=False)

    def forward(
        self,
        x: Tensor,  # (B, channels, H, W)
    ) -> Tensor:  # (B, width, H / stride, W / stride)
        """Return the input, or its projection, plus the output of the convolutions."""
        active = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(F.relu(self.norm2(self.conv1(active))))


class WideResNet(MapClassifier):
    """A wide residual network for small images: three groups of blocks, the second and third at half resolution.

    Args:
        depth: Convolutions along the network, 6 n + 4 with n blocks per group.
        factor: Multiple of 16, 32 and 64 channels.
        num_classes: Number of logits.
        in_chans: Channels of the input.
    """

    def __init__(self, depth: int, factor: int, num_classes: int = 1000, in_chans: int = 3) -> None:
        layers: list[nn.Module] = [nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)]
        channels = 16
        for width, stride in ((16 * factor, 1), (32 * factor, 2), (64 * factor, 2)):
            for index in range((depth - 4) // 6):
                layers.append(WideBlock(channels, width, stride if index == 0 else 1))
                channels = width
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        super().__init__(nn.Sequential(*layers), channels, 1, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def _grid(img_size: int | tuple[int, int], halvings: int) -> int:
    """Return the side of the last map of an image of `img_size` pixels."""
    side = img_size if isinstance(img_size, int) else img_size[0]
    return max(1, side // 2**halvings)  # the poolings refuse an image that is too small for them
