"""A release as a whole: its images, its epochs of labels, and which image each label belongs to."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.errors import ArtifactError
from fadrm_hf.labels.drawing import split_sizes
from fadrm_hf.pipeline.legacy.image_folder import find_images, read_pixels
from fadrm_hf.pipeline.legacy.label_files import LabelBatch, batch_files, epoch_folders, read_batch, sampler_orders


class Release:
    """The files of a release; the first label file is opened, all others are listed.

    Args:
        images: Folder with a folder of images for each class.
        labels: Folder of FKD label files.
        class_map: The classes of the source.
        size: Side of the images in pixels.
        sampler_seed: Seed of the order of images in each epoch.

    Attributes:
        images: What images there are.
        epochs: The label files of each epoch.
        batch_size: Images labelled together.
        mixed: Whether the views are mixed (CutMix).

    Raises:
        ArtifactError: If a file is missing, or the labels are of more or fewer images.
        ClassMapError: If the folders of images are not the source's classes.
    """

    def __init__(self, images: Path, labels: Path, class_map: ClassMap, size: int, sampler_seed: int) -> None:
        self._class_map, self._size, self._seed = class_map, size, sampler_seed
        self.images = find_images(images, class_map)
        self.epochs = [batch_files(epoch) for epoch in epoch_folders(labels)]
        first = self.read_batch(self.epochs[0][0])
        self.batch_size, self.mixed = len(first), first.partner is not None
        self._require_every_file()

    @property
    def num_images(self) -> int:
        """Return the number of images, and of views in each epoch."""
        return len(self.images.files)

    def pixels(self, positions: Tensor) -> Tensor:
        """Read images by their places in the image folder (n,), as (n, 3, S, S) uint8."""
        return torch.stack([read_pixels(self.images.files[place], self._size) for place in positions.tolist()])

    def orders(self, epochs: set[int]) -> Iterator[tuple[int, Tensor]]:
        """Return each of some epochs, ascending, with the sampler's order (N,) of the image folder."""
        orders = islice(sampler_orders(self.num_images, self._seed), len(self.epochs))
        return ((epoch, order) for epoch, order in enumerate(orders) if epoch in epochs)

    def read_batch(self, path: Path) -> LabelBatch:
        """Read one label file, checked against the source."""
        return read_batch(path, self._size, len(self._class_map))

    def read_epoch(self, epoch: int, order: Tensor) -> dict[str, Tensor]:
        """Read one epoch of the soft-label table.

        Args:
            epoch: Which one.
            order: Its order of images, which holds where the label files do not name them.

        Returns:
            The columns of the table, and "logits" (N, C) float32.

        Raises:
            ArtifactError: If a file is not what the release should hold; it is named.
        """
        tables, shown = [], []
        for path, sampled in zip(self.epochs[epoch], order.split(self.batch_size), strict=True):
            batch = self.read_batch(path)
            self._require_alike(path, batch, len(sampled))
            shown.append(sampled if batch.positions is None else batch.positions)
            rows = self.images.rows[shown[-1].clamp(0, self.num_images - 1)]  # what is beyond is refused below
            tables.append(batch.views(rows).columns() | {"logits": batch.logits})
        if not torch.equal(torch.cat(shown).sort().values, torch.arange(self.num_images)):
            raise ArtifactError(
                f"epoch_{epoch}/ does not label each of {self.num_images} images once; set --images to the images of "
                "these labels"
            )
        sizes = torch.tensor(split_sizes(self.num_images, self.batch_size))  # a last label alone joins those before
        steps = torch.arange(len(sizes)).repeat_interleave(sizes).int()
        columns = {"epoch": torch.full_like(steps, epoch), "step": steps}
        return columns | {name: torch.cat([table[name] for table in tables]) for name in tables[0]}

    def _require_every_file(self) -> None:
        expected = -(-self.num_images // self.batch_size)
        for epoch, batches in enumerate(self.epochs):
            if len(batches) != expected:
                raise ArtifactError(
                    f"epoch_{epoch}/ has {len(batches)} label files, expected {expected} of {self.batch_size} labels "
                    f"for {self.num_images} images; fetch the release again, or set --images to the images of these "
                    "labels"
                )

    def _require_alike(self, path: Path, batch: LabelBatch, num: int) -> None:
        where = f"{path.parent.name}/{path.name}"
        if len(batch) != num:
            raise ArtifactError(f"{where} has {len(batch)} labels, expected {num}; fetch that file again")
        if (batch.partner is not None) != self.mixed:
            kinds = ("not mixed", "mixed")
            raise ArtifactError(
                f"{where} has views that are {kinds[not self.mixed]}, those of epoch_0/batch_0.tar are "
                f"{kinds[self.mixed]}; see whether that file belongs to this release"
            )
