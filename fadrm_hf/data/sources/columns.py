"""What a table means: its training and test split, its columns of images and labels, and its classes."""

from dataclasses import replace
from typing import Any

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict

from fadrm_hf.config import SourceConfig
from fadrm_hf.config.datasets import preset_of
from fadrm_hf.data.sources.readers import LABEL_COLUMNS, TEST_SPLITS
from fadrm_hf.errors import SourceError, unknown


def with_train_split(config: SourceConfig, tables: DatasetDict) -> SourceConfig:
    """`config` with the training split, once the splits it names are known to exist."""
    wanted = config.train_split or "train"
    for name, split in (("train", wanted), ("test", config.test_split or wanted)):
        if split not in tables:
            raise SourceError(
                f"source {config.name!r} has no split {split!r}, expected one of {', '.join(tables)}; set "
                f"--source.{name}_split"
            )
    return replace(config, train_split=wanted)


def with_test_split(config: SourceConfig, tables: DatasetDict) -> SourceConfig:
    """`config` with a test split that bears labels, if there is one: some publish test images labelled -1."""
    column = str(config.label_column)
    found = (split for split in TEST_SPLITS if split in tables and _bears_labels(tables[split], column))
    return replace(config, test_split=config.test_split or next(found, None))


def _bears_labels(table: Dataset, column: str) -> bool:
    return column in table.features and any(value not in (None, -1) for value in values_of(table, column))


def with_columns(config: SourceConfig, tables: DatasetDict) -> SourceConfig:
    """`config` with the columns of images and labels: those it names, or the only ones there can be."""
    features = tables[str(config.train_split)].features
    image_columns = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    class_labels = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    label_columns = class_labels or [name for name in features if name in LABEL_COLUMNS and _is_plain(features[name])]
    if config.label_column and config.label_column in features and _is_plain(features[config.label_column]):
        label_columns = [config.label_column]
    preset = preset_of(config)
    if config.label_column is None and preset and preset.label_column in label_columns:
        label_columns = [str(preset.label_column)]
    described = ", ".join(f"{name} ({_kind(feature)})" for name, feature in features.items())
    return replace(
        config,
        image_column=_one("image", config.image_column, image_columns, config.name, described),
        label_column=_one("label", config.label_column, label_columns, config.name, described),
    )


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


def _is_plain(feature: object) -> bool:
    """Whether a column holds class names or numbers."""
    kinds = ("string", "large_string", "bool")
    is_value = isinstance(feature, datasets.Value) and (feature.dtype in kinds or "int" in feature.dtype)
    return is_value or isinstance(feature, ClassLabel)


def _kind(feature: object) -> str:
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__


def values_of(table: Dataset, column: str) -> list[Any]:
    """A column as plain values."""
    return table.select_columns(column).with_format("arrow")[:].column(column).to_pylist()


def class_names(table: Dataset, column: str) -> tuple[str, ...]:
    """The classes in order: as the source states them, or the sorted values of the column."""
    feature = table.features[column]
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    return tuple(str(value) for value in sorted({value for value in values_of(table, column) if value is not None}))


def used_classes(config: SourceConfig, names: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that a run uses, in its order: those that it names, or all of the source."""
    for name in config.classes or ():
        if name not in names:
            raise SourceError(
                f"{unknown('class', name, names)} of source {config.name!r}; set --source.classes to some of these"
            )
    return names if config.classes is None else config.classes


def class_indices(table: Dataset, column: str, split: str, names: tuple[str, ...]) -> np.ndarray:
    """The place of each row's class in `names`."""
    feature, values = table.features[column], values_of(table, column)
    own = feature.names if isinstance(feature, ClassLabel) else None
    places = {name: place for place, name in enumerate(names)}
    keys = range(len(own)) if own is not None else set(values)
    known = {key: places.get(str(key) if own is None else own[int(key)], -1) for key in keys if key is not None}
    indices = np.array([known.get(value, -1) for value in values], dtype=np.int64)
    if (indices < 0).any():
        row = int((indices < 0).argmax())
        raise SourceError(
            f"split {split!r}, row {row} has label {values[row]!r}, expected one of the {len(names)} classes of the "
            f"training split ({', '.join(names[:5])}, …); mend the row, or set --source.label_column or "
            f"--source.{'train' if split == 'train' else 'test'}_split"
        )
    return indices
