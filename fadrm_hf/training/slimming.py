"""Network slimming (Liu et al., arXiv 1708.06519): channels whose BatchNorm scale is small are taken out of a network.

While a network trains, an L1 penalty draws the scales of its BatchNorm layers to zero. Then the smallest of all layers
together are found, and their channels leave the network: of a convolution, of its BatchNorm, and of what follows. As
in the authors' code, what such a channel still gives (the ReLU of its shift) goes with it, and every layer keeps a
channel at least.

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
from fadrm_hf.runtime.files import digest_of


@dataclass(frozen=True, eq=False)
class Chain:
    """The layers of a network that channels can be taken out of.

    Attributes:
        layers: The sequence that holds convolutions and norms.
        places: Where each convolution is in it; its BatchNorm is the next.
        consumer: The convolution or linear layer that takes the last map.
    """

    layers: nn.Sequential
    places: tuple[int, ...]
    consumer: nn.Module

    @property
    def norms(self) -> list[nn.BatchNorm2d]:
        """The BatchNorm layers, in order."""
        return [norm for norm in (self.layers[place + 1] for place in self.places) if isinstance(norm, nn.BatchNorm2d)]

    @property
    def widths(self) -> list[int]:
        """Channels of each convolution."""
        return [norm.num_features for norm in self.norms]


def chain_of(network: nn.Module, name: str) -> Chain:
    """The chain of a network.

    Args:
        network: A classifier.
        name: What it is called in a message.

    Raises:
        StudentError: If it is no chain, or has a convolution without BatchNorm.
    """
    layers, consumer = _parts(network)
    found = list(layers.children())
    places = tuple(place for place, layer in enumerate(found) if isinstance(layer, nn.Conv2d))
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d)
    followers = [found[place + 1] if place + 1 < len(found) else None for place in places]
    is_chain = all(isinstance(layer, kinds) for layer in found)
    if not places or not is_chain or not all(isinstance(layer, nn.BatchNorm2d) for layer in followers):
        raise StudentError(
            f"student {name!r} cannot be slimmed, expected a chain of convolutions with BatchNorm such as "
            "timm/vgg11_bn, timm/vgg11_bn_small or torchvision/vgg11_bn; set --student"
        )
    return Chain(layers, places, consumer)


def _parts(network: nn.Module) -> tuple[nn.Sequential, nn.Module]:
    """The layers of a network up to its last map, and the layer that takes it; no layers of what is none of these."""
    if isinstance(network, MapClassifier):
        return network.layers, network.fc
    if isinstance(network, timm.models.vgg.VGG):
        return network.features, network.pre_logits.fc1
    if isinstance(network, torchvision.models.vgg.VGG):
        return network.features, network.classifier[0]
    return nn.Sequential(), network


@dataclass(frozen=True, eq=False)
class Stage:
    """A training within slimming, as far as it is not that of an untrained network without a penalty.

    Attributes:
        network: What is trained on, which is changed; `None`: an untrained student.
        scale_penalty: lambda, the weight of sum |gamma| in the loss; 1e-4 in the paper.
    """

    network: nn.Module | None = None
    scale_penalty: float = 0.0

    @property
    def key(self) -> tuple[object, ...]:
        """What decides the trained weights, beside the protocol; nothing of the usual training."""
        begun = () if self.network is None else (digest_of(self.network.state_dict()),)
        return (*begun, self.scale_penalty) if self.scale_penalty else begun

    def penalise(self, optimiser: torch.optim.Optimizer, network: nn.Module, name: str) -> None:
        """Let every step of an optimiser also follow the penalty down, by its subgradient lambda * sign(gamma).

        Args:
            optimiser: Of the network.
            network: A chain (`chain_of`), if there is a penalty.
            name: What it is called in a message.
        """
        if not self.scale_penalty:
            return
        scales = [norm.weight for norm in chain_of(network, name).norms]

        def add_subgradient(*_: object) -> None:
            for scale in scales:
                if scale.grad is not None:
                    scale.grad.add_(scale.detach().sign(), alpha=self.scale_penalty)

        optimiser.register_step_pre_hook(add_subgradient)


USUAL = Stage()


def channels_to_keep(scales: Sequence[Tensor], ratio: float) -> list[Tensor]:
    """The channels that stay: all but the share of smallest scales of all layers together, and one of each layer.

    Args:
        scales: (c,) of each layer.
        ratio: Share of all channels to take out, in [0, 1); of the channels of equal scale the first go first.

    Returns:
        (k,) int64 for each layer, ascending, k at least 1.
    """
    magnitudes = [scale.detach().abs().cpu() for scale in scales]
    everything = torch.cat(magnitudes)
    is_kept = torch.ones(len(everything), dtype=torch.bool)
    is_kept[everything.argsort(stable=True)[: int(ratio * len(everything))]] = False
    masks = is_kept.split([len(each) for each in magnitudes])
    for mask, each in zip(masks, magnitudes, strict=True):
        if not mask.any():
            mask[each.argmax()] = True
    return [mask.nonzero().squeeze(1) for mask in masks]


def slimmed(network: nn.Module, kept: Sequence[Tensor], name: str = "the network") -> nn.Module:
    """A smaller copy of a network, without the channels that are not kept.

    It gives what the network would with scale and shift of the others at zero.

    Args:
        network: A chain (`chain_of`).
        kept: (k,) int64 for each convolution.
        name: What it is called in a message.

    Raises:
        StudentError: If it is no chain.
    """
    small: Any = copy.deepcopy(network)
    chain = chain_of(small, name)
    widths = chain.widths
    followers = [*(chain.layers[place] for place in chain.places[1:]), chain.consumer]
    for place, outputs, width, follower in zip(chain.places, kept, widths, followers, strict=True):
        convolution, norm = chain.layers[place], chain.layers[place + 1]
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
    """Let a layer have some rows of a parameter or buffer, if it has any."""
    value: Tensor | None = getattr(layer, name)
    if value is not None:
        chosen = value.detach()[rows.to(value.device)].clone()
        setattr(layer, name, nn.Parameter(chosen) if isinstance(value, nn.Parameter) else chosen)


def _narrow_inputs(layer: nn.Module, kept: Tensor, width: int) -> None:
    """Let a layer take some of `width` channels of the map before it; a linear one has several values of each."""
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
