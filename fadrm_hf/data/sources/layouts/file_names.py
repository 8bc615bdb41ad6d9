"""Images whose names begin with their class: `cat.0.jpg`, `american_bulldog_17.jpg`, `n01440764_10026.JPEG`.

Names are taken for classes only where `--source.label_column file_name` asks for it: a camera numbers images, too.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import datasets
from datasets import Dataset

from fadrm_hf.data.sources.layouts.tables import Tables, image_table, some
from fadrm_hf.errors import SourceError

FILE_NAME = "file_name"

_NUMBERED = re.compile(r"(.*?[^\W\d_].*?)[\W_]*\d+\W*")


def class_in_name(path: str) -> str | None:
    """Return what is before the number at the end of an image's name, or `None` where it has no such form."""
    found = _NUMBERED.fullmatch(os.path.splitext(os.path.basename(path))[0])
    return found[1] if found else None


def classes_in_names(paths: Iterable[str]) -> list[str]:
    """Return the classes that names of images begin with, if they can be classes: several, each of several images."""
    names = [class_in_name(path) for path in paths]
    counts = Counter(name for name in names if name is not None)
    is_likely = 2 <= len(counts) <= len(names) / 2 and counts.total() >= 0.9 * len(names)
    return sorted(counts) if is_likely else []


def read_named_images(splits: Mapping[str, Sequence[str]], source: str) -> Tables:
    """Return splits whose images are of the classes that their names begin with.

    Args:
        splits: The images of each.
        source: Its name, for messages.

    Raises:
        SourceError: No name of an image says a class.
    """
    named = {split: [(path, class_in_name(path)) for path in paths] for split, paths in splits.items()}
    classes = sorted({name for rows in named.values() for _, name in rows if name is not None})
    if not classes:
        example = os.path.basename(next(path for rows in named.values() for path, _ in rows))
        raise SourceError(
            f"source {source!r} has no image whose name begins with its class, as in cat.0.jpg (there is {example}); "
            "set --source.label_column to something else, or leave it out"
        )
    tables: dict[str, Dataset] = {}
    left_out = []
    for split, rows in named.items():
        chosen = [(path, name) for path, name in rows if name is not None]
        paths, labels = [path for path, _ in chosen or rows], [name for _, name in chosen]
        columns = {FILE_NAME: [classes.index(name) for name in labels]} if labels else {}
        tables[split] = image_table(paths, columns, {FILE_NAME: datasets.ClassLabel(names=classes)})
        if 0 < len(chosen) < len(rows):
            others = [os.path.basename(path) for path, name in rows if name is None]
            left_out.append(f"{len(others)} images of {split} whose names say no class ({some(others)})")
    return Tables(tables, "images named by their classes", "names of the files, up to their number", tuple(left_out))
