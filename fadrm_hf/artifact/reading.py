"""The artifact: the run folder that is the Hub repository, and what `load_dataset` reads.

README.md                      the card (`fadrm_hf.card`)
data/train-*.parquet           one row per image
soft_labels/train-*.parquet    one row per view, one row group per epoch
recipe.yaml                    the resolved run
teachers/                      teachers that no reader could fetch by name, as timm model directories
results/*.json, assets/*.png   evaluations and pictures
fadrm.json                     the manifest, written last (`fadrm_hf.artifact.manifest`)
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Features
from PIL import Image as PillowImage
from torch import Tensor

from fadrm_hf.artifact.manifest import MANIFEST_NAME, Manifest, read_manifest
from fadrm_hf.artifact.tables import IMAGES_FOLDER, LABELS_FOLDER, label_names
from fadrm_hf.builders.images import image_features
from fadrm_hf.builders.soft_labels import VIEW_FEATURES, label_features
from fadrm_hf.errors import ArtifactError
from fadrm_hf.label_codec import find_codec

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


def card_configs() -> list[dict[str, Any]]:
    """The card's YAML `configs:`, by which plain `load_dataset` finds the tables.

    There is no `dataset_info`: the features are in the parquet files, and `splits` in it would break `filters=`.
    """
    return [
        {"config_name": "default", "default": True, "data_files": _train_files(IMAGES_FOLDER)},
        {"config_name": "soft_labels", "data_files": _train_files(LABELS_FOLDER)},
    ]


def table_files(folder: Path, table: str) -> list[Path]:
    """The parquet files of a table (`IMAGES_FOLDER` or `LABELS_FOLDER`) in row order; a gap is refused."""
    files = sorted((folder / table).glob("train-*.parquet"))
    expected = [f"train-{index:05d}-of-{len(files):05d}.parquet" for index in range(len(files))]
    if not files or [file.name for file in files] != expected:
        found = ", ".join(file.name for file in files) or "no parquet file"
        raise ArtifactError(
            f"{folder / table} holds {found}, expected all of a numbered set; fetch the artifact again"
        )
    return files


def open_table(file: Path) -> pq.ParquetFile:
    """A parquet file whose page checksums are verified as it is read."""
    with reading(file):
        return pq.ParquetFile(file, page_checksum_verification=True)


def require_schema(file: Path, table: pq.ParquetFile, features: Features) -> None:
    """Refuse a file whose columns, types or class names are not `features`."""
    with reading(file):
        found = Features.from_arrow_schema(table.schema_arrow)
    if found != features:
        differ = [name for name in {**features, **found} if found.get(name) != features.get(name)]
        raise ArtifactError(
            f"{file.parent.name}/{file.name} has another {', '.join(differ)} column than {MANIFEST_NAME} asks for;"
            " fetch the artifact again"
        )


@contextmanager
def reading(file: Path, where: str = "") -> Iterator[None]:
    """Turn what Arrow and Pillow raise for damaged bytes into an `ArtifactError` naming the file."""
    try:
        yield
    except ArtifactError:
        raise
    except (OSError, pa.ArrowException, PillowImage.DecompressionBombError, SyntaxError, ValueError) as error:
        place = f"{file.parent.name}/{file.name}{where and ', '}{where}"
        raise ArtifactError(f"{place} is damaged: {one_line(error)}; fetch the artifact again") from error


def one_line(error: BaseException) -> str:
    """The error's message without line breaks."""
    return " ".join(str(error).split())


def read_images(folder: Path) -> tuple[Tensor, Tensor]:
    """The whole images table.

    Returns:
        (N, 3, S, S) uint8 pixels and (N,) int64 labels, in row order.

    Raises:
        ArtifactError: If a file is damaged, or the table is not what the manifest says.
    """
    manifest = read_manifest(folder)
    tables = {file: open_table(file) for file in table_files(folder, IMAGES_FOLDER)}
    num_rows = sum(table.metadata.num_rows for table in tables.values())
    if num_rows != manifest.num_images:
        raise ArtifactError(
            f"{IMAGES_FOLDER}/ has {num_rows} rows, {MANIFEST_NAME} says {manifest.num_images};"
            " fetch the artifact again"
        )
    images = torch.empty((num_rows, 3, manifest.pixels.size, manifest.pixels.size), dtype=torch.uint8)
    labels = torch.empty(num_rows, dtype=torch.int64)
    row = 0
    for file, table in tables.items():
        require_schema(file, table, image_features(label_names(manifest.class_map)))
        for group in range(table.num_row_groups):
            with reading(file, f"row group {group}"):
                columns = table.read_row_group(group, ["image", "label"])
                rows = slice(row, row + len(columns))
                labels[rows] = torch.from_numpy(columns["label"].to_numpy().copy())
                for pixels in columns["image"].to_pylist():
                    images[row] = decode_png(pixels["bytes"], manifest.pixels.size)
                    row += 1
    return images, labels


def read_soft_labels(folder: Path, epoch: int) -> Arrays:
    """The views of one epoch, in training order: only its row group is read.

    Returns:
        The columns of the table as arrays (n,) or (n, 4), and "logits" (n, C) float32.

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
    """One row group of a soft-label file; see `read_soft_labels`."""
    num_rows = table.metadata.row_group(group).num_rows
    if num_rows != manifest.num_images:
        raise ArtifactError(
            f"{LABELS_FOLDER}/{file.name}, row group {group} has {num_rows} rows,"
            f" expected a view of each of {manifest.num_images} images; fetch the artifact again"
        )
    require_schema(file, table, label_features(manifest.label_codec, len(manifest.class_map)))
    with reading(file, f"row group {group}"):
        columns = {name: _to_numpy(column) for name, column in _columns(table.read_row_group(group))}
    views = {name: columns[name] for name in VIEW_FEATURES}
    return views | {"logits": find_codec(manifest.label_codec).decode(columns)}


def num_label_epochs(folder: Path) -> int:
    """Epochs of soft labels."""
    return sum(open_table(file).num_row_groups for file in table_files(folder, LABELS_FOLDER))


def decode_png(content: bytes, size: int) -> Tensor:
    """(3, size, size) uint8; another size or mode is refused before any pixel is decoded."""
    with PillowImage.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.size != (size, size) or image.mode != "RGB":
            raise ValueError(f"an image is {image.mode} {image.size}, expected RGB {(size, size)}")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _train_files(folder: str) -> list[dict[str, str]]:
    return [{"split": "train", "path": f"{folder}/train-*.parquet"}]


def _columns(table: pa.Table) -> Iterator[tuple[str, pa.Array]]:
    for name in table.column_names:
        yield name, table[name].combine_chunks()


def _to_numpy(column: pa.Array) -> npt.NDArray[Any]:
    """A column of values as (n,), of lists of k as (n, k); a copy, so that torch may share it."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.array(column.to_numpy(zero_copy_only=False))
    return np.array(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), column.type.list_size)
