"""A training batch, the parts that a step takes of it, and a pass over the batches of some epochs."""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, NamedTuple
from weakref import finalize

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from fadrm_hf.errors import StudentError

if TYPE_CHECKING:
    from fadrm_hf.artifact.reading import Arrays
    from fadrm_hf.labels.relabel import Labeller


class Batch(NamedTuple):
    """The views of one step: a tuple of tensors, which trainers move to their devices as they move any other.

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

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Return the batch on a device."""
        return Batch(*(column.to(device, non_blocking=non_blocking) for column in self))


class Batches(IterableDataset[Batch], Iterator[Batch]):
    """One pass over the batches of some epochs, which knows its position; it can be iterated over once.

    `len` is the number of batches from where the pass began to its end. As a dataset it fits
    `DataLoader(batches, batch_size=None)` and what is built on that. Its thread and workers end when it is closed or
    collected, and with the program.
    """

    def __init__(
        self,
        epochs: range,
        steps_per_epoch: int,
        done: int,  # batches of these epochs that were read before
        batches: Iterator[Batch],  # the remaining ones
        steps: Generator["Arrays", None, None],  # the columns that they are rendered from
        labeller: "Labeller | None",  # of this process
    ) -> None:
        self._epochs, self._steps_per_epoch, self._done = epochs, steps_per_epoch, done
        self._length = len(epochs) * steps_per_epoch - done
        self._batches, self._labeller = batches, labeller
        # At exit the modules that the generator needs to end its thread are still there; when it is collected, not.
        self._end = finalize(self, steps.close)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> "Batches":
        if get_worker_info() is not None:
            raise StudentError(
                "batches are rendered by their own workers, expected DataLoader(batches, batch_size=None) without "
                "num_workers; give the number to batches(num_workers=...)"
            )
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        if self._labeller is not None:
            # A clone, since tensors made in inference mode cannot be used in a loss.
            logits = self._labeller.label_rendered(batch.images).clone()
            batch = batch._replace(logits=logits.to(batch.images.device))
        self._done += 1
        return batch

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, int]:
        """Return the "epoch" and "step" of the next batch; after the last one, step 0 of the epoch that follows."""
        epoch, step = divmod(self._done, self._steps_per_epoch)
        return {"epoch": self._epochs[epoch] if epoch < len(self._epochs) else self._epochs.stop, "step": step}

    def close(self) -> None:
        """End the thread and the workers, after they have finished the work at hand."""
        self._batches = iter(())
        self._end()


def select_rows(batch: Batch, rows: range) -> Batch:
    """Return consecutive rows of a batch; for an empty range the first row.

    Networks do not take empty batches, so a process without rows joins the sums of the others with a row that counts
    for nothing.
    """
    part = slice(rows.start, rows.stop) if rows else slice(0, 1)
    return Batch(*(column[part] for column in batch))


def split(batch: Batch, sizes: list[int]) -> Iterator[Batch]:
    """Yield successive parts of a batch, of the given sizes."""
    for parts in zip(*(column.split(sizes) for column in batch), strict=True):
        yield Batch(*parts)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to the student's device, its images in the memory layout that convolutions prefer."""
    images = batch.images.to(device, memory_format=torch.channels_last, non_blocking=True)
    return Batch(images, *(column.to(device, non_blocking=True) for column in batch[1:]))
