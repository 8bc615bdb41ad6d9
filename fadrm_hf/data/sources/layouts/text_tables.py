"""Tables in text files: csv, tsv, json, json lines and lists.

Cells stay the text they are, `None` and `007` too, without the blanks around it.
"""

import codecs
import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from fadrm_hf.data.sources.layouts.folder import IMAGE_SUFFIXES
from fadrm_hf.errors import SourceError

Columns = dict[str, list[Any]]

_DELIMITERS = ",;\t|"
_NO_VALUE = ("", None)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_table(path: Path) -> Columns:
    """Return the columns of a text table; of a file that is no table, none.

    Raises:
        SourceError: It is a detection set, which has no one class for each image.
        ValueError: It is damaged, in an unknown encoding, or has two columns of one name.
    """
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".txt": _read_list}
    suffix = path.suffix.lower()
    return readers[suffix](path) if suffix in readers else _read_json(path)


def _read_csv(path: Path) -> Columns:
    text = _text_of(path)
    first = text.partition("\n")[0]
    if not first.strip():
        return {}
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first.count)
    header = next(csv.reader([first], delimiter=delimiter))
    has_header = not any(Path(cell).suffix.lower() in IMAGE_SUFFIXES for cell in header)
    names = header if has_header else _numbered(len(header))
    names = [name.strip() or f"column {place}" for place, name in enumerate(names)]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"several columns are called {repeated[0]!r}, expected each name once")
    table = pacsv.read_csv(
        pa.py_buffer(text.encode()),
        pacsv.ReadOptions(column_names=names, skip_rows=int(has_header)),
        pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
        ),
    )
    columns = [pc.utf8_trim_whitespace(table.column(place)).to_pylist() for place in range(len(names))]
    return {name: [cell or None for cell in cells] for name, cells in zip(names, columns, strict=True)}


def _text_of(path: Path) -> str:
    """Return the text of a file in UTF-8, or else as spreadsheets write it: in UTF-16, or for Western languages.

    Raises:
        UnicodeDecodeError: It is neither.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" not in content:
            text = content.decode("cp1252", errors="replace")
        elif content.startswith(_UTF_16) and len(content) % 2 == 0:
            text = content.decode("utf-16")
        else:
            raise
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _numbered(count: int) -> list[str]:
    """Name the columns of a table that names none: of two, the file comes first and its class second."""
    return ["file", "label"] if count == 2 else ["file", *(f"column {place}" for place in range(1, count))]


def _read_list(path: Path) -> Columns:
    """Read lines of `FILE`, `FILE CLASS` or more cells, between tabs, commas or blanks."""
    lines = [line.strip() for line in _text_of(path).splitlines() if line.strip()]
    if not lines:
        return {}
    delimiter = next((mark for mark in "\t,;" if mark in lines[0]), None)
    rows = [[cell.strip() for cell in line.split(delimiter)] if delimiter else line.rsplit(maxsplit=1)
            for line in lines]  # fmt: skip
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        return {}
    return dict(zip(_numbered(width), map(list, zip(*rows, strict=True)), strict=True))


def _read_json(path: Path) -> Columns:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return _read_json_lines(text)
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return _read_json_lines(text)  # `datasets` takes a file of lines by this name, too
    if isinstance(document, list):
        return _columns_of(document)
    if not isinstance(document, dict):
        return {}
    if isinstance(document.get("images"), list) and isinstance(document.get("annotations"), list):
        return _read_coco(document, path)
    for key in ("data", "rows", "samples", "labels", "annotations"):
        if isinstance(document.get(key), list) and all(isinstance(row, dict) for row in document[key]):
            return _columns_of(document[key])
    if document and all(isinstance(value, str | int | float) for value in document.values()):
        return {"file": list(document), "label": [as_text(value) for value in document.values()]}  # {FILE: CLASS}
    if document and all(isinstance(value, dict) for value in document.values()):
        return _columns_of([{"file": name} | value for name, value in document.items()])  # {FILE: {…}}
    return {}


def _read_json_lines(text: str) -> Columns:
    return _columns_of([json.loads(line) for line in text.splitlines() if line.strip()])


def _read_coco(document: dict[str, Any], path: Path) -> Columns:
    """Read the json of COCO and iNaturalist, if every image has one class."""
    annotations = document["annotations"]
    if any(isinstance(one, dict) and ("bbox" in one or "segmentation" in one) for one in annotations[:100]):
        raise SourceError(
            f"{path} describes a detection set: boxes in images, not one class for each image; cut the boxes out, one "
            "folder for each class, and set --source.name to it"
        )
    names = {one["id"]: str(one.get("name", one["id"])) for one in document.get("categories", [])}
    files = {one["id"]: one.get("file_name") for one in document["images"]}
    rows = [one for one in annotations if "category_id" in one]
    return {
        "file": [files.get(one.get("image_id")) for one in rows],
        "label": [names.get(one["category_id"], as_text(one["category_id"])) for one in rows],
    }


def _columns_of(rows: Sequence[Any]) -> Columns:
    if not rows or not all(isinstance(row, dict) for row in rows):
        return {}
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [as_text(row.get(name)) for row in rows] for name in names}


def as_text(value: Any) -> Any:
    """Return a scalar as the text that stands for it in JSON, and anything else as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value in _NO_VALUE:
        return None
    return str(value) if isinstance(value, int | float) else value
