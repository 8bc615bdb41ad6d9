"""The encoded images of a table, a few at a time, and what is wrong with some of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image

from fadrm_hf.data.sources import images
from fadrm_hf.errors import SourceError
from fadrm_hf.runtime.randomness import generator

_ROWS_READ = 256  # encoded images held in memory at once: some 30 MB of ImageNet's


def encoded_images(table: Dataset) -> Dataset:
    """Return the images of a split as they are in Arrow's memory."""
    return table.select_columns("image").with_format("arrow")


def chunks(encoded: Dataset, rows: Sequence[int]) -> Iterator[tuple[int, list[images.Encoded | None]]]:
    """Yield the position of the first, and the encoded images, of successive chunks of `rows`; of `encoded_images`."""
    for first in range(0, len(rows), _ROWS_READ):
        chunk = rows[first : first + _ROWS_READ]
        part = encoded[chunk] if isinstance(chunk, range) else encoded[[int(row) for row in chunk]]
        yield first, part.column("image").to_pylist()


def sample(count: int, size: int, purpose: str) -> list[int]:
    """Return at most `size` of `count` rows, always the same ones, ascending."""
    return torch.randperm(count, generator=generator(0, "source", purpose))[:size].sort().values.tolist()


def decode(encoded: images.Encoded | None, rule: images.PixelRule, split: str, row: int) -> Image.Image:
    """Return an image; an error says where it is."""
    try:
        return images.decode(images.read(encoded), rule)
    except SourceError as error:
        raise SourceError(located(str(error), split, row, path_of(encoded))) from error


def located(reason: str, split: str, row: int, path: str | None) -> str:
    """Return what is wrong with an image, where it is, and what mends it."""
    where = f"split {split!r}, row {row}" + (f" ({path})" if path else "")
    return f"{where}: image {reason}; mend or remove it, or set --source.on_corrupt skip"


def path_of(encoded: images.Encoded | None) -> str | None:
    """Return the file that an image is in, if it is in one."""
    return encoded["path"] if encoded else None


def damaged(
    table: Dataset, rows: Sequence[int], rule: images.PixelRule
) -> Iterator[tuple[tuple[int, str | None], str]]:
    """Yield row and path, and the reason, of each image that cannot be decoded."""
    for first, encoded in chunks(encoded_images(table), rows):
        reasons: dict[int, str] = {}

        def attempt(
            part: Sequence[int],
            encoded: list[images.Encoded | None] = encoded,
            reasons: dict[int, str] = reasons,
        ) -> None:
            for at in part:
                try:
                    images.decode(images.read(encoded[at]), rule)
                except SourceError as error:
                    reasons[at] = str(error)

        images.in_threads(attempt, encoded)
        for at in sorted(reasons):
            yield (rows[first + at], path_of(encoded[at])), reasons[at]


def content_of(item: images.Encoded | None) -> bytes:
    """Return the bytes of an image; none of one that cannot be read, which is found when images are checked."""
    try:
        return images.read(item)
    except SourceError:
        return b""


def num_bytes(table: Dataset, enough: int | None = None) -> int:
    """Return the bytes of a split's encoded images, or of as many as there are `enough` bytes in."""
    total = 0
    for _, encoded in chunks(encoded_images(table), range(len(table))):
        total += sum(map(_size, encoded))
        if enough is not None and total > enough:
            break
    return total


def _size(item: images.Encoded | None) -> int:
    if item is None or item["bytes"] is not None:
        return len(item["bytes"] or b"") if item else 0
    path = Path(item["path"] or "")
    return path.stat().st_size if item["path"] and path.is_file() else 0


def paths(table: Dataset) -> list[str | None] | None:
    """Return the files of a table's images, or `None` where they are in the table itself."""
    first = encoded_images(table)[:1].column("image").to_pylist()
    if not first or first[0] is None or first[0]["bytes"] is not None:
        return None  # a column of bytes may be larger than memory
    found: list[str | None] = encoded_images(table)[:].column("image").combine_chunks().field("path").to_pylist()
    return found
