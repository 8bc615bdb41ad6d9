"""Leakage: images of an artifact that are copies of test images, so that a test on these measures memory.

A copy may have been encoded again, brightened or mirrored. The distance of two images is the RMS difference of their
pixels in grey levels, after each has lost its mean. A small distance alone proves nothing: two clear skies are near
each other, so a copy must also be near in proportion to its contrast.

Measured on real images. JPEG at quality 75 moves an image by 7.8 grey levels in the median at 32 px (95 %: 12.5), by
7.0 at 64 px (10) and by 5.0 at 160 px (7.3), which is 0.15 of the contrast (95 %: 0.25). Of 10,000 training images of
CIFAR-10 and of CIFAR-100 each, mirrored or not, half have no test image of 10,000 nearer than 42 grey levels and 0.77
of the contrast. By both default limits 3 and 5 of them are copies, and looking at them confirms it: duplicates that
these datasets are known for (arXiv 1902.00423). The nearest pairs that show different things are at 11.8 and 13
grey levels, and at 0.25 and 0.32 of the contrast.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fadrm_hf.data.sources import Source
from fadrm_hf.runtime.progress import QUIET, Reporter

THRESHOLD = 10.0  # grey levels
MAX_OF_CONTRAST = 0.25  # the largest distance of a copy, as a fraction of the standard deviation of its pixels

_SIDE = 32  # larger images are averaged down to about this side to look for candidates
_BLOCK = 2048  # images compared at once with a test batch
_DECODED_AT_ONCE = 500
_SLACK = 1.0  # squared grey levels: float32 rounding of |a|² + |b|² - 2ab, ten times over


@dataclass(frozen=True)
class NearDuplicate:
    """An image that is a copy of a test image.

    Attributes:
        row: Row of the image table.
        test_index: Index of the nearest test image in the order of the batches.
        distance: RMS difference of their pixels without their means, in grey levels (0 to 255).
        mirrored: Whether the copy is a mirror image.
    """

    row: int
    test_index: int
    distance: float
    mirrored: bool = False


def copies_of_test_images(images: Tensor, source: Source, reporter: Reporter = QUIET) -> list[NearDuplicate]:
    """Find the images (N, 3, S, S) uint8 that are copies of a source's test images; see `find_near_duplicates`.

    Raises:
        SourceError: If the source has no test images, or one cannot be decoded.
    """
    blocks = torch.arange(len(source.labels("test"))).split(_DECODED_AT_ONCE)
    with reporter.stage("leakage", len(blocks)) as task:
        return find_near_duplicates(images, task.counting(source.pixels("test", block.tolist()) for block in blocks))


def find_near_duplicates(images: Tensor, test: Iterable[Tensor], threshold: float = THRESHOLD) -> list[NearDuplicate]:
    """Find the images that are copies of test images, mirrored or not.

    Candidates come from a matrix product over images averaged down, which are never further apart than the images;
    their distance is then taken from all pixels. Memory is bounded by the size of a test batch.

    Args:
        images: (N, 3, S, S) uint8, the image table.
        test: Batches (n, 3, S, S) uint8 of test images, in order.
        threshold: Largest distance of a copy, in grey levels; a copy is also nearer than `MAX_OF_CONTRAST`.

    Returns:
        At most one for each image, the nearest, in the order of rows.
    """
    vectors, contrast = _vectors(images)
    nearest: dict[int, NearDuplicate] = {}
    for first, mirrored, batch in _with_mirrored(test):
        for row, index in _candidates(vectors, contrast, *_vectors(batch), threshold):
            distance, limit = _compare(images[row], batch[index])
            before = nearest[row].distance if row in nearest else float("inf")
            if distance < min(limit, before) and distance <= threshold:
                nearest[row] = NearDuplicate(row, first + index, distance, mirrored)
    return [nearest[row] for row in sorted(nearest)]


def _with_mirrored(test: Iterable[Tensor]) -> Iterator[tuple[int, bool, Tensor]]:
    """Yield every batch as it is and mirrored, with the index of its first image."""
    first = 0
    for batch in test:
        yield first, False, batch
        yield first, True, batch.flip(3)
        first += len(batch)


def _vectors(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors (n, d) no further apart than the images (n, 3, S, S), and the images' contrast (n,).

    Averaging over square windows takes differences away and adds none, so nothing near is missed.
    """
    size = images.shape[-1]
    window = max(1, size // _SIDE)
    vectors, contrast = [], []
    for part in images.split(256):
        pixels = part.float()
        pixels -= pixels.mean(dim=(1, 2, 3), keepdim=True)
        contrast.append(pixels.square().mean(dim=(1, 2, 3)).sqrt())
        vectors.append(F.avg_pool2d(pixels, window).flatten(1) * (window / (size * 3**0.5)))
    if not vectors:
        return torch.empty(0, 0), torch.empty(0)
    return torch.cat(vectors), torch.cat(contrast)


def _candidates(
    vectors: Tensor, contrast: Tensor, test_vectors: Tensor, test_contrast: Tensor, threshold: float
) -> list[tuple[int, int]]:
    """Return (row, index in the test batch) of every pair that may be near."""
    pairs: list[tuple[int, int]] = []
    if not len(vectors) or not len(test_vectors):
        return pairs
    test_squares = test_vectors.square().sum(dim=1)
    for first in range(0, len(vectors), _BLOCK):
        block, own = vectors[first : first + _BLOCK], contrast[first : first + _BLOCK, None]
        squares = torch.addmm(test_squares + block.square().sum(dim=1, keepdim=True), block, test_vectors.T, alpha=-2)
        limit = torch.maximum(own, test_contrast).mul_(MAX_OF_CONTRAST).clamp_max_(threshold)
        rows, indices = torch.nonzero(squares <= limit.square_().add_(_SLACK), as_tuple=True)
        pairs += zip((rows + first).tolist(), indices.tolist(), strict=True)
    return pairs


def _compare(image: Tensor, other: Tensor) -> tuple[float, float]:
    """Return the distance of two images (3, S, S), and the largest that their contrast allows."""
    first, second = (pixels.double() - pixels.double().mean() for pixels in (image, other))
    contrast = max(float(pixels.square().mean().sqrt()) for pixels in (first, second))
    return float((first - second).square().mean().sqrt()), MAX_OF_CONTRAST * contrast
