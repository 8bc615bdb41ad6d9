"""The recovery step as the published loop computes it: slow, plain, and the reference of every faster form.

A forward hook on each BatchNorm layer takes the mean over batch and positions, and the variance of a permuted copy;
the network runs under autocast; views are torchvision's transforms of the batch. Views are drawn as for the other
forms, so results differ by rounding alone (released code: Jiacheng8/FADRM @ f445e38).
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from fadrm_hf.config import Matching
from fadrm_hf.data.views import BatchViews
from fadrm_hf.errors import ConfigError
from fadrm_hf.networks.layers import matched_layers
from fadrm_hf.recovery.matching.distance import needs_measuring


class PlainStatistics:
    """D_global of the last forward pass, by forward hooks.

    Args:
        module: A network in eval mode.
        first_weight: Weight of the first layer's term.
    """

    is_fresh = False
    num_classes = 0  # whatever they are

    def __init__(self, module: nn.Module, first_weight: float) -> None:
        layers = [layer.layer for layer in matched_layers(module) if layer.kind == "bn"]
        self._terms: list[Tensor] = []
        self._handles = [
            layer.register_forward_hook(partial(self._gather, first_weight if place == 0 else 1.0))
            for place, layer in enumerate(layers)
        ]

    def begin(self, labels: Tensor, generator: torch.Generator, ipc_indices: Tensor | None = None) -> None:
        """Start with a new batch of images."""
        self._terms = []

    def loss(self) -> Tensor:
        """Return D of the last forward pass; the gathered terms are forgotten."""
        terms, self._terms = [term.float() for term in self._terms], []
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def draw(self, hold: Callable[[Hashable, Tensor], Tensor]) -> None:
        """Draw nothing."""

    def settle(self, hold: Callable[[Hashable, Tensor], Tensor]) -> None:
        """Keep nothing from step to step."""

    def close(self) -> None:
        """Stop observing the network."""
        for handle in self._handles:
            handle.remove()

    def _gather(self, weight: float, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        (maps,) = inputs
        assert isinstance(layer.running_mean, Tensor) and isinstance(layer.running_var, Tensor)
        mean = maps.mean([0, 2, 3])
        var = maps.permute(1, 0, 2, 3).contiguous().reshape(maps.shape[1], -1).var(1, unbiased=False)
        distance = torch.norm(layer.running_var - var, 2) + torch.norm(layer.running_mean - mean, 2)
        self._terms.append(weight * distance)


def require_plain(matching: Matching, modules: Sequence[nn.Module] = ()) -> None:
    """Refuse to match, in any of these teachers, other statistics than those of BatchNorm's inputs in an iteration."""
    if matching == Matching() and not any(needs_measuring(matching, module) for module in modules):
        return
    raise ConfigError(
        "recover.form is 'plain', which matches inputs of BatchNorm layers alone, but this method or one of its "
        "teachers needs other statistics; leave --plain out, or set --recover.form eager"
    )


def plain_view(images: Tensor, views: BatchViews, index: int) -> Tensor:
    """Return one of the drawn views of images (B, C, S, S) by torchvision's transforms: resized crop, flip, roll."""
    top, left, height, width = views.crop[index].tolist()
    size = list(images.shape[-2:])
    view = transforms.resized_crop(images, top, left, height, width, size, InterpolationMode.BILINEAR, antialias=False)
    if views.flip[index]:
        view = transforms.horizontal_flip(view)
    return torch.roll(view, tuple(views.roll[index].tolist()), (2, 3))
