"""What every layout gives: a table of encoded images and labels for each split, and what is to be said of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import pyarrow as pa
from datasets import Dataset, Features


@dataclass(frozen=True, eq=False)
class Tables:
    """The splits of a source as they are on disk or on the Hub.

    Args:
        splits: By the name that people gave them.
        layout: How the files are arranged, in words.
        labels_from: Where the labels are, in words; COLUMN stands for their column.
        left_out: What was seen and not read, with the reason.
        class_names: What a class is called, by what identifies it (WNIDs).
        revision: The Hub commit.
    """

    splits: dict[str, Dataset]
    layout: str
    labels_from: str = "COLUMN"
    left_out: tuple[str, ...] = ()
    class_names: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None


def image_table(paths: Sequence[str | None], columns: Mapping[str, Any], features: Mapping[str, Any]) -> Dataset:
    """Build a table of image files and what is known of each, in memory.

    Args:
        paths: The files, in a column `image`.
        columns: Other columns, lists or Arrow arrays.
        features: Their types; a column without one is of text.
    """
    files = pa.array(paths, pa.string())
    images = pa.StructArray.from_arrays([pa.nulls(len(files), pa.binary()), files], ["bytes", "path"])
    types = {name: features.get(name, datasets.Value("string")) for name in columns}
    whole = Features({"image": datasets.Image(decode=False), **types})
    arrays = [images, *(pa.array(values, whole[name].pa_type, from_pandas=True) for name, values in columns.items())]
    return Dataset(pa.Table.from_arrays(arrays, names=list(whole)), info=datasets.DatasetInfo(features=whole))


def some(items: Sequence[str], most: int = 3) -> str:
    """Return the first of some items for a message, and that there are more."""
    return ", ".join(items[:most]) + (", …" if len(items) > most else "")
