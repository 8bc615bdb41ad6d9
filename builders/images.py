"""The images table: one row per distilled image, PNG bytes with label, ipc index and the real images it began from.

    builder = Images(shards="RUN.work/recovered", class_names=names, size=32, ipc=10)
    builder.download_and_prepare(); builder.as_dataset("train"); builder.as_streaming_dataset("train")

Rows are ordered by ipc index, then label: the first C rows are the ipc-1 set, the first 10 C the ipc-10 set.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from datasets import ClassLabel, DatasetInfo, Features, Image, List, Value
from PIL import Image as PillowImage
from safetensors import safe_open
from torch import Tensor

from fadrm_hf.builders.tables import ShardsBuilder, ShardsConfig, read_shard, to_arrow
from fadrm_hf.errors import RunFolderError


@dataclass
class ImagesConfig(ShardsConfig):
    """The recovered shards of one run.

    Args:
        size: Side of the square images.
        ipc: Images per class; shards of higher ipc indices are left out.
    """

    size: int = 0
    ipc: int = 0

    def shard_files(self) -> list[Path]:
        """Return the shards below `ipc`; refuse a run of which one is missing or out of order."""
        rows = {file: _row_numbers(file, len(self.class_names)) for file in Path(self.shards).glob("*.safetensors")}
        files = sorted((file for file in rows if len(rows[file])), key=lambda file: int(rows[file][0]))
        found = torch.cat([torch.empty(0, dtype=torch.int64), *(rows[file] for file in files)])
        expected = torch.arange(self.ipc * len(self.class_names))
        kept = found[: len(expected)]
        if not torch.equal(kept, expected):
            absent = sorted(set(expected.tolist()) - set(found.tolist()))[:5]
            raise RunFolderError(
                f"{self.shards} does not hold each of {self.ipc} x {len(self.class_names)} images once, in order"
                f" (missing rows: {absent or 'none'}); run the same command again to finish the run"
            )
        return [file for file in files if int(rows[file][0]) < len(expected)]


class Images(ShardsBuilder):
    """Builds the images table from recovered shards."""

    BUILDER_CONFIG_CLASS = ImagesConfig
    config: ImagesConfig

    def _info(self) -> DatasetInfo:
        return DatasetInfo(features=image_features(self.config.class_names))

    def read_table(self, file: Path) -> pa.Table:
        """Return the rows of one shard."""
        size = self.config.size
        expected = {
            "images": ("uint8", (3, size, size)),
            "label": ("int64", ()),
            "ipc_index": ("int64", ()),
            "source_index": ("int64", (None,)),
        }
        shard = read_shard(file, expected)
        features = self.info.features
        pixels = [{"bytes": encode_png(image), "path": None} for image in shard["images"]]
        columns = [pa.array(pixels, type=features["image"].pa_type), pa.array(shard["label"].numpy())]
        columns += [to_arrow(shard[name], features[name]) for name in ("ipc_index", "source_index")]
        return pa.Table.from_arrays(columns, schema=features.arrow_schema)


def image_features(class_names: Sequence[str]) -> Features:
    """Return the columns of the images table."""
    columns = {
        "image": Image(),
        "label": ClassLabel(names=list(class_names)),
        "ipc_index": Value("int32"),
        "source_index": List(Value("int64")),
    }
    return Features(columns)


def encode_png(image: Tensor) -> bytes:
    """Return `image` (3, S, S) uint8 as PNG: lossless, since soft labels refer to exactly these pixels."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def _row_numbers(file: Path, num_classes: int) -> Tensor:
    """Return (n,) int64 the rows of a shard's images in the table, read without its pixels."""
    with safe_open(file, framework="pt") as shard:
        rows: Tensor = shard.get_tensor("ipc_index") * num_classes + shard.get_tensor("label")
    return rows
