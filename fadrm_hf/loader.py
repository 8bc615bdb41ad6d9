"""An artifact, read as training batches: stored views replayed, with the soft labels they were given.

Nothing is drawn here. Which images form a batch, how each is cropped, flipped and mixed, and in which micro-batches
the batch is split is all in the artifact, so a student sees exactly what the teachers labelled, for any number of
workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fadrm_hf.artifact import num_label_epochs, read_images, read_soft_labels
from fadrm_hf.artifact.manifest import Manifest, read_manifest
from fadrm_hf.config import Colour, RelabelConfig
from fadrm_hf.errors import StudentError
from fadrm_hf.relabel import split_sizes
from fadrm_hf.sources.images import normalise
from fadrm_hf.views import LabelViews, render_views


@dataclass(frozen=True)
class Batch:
    """The views of one step.

    Attributes:
        images: (n, 3, S, S) float32, normalised.
        labels: (n,) int64, the class of each view's own image (not of what is mixed in).
        logits: (n, C) float32, the soft labels.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor


@dataclass(frozen=True, eq=False)
class Distilled:
    """A distilled dataset in memory, but for its soft labels, which are read an epoch at a time.

    Attributes:
        folder: The artifact.
        manifest: What it is and how it was made.
        images: (N, 3, S, S) uint8.
        labels: (N,) int64.
        num_epochs: Epochs of soft labels.
        relabel: How the labels were made: batch size and micro-batches.
    """

    folder: Path
    manifest: Manifest
    images: Tensor
    labels: Tensor
    num_epochs: int
    relabel: RelabelConfig

    @property
    def normalisation(self) -> tuple[Colour, Colour]:
        """Channel means and standard deviations, on pixels in [0, 1]."""
        return _colour(self.manifest.pixels.mean), _colour(self.manifest.pixels.std)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that show every image once."""
        return len(split_sizes(len(self.images), self.relabel.batch_size))

    def require_epochs(self, epochs: int) -> None:
        """Refuse to train for longer than there are labels.

        Raises:
            StudentError: If more epochs are asked for than are labelled.
        """
        if epochs > self.num_epochs:
            raise StudentError(
                f"{epochs} epochs are asked for, the artifact has labels for {self.num_epochs}; set "
                f"--epochs {self.num_epochs} or less, or distil again with --relabel.epochs {epochs}"
            )

    def batches(self, epochs: range, mixed: bool = True, num_workers: int = 0) -> Iterator[Batch]:
        """The batches of some epochs, in training order.

        Args:
            epochs: Which epochs of labels.
            mixed: Whether views are mixed as they were labelled; False shows each image alone (hard labels).
            num_workers: Processes that read and render; the batches do not depend on it.

        Raises:
            StudentError: If more epochs are asked for than are labelled.
        """
        self.require_epochs(epochs.stop)
        steps = _Steps(self, epochs, mixed)
        return iter(DataLoader(steps, batch_size=None, num_workers=num_workers))


def load_distilled(folder: str | Path) -> Distilled:
    """Open an artifact.

    Raises:
        ArtifactError: If there is none, or it is damaged, incomplete, or of a newer format.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    images, labels = read_images(path)
    relabel = RelabelConfig(**manifest.config["relabel"])
    return Distilled(path, manifest, images, labels, num_label_epochs(path), relabel)


def _colour(values: tuple[float, ...]) -> Colour:
    red, green, blue = values
    return red, green, blue


class _Steps(Dataset[Batch]):
    """Step i of the epochs of a range, as a map-style dataset, so that workers may share them out."""

    def __init__(self, distilled: Distilled, epochs: range, mixed: bool) -> None:
        self._distilled, self._epochs, self._mixed = distilled, epochs, mixed
        self._sizes = split_sizes(len(distilled.images), distilled.relabel.batch_size)
        self._epoch = -1
        self._table: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._epochs) * len(self._sizes)

    def __getitem__(self, index: int) -> Batch:
        if index >= len(self):
            raise IndexError(index)
        epoch, step = divmod(index, len(self._sizes))
        columns = self._read(self._epochs[epoch], step)
        views = LabelViews.from_columns(columns)
        pixels = render_views(self._distilled.images, views if self._mixed else views.unmixed())
        images = normalise(pixels, *self._distilled.normalisation)
        return Batch(images, self._distilled.labels[views.image], columns["logits"].float())

    def _read(self, epoch: int, step: int) -> dict[str, Tensor]:
        if epoch != self._epoch:
            table = read_soft_labels(self._distilled.folder, epoch)
            self._table = {name: torch.from_numpy(column) for name, column in table.items()}
            self._epoch = epoch
        first = sum(self._sizes[:step])
        return {name: column[first : first + self._sizes[step]] for name, column in self._table.items()}
