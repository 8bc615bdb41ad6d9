"""Scores of accuracies and of images. Accuracies are fractions; percentages are for printing.

HLR, IOR, LRS and ARS are DD-Ranking's (arXiv 2505.13300), on fractions, so that LRS and ARS stay within [0, 1].

The FADRM paper (arXiv 2506.24125, Fig. 3) measures information by entropies that it does not define. Ours are those of
`pixel_entropy` and `feature_entropy`, in bits. Both are of single images: noise has the most of either, and a file
format alone moves them, so they compare images stored alike. What a set of images has in common, only the diversity
of its features can say (`cosine_distance`, `effective_number`).
"""

import math
from collections.abc import Sequence

import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor

from fadrm_hf.errors import ScoreError

_IMAGES_AT_ONCE = 64
_LUMA = (19595, 38470, 7471)  # 0.299, 0.587 and 0.114 (ITU-R 601) times 2^16, as Pillow computes grey images


def hard_label_recovery(whole_hard: float, distilled_hard: float) -> float:
    """Return HLR: the loss of hard labels on the distilled set against the whole one; less is better."""
    return whole_hard - distilled_hard


def improvement_over_random(distilled: float, random: float) -> float:
    """Return IOR: the gain of distilled images over random ones under the same labels; more is better."""
    return distilled - random


def label_robust_score(ior: float, hlr: float, weight: float = 0.5) -> float:
    """Return LRS = (exp(a) - exp(-1)) / (exp(1) - exp(-1)) with a = w IOR - (1 - w) HLR.

    Args:
        ior: Improvement over random.
        hlr: Hard-label recovery.
        weight: w, the weight of IOR; the published one is 0.5.

    Raises:
        ScoreError: If the weight is no fraction.
    """
    _require_fraction("weight", weight)
    return _normalised(weight * ior - (1.0 - weight) * hlr)


def augmentation_robust_score(augmented: float, unaugmented: float, weight: float = 0.5) -> float:
    """Return ARS = (exp(b) - exp(-1)) / (exp(1) - exp(-1)) with b = g D + (1 - g) D'; more is better.

    Args:
        augmented: D, the improvement over random where both sets are augmented.
        unaugmented: D', the same where neither is.
        weight: g, the weight of D; the published one is 0.5.

    Raises:
        ScoreError: If the weight is no fraction.
    """
    _require_fraction("weight", weight)
    return _normalised(weight * augmented + (1.0 - weight) * unaugmented)


def compression_ratio(source: float, distilled: float) -> float:
    """Return the size of the source as a multiple of the distilled set, in images or bytes; more is better.

    Args:
        source: Number, or encoded bytes, of the source's training images.
        distilled: The same of what students train on; bytes are those of images and labels together, as stored.

    Raises:
        ScoreError: If one of them is not positive.
    """
    if source <= 0 or distilled <= 0:
        raise ScoreError(f"a ratio of sizes is asked for of {source} and {distilled}, expected positive numbers")
    return source / distilled


def pixel_entropy(images: Tensor, bins: int = 256) -> Tensor:
    """Return the Shannon entropy of each image's grey levels in bits, 0 to log2(bins) (our reading of Fig. 3, right).

    Of the histogram of the luma (ITU-R 601, rounded as Pillow does), in equal bins over 0 to 255, never over the
    image's own range. 10 bins give the scale of the paper's figure.

    Args:
        images: (N, 3, H, W) uint8.
        bins: Bins of the histogram, 1 to 256.

    Returns:
        (N,) float64.

    Raises:
        ScoreError: If these are no bytes of RGB, or there is no such number of bins.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ScoreError(f"images are {images.dtype} {tuple(images.shape)}, expected uint8 (N, 3, H, W)")
    if not 1 <= bins <= 256:
        raise ScoreError(f"bins is {bins}, expected 1 to 256")
    entropies = [_entropy(_histograms(part, bins)) for part in images.split(_IMAGES_AT_ONCE)]
    return torch.cat(entropies) if entropies else torch.empty(0, dtype=torch.float64)


def feature_entropy(features: Tensor) -> Tensor:
    """Return the Shannon entropy of an image's activation over its features, in bits, from 0 to log2(D).

    Our reading of Fig. 3, left: p_i = |f_i| / sum |f|, of the features that the classifier of a network sees. An image
    without any activation has entropy 0.

    Args:
        features: (N, D).

    Returns:
        (N,) float64.

    Raises:
        ScoreError: If a feature is not finite.
    """
    return _entropy(_finite(features).abs())


def cosine_distance(features: Tensor, labels: Tensor) -> float:
    """Return the mean of 1 - cos over pairs of a class, then over classes; more is more diverse, 0 is copies.

    Args:
        features: (N, D); a vector of zeros is at distance 1 from every other.
        labels: (N,) int64; classes of one image have no pairs and do not count.

    Raises:
        ScoreError: If no class has two images, or a feature is not finite.
    """
    kernels = [kernel for kernel in _kernels(features, labels) if len(kernel) > 1]
    if not kernels:
        raise ScoreError("the distance of images of a class needs two images of a class, got one of each")
    sums = [(kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)) for kernel in kernels]
    return 1.0 - torch.stack(sums).mean().item()


def effective_number(features: Tensor, labels: Tensor) -> float:
    """Return the Vendi score (arXiv 2210.02410): the images that a class seems to have, 1 to n; more is better.

    The exponential of the entropy of the eigenvalues of K / n, where K holds the cosines of the n images of a class;
    the mean over classes.

    Args:
        features: (N, D).
        labels: (N,) int64.

    Raises:
        ScoreError: If a feature is not finite, or there is no image.
    """
    kernels = _kernels(features, labels)
    if not kernels:
        raise ScoreError("an effective number is asked for of 0 images, expected at least 1")
    spectra = [torch.linalg.eigvalsh(kernel / len(kernel)).clamp_min(0.0) for kernel in kernels]
    return torch.stack([torch.special.entr(values / values.sum()).sum().exp() for values in spectra]).mean().item()


def ranks(values: Sequence[float]) -> Tensor:
    """Return ranks (n,) float64 from 1, the least first; equal values share the mean of theirs."""
    return torch.from_numpy(scipy.stats.rankdata(values))


def spearman_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rho, from -1 to 1: the correlation of the ranks of two lists; more is more alike.

    Args:
        first: A value of each thing.
        second: Another value of each, in the same order.

    Raises:
        ScoreError: If there are fewer than two, or all values of a list are equal.
    """
    _require_rankable(first, second)
    return float(scipy.stats.spearmanr(first, second).statistic)


def kendall_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Kendall's tau-b, from -1 to 1: pairs in the same order less pairs in another; more is more alike.

    Pairs that are equal in either list count for neither, and the number of pairs is the geometric mean of those that
    differ in each.

    Args:
        first: A value of each thing.
        second: Another value of each, in the same order.

    Raises:
        ScoreError: If there are fewer than two, or all values of a list are equal.
    """
    _require_rankable(first, second)
    return float(scipy.stats.kendalltau(first, second).statistic)


def _normalised(balance: float) -> float:
    """Map [-1, 1] to [0, 1], as LRS and ARS do."""
    return (math.exp(balance) - math.exp(-1.0)) / (math.e - math.exp(-1.0))


def _require_fraction(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ScoreError(f"{name} is {value}, expected a fraction in [0, 1]")


def _require_rankable(first: Sequence[float], second: Sequence[float]) -> None:
    for values in (first, second):
        if len(first) != len(second) or len(set(values)) < 2:
            raise ScoreError(
                f"a rank correlation is asked for of {list(first)} and {list(second)}, expected two lists of the same "
                "length whose values are not all equal; give more things to rank"
            )


def _histograms(images: Tensor, bins: int) -> Tensor:
    """Count grey levels: (N, bins)."""
    red, green, blue = (images[:, channel].long() * factor for channel, factor in enumerate(_LUMA))
    luma = (red + green + blue + (1 << 15)) >> 16
    places = luma.flatten(1) * bins // 256 + torch.arange(len(images), device=images.device)[:, None] * bins
    return torch.bincount(places.flatten(), minlength=len(images) * bins).view(len(images), bins)


def _entropy(weights: Tensor) -> Tensor:
    """Return entropies (N,) float64 in bits of rows of weights, made shares of 1; a row of zeros has none."""
    shares = F.normalize(weights.double(), p=1, dim=1)
    return torch.special.entr(shares).sum(dim=1) / math.log(2.0)


def _kernels(features: Tensor, labels: Tensor) -> list[Tensor]:
    """Return the cosines (n, n) float64 of the images of each class; of zeros with itself 1, with others 0."""
    directions = F.normalize(_finite(features), dim=1)
    kernels = [(rows @ rows.T) for rows in (directions[labels == label] for label in labels.unique())]
    return [kernel.fill_diagonal_(1.0) for kernel in kernels]


def _finite(features: Tensor) -> Tensor:
    """Return the features as float64."""
    if features.ndim != 2 or not bool(torch.isfinite(features).all()):
        raise ScoreError(
            f"features are {tuple(features.shape)}{' with values that are not finite' if features.ndim == 2 else ''},"
            " expected finite numbers (N, D); score by another network"
        )
    return features.double()
