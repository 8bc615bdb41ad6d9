"""A source: the real images of a dataset with their classes, normalisation and identity.

Images stay encoded until they are used; `fadrm_hf.data.sources.loading` makes a source of a configuration.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.data.pixels import normalise, to_pixels
from fadrm_hf.data.sources import encoded, images
from fadrm_hf.data.sources.report import SourceReport
from fadrm_hf.data.sources.splits import TEST_SPLITS
from fadrm_hf.errors import SourceError
from fadrm_hf.runtime.randomness import generator

Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class Source:
    """The real images that are distilled, and those that students are tested on.

    Args:
        config: The configuration with every column, split and constant that was found.
        class_map: The classes, in the order of `label`.
        train: Columns `image` (encoded) and `label`.
        test: The same of the test split, or `None` if the source has none.
        revision: The Hub commit it was read from.
        fingerprint: SHA-256 over labels and images (over a sample of the images of a large source).
        rule: How image files become 8-bit RGB.
        test_rows: Which training rows were held out as test images (`test_fraction`), counted among those in use.
        tests_on_training: Whether training images stand in for test images.
        report: What was read, in short; `None` of a source that was made of another.
    """

    config: SourceConfig
    class_map: ClassMap
    train: Dataset
    test: Dataset | None
    revision: str | None
    fingerprint: str
    rule: images.PixelRule = images.AS_FILED
    test_rows: tuple[int, ...] | None = None
    tests_on_training: bool = False
    report: SourceReport | None = None

    def rows(self, split: Split) -> Dataset:
        """Return the table of a split."""
        table = self.train if split == "train" else self.test
        if table is None:
            raise SourceError(
                f"source {self.config.name!r} has no test split, expected one of {', '.join(TEST_SPLITS)}; hold out a "
                "fifth of the training images with --source.test_fraction 0.2, or name a split or slice with "
                "--source.test_split"
            )
        return table

    def labels(self, split: Split) -> np.ndarray:
        """Return the class index of every image, (n,) int64."""
        table = self.rows(split).select_columns("label").with_format("arrow")[:]
        return table.column("label").to_numpy().astype(np.int64)

    @cached_property
    def _encoded(self) -> dict[Split, Dataset]:
        """The encoded images of splits in use; made once, for it copies the names of all classes."""
        return {}

    @cached_property
    def rows_by_class(self) -> list[np.ndarray]:
        """By class index the training images of the class, (n,) int64 rows in the source's order."""
        labels = self.labels("train")
        counts = np.bincount(labels, minlength=len(self.class_map))
        return np.split(np.argsort(labels, kind="stable"), counts.cumsum()[:-1])

    @property
    def images_per_class(self) -> np.ndarray:
        """By class index the number of training images, (C,) int64."""
        return np.array([len(rows) for rows in self.rows_by_class])

    def image(self, split: Split, index: int) -> Image.Image:
        """Return one image, RGB at its own size."""
        return encoded.decode(self.rows(split)[int(index)]["image"], self.rule, self._split_name(split), int(index))

    def pixels(self, split: Split, indices: Sequence[int]) -> Tensor:
        """Return images in their test view (`images.square`), (n, 3, S, S) uint8."""
        size = self.size
        out = np.empty((len(indices), size, size, 3), np.uint8)

        def fill(place: int, image: Image.Image) -> None:
            out[place] = np.asarray(images.square(image, size))

        self.each(split, indices, fill)
        return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()

    def each(self, split: Split, indices: Sequence[int], use: Callable[[int, Image.Image], None]) -> None:
        """Use images, several at once in threads; few are in memory at a time.

        Args:
            split: Which images.
            indices: Their rows.
            use: Called with an image's place among `indices` and the image, RGB at its own size; in any order.

        Raises:
            SourceError: If an image cannot be decoded.
        """
        name = self._split_name(split)
        if split not in self._encoded:
            self._encoded[split] = encoded.encoded_images(self.rows(split))
        for first, chunk in encoded.chunks(self._encoded[split], indices):

            def decode(part: Sequence[int], first: int = first, chunk: list[images.Encoded | None] = chunk) -> None:
                for at in part:
                    use(first + at, encoded.decode(chunk[at], self.rule, name, int(indices[first + at])))

            images.in_threads(decode, chunk)

    def num_bytes(self, split: Split) -> int:
        """Return the bytes of a split's images as they are encoded."""
        return encoded.num_bytes(self.rows(split))

    def normalise(
        self,
        pixels: Tensor,  # (..., 3, H, W) uint8
    ) -> Tensor:  # (..., 3, H, W) float32, normalised
        """Return what networks see: pixels in [0, 1], less the mean, over the standard deviation."""
        return normalise(pixels, self.config.mean, self.config.std)

    def to_pixels(
        self,
        normalised: Tensor,  # (..., 3, H, W) float, normalised
    ) -> Tensor:  # (..., 3, H, W) uint8
        """Return the pixels of what networks see, rounded to the nearest; what lies outside them is clamped."""
        return to_pixels(normalised, self.config.mean, self.config.std)

    def hold_out(self, fraction: float, seed: int) -> "Source":
        """Divide the training images: some of each class take the place of test images, the others train.

        For choices that must not be made on test images. Networks trained on this source have seen the images held
        out; what is trained on the result has not.

        Args:
            fraction: Of each class's training images, the share that is held out (`num_held_out`).
            seed: Decides which.

        Returns:
            A source with a fingerprint of its own and without this one's test images.

        Raises:
            SourceError: If a class has too few images to be divided.
        """
        counts = self.images_per_class
        if counts.min() < 2:
            few = self.class_map.names[int(counts.argmin())]
            raise SourceError(
                f"class {few!r} has {counts.min()} training images, expected at least 2 to hold some out; add images, "
                "or name the other classes: --source.classes"
            )
        held = np.zeros(len(self.train), dtype=bool)
        for label, rows in enumerate(self.rows_by_class):
            order = torch.randperm(len(rows), generator=generator(seed, "hold_out", label)).numpy()
            held[rows[order[: num_held_out(len(rows), fraction)]]] = True
        digest = hashlib.sha256(self.fingerprint.encode() + held.tobytes()).hexdigest()
        return replace(
            self,
            config=replace(self.config, test_split=self.config.train_split, test_fraction=None),
            train=self.train.select(np.flatnonzero(~held)),
            test=self.train.select(np.flatnonzero(held)),
            fingerprint=digest,
            test_rows=tuple(np.flatnonzero(held).tolist()),
            tests_on_training=False,
        )

    @property
    def size(self) -> int:
        """Side of the square images in pixels."""
        return self.config.size

    def _split_name(self, split: Split) -> str:
        return str(self.config.train_split if split == "train" else self.config.test_split)


def num_held_out(num_images: int, fraction: float) -> int:
    """Return how many of a class's images `Source.hold_out` takes: the nearest number, at least one, never all."""
    return min(max(1, round(fraction * num_images)), num_images - 1)
