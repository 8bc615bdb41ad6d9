"""Tables beside or above the images that say of which class each is: csv, tsv, json, json lines, text, parquet.

A table counts by what is in it: a column whose cells are files that are there, with or without their folder and
extension. Its split is that of a column, of its own name (`train.csv`, `test_labels.csv`), of the folder that it is
in, or of the folder that the images are in.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow.parquet as pq
from datasets import Dataset

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources import labels
from fadrm_hf.data.sources.layouts.class_folders import unwrapped
from fadrm_hf.data.sources.layouts.folder import IMAGE_SUFFIXES, Folder, scan
from fadrm_hf.data.sources.layouts.split_names import is_general_name, is_split_name, read_split_name
from fadrm_hf.data.sources.layouts.tables import Tables, image_table, some
from fadrm_hf.data.sources.layouts.text_tables import Columns, read_table
from fadrm_hf.errors import SourceError

_PATH_NAMES = (
    "image img file filename filenames imagepath filepath filepaths imgpath path imagefile imagename imgname "
    "imageid imgid id images photo picture"
)
PATH_COLUMNS = frozenset(_PATH_NAMES.split())
_ADDRESS = re.compile("https?://")
_SAMPLED = 60  # cells that are looked for
_MOST_BASES = 300
_INVENTED = ("submission",)  # a sample of an answer, whose labels mean nothing


@dataclass(frozen=True)
class ImageRows:
    """A table that names images.

    Attributes:
        name: The file, relative to the source.
        columns: What it holds, without the column of files.
        paths: The images.
        column: Which column named them.
    """

    name: str
    columns: Columns
    paths: list[str | None]
    column: str


def read_image_tables(
    folder: Folder, config: SourceConfig, need: Literal["labels", "splits", "anything"]
) -> Tables | None:
    """Return the splits that tables beside the images describe, or `None` where there is no such table.

    Args:
        folder: What is there.
        config: May name the columns.
        need: Which tables count: with a column that is called as labels are; those that only say which images a split
            has; or any. Where folders are classes, a table may be of something else.
    """
    finder = Finder(folder)
    found, ignored = [], []
    for name in tables_near(folder):
        rows = read_image_rows(folder.root / name, name, finder, config)
        if rows is None:
            continue
        if any(word in name.casefold() for word in _INVENTED):
            ignored.append(f"{name}: an example of an answer, not labels")
        elif _counts(rows, config, need):
            found.append(rows)
    found = [rows for rows in found if config.label_column in rows.columns] or found
    if not found and finder.doubt:
        raise SourceError(finder.doubt)
    if not found:
        return None
    splits = {split: _one_of(tables, config) for split, tables in _by_split(found).items()}
    tables = {split: _table(rows) for split, rows in splits.items()}
    tables = {name: part for split, table in tables.items() for name, part in _by_folder(split, table, folder).items()}
    named = {path for rows in splits.values() for path in rows.paths}
    unnamed = Counter(
        os.path.dirname(path) or "." for path in folder.image_paths() if str(folder.root / path) not in named
    )
    ignored += [f"{count} images in {place}: in no table" for place, count in unnamed.most_common(10)]
    origin = f"COLUMN of {some([rows.name for rows in splits.values()], 10)}"
    return Tables(tables, "images and a table of their classes", origin, tuple(ignored))


def tables_near(folder: Folder) -> Iterator[str]:
    """Yield the tables at the top of the source, and those in folders there: deeper ones are of single classes."""
    root, _ = unwrapped(folder.images)
    for name in [*folder.tables, *folder.parquet]:
        inner = name.removeprefix(f"{root}/") if root else name
        if inner.count("/") <= 1:
            yield name


def read_table_file(path: Path, config: SourceConfig) -> Tables:
    """Return the one split of a table that is the source itself.

    Raises:
        SourceError: It names no images.
        ValueError: It cannot be read.
    """
    columns = _columns(path)
    for finder in chain(
        (Finder(folder, by_name=False) for folder in _folders_near(path)), [Finder(Folder(path.parent))]
    ):
        rows = read_image_rows(path, os.path.relpath(path, finder.root), finder, config, columns)
        if rows is not None:
            return Tables({config.train_split or "train": _table(rows)}, "a table that names images")
        if finder.doubt:
            raise SourceError(finder.doubt)
    table = Dataset.from_dict({name: list(cells) for name, cells in columns.items()})
    return Tables({config.train_split or "train": table}, "a table that names no images")


def _folders_near(path: Path) -> Iterator[Folder]:
    """Yield where the images of a table may be: where it says, below its folder, or in one of images next to that."""
    yield Folder(path.parent)
    yield scan(path.parent)
    beside = path.absolute().parent.parent
    yield from (scan(place) for place in sorted(beside.iterdir()) if place.is_dir() and is_general_name(place.name))


def read_image_rows(
    path: Path, name: str, finder: "Finder", config: SourceConfig, columns: Columns | None = None
) -> ImageRows | None:
    """Return the rows of a table if one of its columns names images."""
    try:
        columns = _columns(path) if columns is None else columns
    except SourceError:
        raise
    except (ValueError, KeyError, RecursionError) as error:
        if path.suffix.lower() in (".csv", ".tsv"):
            raise ValueError(f"{name}: {error}") from None  # what is said of it is the innermost cause
        return None
    place = os.path.dirname(name)
    texts = [key for key, cells in columns.items() if any(isinstance(cell, str) for cell in cells[:_SAMPLED])]
    if config.image_column:
        texts = [key for key in texts if key == config.image_column]
    by_name = sorted(texts, key=lambda key: labels.folded(key) not in PATH_COLUMNS)
    for key in by_name:
        if locate := finder.locate(columns[key], name):
            paths = [locate(cell) if cell else None for cell in columns[key]]
            return ImageRows(name, {k: cells for k, cells in columns.items() if k != key}, paths, key)
    by_name = [key for key in by_name if labels.folded(key) in PATH_COLUMNS or key == config.image_column]
    if len(by_name) != 1 or not finder.by_name:
        return None
    address = next((cell for cell in columns[by_name[0]] if cell and _ADDRESS.match(cell)), None)
    if address is not None:
        raise SourceError(
            f"{name} names images by their addresses ({address}), which are not downloaded here; download them, and "
            f"put the names of the files into its column {by_name[0]!r}"
        )
    base = finder.root / place
    paths = [str(base / cell) if cell else None for cell in columns[by_name[0]]]
    return ImageRows(name, {k: cells for k, cells in columns.items() if k != by_name[0]}, paths, by_name[0])


def _columns(path: Path) -> Columns:
    if path.suffix.lower() != ".parquet":
        return read_table(path)
    schema = pq.read_schema(path)
    plain = [field.name for field in schema if not str(field.type).startswith(("struct", "list", "binary"))]
    return {name: list(cells) for name, cells in pq.read_table(path, columns=plain).to_pydict().items()}


class Finder:
    """Finds the files that the cells of a column mean.

    Args:
        folder: What is there.
        by_name: Whether a column counts that is called as files are, though none of them is there.
    """

    def __init__(self, folder: Folder, by_name: bool = True) -> None:
        self.root, self._folder = folder.root, folder
        self.by_name = by_name and not folder.images
        self.doubt: str | None = None  # why a table's images could not be told from others

    @cached_property
    def _suffixes(self) -> list[str]:
        """The extensions of images, the commonest first."""
        counts = Counter(os.path.splitext(names[0])[1] for names in self._folder.images.values())
        counts.update(os.path.splitext(name)[1] for names in list(self._folder.images.values())[:50] for name in names)
        return ["", *(suffix for suffix, _ in counts.most_common(6) if suffix)]

    @cached_property
    def _by_name(self) -> dict[str, str]:
        """Every image by its name with and without extension; "" for a name that several have."""
        found: dict[str, str] = {}
        for path in self._folder.image_paths():
            name = _composed(path.rpartition("/")[2])
            for key in {name, os.path.splitext(name)[0]}:
                found[key] = "" if key in found else path
        return found

    def locate(self, cells: Sequence[Any], name: str) -> Callable[[str], str] | None:
        """Return what gives the file of each cell, or `None` if the cells are no files, or may be several.

        Args:
            cells: A column.
            name: The table, relative to the root: paths begin in its folder, in the root, or in any that has them.

        """
        place = os.path.dirname(name)
        texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
        sample = [_tidied(texts[at * len(texts) // _SAMPLED]) for at in range(_SAMPLED)] if texts else []
        stated = [str(self.root / place), str(self.root), str(self.root.parent)]
        counts = {
            (base, suffix): sum(os.path.isfile(f"{base}/{cell}{suffix}") for cell in sample)
            for base in dict.fromkeys([*stated, *self._folders()])
            for suffix in self._suffixes
        }
        most = max(counts.values())
        by_name = sum(bool(self._find(cell)) for cell in sample) if most < len(sample) else 0
        if by_name > most:
            return lambda cell: self._named(cell, place)
        if not most:
            return None
        base, suffix = next(found for found, count in counts.items() if count == most)
        if base not in stated:
            alike = list(dict.fromkeys(other for other, _ in counts if counts[other, suffix] == most))
            base = self._of_its_split(alike, name)
        if not base:
            return None
        return lambda cell: _normal(f"{base}/{_tidied(cell)}{suffix}")

    def _of_its_split(self, bases: Sequence[str], name: str) -> str:
        """Return the one folder with the images of a table: of several, that of the table's split; "" for no one."""
        parts = os.path.splitext(name)[0].split("/")
        said = next((found for part in reversed(parts) if (found := read_split_name(part))), None)
        inner = [os.path.relpath(base, self.root) for base in bases]
        kinds = [{found.kind for part in place.split("/") if (found := read_split_name(part))} for place in inner]
        chosen = [
            base for base, own in zip(bases, kinds, strict=True) if len(bases) == 1 or (said and said.kind in own)
        ]
        if len(chosen) == 1:
            return chosen[0]
        self.doubt = (
            f"{name} names images of which there are several of the same name (in {some(inner)}); write the folder "
            "before each name, or set --source.name to a folder with one of them and the table"
        )
        return ""

    def _named(self, cell: str, place: str) -> str:
        return str(self.root / (self._find(_tidied(cell)) or f"{place}/{cell}"))

    def _find(self, cell: str) -> str | None:
        """Return the one image of a name in any folder; `a.jpg` also finds `a.JPG` and `a.png`."""
        name = _composed(cell.rpartition("/")[2])
        stem, suffix = os.path.splitext(name)
        found = self._by_name.get(name)
        return self._by_name.get(stem) if found is None and suffix.lower() in IMAGE_SUFFIXES else found

    def _folders(self) -> Iterable[str]:
        """Yield the folders of images and those above them, if there are not too many."""
        places = {"/".join(parts[:depth]) for name in self._folder.images for parts in [name.split("/")]
                  for depth in (1, 2, len(parts))}  # fmt: skip
        return [str(self.root / place) for place in sorted(places)[:_MOST_BASES]]


def _normal(path: str) -> str:
    return os.path.normpath(path) if "/../" in path else path


def _composed(name: str) -> str:
    """Return a name with its accents as most systems write them; macOS takes them apart."""
    return unicodedata.normalize("NFC", name)


def _tidied(cell: str) -> str:
    """Return a path as it is written here."""
    return cell.strip().replace("\\", "/").removeprefix("./")


def _counts(rows: ImageRows, config: SourceConfig, need: str) -> bool:
    """Return whether a table is of the kind that is needed; one without labels needs images in folders by class."""
    if need == "labels":
        return bool(labels.named_columns(rows.columns, config))
    others = [name for name, cells in rows.columns.items() if not labels.is_split_column(name, cells)]
    in_folders = len({os.path.dirname(path) for path in rows.paths if path}) > 1
    return in_folders if not others else need == "anything"


def _by_split(found: Iterable[ImageRows]) -> dict[str, list[ImageRows]]:
    """Return tables by the split that their name or their folder says; those without are for all images."""
    splits: dict[str, list[ImageRows]] = {}
    for rows in found:
        place, stem = os.path.split(os.path.splitext(rows.name)[0])
        said = read_split_name(stem)
        top = next((part for part in place.split("/") if is_split_name(part)), None)
        split = top or (stem if is_split_name(stem) else said.kind if said else "")
        splits.setdefault(split, []).append(rows)
    if len(splits) > 1:
        splits.pop("", None)  # a table of everything beside one for each split
    if set(splits) == {""} or (len(splits) == 1 and not any(map(is_split_name, splits))):
        return {"train": next(iter(splits.values()))}
    return splits


def _one_of(tables: Sequence[ImageRows], config: SourceConfig) -> ImageRows:
    """Return the table of a split, if there is one, or all say the same."""
    first = tables[0]
    if any(
        (other.paths, sorted(other.columns.items())) != (first.paths, sorted(first.columns.items()))
        for other in tables
    ):
        raise SourceError(
            f"source {config.name!r} has several tables of the same images: {some([rows.name for rows in tables])}; "
            f"expected one for each split; set --source.name to the one that is meant, e.g. .../{first.name}, or "
            "--source.label_column to a column that only one has"
        )
    return first


def _table(rows: ImageRows) -> Dataset:
    """Build the table of a split; where it has no other columns, the class is the folder of the image."""
    columns: dict[str, Any] = dict(rows.columns)
    if not [name for name, cells in columns.items() if not labels.is_split_column(name, cells)]:
        columns["label"] = [os.path.basename(os.path.dirname(path)) if path else None for path in rows.paths]
    columns = {name if name != "image" else "image_": cells for name, cells in columns.items()}
    table = image_table(rows.paths, columns, {name: _feature(cells) for name, cells in columns.items()})
    return table.rename_column("image", rows.column) if rows.column not in ("image", *columns) else table


def _feature(cells: Sequence[Any]) -> Any:
    sample = next((cell for cell in cells if cell is not None), "")
    if isinstance(sample, list):
        return datasets.List(datasets.Value("string"))
    kinds: Mapping[type, str] = {str: "string", bool: "bool", int: "int64", float: "float64"}
    return datasets.Value(kinds.get(type(sample), "string"))


def _by_folder(split: str, table: Dataset, folder: Folder) -> dict[str, Dataset]:
    """Return the rows of a table by the split that the images' first folder is, where the table says nothing."""
    image = next(name for name, feature in table.features.items() if isinstance(feature, datasets.Image))
    if split != "train" or any(
        labels.is_split_column(name, table[name][:]) for name in table.features if name != image
    ):
        return {split: table}
    paths = table.data.column(image).combine_chunks().field("path").to_pylist()
    start = len(str(folder.root)) + 1
    tops = [path[start:].partition("/")[0] if path and path.startswith(str(folder.root)) else "" for path in paths]
    names = sorted({top for top in tops if is_split_name(top)})
    if not names or any(top not in names for top in tops):
        return {split: table}
    return {name: table.select([row for row, top in enumerate(tops) if top == name]) for name in names}
