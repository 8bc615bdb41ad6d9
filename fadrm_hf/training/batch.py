"""A training batch, and the parts that a step takes of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The views of one step.

    Attributes:
        images: (n, 3, S, S) float32, normalised.
        labels: (n,) int64, the class of each view's own image (not of the image mixed in).
        logits: (n, C) float32, the soft labels; (n, 0) if none were requested.
        mix_labels: (n,) int64, the class of the image that is mixed in; the view's own class if none is.
        mix_shares: (n,) float32, the share of each view's pixels that shows the image mixed in.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    mix_labels: Tensor
    mix_shares: Tensor


def columns_of(batch: Batch) -> tuple[Tensor, ...]:
    """Return the tensors of a batch in the order of its fields."""
    return batch.images, batch.labels, batch.logits, batch.mix_labels, batch.mix_shares


def select_rows(batch: Batch, rows: range) -> Batch:
    """Return consecutive rows of a batch; for an empty range the first row.

    Networks do not take empty batches, so a process without rows joins the sums of the others with a row that counts
    for nothing.
    """
    part = slice(rows.start, rows.stop) if rows else slice(0, 1)
    return Batch(*(column[part] for column in columns_of(batch)))


def split(batch: Batch, sizes: list[int]) -> Iterator[Batch]:
    """Yield successive parts of a batch, of the given sizes."""
    for parts in zip(*(column.split(sizes) for column in columns_of(batch)), strict=True):
        yield Batch(*parts)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to the student's device, its images in the memory layout that convolutions prefer."""
    images = batch.images.to(device, memory_format=torch.channels_last, non_blocking=True)
    rest = (column.to(device, non_blocking=True) for column in columns_of(batch)[1:])
    return Batch(images, *rest)
