"""The soft-label table: one row per labelled view, in the order of training, one shard and one table per epoch.

builder = SoftLabels(shards="run.work/soft_labels", class_names=names, epochs=300)
builder.download_and_prepare(); builder.as_dataset("train"); builder.as_streaming_dataset("train")
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import pyarrow as pa
import torch
from datasets import DatasetInfo, Features, List, Value
from torch import Tensor

from fadrm_hf.builders.tables import ShardsBuilder, ShardsConfig, read_shard, to_arrow
from fadrm_hf.errors import RunFolderError
from fadrm_hf.labels.codecs import find_codec

_BOX = List(Value("int16"), length=4)  # top, left, height, width
VIEW_FEATURES = Features(
    {
        "epoch": Value("int32"),
        "step": Value("int32"),
        "image": Value("int32"),
        "crop": _BOX,
        "flip": Value("bool"),
        "mix_image": Value("int32"),
        "mix_crop": _BOX,
        "mix_flip": Value("bool"),
        "mix_box": _BOX,
    }
)


@dataclass
class SoftLabelsConfig(ShardsConfig):
    """The soft-label shards of one run.

    Args:
        epochs: How many epochs are labelled; later shards are left out.
        codec: How the logits are stored, by name (`fadrm_hf.labels.codecs`).
    """

    epochs: int = 0
    codec: str = "float16"

    def shard_files(self) -> list[Path]:
        """Return the shards of epochs 0 to `epochs` - 1; refuse a run that lacks one."""
        files = [Path(self.shards) / f"epoch{epoch:05d}.safetensors" for epoch in range(self.epochs)]
        missing = [file.name for file in files if not file.exists()]
        if missing:
            raise RunFolderError(
                f"{self.shards} lacks {len(missing)} of {self.epochs} epochs, the first is {missing[0]};"
                " run the same command again to finish the run"
            )
        return files


class SoftLabels(ShardsBuilder):
    """Builds the soft-label table from the shards of all epochs."""

    BUILDER_CONFIG_CLASS = SoftLabelsConfig
    config: SoftLabelsConfig

    def _info(self) -> DatasetInfo:
        return DatasetInfo(features=label_features(self.config.codec, len(self.config.class_names)))

    def read_table(self, file: Path) -> pa.Table:
        """Return the rows of one epoch."""
        features = self.info.features
        shard = read_shard(file, {name: _tensor_type(feature) for name, feature in features.items()})
        return label_table(shard, features)


def label_features(codec: str, num_classes: int) -> Features:
    """Return the columns of the soft-label table: those of the view, then the codec's."""
    return Features({**VIEW_FEATURES, **find_codec(codec).features(num_classes)})


def label_table(columns: dict[str, Tensor], features: Features) -> pa.Table:
    """Return the rows of one epoch, from tensors (n, ...) by the name of their column."""
    arrays = [to_arrow(columns[name], feature) for name, feature in features.items()]
    return pa.Table.from_arrays(arrays, schema=features.arrow_schema)


def row_bytes(features: Features, narrowest: int = 1) -> int:
    """Return the bytes of one row of the soft-label table before compression.

    Args:
        features: The columns.
        narrowest: What the narrowest integer takes: 1 in memory, 4 in a page of parquet.
    """
    kinds = [(getattr(torch, dtype), prod(shape)) for dtype, shape in map(_tensor_type, features.values())]
    return sum(max(1 if kind.is_floating_point else narrowest, kind.itemsize) * num for kind, num in kinds)


def _tensor_type(feature: Value | List) -> tuple[str, tuple[int, ...]]:
    if isinstance(feature, List):
        return feature.feature.dtype, (feature.length,)
    return feature.dtype, ()
