"""What a table means: its columns of images and labels, and its classes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset

from fadrm_hf.config import SourceConfig
from fadrm_hf.config.datasets import NO_PRESET, find_preset, preset_of
from fadrm_hf.data.sources import labels
from fadrm_hf.data.sources.layouts.image_tables import PATH_COLUMNS
from fadrm_hf.errors import SourceError, unknown

_LISTS = tuple(kind for kind in (getattr(datasets, name, None) for name in ("List", "LargeList", "Sequence")) if kind)


def with_images(table: Dataset, config: SourceConfig) -> Dataset:
    """Return a table whose column of bytes, if it has no column of images, is one of images."""
    features = table.features
    if any(isinstance(feature, datasets.Image) for feature in features.values()):
        return table
    candidates = [name for name, feature in features.items() if _holds_bytes(feature) and name != config.label_column]
    if config.image_column:
        candidates = [name for name in candidates if name == config.image_column]
    named = [name for name in candidates if labels.folded(name) in PATH_COLUMNS] or candidates
    return table.cast_column(named[0], datasets.Image(decode=False)) if len(named) == 1 else table


def _holds_bytes(feature: Any) -> bool:
    return feature in (datasets.Value("binary"), datasets.Value("large_binary")) or (
        isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    )


def with_columns(config: SourceConfig, table: Dataset) -> SourceConfig:
    """Return `config` with the columns of images and labels: those it names, or the only ones there can be."""
    features = table.features
    image_columns = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    image_columns = image_columns or [name for name, feature in features.items() if _holds_bytes(feature)]
    described = ", ".join(f"{name} ({_kind(table, name)})" for name in features)
    image = _one("image", config.image_column, image_columns, config.name, described)
    _refuse_boxes(table, config)
    candidates = _label_columns(config, table, image)
    preset = find_preset(config.name) if config.preset in (None, NO_PRESET) else preset_of(config)
    if config.label_column is None and preset and preset.label_column in candidates:
        candidates = [str(preset.label_column)]
    label = _one("label", config.label_column, candidates, config.name, described)
    return replace(config, image_column=image, label_column=label)


def _label_columns(config: SourceConfig, table: Dataset, image: str) -> list[str]:
    """Return the columns that can be the label: classes, what is called so, or the only column left."""
    features = {name: feature for name, feature in table.features.items() if name != image}
    wanted = config.label_column
    if wanted is not None:
        return [name for name in features if name == wanted and _is_plain(table, name)]
    classes = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    named = classes or [name for name in features if labels.is_label_name(name) and _is_plain(table, name)]
    if len(named) > 1 and not classes:
        named = _without_numbers(table, named)
    others = [name for name in features if not labels.is_split_column(name, values_of(table, name)[:10_000])
              and isinstance(features[name], datasets.Value)]  # fmt: skip
    texts = [] if named else [name for name in others if _may_be_classes(values_of(table, name))]
    return texts if len(texts) == 1 else named


def _may_be_classes(values: list[Any]) -> bool:
    """Return whether a column without a telling name is of words that come again and again."""
    known = [value for value in values if value is not None]
    is_text = bool(known) and all(isinstance(value, str) for value in known)
    return is_text and len(set(known)) * 2 <= len(known) and not all(map(labels.is_number, known))


def _without_numbers(table: Dataset, named: list[str]) -> list[str]:
    """Of columns that say the same in two forms (`class_id`, `class_name`), return the one of text."""
    columns = {name: values_of(table, name) for name in named}
    text = [name for name, values in columns.items() if not all(labels.is_number(value) for value in values)]
    if len(text) != 1:
        return named
    kinds = len(set(columns[text[0]]))
    same = all(len(set(zip(columns[text[0]], columns[name], strict=True))) == kinds == len(set(columns[name]))
               for name in named)  # fmt: skip
    return text if same else named


def _one(kind: str, wanted: str | None, candidates: list[str], source: str, described: str) -> str:
    chosen = [name for name in candidates if wanted in (None, name)]
    if len(chosen) == 1:
        return chosen[0]
    if wanted is not None:
        problem = f"column {wanted!r} of source {source!r} is no {kind} column"
    elif candidates:
        problem = f"source {source!r} has several {kind} columns: {', '.join(candidates)}"
    else:
        problem = f"source {source!r} has no {kind} column"
    raise SourceError(f"{problem}; expected exactly one; its columns: {described}; set --source.{kind}_column")


def _refuse_boxes(table: Dataset, config: SourceConfig) -> None:
    """Refuse tables of a detection set, which has boxes, and of images that have several classes."""
    boxes = [name for name in table.features if name.casefold() in labels.BOX_COLUMNS]
    if len(boxes) > 1 or {"bbox", "bboxes", "boxes", "objects"} & {name.casefold() for name in boxes}:
        raise SourceError(
            f"source {config.name!r} is a detection set: its columns {', '.join(boxes)} are boxes in images, expected "
            "one class for each image; cut the boxes out, one folder for each class, and set --source.name to it"
        )


def _is_plain(table: Dataset, name: str) -> bool:
    """Return whether a column holds class names or whole numbers, or lists of them, which are refused by name."""
    feature = table.features[name]
    if isinstance(feature, (ClassLabel, *_LISTS)):
        return True
    if not isinstance(feature, datasets.Value):
        return False
    if feature.dtype in ("string", "large_string", "bool") or "int" in feature.dtype:
        return True
    values = [value for value in values_of(table, name) if value is not None and value == value]
    return "float" in feature.dtype and all(float(value).is_integer() for value in values)


def _kind(table: Dataset, name: str) -> str:
    """Return the type of a column for a message; of text that is all numbers, that of the numbers."""
    feature = table.features[name]
    if not isinstance(feature, datasets.Value):
        return type(feature).__name__
    first = values_of(table.select(range(min(100, len(table)))), name) if feature.dtype == "string" else []
    cells = [cell for cell in first if cell is not None]
    if cells and all(map(labels.is_number, cells)):
        return "int64" if all(cell.lstrip("-").isdigit() for cell in cells) else "float64"
    return str(feature.dtype)


def values_of(table: Dataset, column: str) -> list[Any]:
    """Return a column as plain values."""
    return table.select_columns(column).with_format("arrow")[:].column(column).to_pylist()


def with_one_hot(table: Dataset, config: SourceConfig) -> Dataset:
    """Return a table with a column `label` in place of one column for each class, if its columns are of that form.

    Raises:
        SourceError: Rows have several classes.
    """
    if config.label_column or any(
        isinstance(feature, ClassLabel) or labels.is_label_name(name) for name, feature in table.features.items()
    ):
        return table
    flags = {name: values for name, feature in table.features.items()
             if isinstance(feature, datasets.Value) and (values := _flags(table, name)) is not None}  # fmt: skip
    if len(flags) < 2:
        return table
    matrix = np.stack(list(flags.values()))
    counts = matrix.sum(axis=0)
    if (counts == 1).all():
        names = list(flags)
        kept = table.remove_columns(names)
        return kept.add_column("label", matrix.argmax(axis=0)).cast_column("label", ClassLabel(names=names))
    if counts.max() > 1 and (counts >= 1).mean() > 0.5:
        row = int((counts > 1).argmax())
        both = [name for name, values in flags.items() if values[row]]
        raise SourceError(
            f"source {config.name!r} is a multi-label set: row {row} is of {' and '.join(both[:2])}, expected one "
            "class for each image; keep the images of one class, or set --source.label_column"
        )
    return table


def _flags(table: Dataset, name: str) -> np.ndarray | None:
    """Return a column of zeros and ones, or `None` for any other."""
    values = values_of(table, name)
    if labels.is_split_column(name, values[:10_000]):
        return None
    numbers = {None: None, "0": 0, "1": 1, "0.0": 0, "1.0": 1, 0: 0, 1: 1}
    found = [numbers.get(value.strip() if isinstance(value, str) else value) for value in values]
    return None if None in found else np.array(found, dtype=np.int64)


def class_names(table: Dataset, column: str, config: SourceConfig) -> tuple[str, ...]:
    """Return the classes in order: as the source states them, or the sorted values of the column.

    Raises:
        SourceError: An image has several classes.
    """
    feature = table.features[column]
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    values = values_of(table, column)
    joined = next((str(value) for value in values if isinstance(value, list)), None) or labels.several_in_one(values)
    if joined is not None:
        raise SourceError(
            f"source {config.name!r} is a multi-label set: column {column!r} holds several classes in one row "
            f"({joined}), expected one class for each image; keep the images of one class, or set "
            "--source.label_column"
        )
    return labels.sorted_names(labels.with_whole(values))


def used_classes(config: SourceConfig, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes that a run uses, in its order: those that it names, or all of the source."""
    chosen = tuple(_as_named(str(name), names) for name in config.classes or ())
    for name in chosen:
        if name not in names:
            raise SourceError(
                f"{unknown('class', name, names)} of source {config.name!r}; set --source.classes to some of these"
            )
    return names if config.classes is None else chosen


def _as_named(name: str, names: Sequence[str]) -> str:
    """Return the class that YAML made a truth value of, which it does with yes, no, on and off."""
    words = {"True": ("yes", "true", "on", "y"), "False": ("no", "false", "off", "n")}.get(name, ())
    return next((known for known in names if known.casefold() in words), name) if name not in names else name


def has_labels(table: Dataset, column: str) -> bool:
    """Return whether any row of a split has a label: some publish test images labelled -1."""
    return column in table.features and any(value not in (None, -1, "") for value in values_of(table, column))


def class_indices(
    table: Dataset, column: str, split: str, role: str, names: Sequence[str], skips: bool = False
) -> np.ndarray:
    """Return the place of each row's class in `names`; −1 for a row without a label, if those may be left out."""
    feature, values = table.features[column], values_of(table, column)
    own = feature.names if isinstance(feature, ClassLabel) else None
    values = values if own is not None else labels.with_whole(values)
    places = {name: place for place, name in enumerate(names)}
    keys = range(len(own)) if own is not None else set(values)
    known = {key: places.get(str(key) if own is None else own[int(key)], -1) for key in keys if key is not None}
    indices = np.array([known.get(value, -1) for value in values], dtype=np.int64)
    wrong = (indices < 0) & np.array([not skips or value is not None for value in values], dtype=bool)
    if wrong.any():
        row = int(wrong.argmax())
        raise SourceError(
            f"split {split!r}, row {row} has label {values[row]!r}, expected one of the {len(names)} classes of the "
            f"training split ({', '.join(names[:5])}, …); mend the row, or set --source.label_column or "
            f"--source.{role}_split{', or --source.on_corrupt skip' if values[row] is None else ''}"
        )
    return indices


def first_of_repeated(
    paths: Sequence[str | None], indices: np.ndarray, names: Sequence[str], config: SourceConfig
) -> np.ndarray | None:
    """Return the rows, (n,) int64, without those of a file that is in a row before; `None` if there are no such.

    Raises:
        SourceError: A file is in several rows with different classes: it is a detection or multi-label set.
    """
    files = pa.array(paths, pa.string())
    codes = files.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    if len(files.unique()) == len(files):
        return None
    order = np.lexsort((indices, codes))
    same = (codes[order][1:] == codes[order][:-1]) & (indices[order][1:] != indices[order][:-1])
    if same.any():
        at = int(same.argmax())
        first, second = order[at], order[at + 1]
        raise SourceError(
            f"source {config.name!r} is a multi-label or detection set: {Path(str(paths[first])).name} is in row "
            f"{first} as {names[indices[first]]} and in row {second} as {names[indices[second]]}, expected one "
            "class for each image; keep one row for each, or set --source.label_column"
        )
    return np.sort(np.unique(codes, return_index=True)[1])
