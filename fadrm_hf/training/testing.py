"""The test images of a source, as students see them."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fadrm_hf.data.sources import Source
from fadrm_hf.runtime.transfer import send

_MOST_BYTES_IN_MEMORY = 2 << 30
_BATCH = 500
_BATCH_ON_CPU = 50  # 1.4 times as fast as 500 (ResNet-18, 32 px, two cores): activations stay in the cache
_PASSES = 3  # forward, and backward to inputs and weights: a view that is trained on costs as many test images


class TestImages(Dataset[tuple[Tensor, int]]):
    """The images that students are tested on, as a dataset of (image, class).

    An image is (3, S, S) float32, cropped and resized to the artifact's size and normalised as its views are. Images
    are decoded once if they fit into memory, and kept as bytes on the device.

    Args:
        source: The source with a test split.
        device: Device of the images.

    Attributes:
        labels: (N,) int64, the class of each image.
        are_training_images: True if training images stand in for test images, as the source has no others.
    """

    __test__ = False  # pytest takes classes of this name for tests

    def __init__(self, source: Source, device: torch.device) -> None:
        self._source, self.device = source, device
        self._batch_size = _BATCH_ON_CPU if device.type == "cpu" else _BATCH
        self.labels = torch.as_tensor(source.labels("test"))
        self.are_training_images = source.tests_on_training
        fits = len(self.labels) * 3 * source.size**2 <= _MOST_BYTES_IN_MEMORY
        self._pixels = source.pixels("test", range(len(self.labels))).to(device) if fits else None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = self._source.size
        return f"TestImages({len(self):,} of {self.num_classes} classes, 3 x {size} x {size}, normalised)"

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        if not 0 <= row < len(self):
            raise IndexError(f"test image {row} was requested, there are {len(self)}")
        return self._normalised(range(row, row + 1))[0], int(self.labels[row])

    @property
    def num_classes(self) -> int:
        """Classes of the source."""
        return len(self._source.class_map)

    def batches(self, rows: range | None = None) -> Iterator[Tensor]:
        """Yield batches (n, 3, S, S) of consecutive images, without their classes.

        Args:
            rows: Which images; by default all.
        """
        rows = range(len(self)) if rows is None else rows
        for first in range(rows.start, rows.stop, self._batch_size):
            part = range(first, min(first + self._batch_size, rows.stop))
            yield self._normalised(part).contiguous(memory_format=torch.channels_last)

    def _normalised(self, rows: range) -> Tensor:
        kept = self._pixels
        pixels = self._source.pixels("test", rows) if kept is None else kept[rows.start : rows.stop]
        return self._source.normalise(*send([pixels], self.device))


def epochs_to_test(checkpoints: list[int], views: int, num_test: int) -> list[int]:
    """Choose the checkpoints of a training at which its student is tested.

    The last is tested in any case. Earlier ones, tested for the best epoch alone, must not take longer than the
    training: ten images that are trained on are a small fraction of a test split.

    Args:
        checkpoints: Epochs after which the state is saved, from 1; the last is the training's last.
        views: Views that are trained on in all epochs together.
        num_test: Number of test images.

    Returns:
        Evenly spaced ones of them, ending with the last.
    """
    affordable = max(1, _PASSES * views // max(1, num_test))
    return checkpoints[:: -math.ceil(len(checkpoints) / affordable)][::-1]
