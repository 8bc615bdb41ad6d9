"""The artifact: the run folder that is the Hub repository, and what `load_dataset` reads.

README.md                      the card (`fadrm_hf.report.card`)
data/train-*.parquet           one row per image
soft_labels/train-*.parquet    one row per view, one row group per epoch
recipe.yaml                    the resolved run
teachers/                      teachers that no reader could fetch by name, as timm model directories
results/*.json, assets/*.png   evaluations and pictures
gallery/                       a page that shows it all (`fadrm_hf.report.gallery`)
fadrm.json                     the manifest, written last (`fadrm_hf.artifact.manifest`)
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Features
from PIL import Image as PillowImage
from torch import Tensor

from fadrm_hf.artifact.manifest import Manifest, read_manifest
from fadrm_hf.artifact.tables import label_names
from fadrm_hf.builders.images import image_features
from fadrm_hf.builders.soft_labels import VIEW_FEATURES, label_features, row_bytes
from fadrm_hf.data.image_table import empty_images
from fadrm_hf.errors import ArtifactError, FadrmError
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER, MANIFEST, inner_path

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

_IMAGE_OVERHEAD = 512  # bytes of an image's row beside its pixels
_GROUP_SLACK = 1 << 16  # bytes of a row group beside its rows: page headers, levels, the footer's share
_BUFFER_BYTES, _ROWS_AT_ONCE = 1 << 20, 2048  # of a column, while it is decoded
_DEFLATE_AT_MOST = 1032  # times that a PNG can be smaller than its pixels
_PNG_BEGINS = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


def table_files(folder: Path, table: str) -> list[Path]:
    """Return the parquet files of a table in row order; a gap is refused."""
    files = sorted(inner_path(folder, f"{table}/{file.name}") for file in (folder / table).glob("train-*.parquet"))
    expected = [f"train-{index:05d}-of-{len(files):05d}.parquet" for index in range(len(files))]
    if not files or [file.name for file in files] != expected:
        found = ", ".join(file.name for file in files) or "no parquet file"
        raise ArtifactError(
            f"{folder / table} holds {found}, expected all of a numbered set; fetch the artifact again"
        )
    return files


def open_table(file: Path, source: BinaryIO | None = None) -> pq.ParquetFile:
    """Open a parquet file whose page checksums are verified as it is read; from `source` if it is not at `file`."""
    with reading(file):
        # Buffers instead of whole columns: what is decoded is in memory once, what is not decoded is not.
        return pq.ParquetFile(
            source or file, page_checksum_verification=True, buffer_size=_BUFFER_BYTES, pre_buffer=False
        )


def require_schema(file: Path, table: pq.ParquetFile, features: Features) -> None:
    """Refuse a file whose columns, types or class names are not `features`."""
    with reading(file):
        found = Features.from_arrow_schema(table.schema_arrow)
    if found != features:
        differ = [name for name in {**features, **found} if found.get(name) != features.get(name)]
        raise ArtifactError(
            f"{file.parent.name}/{file.name} has another {', '.join(differ)} column than {MANIFEST} asks for;"
            " fetch the artifact again"
        )


@contextmanager
def reading(file: Path, where: str = "") -> Iterator[None]:
    """Turn what Arrow and Pillow raise for damaged bytes into an `ArtifactError` naming the file."""
    try:
        yield
    except (FadrmError, MemoryError):
        raise
    except (OSError, pa.ArrowException, PillowImage.DecompressionBombError, SyntaxError, ValueError) as error:
        place = f"{file.parent.name}/{file.name}{where and ', '}{where}"
        raise ArtifactError(f"{place} is damaged: {one_line(error)}; fetch the artifact again") from error


def one_line(error: BaseException) -> str:
    """Return an error's message without line breaks."""
    return " ".join(str(error).split())


def read_images(folder: Path) -> tuple[Tensor, Tensor]:
    """Return the whole images table.

    Returns:
        (N, 3, S, S) uint8 pixels and (N,) int64 labels, in row order.

    Raises:
        ArtifactError: If a file is damaged, or the table is not what the manifest says.
    """
    manifest = read_manifest(folder)
    tables = _image_tables(folder, manifest)
    images = empty_images(manifest.num_images, manifest.pixels.size)
    for row, image in enumerate(_decoded(tables, manifest)):
        images[row] = image
    return images, torch.arange(manifest.num_images) % len(manifest.class_map)


def each_image(folder: Path, manifest: Manifest) -> Iterator[Tensor]:
    """Yield the images (3, S, S) uint8 in row order; a hundred of them are read at a time.

    Args:
        folder: Where the tables are; the manifest need not be written yet.
        manifest: What they should hold.

    Raises:
        ArtifactError: As `read_images`.
    """
    yield from _decoded(_image_tables(folder, manifest), manifest)


def _image_tables(folder: Path, manifest: Manifest) -> dict[Path, pq.ParquetFile]:
    """Open the files of the images table; refuse those that cannot hold what the manifest says."""
    tables = {file: open_table(file) for file in table_files(folder, IMAGES_FOLDER)}
    num_rows = sum(table.metadata.num_rows for table in tables.values())
    if num_rows != manifest.num_images:
        raise ArtifactError(
            f"{IMAGES_FOLDER}/ has {num_rows} rows, {MANIFEST} says {manifest.num_images}; fetch the artifact again"
        )
    size = manifest.pixels.size
    if num_rows * 3 * size**2 > _DEFLATE_AT_MOST * sum(file.stat().st_size for file in tables):
        raise ArtifactError(
            f"{IMAGES_FOLDER}/ is too small for {num_rows} images of {size} px; fetch the artifact again"
        )
    return tables


def _decoded(tables: dict[Path, pq.ParquetFile], manifest: Manifest) -> Iterator[Tensor]:
    """Yield the images of these files, each checked to be where its label belongs."""
    row, size, num_classes = 0, manifest.pixels.size, len(manifest.class_map)
    for file, table in tables.items():
        require_schema(file, table, image_features(label_names(manifest.class_map)))
        for group in range(table.num_row_groups):
            require_group_size(file, table, group, image_row_bytes(manifest))
            with reading(file, f"row group {group}"):
                rows = table.read_row_group(group, ["image", "label"]).to_pylist()
            for found in rows:
                with reading(file, f"row {row}"):
                    image = decode_png((found["image"] or {}).get("bytes"), size)
                    if found["label"] != row % num_classes:
                        raise ValueError(f"label is {found['label']}, by the order of rows it is {row % num_classes}")
                yield image
                row += 1


def read_soft_labels(folder: Path, epoch: int) -> Arrays:
    """Return the views of one epoch in training order; only its row group is read.

    Returns:
        The columns of the view as arrays (n,) or (n, 4), and "logits" (n, C) float32 unless the codec is "none".

    Raises:
        ArtifactError: If the file is damaged, or holds no such epoch.
    """
    manifest = read_manifest(folder)
    first = 0
    for file in table_files(folder, LABELS_FOLDER):
        table = open_table(file)
        if epoch < first + table.num_row_groups:
            return read_label_group(file, table, epoch - first, manifest)
        first += table.num_row_groups
    raise ArtifactError(f"epoch {epoch} is asked for, {folder} has labels for epochs 0 to {first - 1}")


def read_label_group(file: Path, table: pq.ParquetFile, group: int, manifest: Manifest) -> Arrays:
    """Return a row group of a soft-label file; see `read_soft_labels`."""
    columns = read_label_columns(file, table, group, manifest)
    views = {name: columns[name] for name in VIEW_FEATURES}
    codec, num_classes = find_codec(manifest.label_codec), len(manifest.class_map)
    if not codec.has_logits:
        return views
    unusable = codec.unusable(columns, num_classes)
    if unusable.any():
        raise ArtifactError(
            f"{LABELS_FOLDER}/{file.name}, row group {group}, row {unusable.argmax()} holds no label: a value is not"
            " finite, or its class does not exist; fetch the artifact again"
        )
    return views | {"logits": codec.decode(columns, num_classes)}


def read_label_columns(
    file: Path, table: pq.ParquetFile, group: int, manifest: Manifest, views_only: bool = False
) -> Arrays:
    """Return the columns (n, ...) of a row group of a soft-label file as they are stored.

    Args:
        file: Where it is, for messages.
        table: The file.
        group: Which row group.
        manifest: What the table should be.
        views_only: Leave out the columns of the codec.
    """
    num_rows = table.metadata.row_group(group).num_rows
    if num_rows != manifest.num_images:
        raise ArtifactError(
            f"{LABELS_FOLDER}/{file.name}, row group {group} has {num_rows} rows,"
            f" expected a view of each of {manifest.num_images} images; fetch the artifact again"
        )
    features = label_features(manifest.label_codec, len(manifest.class_map))
    require_schema(file, table, features)
    require_group_size(file, table, group, label_row_bytes(manifest))
    with reading(file, f"row group {group}"):
        return _read_columns(table, group, list(VIEW_FEATURES if views_only else features))


def image_row_bytes(manifest: Manifest) -> int:
    """Return the most bytes of a row of the images table before compression."""
    return 3 * manifest.pixels.size**2 + _IMAGE_OVERHEAD


def label_row_bytes(manifest: Manifest) -> int:
    """Return the bytes of a row of the soft-label table before compression."""
    return row_bytes(label_features(manifest.label_codec, len(manifest.class_map)), narrowest=4)


def require_plausible_sizes(manifest: Manifest) -> None:
    """Refuse tables that are far larger than what the manifest says of them, before any of it is fetched or read."""
    images = manifest.num_images * image_row_bytes(manifest)
    labels = manifest.label_epochs * (manifest.num_images * label_row_bytes(manifest) + _GROUP_SLACK)
    for table, implied in ((IMAGES_FOLDER, images), (LABELS_FOLDER, labels)):
        declared = sum(file.bytes for name, file in manifest.files.items() if name.startswith(f"{table}/"))
        if declared > 2 * implied + _GROUP_SLACK:
            raise ArtifactError(
                f"{MANIFEST} gives {table}/ {declared:,} bytes, expected about {implied:,} for what it holds;"
                " nothing of it is read"
            )


def require_group_size(file: Path, table: pq.ParquetFile, group: int, bytes_per_row: int) -> None:
    """Refuse a row group that declares far more bytes than its rows can have, before memory is taken for it."""
    metadata = table.metadata.row_group(group)
    declared = sum(metadata.column(index).total_uncompressed_size for index in range(metadata.num_columns))
    implied = metadata.num_rows * bytes_per_row
    if declared > 2 * implied + _GROUP_SLACK:
        raise ArtifactError(
            f"{file.parent.name}/{file.name}, row group {group} declares {declared:,} bytes, expected about"
            f" {implied:,} for {metadata.num_rows} rows; it is not read"
        )


def num_label_epochs(folder: Path) -> int:
    """Return the number of epochs of soft labels."""
    return sum(open_table(file).num_row_groups for file in table_files(folder, LABELS_FOLDER))


def decode_png(content: bytes | None, size: int) -> Tensor:
    """Return (3, size, size) uint8; another size or mode is refused by the first bytes, before a pixel is decoded."""
    if content is None or len(content) < 26 or not content.startswith(_PNG_BEGINS):
        raise ValueError("an image is no PNG")
    width, height, depth, colour = struct.unpack_from(">IIBB", content, len(_PNG_BEGINS))
    mode = "RGB" if (depth, colour) == (8, 2) else f"of colour type {colour} and depth {depth}"
    if (width, height) != (size, size) or mode != "RGB":
        raise ValueError(f"an image is {mode} {(width, height)}, expected RGB {(size, size)}")
    with PillowImage.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.size != (size, size) or image.mode != "RGB":  # a second header
            raise ValueError(f"an image is {image.mode} {image.size}, expected RGB {(size, size)}")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _read_columns(table: pq.ParquetFile, group: int, names: list[str]) -> Arrays:
    """Read columns block by block: a large row group needs little more memory than its values."""
    num_rows, first = table.metadata.row_group(group).num_rows, 0
    columns: Arrays = {}
    for block in table.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=names, use_threads=False):
        for name in names:
            values = _to_numpy(name, block.column(name), first)
            column = columns.setdefault(name, np.empty((num_rows, *values.shape[1:]), values.dtype))
            column[first : first + len(values)] = values
        first += len(block)
    return columns


def _to_numpy(name: str, column: pa.Array, first_row: int) -> Array:
    """Return a column of values as (n,), of lists of k as (n, k); an absent value is refused."""
    is_absent, width = column.is_null(), 1
    if pa.types.is_fixed_size_list(column.type):
        shape: tuple[int, ...] = (len(column), column.type.list_size)
        if not column.null_count:
            column = column.flatten()
            is_absent, width = column.is_null(), shape[1]
    else:
        shape = (len(column),)
    if column.null_count:
        raise ValueError(f"row {first_row + int(np.flatnonzero(is_absent)[0]) // width} has no {name}")
    return np.asarray(column.to_numpy(zero_copy_only=False)).reshape(shape)
