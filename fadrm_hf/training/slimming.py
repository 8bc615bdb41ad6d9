"""Network slimming (Liu et al., arXiv 1708.06519): channels with small BatchNorm scales are removed from a network.

While a network trains, an L1 penalty draws the scales of its BatchNorm layers to zero. Then the channels with the
smallest scales of all layers together are removed: from a convolution, from its BatchNorm, and from the layer that
follows. As in the authors' code, what such a channel still contributes (the ReLU of its shift) is lost, and every
layer keeps at least one channel.

A network must be a chain: convolution, BatchNorm, ReLU and pooling in turn, then layers of which the first takes the
last map. That is VGG, of timm, of torchvision or of `fadrm_hf.networks.convnets`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm.models.vgg
import torch
import torchvision.models.vgg
from torch import Tensor, nn

from fadrm_hf.errors import StudentError
from fadrm_hf.networks.convnets import MapClassifier
from fadrm_hf.runtime.tensor_files import digest_of


@dataclass(frozen=True, eq=False)
class Chain:
    """The layers of a network that channels can be removed from.

    Attributes:
        layers: The sequence that holds convolutions and norms.
        indices: Index of each convolution in it; its BatchNorm is the next layer.
        consumer: The convolution or linear layer that takes the last map.
    """

    layers: nn.Sequential
    indices: tuple[int, ...]
    consumer: nn.Module

    @property
    def norms(self) -> list[nn.BatchNorm2d]:
        """The BatchNorm layers, in order."""
        followers = (self.layers[index + 1] for index in self.indices)
        return [norm for norm in followers if isinstance(norm, nn.BatchNorm2d)]

    @property
    def widths(self) -> list[int]:
        """Channels of each convolution."""
        return [norm.num_features for norm in self.norms]


def find_chain(network: nn.Module, name: str) -> Chain:
    """Return the chain of a classifier.

    Args:
        network: The classifier.
        name: Its name in a message.

    Raises:
        StudentError: If it is no chain, or has a convolution without BatchNorm.
    """
    features, consumer = _parts(network)
    layers = list(features.children())
    indices = tuple(index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d)
    followers = [layers[index + 1] if index + 1 < len(layers) else None for index in indices]
    is_chain = all(isinstance(layer, kinds) for layer in layers)
    if not indices or not is_chain or not all(isinstance(layer, nn.BatchNorm2d) for layer in followers):
        raise StudentError(
            f"student {name!r} cannot be slimmed, expected a chain of convolutions with BatchNorm such as "
            "timm/vgg11_bn, timm/vgg11_bn_small or torchvision/vgg11_bn; set --student"
        )
    return Chain(features, indices, consumer)


def _parts(network: nn.Module) -> tuple[nn.Sequential, nn.Module]:
    """Return the layers up to the last map, and the layer that takes it; no layers for any other kind of network."""
    if isinstance(network, MapClassifier):
        return network.layers, network.fc
    if isinstance(network, timm.models.vgg.VGG):
        return network.features, network.pre_logits.fc1
    if isinstance(network, torchvision.models.vgg.VGG):
        return network.features, network.classifier[0]
    return nn.Sequential(), network


@dataclass(frozen=True, eq=False)
class SlimmingPhase:
    """The difference between a training within slimming and the usual one of a new network without a penalty.

    Attributes:
        network: The network to train, in place; `None`: a new student.
        scale_penalty: lambda, the weight of sum |gamma| in the loss; 1e-4 in the paper.
    """

    network: nn.Module | None = None
    scale_penalty: float = 0.0

    @property
    def key(self) -> tuple[object, ...]:
        """What decides the trained weights besides the protocol; empty for the usual training."""
        start = () if self.network is None else (digest_of(self.network.state_dict()),)
        return (*start, self.scale_penalty) if self.scale_penalty else start

    def penalise(self, optimiser: torch.optim.Optimizer, network: nn.Module, name: str) -> None:
        """Let every step of an optimiser also descend the penalty, by its subgradient lambda * sign(gamma).

        Args:
            optimiser: Of the network.
            network: A chain (`find_chain`), if there is a penalty.
            name: Its name in a message.
        """
        if not self.scale_penalty:
            return
        scales = [norm.weight for norm in find_chain(network, name).norms]

        def add_subgradient(*_: object) -> None:
            for scale in scales:
                if scale.grad is not None:
                    scale.grad.add_(scale.detach().sign(), alpha=self.scale_penalty)

        optimiser.register_step_pre_hook(add_subgradient)


NO_SLIMMING = SlimmingPhase()


def channels_to_keep(scales: Sequence[Tensor], ratio: float) -> list[Tensor]:
    """Return the channels that remain: all but a share with the smallest scales overall, and one of each layer.

    Args:
        scales: (c,) of each layer.
        ratio: Share of all channels to remove, in [0, 1); among equal scales the first channels are removed first.

    Returns:
        (k,) int64 for each layer, ascending, k at least 1.
    """
    magnitudes = [scale.detach().abs().cpu() for scale in scales]
    all_scales = torch.cat(magnitudes)
    is_kept = torch.ones(len(all_scales), dtype=torch.bool)
    is_kept[all_scales.argsort(stable=True)[: int(ratio * len(all_scales))]] = False
    masks = is_kept.split([len(layer) for layer in magnitudes])
    for mask, layer in zip(masks, magnitudes, strict=True):
        if not mask.any():
            mask[layer.argmax()] = True
    return [mask.nonzero().squeeze(1) for mask in masks]


def remove_channels(network: nn.Module, kept: Sequence[Tensor], name: str = "the network") -> nn.Module:
    """Return a smaller copy of a network, which computes the network's outputs with the other channels at zero.

    Args:
        network: A chain (`find_chain`).
        kept: (k,) int64, the remaining channels of each convolution.
        name: Its name in a message.

    Raises:
        StudentError: If the network is no chain.
    """
    small: Any = copy.deepcopy(network)
    chain = find_chain(small, name)
    widths = chain.widths
    followers = [*(chain.layers[index] for index in chain.indices[1:]), chain.consumer]
    for index, outputs, width, follower in zip(chain.indices, kept, widths, followers, strict=True):
        convolution, norm = chain.layers[index], chain.layers[index + 1]
        assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        for parameter in ("weight", "bias"):
            _select(convolution, parameter, outputs)
            _select(norm, parameter, outputs)
        for buffer in ("running_mean", "running_var"):
            _select(norm, buffer, outputs)
        convolution.out_channels = norm.num_features = len(outputs)
        _narrow_inputs(follower, outputs, width)
    if isinstance(small, MapClassifier):
        small.head_hidden_size = len(kept[-1]) * small.grid**2
    if not isinstance(small, torchvision.models.vgg.VGG):
        small.num_features = len(kept[-1])
    smaller: nn.Module = small
    return smaller


def _select(layer: nn.Module, name: str, rows: Tensor) -> None:
    """Keep some rows of a layer's parameter or buffer, if it has it."""
    value: Tensor | None = getattr(layer, name)
    if value is not None:
        chosen = value.detach()[rows.to(value.device)].clone()
        setattr(layer, name, nn.Parameter(chosen) if isinstance(value, nn.Parameter) else chosen)


def _narrow_inputs(layer: nn.Module, kept: Tensor, width: int) -> None:
    """Keep some of a layer's `width` input channels; a linear layer takes several values of each."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight = layer.weight.detach()
    by_channel = weight.unflatten(1, (width, -1)) if isinstance(layer, nn.Linear) else weight
    chosen = by_channel[:, kept.to(weight.device)]
    if isinstance(layer, nn.Linear):
        chosen = chosen.flatten(1)
        layer.in_features = chosen.shape[1]
    else:
        layer.in_channels = len(kept)
    layer.weight = nn.Parameter(chosen.clone())
