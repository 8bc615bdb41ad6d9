"""The recovery step as the published loop computes it: slow, plain, and the reference of every faster form.

A forward hook on each BatchNorm layer takes the mean over batch and positions, and the variance of a permuted copy;
the network runs under autocast; views are torchvision's transforms of the batch. Which views is decided as for the
other forms, so results differ by rounding alone (released code: Jiacheng8/FADRM @ f445e38).
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from fadrm_hf.config import Matching, RecoverConfig
from fadrm_hf.data.views import BatchViews
from fadrm_hf.errors import ConfigError
from fadrm_hf.recovery.matching import needs_measuring, watched_layers
from fadrm_hf.runtime.number_format import DTYPES


class PlainStatistics:
    """Gathers D_global while a network runs, by forward hooks.

    Args:
        module: A network in eval mode.
        first_weight: Weight of the first layer's term.
    """

    is_stateless = True

    def __init__(self, module: nn.Module, first_weight: float) -> None:
        watched = [watched.layer for watched in watched_layers(module) if watched.kind == "bn"]
        self._terms: list[Tensor] = []
        self._handles: list[RemovableHandle] = []
        for place, layer in enumerate(watched):
            weight = first_weight if place == 0 else 1.0
            self._handles.append(layer.register_forward_hook(self._hook(weight)))

    def begin(self, labels: Tensor, generator: torch.Generator) -> None:
        """Start with a new batch of images."""
        self._terms = []

    def loss(self) -> Tensor:
        """D of the last forward pass; the gathered terms are forgotten."""
        terms, self._terms = [term.float() for term in self._terms], []
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, weight: float) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not torch.is_grad_enabled():
                return
            (maps,) = inputs
            assert isinstance(layer.running_mean, Tensor) and isinstance(layer.running_var, Tensor)
            mean = maps.mean([0, 2, 3])
            var = maps.permute(1, 0, 2, 3).contiguous().reshape(maps.shape[1], -1).var(1, unbiased=False)
            distance = torch.norm(layer.running_var - var, 2) + torch.norm(layer.running_mean - mean, 2)
            self._terms.append(weight * distance)

        return hook


class PlainMatcher:
    """A teacher as the published loop has it; stands in for `fadrm_hf.recovery.matcher.Matcher`.

    Args:
        name: The teacher's name.
        module: Its frozen network, in eval mode.
        config: Precision and the weight of the first matched layer.
        device: Where it runs.
    """

    def __init__(self, name: str, module: nn.Module, config: RecoverConfig, device: torch.device) -> None:
        self.name = name
        self.module = copy.deepcopy(module).to(device).eval()
        dtype = DTYPES[config.precision]
        self._autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
        watched = self.module if config.bn_weight > 0 else nn.Identity()
        self.statistics = PlainStatistics(watched, config.first_bn_weight)

    def logits(self, views: Tensor) -> Tensor:
        """(B, C) float32 of (B, 3, S, S) normalised; with gradients on, statistics are gathered for `distance`."""
        with self._autocast:
            predicted: Tensor = self.module(views)
        return predicted.float()

    @torch.no_grad()
    def predict(self, views: Tensor) -> Tensor:
        """`logits` without a gradient and without gathering anything."""
        return self.logits(views)

    def distance(self) -> Tensor:
        """D of the views last seen."""
        return self.statistics.loss()


def require_plain(matching: Matching, modules: Sequence[nn.Module] = ()) -> None:
    """Refuse what the published loop does not do.

    Args:
        matching: What a method matches.
        modules: Its teachers, as far as they are known.

    Raises:
        ConfigError: Statistics other than those of BatchNorm's inputs in the current iteration are matched.
    """
    if matching == Matching() and not any(needs_measuring(matching, module) for module in modules):
        return
    raise ConfigError(
        "recover.form is 'plain', which matches inputs of BatchNorm layers alone, but this method or one of its "
        "teachers needs other statistics; leave --plain out, or set --recover.form eager"
    )


def plain_view(images: Tensor, views: BatchViews, index: int) -> Tensor:
    """One of the drawn views by torchvision's transforms: crop and resize, flip, roll.

    Args:
        images: (B, C, S, S).
        views: Drawn views.
        index: Which one.

    Returns:
        Like `images`.
    """
    top, left, height, width = views.crop[index].tolist()
    size = list(images.shape[-2:])
    shown = transforms.resized_crop(
        images, top, left, height, width, size, InterpolationMode.BILINEAR, antialias=False
    )
    if views.flip[index]:
        shown = transforms.horizontal_flip(shown)
    return torch.roll(shown, tuple(views.roll[index].tolist()), (2, 3))
