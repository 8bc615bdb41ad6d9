"""A source: the real images of a dataset with their classes, normalisation and identity.

`load_source` finds the image and label columns and the splits, orders the classes, and refuses what it cannot
understand. Images stay encoded until they are used.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import torch
from datasets import Dataset, DatasetDict
from PIL import Image
from torch import Tensor

from fadrm_hf.config import SourceConfig
from fadrm_hf.config.datasets import resolve_source
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.data.sources import columns, images
from fadrm_hf.data.sources.readers import TEST_SPLITS, read_tables
from fadrm_hf.errors import SourceError
from fadrm_hf.runtime.randomness import generator

logger = logging.getLogger(__name__)

Split = Literal["train", "test"]

HASHED_WHOLE_BYTES = 10**9  # sources below this are hashed completely
HASHED_SAMPLE = 1000  # images of each split that are hashed of larger ones
SCANNED_WHOLE_BYTES = 64 * 2**20  # sources below this are decoded completely before a run
SCANNED_SAMPLE = 1000  # images of each split that are decoded of larger ones
_ROWS_READ = 256  # encoded images held in memory at once: some 30 MB of ImageNet's


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
    """

    config: SourceConfig
    class_map: ClassMap
    train: Dataset
    test: Dataset | None
    revision: str | None
    fingerprint: str

    def rows(self, split: Split) -> Dataset:
        """The table of a split."""
        table = self.train if split == "train" else self.test
        if table is None:
            raise SourceError(
                f"source {self.config.name!r} has no test split, expected one of {', '.join(TEST_SPLITS)}; name it "
                "with --source.test_split"
            )
        return table

    def labels(self, split: Split) -> np.ndarray:
        """The class index of every image, (n,) int64."""
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
        """One image, RGB at its own size."""
        return _decode(self.rows(split)[int(index)]["image"], self._split_name(split), int(index))

    def pixels(self, split: Split, indices: Sequence[int]) -> Tensor:
        """Images in their test view (`images.square`), (n, 3, S, S) uint8."""
        size = self.size
        out = np.empty((len(indices), size, size, 3), np.uint8)

        def fill(place: int, image: Image.Image) -> None:
            out[place] = np.asarray(images.square(image, size))

        self.each(split, indices, fill)
        return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()

    def each(self, split: Split, indices: Sequence[int], use: Callable[[int, Image.Image], None]) -> None:
        """Do something with images, several at once in threads; few are in memory at a time.

        Args:
            split: Which images.
            indices: Their rows.
            use: Called with an image's place among `indices` and the image, RGB at its own size; in any order.

        Raises:
            SourceError: If an image cannot be decoded.
        """
        name = self._split_name(split)
        if split not in self._encoded:
            self._encoded[split] = _encoded_images(self.rows(split))
        for first, encoded in _chunks(self._encoded[split], indices):

            def decode(part: Sequence[int], first: int = first, encoded: list[images.Encoded] = encoded) -> None:
                for at in part:
                    use(first + at, _decode(encoded[at], name, int(indices[first + at])))

            images.in_threads(decode, encoded)

    def num_bytes(self, split: Split) -> int:
        """Bytes of a split's images as they are encoded."""
        return sum(_encoded_bytes(self.rows(split)))

    def normalise(
        self,
        pixels: Tensor,  # (..., 3, H, W) uint8
    ) -> Tensor:  # (..., 3, H, W) float32, normalised
        """What networks see: pixels in [0, 1], less the mean, over the standard deviation."""
        assert self.config.mean is not None and self.config.std is not None
        return images.normalise(pixels, self.config.mean, self.config.std)

    def to_pixels(
        self,
        normalised: Tensor,  # (..., 3, H, W) float, normalised
    ) -> Tensor:  # (..., 3, H, W) uint8
        """The pixels of what networks see, rounded to the nearest; what lies outside them is clamped."""
        assert self.config.mean is not None and self.config.std is not None
        return images.to_pixels(normalised, self.config.mean, self.config.std)

    def hold_out(self, fraction: float, seed: int) -> "Source":
        """The training images in two: some of each class stand where test images stood, the others train.

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
                f"class {few!r} has {counts.min()} training images, expected at least 2 to hold some out; add images"
            )
        held = np.zeros(len(self.train), dtype=bool)
        for label, rows in enumerate(self.rows_by_class):
            order = torch.randperm(len(rows), generator=generator(seed, "hold_out", label)).numpy()
            held[rows[order[: num_held_out(len(rows), fraction)]]] = True
        digest = hashlib.sha256(self.fingerprint.encode() + held.tobytes()).hexdigest()
        return replace(
            self,
            config=replace(self.config, test_split=self.config.train_split),
            train=self.train.select(np.flatnonzero(~held)),
            test=self.train.select(np.flatnonzero(held)),
            fingerprint=digest,
        )

    @property
    def size(self) -> int:
        """Side of the square images in pixels."""
        assert self.config.size is not None, "the config of a source is resolved"
        return self.config.size

    def _split_name(self, split: Split) -> str:
        return str(self.config.train_split if split == "train" else self.config.test_split)


def num_held_out(num_images: int, fraction: float) -> int:
    """How many of a class's images `Source.hold_out` takes: the nearest number, at least one, never all."""
    return min(max(1, round(fraction * num_images)), num_images - 1)


def load_source(config: SourceConfig) -> Source:
    """Read a source, find its columns, splits and classes, and take its fingerprint.

    With `on_corrupt="skip"` every image is decoded here once, so that the same rows are left out everywhere.

    Raises:
        SourceError: it does not exist or is no image-classification dataset; the message names what mends it.
    """
    config = resolve_source(config)
    tables, revision = read_tables(config)
    config = columns.with_columns(columns.with_train_split(config, tables), tables)
    names = columns.class_names(tables[str(config.train_split)], str(config.label_column))
    used = columns.used_classes(config, names)
    train = _numbered(tables, str(config.train_split), config, names, used)
    config = columns.with_test_split(config, tables)
    test = _numbered(tables, config.test_split, config, names, used) if config.test_split else None
    class_map = ClassMap(used, used)
    return Source(config, class_map, train, test, revision, _fingerprint(class_map, train, test, revision))


def check_source(source: Source, ipc: int, images_per_class_needed: int) -> int:
    """Before a run: enough images in every class, a test split, and images that decode.

    Args:
        source: The source.
        ipc: Images per class of the run, named in the message.
        images_per_class_needed: Training images that each class must have.

    Returns:
        How many images were decoded: all of a small source, a seeded sample of a larger one, whose other images are
        first decoded when they are used.
    """
    if len(source.class_map) < 2:
        raise SourceError(
            f"source {source.config.name!r} has the single class {source.class_map.names[0]!r}, expected at least 2 "
            "classes; add images of others, or set --source.label_column"
        )
    counts = source.images_per_class
    least = int(counts.argmin())
    if counts[least] < images_per_class_needed:
        short = int((counts < images_per_class_needed).sum())
        raise SourceError(
            f"class {source.class_map.names[least]!r} has {counts[least]} training images, expected at least "
            f"{images_per_class_needed} for ipc {ipc} ({short} of {len(counts)} classes have too few); lower --ipc, "
            "set --patches.grid 1, or add images"
        )
    splits: tuple[Split, ...] = ("train", "test")
    whole = sum(_num_bytes(source.rows(split)) for split in splits) <= SCANNED_WHOLE_BYTES
    scanned = 0
    for split in splits:
        rows = range(len(source.rows(split))) if whole else _sample(len(source.rows(split)), SCANNED_SAMPLE, "scan")
        name = source.config.train_split if split == "train" else source.config.test_split
        for row, reason in _damaged(source.rows(split), rows):
            raise SourceError(_located(reason, str(name), *row))
        scanned += len(rows)
    total = len(source.train) + len(source.rows("test"))
    logger.info("decoded %d of %d images of %s, all sound", scanned, total, source.config.name)
    return scanned


def _numbered(
    tables: DatasetDict, split: str, config: SourceConfig, names: tuple[str, ...], used: tuple[str, ...]
) -> Dataset:
    """The split with columns `image` (encoded) and `label` (index into `used`), without rows that are left out."""
    table, image_column, label_column = tables[split], str(config.image_column), str(config.label_column)
    for column in (image_column, label_column):
        if column not in table.features:
            raise SourceError(
                f"split {split!r} of {config.name!r} lacks column {column!r} of the training split, expected the same "
                "columns in both; mend it, or set --source.test_split"
            )
    labels = columns.class_indices(table, label_column, split, names)
    rows = table.select_columns(image_column)
    if used != names:
        places = {name: place for place, name in enumerate(used)}
        labels = np.array([places.get(name, -1) for name in names], dtype=np.int64)[labels]
    if image_column != "image":
        rows = rows.rename_column(image_column, "image")
    rows = rows.cast_column("image", datasets.Image(decode=False)).add_column("label", labels)
    if used != names:
        rows = rows.select(np.flatnonzero(labels >= 0))  # last: a column added to chosen rows copies their images
    return _without_damaged(rows, split) if config.on_corrupt == "skip" else rows


def _without_damaged(table: Dataset, split: str) -> Dataset:
    damaged = list(_damaged(table, range(len(table))))
    for (row, path), reason in damaged:
        logger.warning("left out: split %r, row %d%s %s", split, row, f" ({path})" if path else "", reason)
    skipped = {row for (row, _), _ in damaged}
    return table.select([row for row in range(len(table)) if row not in skipped]) if skipped else table


def _damaged(table: Dataset, rows: Sequence[int]) -> Iterator[tuple[tuple[int, str | None], str]]:
    """(row, path) and reason of each image that cannot be decoded."""
    for first, encoded in _chunks(_encoded_images(table), rows):
        reasons: dict[int, str] = {}

        def attempt(
            part: Sequence[int], encoded: list[images.Encoded] = encoded, reasons: dict[int, str] = reasons
        ) -> None:
            for at in part:
                try:
                    images.decode(images.read(encoded[at]))
                except SourceError as error:
                    reasons[at] = str(error)

        images.in_threads(attempt, encoded)
        for at in sorted(reasons):
            yield (rows[first + at], encoded[at]["path"]), reasons[at]


def _decode(encoded: images.Encoded, split: str, row: int) -> Image.Image:
    try:
        return images.decode(images.read(encoded))
    except SourceError as error:
        raise SourceError(_located(str(error), split, row, encoded["path"])) from error


def _located(reason: str, split: str, row: int, path: str | None) -> str:
    where = f"split {split!r}, row {row}" + (f" ({path})" if path else "")
    return f"{where}: image {reason}; mend or remove it, or set --source.on_corrupt skip"


def _encoded_images(table: Dataset) -> Dataset:
    """The images of a split as they lie in Arrow's memory."""
    return table.select_columns("image").with_format("arrow")


def _chunks(encoded: Dataset, rows: Sequence[int]) -> Iterator[tuple[int, list[images.Encoded]]]:
    """Position of the first, and the encoded images, of successive chunks of `rows`; of `_encoded_images`."""
    for first in range(0, len(rows), _ROWS_READ):
        chunk = rows[first : first + _ROWS_READ]
        part = encoded[chunk] if isinstance(chunk, range) else encoded[[int(row) for row in chunk]]
        yield first, part.column("image").to_pylist()


def _sample(count: int, size: int, purpose: str) -> list[int]:
    """At most `size` of `count` rows, always the same ones, ascending."""
    return torch.randperm(count, generator=generator(0, "source", purpose))[:size].sort().values.tolist()


def _num_bytes(table: Dataset) -> int:
    """Bytes of a split's encoded images, up to the first gigabyte."""
    total = 0
    for num in _encoded_bytes(table):
        total += num
        if total > HASHED_WHOLE_BYTES:
            break
    return total


def _encoded_bytes(table: Dataset) -> Iterator[int]:
    """Bytes of the encoded images of each chunk of a table."""
    for _, encoded in _chunks(_encoded_images(table), range(len(table))):
        yield sum(len(item["bytes"]) if item["bytes"] is not None else _file_size(item["path"]) for item in encoded)


def _file_size(path: str | None) -> int:
    return Path(path).stat().st_size if path and Path(path).is_file() else 0


def _fingerprint(class_map: ClassMap, train: Dataset, test: Dataset | None, revision: str | None) -> str:
    tables = [table for table in (train, test) if table is not None]
    whole = sum(_num_bytes(table) for table in tables) < HASHED_WHOLE_BYTES
    digest = hashlib.sha256(class_map.hash.encode())
    if not whole:
        digest.update(str(revision).encode())
    for table in tables:
        labels = np.asarray(columns.values_of(table, "label"), dtype=np.int64)
        digest.update(labels.astype("<i8").tobytes())
        rows = range(len(table)) if whole else _sample(len(table), HASHED_SAMPLE, "fingerprint")
        for _, encoded in _chunks(_encoded_images(table), rows):
            for item in encoded:
                digest.update(hashlib.sha256(_content(item)).digest())  # of equal length, so bounds cannot shift
    return digest.hexdigest()


def _content(item: images.Encoded) -> bytes:
    try:
        return images.read(item)
    except SourceError:
        return b""  # found, located and explained when images are checked
