"""From what is in the cells of a column to classes: text, numbers, whole fractions, one column for each class."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources.layouts.split_names import read_split_name

LABEL_COLUMNS = ("label", "labels", "class", "class_name", "class_id", "category", "target", "fine_label", "cls", "y",
                 "classes", "class_label", "category_name", "category_id", "label_name", "image_label")  # fmt: skip
_FOLDED = {re.sub("[^a-z0-9]", "", name) for name in LABEL_COLUMNS}
BOX_COLUMNS = {"xmin", "ymin", "xmax", "ymax", "bbox", "bboxes", "boxes", "objects", "x1", "y1", "x2", "y2"}
_SEPARATORS = ("|", ";", ",")


def folded(name: str) -> str:
    """Return a name without case, blanks and marks."""
    return re.sub("[^a-z0-9]", "", name.casefold())


def is_label_name(name: str) -> bool:
    """Return whether a column is called as labels are."""
    return folded(name) in _FOLDED


def named_columns(columns: Mapping[str, Any], config: SourceConfig) -> list[str]:
    """Return the columns that are called as labels are, or that the configuration names."""
    return [name for name in columns if name == config.label_column or is_label_name(name)]


def is_split_column(name: str, cells: Iterable[Any]) -> bool:
    """Return whether a column says of which split a row is: by its values, or as `is_train` with 0 and 1."""
    values = {str(cell) for cell in cells if cell is not None}
    if 1 <= len(values) <= 10 and _are_splits(values):
        return not is_label_name(name)
    return name_of_flag(name) is not None and values <= {"0", "1", "0.0", "1.0", "true", "false", "True", "False"}


def _are_splits(values: Iterable[str]) -> bool:
    """Return whether values are names of splits, or `Training` beside others that say more, such as `PublicTest`."""
    said = [read_split_name(value) for value in values]
    kinds = {name.kind for name in said if name}
    return None not in said and (
        all(name and name.is_exact for name in said)
        or (len(kinds) > 1 and any(name and name.is_exact and name.kind == "train" for name in said))
    )


def name_of_flag(name: str) -> str | None:
    """Return the split that `is_train` or `is_valid` is about."""
    inner = re.fullmatch(r"is_?(\w+)", name.casefold())
    said = read_split_name(inner[1]) if inner else None
    return said.kind if said and said.is_exact else None


def as_whole(value: Any) -> Any:
    """Return a whole fraction as the number that it is, and anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?\d+\.0*", value):
        return value.partition(".")[0]
    return value


def with_whole(values: list[Any]) -> list[Any]:
    """Return labels of which all are whole fractions (0.0, 1.0) as whole numbers, and others as they are."""
    kinds = {value for value in values if value is not None}
    is_whole = bool(kinds) and all(
        (isinstance(value, float) and value.is_integer())
        or (isinstance(value, str) and re.fullmatch(r"-?\d+\.0+", value))
        for value in kinds
    )
    return [as_whole(value) for value in values] if is_whole else values


def is_number(value: Any) -> bool:
    """Return whether a cell is a number, also as text."""
    if isinstance(value, str):
        return re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", value.strip(), re.IGNORECASE) is not None
    return isinstance(value, int | float)


def sorted_names(values: Iterable[Any]) -> tuple[str, ...]:
    """Return the classes in order: numbers by size, text by its letters."""
    kinds = {value for value in values if value is not None}
    if all(isinstance(value, str) and re.fullmatch(r"0|-?[1-9]\d*", value) for value in kinds):
        return tuple(sorted(kinds, key=int))
    return tuple(str(value) for value in sorted(kinds))


def several_in_one(values: Sequence[Any]) -> str | None:
    """Return a cell that holds several classes at once ("cat|dog", where "cat" is a class by itself), if there is."""
    counts = Counter(value for value in values if isinstance(value, str))
    for mark in _SEPARATORS:
        combined = [value for value in counts if mark in value]
        parts = Counter(part.strip() for value in combined for part in value.split(mark))
        singles = {value for value in counts if mark not in value}
        if combined and all(part in singles or parts[part] > 1 for part in parts):
            return combined[0]
    return None
