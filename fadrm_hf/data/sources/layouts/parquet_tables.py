"""Parquet files that hold the images themselves, as the Hub has them: `data/train-00000-of-00002.parquet`.

Splits are those of the card beside them (`configs:` in README.md), or of the files' names, or of the folders they are
in. Classes that files number differently are matched by name.
"""

import glob
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import ClassLabel, Dataset, Features

from fadrm_hf.config import SourceConfig
from fadrm_hf.config.file import read_head
from fadrm_hf.data.sources.layouts.folder import Folder
from fadrm_hf.data.sources.layouts.split_names import is_split_name, read_split_name
from fadrm_hf.data.sources.layouts.tables import Tables, some
from fadrm_hf.errors import SourceError

_SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")


def read_parquet_tables(folder: Folder, config: SourceConfig) -> Tables | None:
    """Return the splits in a folder's parquet files, or `None` where none holds images."""
    files = [name for name in folder.parquet if holds_images(folder.root / name)]
    if not files:
        return None
    card = read_card(folder.root / "README.md")
    stated = card.files(folder.root, config)
    splits = stated or _by_name(files, config)
    read = {name for names in splits.values() for name in names}
    left_out = tuple(f"{name}: in no split" for name in files if name not in read)
    tables = {
        split: card.named(read_files([folder.root / name for name in names]), config.config_name)
        for split, names in splits.items()
    }
    said = "the card" if stated else "the names of the files"
    return Tables(tables, f"parquet files, splits by {said}", left_out=left_out)


def holds_images(path: Path) -> bool:
    """Return whether a parquet file has a column of images: of bytes, or as `datasets` writes them."""
    if path.stat().st_size < 1024 and path.read_bytes().startswith(b"version https://git-lfs"):
        raise SourceError(f"{path} is a Git LFS pointer, not the file itself; run git lfs pull in its repository")
    return any(_is_image(field.type) for field in pq.read_schema(path))


def _is_image(kind: pa.DataType) -> bool:
    is_struct = pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}
    return is_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def read_files(files: Sequence[Path]) -> Dataset:
    """Read the parquet files of one split, whose classes are matched by name."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        groups[str(sorted(_class_names(file).items()))].append(file)
    first, *others = [(_load(group), group[0]) for group in groups.values()]
    alike = [_as_numbered_in(first[0], table, file) for table, file in others]
    return datasets.concatenate_datasets([first[0], *alike]) if alike else first[0]


def _class_names(file: Path) -> dict[str, list[str]]:
    features = Features.from_arrow_schema(pq.read_schema(file))
    return {name: feature.names for name, feature in features.items() if isinstance(feature, ClassLabel)}


def _load(files: Sequence[Path]) -> Dataset:
    escaped = {"train": [glob.escape(str(file.absolute())) for file in files]}
    table: Dataset = datasets.load_dataset("parquet", data_files=escaped, split="train")
    return table


def _as_numbered_in(first: Dataset, table: Dataset, file: Path) -> Dataset:
    """Return a table with the class numbers of another that has the same names in another order."""
    for name, feature in first.features.items():
        if not isinstance(feature, ClassLabel) or table.features[name] == feature:
            continue
        own = getattr(table.features[name], "names", [])
        if sorted(own) != sorted(feature.names):
            raise SourceError(
                f"{file} has other classes in column {name!r} than the files before it: {some(own)}, expected "
                f"{some(feature.names)}; mend it, or name the files that are meant with --source.name"
            )
        numbers = np.array([feature.names.index(each) for each in own])
        values = table.select_columns(name).with_format("arrow")[:].column(name).to_numpy()
        column = numbers[values.astype(np.int64)]
        table = table.remove_columns(name).add_column(name, column).cast_column(name, feature)
    return table.select_columns(list(first.features)).cast(first.features)


def _by_name(files: Sequence[str], config: SourceConfig) -> dict[str, list[str]]:
    """Return the files of each split by their names, or by their folders'; all are `train` where none says."""
    splits: dict[str, list[str]] = defaultdict(list)
    for name in files:
        place, _, last = name.rpartition("/")
        bare = _SHARD.sub("", Path(last).stem)
        said = read_split_name(bare)
        top = next((part for part in place.split("/") if is_split_name(part)), None)
        named = (
            bare if is_split_name(bare) or (bare != Path(last).stem and said is None) else said.kind if said else ""
        )
        splits[top or named].append(name)
    unnamed = splits.pop("", [])
    if not splits:
        return {"train": unnamed}
    for split, names in splits.items():
        places = {re.split(r"/|$", name)[0] for name in names if "/" in name and not is_split_name(name.split("/")[0])}
        if len(places) > 1 and config.config_name in places:
            splits[split] = [name for name in names if name.startswith(f"{config.config_name}/")]
        elif len(places) > 1:
            raise SourceError(
                f"source {config.name!r} has split {split!r} in several folders ({some(sorted(places))}); set "
                "--source.config_name to one of them"
            )
    return dict(splits)


@dataclass(frozen=True)
class Card:
    """What the YAML head of a dataset card states.

    Attributes:
        head: The head, every scalar as the text it is, so that a class `no` keeps its name.
    """

    head: Mapping[str, Any]

    def files(self, root: Path, config: SourceConfig) -> dict[str, list[str]]:
        """Return the parquet files of each split of a configuration, if the card states any."""
        stated = [one for one in self.head.get("configs") or [] if isinstance(one, dict) and one.get("data_files")]
        names = [str(one.get("config_name", "default")) for one in stated]
        wanted = config.config_name or ("default" if "default" in names else next(iter(names), None))
        if len(names) > 1 and config.config_name is None and "default" not in names:
            defaults = [name for name, one in zip(names, stated, strict=True) if one.get("default") == "true"]
            if len(defaults) != 1:
                raise SourceError(
                    f"source {config.name!r} has several configurations: {some(names, 10)}; set --source.config_name"
                )
            wanted = defaults[0]
        if stated and wanted not in names:
            raise SourceError(
                f"source {config.name!r} has no configuration {wanted!r}, expected one of {some(names, 10)}; set "
                "--source.config_name"
            )
        found = stated[names.index(wanted)]["data_files"] if wanted in names else []
        rows = found if isinstance(found, list) else [found]
        patterns = {str(row.get("split", "train")): row["path"] for row in rows if isinstance(row, dict)} or (
            {"train": rows} if rows else {}
        )
        return {split: _matching(root, pattern) for split, pattern in patterns.items() if _matching(root, pattern)}

    def class_names(self, column: str, config_name: str | None) -> list[str] | None:
        """Return the class names that the card states for a column, in order."""
        info = self.head.get("dataset_info") or {}
        infos = [one for one in (info if isinstance(info, list) else [info]) if isinstance(one, dict)]
        infos = [one for one in infos if one.get("config_name") == (config_name or "default")] or infos
        for feature in (one for each in infos for one in each.get("features") or []):
            kind = feature.get("dtype") if isinstance(feature, dict) and feature.get("name") == column else None
            names = kind.get("class_label", {}).get("names") if isinstance(kind, dict) else None
            if names:
                return [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else list(names)
        return None

    def named(self, table: Dataset, config_name: str | None) -> Dataset:
        """Give columns of numbers the class names that the card states for them."""
        for column, feature in table.features.items():
            is_number = not isinstance(feature, ClassLabel) and "int" in str(getattr(feature, "dtype", ""))
            if is_number and (names := self.class_names(column, config_name)):
                table = table.cast_column(column, ClassLabel(names=names))
        return table


def _matching(root: Path, pattern: str | Sequence[str]) -> list[str]:
    patterns = [pattern] if isinstance(pattern, str) else pattern
    found = {name for one in patterns for name in glob.glob(one, root_dir=root, recursive=True)}
    return sorted(name.replace("\\", "/") for name in found if name.endswith(".parquet"))


def read_card(path: Path) -> Card:
    """Read the head of a README.md; one without a head, or with a broken one, states nothing."""
    try:
        return Card(read_head(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError):
        return Card({})
