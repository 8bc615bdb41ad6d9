"""Which rows train and which test: splits by name, slices (`train[:80%]`), a column that says it, and who is asked."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import datasets
import numpy as np
from datasets import Dataset, ReadInstruction

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources import encoded, labels
from fadrm_hf.data.sources.layouts.split_names import find_split, read_split_name
from fadrm_hf.data.sources.layouts.tables import Tables
from fadrm_hf.errors import SourceError

TEST_SPLITS = ("test", "validation", "valid", "val")


@dataclass(frozen=True, eq=False)
class ChosenSplit:
    """The rows of a split or of slices of some.

    Attributes:
        name: What it is called in messages.
        table: Its rows.
        rows: Which rows of which split they are, (n,) int64 each.
    """

    name: str
    table: Dataset
    rows: Mapping[str, np.ndarray]


def in_order(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Return splits with those to train on first, then validation, test and all others."""
    kinds = ("train", "validation", "test")
    said = {name: read_split_name(name) for name in splits}
    places = {name: kinds.index(what.kind) if what else len(kinds) for name, what in said.items()}
    return {name: splits[name] for name in sorted(splits, key=lambda name: places[name])}


def by_column(tables: Tables) -> Tables:
    """Divide a table without splits by the column that says of which split each row is, if it has one."""
    if len(tables.splits) != 1:
        return tables
    ((_, table),) = tables.splits.items()
    for name, feature in table.features.items():
        if not isinstance(feature, datasets.Value) or feature.dtype not in ("string", "large_string", "bool", "int64"):
            continue
        cells = table.select_columns(name).with_format("arrow")[:].column(name).to_pylist()
        if not labels.is_split_column(name, cells):
            continue
        flag = labels.name_of_flag(name)
        values = [_side_of(flag, cell) if flag else str(cell) for cell in cells]
        splits = {value: table.select(_rows(values, value)) for value in dict.fromkeys(values)}
        return replace(tables, splits=splits, layout=f"{tables.layout}, splits by column {name!r}")
    return tables


def _side_of(flag: str, cell: object) -> str:
    is_so = str(cell).casefold() in ("1", "1.0", "true")
    other = "test" if flag == "train" else "train"
    return flag if is_so else other


def _rows(values: Iterable[str], wanted: str) -> list[int]:
    return [row for row, value in enumerate(values) if value == wanted]


def choose_train(tables: Tables, config: SourceConfig) -> ChosenSplit:
    """Return the split to distil: the one that is named, or the only one that can be meant.

    Raises:
        SourceError: There is none, or there are several.
    """
    if config.train_split is not None:
        return take(tables, config.train_split, "train", config)
    names = list(tables.splits)
    found = _of_kind(names, "train")
    if not found and len(names) == 1:
        return take(tables, names[0], "train", config)
    if len(found) > 1:
        raise SourceError(_ask("train", found, config))
    return take(tables, found[0] if found else "train", "train", config)


def choose_test(tables: Tables, config: SourceConfig, labelled: Iterable[str]) -> ChosenSplit | None:
    """Return the split to test on, or `None` where there is none.

    Args:
        tables: All splits.
        config: May name one.
        labelled: The splits whose images have labels: some publish test images labelled -1.

    Raises:
        SourceError: The one that is named is not there, or several can be meant.
    """
    if config.test_split is not None:
        return take(tables, config.test_split, "test", config)
    for kind in ("test", "validation"):
        found = _of_kind([name for name in tables.splits if name in set(labelled)], kind)
        if len(found) > 1:
            raise SourceError(_ask("test", found, config))
        if found:
            return take(tables, found[0], "test", config)
    return None


def _of_kind(names: Iterable[str], kind: str) -> list[str]:
    return [name for name in names if (said := read_split_name(name)) and said.kind == kind]


def _ask(role: str, found: Iterable[str], config: SourceConfig) -> str:
    return (
        f"source {config.name!r} has several splits to {role}{' on' if role == 'test' else ''}: {', '.join(found)}; "
        f"set --source.{role}_split to one of them"
    )


def take(tables: Tables, wanted: str, role: str, config: SourceConfig) -> ChosenSplit:
    """Return a split, or the slices of it, as `datasets` writes them."""
    lengths = {name: len(table) for name, table in tables.splits.items()}
    bare = wanted.partition("[")[0].strip()
    if "[" not in wanted and "+" not in wanted and wanted not in lengths:
        known = find_split(wanted, lengths)
        if known is None:
            raise SourceError(_no_split(wanted, role, lengths, config))
        wanted = bare = known
    if wanted in lengths:
        return ChosenSplit(wanted, tables.splits[wanted], {wanted: np.arange(lengths[wanted])})
    try:
        parts = ReadInstruction.from_spec(wanted).to_absolute({**lengths, **_aliases(bare, lengths)})
    except (ValueError, AssertionError, KeyError) as error:
        raise SourceError(
            f"{_no_split(wanted, role, lengths, config)}, or a slice like train[:80%] ({error})"
        ) from error
    rows = {
        find_split(part.splitname, lengths) or part.splitname: np.arange(part.from_ or 0, part.to) for part in parts
    }
    chosen = [tables.splits[name].select(range(int(at[0]), int(at[-1]) + 1)) for name, at in rows.items() if len(at)]
    if not chosen:
        raise SourceError(f"split {wanted!r} of source {config.name!r} has no rows; set --source.{role}_split")
    return ChosenSplit(wanted, chosen[0] if len(chosen) == 1 else datasets.concatenate_datasets(chosen), rows)


def _aliases(wanted: str, lengths: Mapping[str, int]) -> dict[str, int]:
    known = find_split(wanted, lengths)
    return {} if known is None else {wanted: lengths[known]}


def _no_split(wanted: str, role: str, lengths: Iterable[str], config: SourceConfig) -> str:
    return (
        f"source {config.name!r} has no split {wanted!r}, expected one of {', '.join(lengths)}; set "
        f"--source.{role}_split"
    )


def is_stand_in(train: ChosenSplit, test: ChosenSplit, config: SourceConfig) -> bool:
    """Return whether all test images are training images, which then stand in for test images.

    Raises:
        SourceError: Some are: one file in two splits makes every number better than it is.
    """
    shared = [(name, np.intersect1d(rows, train.rows[name])) for name, rows in test.rows.items() if name in train.rows]
    count = sum(len(rows) for _, rows in shared)
    example = next((f"row {rows[0]} of split {name!r}" for name, rows in shared if len(rows)), "")
    if not count:
        paths = set(_files(test.table))
        common = [path for path in _files(train.table) if path in paths] if paths else []
        count, example = (len(set(common)), common[0]) if common else (0, "")
        if count and count == len(paths):
            count = len(test.table)
    if 0 < count < len(test.table):
        raise SourceError(
            f"{count} images of source {config.name!r} are in split {train.name!r} and in split {test.name!r}, e.g. "
            f"{example}; expected every image in one; mend that, or set --source.train_split and --source.test_split"
        )
    return count > 0


def _files(table: Dataset) -> list[str]:
    """Return the files of images that are files, those behind links."""
    return [os.path.realpath(path) if os.path.islink(path) else path for path in encoded.paths(table) or () if path]
