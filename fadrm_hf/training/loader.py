"""Training batches of an artifact: stored views replayed, with the soft labels they were given.

The artifact records which images form a batch, how each is cropped, flipped and mixed, and how the batch is split into
micro-batches. So a student sees exactly what the teachers labelled: with any number of workers, from a folder or from
the Hub, and after any interruption. A protocol may regroup the same rows into other batches (`Distilled.regrouped`) or
draw views of its own (`Distilled.redrawn`), which are those that labelling with its settings would have stored.

One thread reads epochs of labels ahead. The main process cuts them into steps and hands each step to the data-loading
workers in place of an index, so every row is read once, whatever the number of workers, and the order is kept.
"""

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fadrm_hf.artifact.location import Location, table_names
from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.reading import Arrays, read_images
from fadrm_hf.config import Colour, RelabelConfig
from fadrm_hf.errors import ArtifactError, StudentError
from fadrm_hf.hub import open_artifact
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.labels.drawing import draw_epoch, split_sizes
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER
from fadrm_hf.training.batch import Batches
from fadrm_hf.training.label_stream import LabelEpochs, read_ahead
from fadrm_hf.training.rendering import Rendering, render_blocks
from fadrm_hf.training.reuse import stored_epoch_of

if TYPE_CHECKING:
    from fadrm_hf.labels.relabel import Labeller
    from fadrm_hf.training.testing import TestImages

Labels = Literal["stored", "online", "none"]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Distilled:
    """A distilled dataset: its images in memory, its soft labels read as they are needed.

    Attributes:
        location: The artifact, in a folder or on the Hub.
        images: (N, 3, S, S) uint8.
        labels: (N,) int64.
        relabel: Batch size and micro-batches of the views; how the labels were made, or are to be made.
        streaming: Whether labels are read in ranges from their location and never written to this disk.
        online: Whether the artifact's teachers label each view again, even if labels are stored.
        redraws: Whether views are drawn anew by `relabel` instead of read from the artifact.
    """

    location: Location
    images: Tensor
    labels: Tensor
    relabel: RelabelConfig
    streaming: bool = False
    online: bool = False
    redraws: bool = False

    def __repr__(self) -> str:
        from fadrm_hf.report.display import summary_line  # a batch needs no card

        return summary_line(self.location)

    def _repr_html_(self) -> str:
        from fadrm_hf.report.display import notebook_html

        return notebook_html(self.location, self.images, self.labels)

    @property
    def manifest(self) -> Manifest:
        """The artifact's manifest."""
        return self.location.manifest

    @property
    def name(self) -> str:
        """The folder as it was given, or `ORG/NAME@COMMIT`."""
        return self.location.name

    @property
    def folder(self) -> Path:
        """The artifact's folder; for a Hub dataset its snapshot in the cache, which must not be written to."""
        return self.location.folder

    @property
    def normalisation(self) -> tuple[Colour, Colour]:
        """Channel means and standard deviations, on pixels in [0, 1]."""
        return _colour(self.manifest.pixels.mean), _colour(self.manifest.pixels.std)

    @property
    def num_epochs(self) -> int:
        """Epochs of training that the labels serve; stored epochs may be read more than once."""
        return self.relabel.epochs or self.num_stored_epochs

    @property
    def num_stored_epochs(self) -> int:
        """Epochs of labels in the artifact."""
        return self.manifest.label_epochs

    @cached_property
    def step_sizes(self) -> list[int]:
        """Views in each batch of an epoch."""
        return split_sizes(len(self.images), self.relabel.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that show every image once."""
        return len(self.step_sizes)

    @property
    def labels_online(self) -> bool:
        """Whether teachers label views during training, by request or because no labels are stored."""
        return self.online or self.redraws or not self._stores_labels

    def regrouped(self, batch_size: int | None, accumulation: int | None) -> "Distilled":
        """Return the same views in other batches: the rows of each epoch, in the order of training, cut anew.

        Online labels are made for these batches; stored labels stay as they are.

        Args:
            batch_size: Views per batch; `None`: as labelled.
            accumulation: Micro-batches per batch; `None`: as labelled if the batches are, else 1.
        """
        usual = self.relabel.accumulation if batch_size is None else 1
        size, parts = batch_size or self.relabel.batch_size, accumulation or usual
        return replace(self, relabel=replace(self.relabel, batch_size=size, accumulation=parts))

    def redrawn(self, relabel: RelabelConfig) -> "Distilled":
        """Return the same images under views that are drawn by other, resolved settings and labelled online."""
        return replace(self, relabel=relabel, redraws=True)

    def require_epochs(self, epochs: int) -> None:
        """Refuse to train for more epochs than the labels are meant for.

        Raises:
            StudentError: If `epochs` exceeds `num_epochs`.
        """
        if epochs > self.num_epochs:
            raise StudentError(
                f"{epochs} epochs were requested, the artifact has labels for {self.num_epochs}; set "
                f"--epochs {self.num_epochs} or less, or distil again with --relabel.epochs {epochs}"
            )

    def batches(
        self,
        epochs: range,
        mixed: bool = True,
        num_workers: int = 0,
        *,
        labels: Labels | None = None,
        device: torch.device | None = None,
        state: Mapping[str, int] | None = None,
    ) -> Batches:
        """Return an iterator over the batches of some epochs, in training order.

        Args:
            epochs: Which epochs of training.
            mixed: Whether views are mixed as they were labelled; False shows each image alone (hard labels).
            num_workers: Processes that render; the batches do not depend on it.
            labels: Source of the logits: "stored" in the artifact; "online" from the teachers it names, in the
                micro-batches of `relabel`; or "none". By default "none" for views that are not mixed, else "online"
                if `labels_online`, else "stored".
            device: Where teachers label, by default the process's own device. Without workers the views are rendered
                there too, from images that are copied there once.
            state: `Batches.state_dict()` of an earlier pass over the same epochs, to resume from.

        Raises:
            ArtifactError: If stored labels are requested but missing; while reading, if the table is damaged.
            StudentError: If there are more epochs than the labels are meant for, or `state` belongs to other epochs.
            TeacherError: If a teacher that should label cannot be loaded.
        """
        self.require_epochs(epochs.stop)
        labels = labels or self._usual_labels(mixed)
        if labels == "stored" and (self.redraws or not self._stores_labels):
            kind = "labels of these views" if self.redraws else "labels"
            raise ArtifactError(f"{self.name} stores no {kind}: its teachers make them; request labels='online'")
        done = 0 if state is None else self._steps_before(epochs, state)
        labeller = self._labeller(device) if labels == "online" else None
        steps = self._steps(epochs, done, views_only=labels != "stored")
        on_gpu = device is not None and device.type == "cuda"
        rendering = self._rendering(mixed, labels == "stored", None if num_workers else device)
        if on_gpu and not num_workers:
            return Batches(epochs, self.steps_per_epoch, done, render_blocks(rendering, steps, labeller), steps, None)
        loader = DataLoader(
            rendering,
            batch_size=None,
            sampler=steps,
            num_workers=num_workers,  # forked before the first step is read, and so before there is a thread
            pin_memory=on_gpu,  # so that nobody waits while a batch is copied
            generator=torch.Generator(),  # the global one is the student's
        )
        return Batches(epochs, self.steps_per_epoch, done, iter(loader), steps, labeller)

    def test_images(self, source: str | Path | None = None, device: torch.device | str = "cpu") -> "TestImages":
        """Read the source's test images, on which the evaluation protocol measures students.

        Args:
            source: Path to the source, if it has moved; by default what the manifest names, fetched if need be.
            device: Where the images are.

        Raises:
            ConfigError: If the source is another than the artifact was distilled from.
            SourceError: If it cannot be read, or has no test images.
        """
        from fadrm_hf.artifact.recorded_source import source_of  # training needs no source
        from fadrm_hf.training.testing import TestImages

        name = None if source is None else str(source)
        return TestImages(source_of(self.location, name), torch.device(device))

    def _usual_labels(self, mixed: bool) -> Labels:
        if not mixed:
            return "none"
        return "online" if self.labels_online else "stored"

    @property
    def _stores_labels(self) -> bool:
        return find_codec(self.manifest.label_codec).has_logits

    def _steps_before(self, epochs: range, state: Mapping[str, int]) -> int:
        """Count the steps of the epochs before a position."""
        epoch, step = state["epoch"], state["step"]
        if (epoch, step) == (epochs.stop, 0):
            return len(epochs) * self.steps_per_epoch
        if epoch not in epochs or not 0 <= step < self.steps_per_epoch:
            raise StudentError(
                f"state is epoch {epoch}, step {step}, expected a step below {self.steps_per_epoch} of epochs "
                f"{epochs.start} to {epochs.stop - 1}; pass the epochs that the state was saved in"
            )
        return epochs.index(epoch) * self.steps_per_epoch + step

    def _rendering(self, is_mixed: bool, with_logits: bool, device: torch.device | None) -> Rendering:
        """Return what renders the columns of a step, on the CPU if no device is given."""
        codec = find_codec(self.manifest.label_codec) if with_logits else None
        device = device or torch.device("cpu")
        return Rendering(self.images, self.labels, self.normalisation, is_mixed, codec, self._num_classes, device)

    def _labeller(self, device: torch.device | None) -> "Labeller":
        from fadrm_hf.artifact.recorded_teachers import recorded_labeller  # brings all networks, and timm
        from fadrm_hf.runtime.shards import own_device

        for record in self.manifest.teachers[: self.relabel.num_teachers]:
            for name in self.manifest.files:
                if record.path is not None and name.startswith(f"{record.path}/"):
                    self.location.local(name)
        changed = None if self.relabel == self._recorded else self.relabel
        return recorded_labeller(self.folder, self.manifest, device or own_device(), changed)

    @property
    def _num_classes(self) -> int:
        return len(self.manifest.class_map)

    @property
    def _recorded(self) -> RelabelConfig:
        """How the stored labels were made."""
        return self.manifest.settings("relabel", RelabelConfig)

    @property
    def _seed(self) -> int:
        return self.manifest.seeds.get("run", 0)

    def _steps(self, epochs: range, done: int, views_only: bool) -> Generator[Arrays, None, None]:
        """Yield the columns of each step of the epochs after the first `done`; reading starts with the first."""
        skipped = done % self.steps_per_epoch
        rest = epochs[done // self.steps_per_epoch :]
        with closing(self._drawn_epochs(rest) if self.redraws else self._stored_epochs(rest, views_only)) as tables:
            for columns, steps in tables:
                for rows in steps[skipped:]:
                    yield {name: column[rows] for name, column in columns.items()}
                columns.clear()  # before the epoch after the next is read
                skipped = 0

    def _cut(self, rows: Rows) -> list[Rows]:
        """Cut the rows of an epoch into batches."""
        return np.split(rows, np.cumsum(self.step_sizes)[:-1])

    def _stored_epochs(self, epochs: range, views_only: bool) -> Generator[tuple[Arrays, list[Rows]], None, None]:
        """Yield the columns of each epoch as stored, and the rows of each of its steps."""
        num_stored, sizes = self.num_stored_epochs, split_sizes(len(self.images), self._recorded.batch_size)
        blocks = np.split(np.arange(len(self.images)), np.cumsum(sizes)[:-1])
        plan = (stored_epoch_of(epoch, num_stored, len(sizes), self._seed) for epoch in epochs)
        last = min(epochs.stop, num_stored) - 1
        with (
            closing(LabelEpochs(self.location, last, self.streaming, views_only)) as table,
            closing(read_ahead(lambda planned: table.read(planned[0]), plan, table.num_ahead)) as stored_epochs,
        ):
            for (_, steps), columns in stored_epochs:
                rows = [blocks[step] for step in steps]
                yield columns, rows if sizes == self.step_sizes else self._cut(np.concatenate(rows))

    def _drawn_epochs(self, epochs: range) -> Generator[tuple[Arrays, list[Rows]], None, None]:
        """Yield the columns of each epoch of newly drawn views, and the rows of each of its steps."""

        def draw(epoch: int) -> Arrays:
            columns, _ = draw_epoch(len(self.images), self.images.shape[-1], self.relabel, self._seed, epoch)
            return {name: column.numpy() for name, column in columns.items()}

        with closing(read_ahead(draw, epochs, 1)) as drawn_epochs:
            for _, columns in drawn_epochs:
                yield columns, self._cut(np.arange(len(self.images)))


def load_distilled(
    name: str | Path | Location, revision: str | None = None, streaming: bool = False, online: bool = False
) -> Distilled:
    """Open an artifact for training: images are fetched and decoded now, labels when they are needed.

    Args:
        name: A run folder, `ORG/NAME` on the Hub, or the result of `open_artifact`.
        revision: Tag, branch or commit on the Hub.
        streaming: Read ranges of label files from the Hub and write nothing to this disk. By default files are
            fetched one by one as they are needed, and kept in the cache.
        online: Let the artifact's teachers label each view again, even if labels are stored.

    Raises:
        ArtifactError: If there is no artifact, or it is damaged, incomplete, hostile, or of a newer format.
        HubError: If the Hub does not deliver it.
    """
    location = open_artifact(name, revision) if isinstance(name, str | Path) else name
    for file in table_names(location.manifest, IMAGES_FOLDER):
        location.local(file)
    images, labels = read_images(location.folder)
    relabel = location.manifest.settings("relabel", RelabelConfig)
    return Distilled(location, images, labels, relabel, streaming, online)


def _colour(values: tuple[float, ...]) -> Colour:
    red, green, blue = values
    return red, green, blue
