"""Shared by the two table builders: finished shards in, one Arrow table per shard out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ArrowBasedBuilder, BuilderConfig, DownloadManager, Features, List, Split, SplitGenerator, Value
from datasets.builder import Key
from safetensors import SafetensorError
from torch import Tensor

from fadrm_hf.errors import RunFolderError
from fadrm_hf.runtime.tensor_files import load_tensors

Shape = tuple[int | None, ...]


@dataclass
class ShardsConfig(BuilderConfig):
    """Which shards make the table.

    Args:
        version: Format of the table; `datasets` puts it into the cache path, so it belongs to the config.
        shards: Folder of finished shards.
        class_names: Names of the classes, in label order, no two equal.
    """

    version: str = "1.0.0"
    shards: str = ""
    class_names: Sequence[str] = ()

    def shard_files(self) -> list[Path]:
        """Return the files the table is made of, in row order."""
        raise NotImplementedError

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Features | None = None) -> str:
        """Return the cache's name for this table: shards that were regenerated are read again."""
        stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in self.shard_files()]
        return super().create_config_id({**config_kwargs, "stamps": stamps}, custom_features)


class ShardsBuilder(ArrowBasedBuilder):
    """A table made of safetensors shards; a subclass says which columns and how one shard becomes rows."""

    def _split_generators(self, dl_manager: DownloadManager) -> list[SplitGenerator]:
        files = [str(file) for file in self.config.shard_files()]
        return [SplitGenerator(name=Split.TRAIN, gen_kwargs={"files": files})]

    def _generate_tables(self, files: list[str]) -> Iterator[tuple[Key, pa.Table]]:
        for index, file in enumerate(files):
            yield Key(index, 0), self.read_table(Path(file))

    def tables(self) -> Iterator[pa.Table]:
        """Yield the table in the order of its rows, one shard at a time."""
        for file in self.config.shard_files():
            yield self.read_table(file)

    def read_table(self, file: Path) -> pa.Table:
        """Return the rows of one shard."""
        raise NotImplementedError


def read_shard(file: Path, expected: dict[str, tuple[str, Shape]]) -> dict[str, Tensor]:
    """Return the tensors of a shard, (n, *shape) and of the dtype that `expected` has for each; None is any length."""
    try:
        tensors = load_tensors(file)
    except (FileNotFoundError, SafetensorError) as error:
        raise _unusable(file, str(error)) from error
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise _unusable(file, f"it lacks {', '.join(missing)}")
    num_rows = len(tensors[next(iter(expected))])
    for name, (dtype, shape) in expected.items():
        got, want = tensors[name].shape, (num_rows, *shape)
        fits = len(got) == len(want) and all(b in (None, a) for a, b in zip(got, want, strict=True))
        if not fits or str(tensors[name].dtype) != f"torch.{dtype}":
            raise _unusable(file, f"{name} is {tensors[name].dtype} {tuple(got)}, expected {dtype} {want}")
    return {name: tensors[name] for name in expected}


def _unusable(file: Path, reason: str) -> RunFolderError:
    return RunFolderError(f"shard {file.name} cannot be used: {reason}; delete it and the run makes it again")


def to_arrow(tensor: Tensor, feature: Value | List) -> pa.Array:
    """Return a tensor (n,) as a column of values, or (n, k) as a column of lists of k."""
    if not isinstance(feature, List):
        return pa.array(tensor.numpy(), type=feature.pa_type)
    values = pa.array(tensor.contiguous().view(-1).numpy(), type=feature.feature.pa_type)
    if feature.length > 0:
        return pa.FixedSizeListArray.from_arrays(values, feature.length)
    offsets = np.arange(len(tensor) + 1, dtype=np.int32) * tensor.shape[1]
    return pa.ListArray.from_arrays(offsets, values)
