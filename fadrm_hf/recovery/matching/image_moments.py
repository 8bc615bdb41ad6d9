"""Moments of the inputs of layers, image by image, and the statistics of many images that follow from their sums.

Every image counts alike, and every statistic follows from three sums over images: of its means m, of its second
moments q, and of m^2. Averaged over images they separate the pooled variance, E[q] - E[m]^2, into the variance within
images, E[q] - E[m^2], and that between them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from fadrm_hf.networks.layers import MatchedLayer, as_maps
from fadrm_hf.networks.moments import block_view

Spread = Literal["pooled", "batches", "images"]
Statistic = tuple[str, str]  # name of a layer, and "" for its channels or "block_" for its blocks


@torch.inference_mode()
def image_moments(
    module: nn.Module,
    layers: Sequence[MatchedLayer],
    block_side: int | None,
    images: Tensor,  # (N, 3, S, S) normalised
) -> dict[Statistic, Tensor]:  # (2, N, n) float64 each
    """Return mean and second moment of each image, in each channel and each block of positions, of layers' inputs.

    Args:
        module: A network in eval mode.
        layers: Which of its layers; blocks are those of convolutions.
        block_side: Side of a block in positions of a map; `None`: blocks are not measured.
        images: A batch.

    Returns:
        Channels of every layer, and blocks of convolutions, in the order of `layers`. A layer that is used
        several times has seen all its inputs; one that is never used is left out.
    """
    moments: dict[Statistic, list[Tensor]] = {(layer.name, kind): [] for layer in layers for kind in ("", "block_")}

    def measure(layer: MatchedLayer, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        maps = as_maps(module, inputs[0])
        moments[layer.name, ""].append(_moments(maps, (2, 3)))
        if layer.kind == "conv" and block_side is not None:
            moments[layer.name, "block_"].append(_moments(block_view(maps, block_side), (1, 3, 5)).flatten(2))

    handles = [layer.layer.register_forward_pre_hook(partial(measure, layer)) for layer in layers]
    try:
        module(images)
    finally:
        for handle in handles:
            handle.remove()
    return {statistic: torch.stack(uses).mean(0) for statistic, uses in moments.items() if uses}


def sums_over_images(
    moments: Tensor,  # (2, N, n) float64
) -> Tensor:  # (3, n) float64
    """Return sums of means, of second moments and of squared means."""
    mean, second = moments
    return torch.stack([mean.sum(0), second.sum(0), mean.square().sum(0)])


def mean_and_variance(
    sums: Tensor,  # (3, ..., n) float64, as `sums_over_images` gives them
    count: Tensor,  # (..., 1), how many images
    spread: Spread = "pooled",
    batch_size: int = 1,
) -> Tensor:  # (2, ..., n) float64
    """Return mean and biased variance of the images that were summed.

    Args:
        sums: Of one group of images, or of several.
        count: Images of each group.
        spread: Which variance: of all positions of all images ("pooled"); the mean of each image's own ("images"); or
            what the mean of the variances of random batches is expected to be ("batches"), which lacks the variance
            between batches' means.
        batch_size: Images per batch, for "batches".
    """
    mean, second, squares = sums / count
    between = squares - mean.square()
    missing = {
        "pooled": torch.zeros_like(count),
        "images": torch.ones_like(count),
        # The variance of the mean of a random sample without replacement, as a share of that between images.
        "batches": ((count - batch_size) / ((count - 1).clamp_min(1) * batch_size)).clamp_min(0),
    }
    var = second - mean.square() - missing[spread] * between
    return torch.stack([mean, var.clamp_min(0)])


def _moments(
    maps: Tensor,
    axes: tuple[int, ...],
) -> Tensor:  # (2, N, ...) float64
    # One copy for both: converting twice costs almost twice as much on a CPU.
    precise = maps.to(torch.float64, copy=True)
    mean = precise.mean(axes)
    return torch.stack([mean, precise.square_().mean(axes)])
