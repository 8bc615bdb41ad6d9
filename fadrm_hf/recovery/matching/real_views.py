"""The real images that statistics are measured on: all of a class or some, whole or as teachers are trained on them.

Which images, and the crop of each, derive from (seed, class) and (seed, image): neither batches nor processes matter.
"""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from fadrm_hf.config import SqueezeConfig, StatisticsConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import SourceError
from fadrm_hf.networks.teachers.training_views import pad_crop, resized_crop
from fadrm_hf.runtime.randomness import generator


class ClassViews(Dataset[tuple[Tensor, Tensor]]):
    """Batches of training images of some classes, class after class.

    Args:
        source: The real images.
        classes: Labels.
        config: How many images of each, whether they are augmented, and how many make a batch.
        squeeze: Crops and flips, resolved.
        seed: Seed of the run.

    Attributes:
        rows: Of each class, the rows (n,) of its images.
        count: (k, 1) float64, images of each class, or of each group that they are divided into.

    Raises:
        SourceError: A class has no image.
    """

    def __init__(
        self, source: Source, classes: range, config: StatisticsConfig, squeeze: SqueezeConfig, seed: int
    ) -> None:
        self._source, self._config, self._squeeze, self._seed = source, config, squeeze, seed
        labels = source.labels("train")
        self.rows = [self._rows(labels, label) for label in classes]
        self.divide([torch.full_like(rows, place) for place, rows in enumerate(self.rows)], len(self.rows))

    def divide(self, groups: list[Tensor], num_groups: int) -> None:
        """Divide the images otherwise than by class: `groups` has the group (n,) of each image of each class."""
        group_of, size = torch.cat(groups), self._config.batch_size
        self.count = torch.bincount(group_of, minlength=num_groups).double()[:, None]
        self._batches = list(zip(torch.cat(self.rows).split(size), group_of.split(size), strict=True))

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) float32, normalised; and (B,) int64, which class or group each is of."""
        indices, group_of = self._batches[batch]
        rows = indices.tolist()
        pixels = self._augmented(rows) if self._config.augment else self._source.pixels("train", rows)
        return self._source.normalise(pixels), group_of

    def _rows(self, labels: np.ndarray, label: int) -> Tensor:
        rows = torch.from_numpy(np.flatnonzero(labels == label))
        if len(rows) == 0:
            name = self._source.class_map.names[label]
            raise SourceError(
                f"class {name!r} has no training image, expected some; leave the class out of the source"
            )
        order = torch.randperm(len(rows), generator=generator(self._seed, "statistics", "images", label))
        return rows[order[: self._config.images_per_class]].sort().values

    def _augmented(self, rows: list[int]) -> Tensor:  # (B, 3, S, S) uint8
        whole = self._source.pixels("train", rows) if self._squeeze.crop == "pad" else [None] * len(rows)
        return torch.stack([self._view(row, image) for row, image in zip(rows, whole, strict=True)])

    def _view(self, row: int, whole: Tensor | None) -> Tensor:  # (3, S, S) uint8
        """Crop and flip a training image, from its full resolution where the whole (3, S, S) is not given."""
        rng = generator(self._seed, "statistics", "view", row)
        if whole is None:
            crop = resized_crop(pil_to_tensor(self._source.image("train", row)), self._source.size, rng)
        else:
            crop = pad_crop(whole[None], self._squeeze.padding, rng)[0]
        return crop.flip(-1) if torch.rand((), generator=rng) < self._squeeze.flip_probability else crop
