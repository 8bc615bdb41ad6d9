"""What ImageNet and Tiny-ImageNet have beside folders of WNIDs: their words, and labels of a flat validation split."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datasets import ClassLabel, Dataset

from fadrm_hf.data.sources import labels
from fadrm_hf.data.sources.layouts.folder import Folder
from fadrm_hf.data.sources.layouts.image_tables import Finder, tables_near
from fadrm_hf.data.sources.layouts.split_names import read_split_name
from fadrm_hf.data.sources.layouts.tables import Tables, image_table
from fadrm_hf.data.sources.layouts.text_tables import Columns, read_table
from fadrm_hf.errors import SourceError

_WNID = re.compile(r"n\d{8}")
_WORDS = re.compile(r"(n\d{8})[\s,]+(?:\d+\s+)?(\S.*)")
_IMAGENET = 1000


def with_ground_truth(tables: Tables, folder: Folder) -> Tables:
    """Give class folders the words of their WNIDs, and flat splits the labels that a file beside them states."""
    labelled = [table for table in tables.splits.values() if "label" in table.features]
    if not labelled:
        return tables
    classes = labelled[0].features["label"].names
    order, words, source = _words(folder, classes)
    splits, origins = dict(tables.splits), []
    for name, table in tables.splits.items():
        if "label" in table.features:
            continue
        paths = table.data.column("image").combine_chunks().field("path").to_pylist()
        for file, columns in columns_near(folder):
            stated = _stated(columns, paths, Finder(folder), file) or _in_order(columns, paths, file, name)
            found = _as_classes(stated, classes, order, file) if stated else None
            if found is not None:
                splits[name] = _labelled(paths, found, classes)
                origins.append(f"{name} by {file}")
                break
    origin = "; ".join([tables.labels_from, *origins, *([f"names by {source}"] if words else [])])
    return replace(tables, splits=splits, labels_from=origin, class_names=words)


def _words(folder: Folder, classes: Sequence[str]) -> tuple[list[str], dict[str, str], str]:
    """Return the WNIDs in the order of a file that lists them, what they are called, and the file."""
    if not all(map(_WNID.fullmatch, classes)):
        return list(classes), {}, ""
    order, source = list(classes), ""
    words: dict[str, str] = {}
    for name in tables_near(folder):
        if not name.lower().endswith(".txt"):
            continue
        lines = (folder.root / name).read_text(encoding="utf-8", errors="replace").splitlines()
        said = {found[1]: found[2].strip() for line in lines if (found := _WORDS.fullmatch(line.strip()))}
        listed = [line.split()[0] for line in lines if _WNID.match(line.strip())]
        if said and len(said) >= len(lines) / 2 and not words:
            words, source = {name: said[name] for name in classes if name in said}, name
        if sorted(listed) == sorted(classes):
            order = listed
    return order, words, source


def columns_near(folder: Folder) -> list[tuple[str, Columns]]:
    """Return the tables at the top of the source, and those in folders there, with what they hold."""
    found = []
    for name in tables_near(folder):
        try:
            found.append((name, read_table(folder.root / name)))
        except (ValueError, KeyError, RecursionError, SourceError):
            continue
    return found


def _stated(columns: Columns, paths: Sequence[str], finder: Finder, file: str) -> list[str] | None:
    """Return the label of each image from a table that names them, if it names them all."""
    names = {Path(path).name: place for place, path in enumerate(paths)} | {
        Path(path).stem: place for place, path in enumerate(paths)
    }
    for key, cells in columns.items():
        places = [names.get(str(cell).rpartition("/")[2]) for cell in cells]
        if len({place for place in places if place is not None}) < len(paths):
            continue
        others = [other for other in columns if other != key]
        wanted = next((other for other in others if labels.is_label_name(other)), others[0] if others else None)
        if wanted is None:
            return None
        found: dict[int, str] = {
            place: str(cell).split()[0]
            for place, cell in zip(places, columns[wanted], strict=True)
            if place is not None and cell is not None and str(cell).strip()
        }
        return [found.get(place, "") for place in range(len(paths))]
    return None


def _in_order(columns: Columns, paths: Sequence[str], file: str, split: str) -> list[str] | None:
    """Return the lines of a file that has one for each image, in the order of their names."""
    said, own = read_split_name(Path(file).stem), read_split_name(split)
    if len(columns) != 1 or not said or not own or said.kind != own.kind:
        return None
    (cells,) = columns.values()
    return [str(cell) for cell in cells] if len(cells) == len(paths) else None


def _as_classes(stated: Sequence[str], classes: Sequence[str], order: Sequence[str], file: str) -> list[int] | None:
    """Return the class of each label: by name, or by its place in the file that lists the WNIDs."""
    places: Mapping[str, int] = {name: place for place, name in enumerate(classes)}
    if all(value in places for value in stated):
        return [places[value] for value in stated]
    if not all(map(labels.is_number, stated)):
        return None
    numbers = [int(float(value)) for value in stated]
    first = 0 if min(numbers) == 0 else 1
    if min(numbers) < 0 or max(numbers) - first >= len(classes):
        return None
    if first == 1 and len(classes) == _IMAGENET and "ground_truth" in file and list(order) == sorted(order):
        raise SourceError(
            f"{file} numbers the classes as the ILSVRC development kit does, which is not the order of their WNIDs; "
            "put a file of the kit's WNIDs in its order beside it (synsets.txt, one in each line), or sort the images "
            "into folders by class"
        )
    return [places[order[number - first]] for number in numbers]


def _labelled(paths: Sequence[str], numbers: Sequence[int], classes: Sequence[str]) -> Dataset:
    return image_table(paths, {"label": list(numbers)}, {"label": ClassLabel(names=list(classes))})
