"""From a name to tables with an image column: a Hub dataset, a local folder or file, or the bundled digits.

Everything goes through `datasets` with no remote code. Where a table holds paths of images (csv, json), they are taken
relative to the table's folder.
"""

import csv
import re
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import torch
from datasets import Dataset, DatasetDict
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2: the client's own
from PIL import Image

from fadrm_hf.config import SourceConfig
from fadrm_hf.config.datasets import PRESETS
from fadrm_hf.errors import SourceError, unknown
from fadrm_hf.runtime.randomness import generator

TEST_SPLITS = ("test", "validation", "valid", "val")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "class_id", "category", "target", "fine_label", "cls", "y")
_PATH_COLUMNS = ("image", "img", "file_name", "filename", "image_path", "filepath", "path", "file")
_FORMATS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}
_ACCEPTED = "a Hub dataset id, a local image folder, a parquet, csv or json file, a folder of them, or 'digits'"
_NUM_TEST_DIGITS = 500
_DAMAGE = (OSError, ValueError, TypeError, KeyError, csv.Error)  # what libraries raise for files that are not theirs

Tables = TypeVar("Tables")


def read_tables(config: SourceConfig) -> tuple[DatasetDict, str | None]:
    """The splits of a source, and the Hub commit they were read from.

    Raises:
        SourceError: the source does not exist, cannot be reached, or cannot be read.
    """
    if config.name == "digits":
        return _digits(), None
    path = Path(config.name).expanduser()
    if path.exists():
        return _local_tables(path, config), None
    if config.name.startswith((".", "/", "~")) or config.name.count("/") > 1 or path.suffix in _FORMATS:
        raise SourceError(f"{_no_such(config.name, path)}; expected {_ACCEPTED}; set --source.name")
    revision = _hub_commit(config)
    tables = _load(config, config.name, config.config_name, revision=revision)
    return tables, revision or _cached_commit(tables, config)


def _no_such(name: str, path: Path) -> str:
    beside = [str(entry) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"there is no file or folder {name!r}: {unknown('source', name, [*beside, *_known_names()])}"


def _known_names() -> list[str]:
    return ["digits", *(hub_id for preset in PRESETS.values() for hub_id in preset.hub_ids)]


def _hub_commit(config: SourceConfig) -> str | None:
    """The commit that the revision stands for, or `None` in offline mode, where only cached datasets are read."""
    try:
        return HfApi().dataset_info(config.name, revision=config.revision, timeout=20).sha
    except OfflineModeIsEnabled:
        return None
    except RevisionNotFoundError as error:
        raise SourceError(
            f"Hub dataset {config.name!r} has no revision {config.revision!r}, expected a branch, tag or commit of "
            "it; set --source.revision"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SourceError(
            f"{unknown('source', config.name, _known_names())}; the Hub has no such dataset, or it is private and "
            f"needs `hf auth login`; expected {_ACCEPTED}; set --source.name"
        ) from error
    except httpx.HTTPError as error:
        raise SourceError(_unreachable(config.name, str(error))) from error


def _unreachable(name: str, reason: str) -> str:
    hint = "" if name in _known_names() else f"{unknown('source', name, _known_names())}; "
    return (
        f"source {name!r} is no local path, and the Hub could not be reached to look for it ({reason}); {hint}"
        f"expected {_ACCEPTED}; go online, set HF_HUB_OFFLINE=1 to use a dataset that is already in the cache, or set "
        "--source.name to a local copy"
    )


def _cached_commit(tables: DatasetDict, config: SourceConfig) -> str | None:
    """The Hub commit in the path of a cached dataset; offline, `datasets` serves the latest of any revision."""
    folders = [Path(file["filename"]).parent.name for table in tables.values() for file in table.cache_files]
    commit = next((folder for folder in folders if re.fullmatch("[0-9a-f]{40}", folder)), None)
    if config.revision not in (None, commit):
        raise SourceError(
            f"source {config.name!r} is cached at commit {commit}, expected revision {config.revision!r}, which "
            "cannot be looked up offline; go online, or set --source.revision to that commit"
        )
    return commit


def _load(config: SourceConfig, *args: Any, **kwargs: Any) -> DatasetDict:
    tables: DatasetDict = _reading(config, lambda: datasets.load_dataset(*args, **kwargs))
    return tables


def _reading(config: SourceConfig, read: Callable[[], Tables]) -> Tables:
    """What `read` gives; what it raises for tables that are none is a `SourceError`."""
    try:
        return read()
    except ConnectionError as error:
        raise SourceError(_unreachable(config.name, str(error))) from error
    except RuntimeError as error:
        raise SourceError(
            f"source {config.name!r} is a dataset script, which is never run ({error}); the Hub's own parquet copy of "
            "it is often there: set --source.revision refs/convert/parquet"
        ) from error
    except (*_DAMAGE, datasets.exceptions.DatasetsError) as error:
        reason = str(error.__cause__ or error)
        raise SourceError(
            f"source {config.name!r} cannot be read: {reason}; expected {_ACCEPTED}; mend its files, or set "
            "--source.name, --source.config_name or --source.revision"
        ) from error


def _local_tables(path: Path, config: SourceConfig) -> DatasetDict:
    if path.is_file():
        if path.suffix not in _FORMATS:
            raise SourceError(
                f"source {config.name!r} is a {path.suffix or 'nameless'} file, expected one of "
                f"{', '.join(_FORMATS)}; set --source.name to such a file or to a folder"
            )
        tables = _load(config, _FORMATS[path.suffix], data_files={"train": str(path)})
        return _with_images(tables, path.parent, config)
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        saved = _reading(config, lambda: datasets.load_from_disk(str(path)))
        return saved if isinstance(saved, DatasetDict) else DatasetDict(train=saved)
    if data_files := _csv_files(path, config):
        return _with_images(_load(config, "csv", data_files=data_files), path, config)
    return _with_images(_load(config, str(path), config.config_name), path, config)


def _csv_files(folder: Path, config: SourceConfig) -> dict[str, str]:
    """The csv files that name images and their labels, by split; other csv files may lie beside class folders."""
    found = {}
    for path in sorted(folder.glob("*.csv")):
        header = _reading(config, partial(_header, path))
        images = {config.image_column} if config.image_column else set(_PATH_COLUMNS)
        labels = {config.label_column} if config.label_column else set(LABEL_COLUMNS)
        if path.name != "metadata.csv" and header & images and header & labels:
            found[path.stem] = str(path)
    if len(found) == 1 and next(iter(found)) not in (config.train_split, *TEST_SPLITS):
        return {config.train_split or "train": found.popitem()[1]}
    return found


def _header(path: Path) -> set[str]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return set(next(csv.reader(file), []))


def _with_images(tables: DatasetDict, folder: Path, config: SourceConfig) -> DatasetDict:
    """`tables` whose column of paths or of bytes, if they have no column of images, is one of images."""
    return DatasetDict({split: _with_image_column(table, folder, config) for split, table in tables.items()})


def _with_image_column(table: Dataset, folder: Path, config: SourceConfig) -> Dataset:
    features = table.features
    if any(isinstance(feature, datasets.Image) for feature in features.values()):
        return table
    wanted = (config.image_column,) if config.image_column else _PATH_COLUMNS
    candidates = [name for name in features if name in wanted and name != config.label_column]
    if len(candidates) != 1:
        return table  # none or several: what finds the columns says so
    column = candidates[0]
    if isinstance(features[column], datasets.Value) and "string" in features[column].dtype:
        paths = [None if name is None else str(folder / name) for name in table[column]]
        columns = {name: table[name][:] for name in features} | {column: paths}
        table = Dataset.from_dict(columns, features=features)
    elif not _holds_bytes(features[column]):
        return table
    return table.cast_column(column, datasets.Image(decode=False))


def _holds_bytes(feature: Any) -> bool:
    return feature in (datasets.Value("binary"), datasets.Value("large_binary")) or (
        isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    )


def _digits() -> DatasetDict:
    """scikit-learn's 1,797 handwritten digits: 8x8 grey PNGs, 1,297 to train and 500 to test, stratified."""
    from sklearn.datasets import load_digits  # costs a second, which other sources need not spend

    bundled = load_digits()
    images = np.rint(bundled.images * 255 / 16).astype(np.uint8)
    shuffled = torch.randperm(len(images), generator=generator(0, "digits", "split")).numpy()
    grouped = shuffled[np.argsort(bundled.target[shuffled], kind="stable")]
    evenly = (2 * np.arange(_NUM_TEST_DIGITS) + 1) * len(images) // (2 * _NUM_TEST_DIGITS)
    test = np.sort(grouped[evenly])
    train = np.setdiff1d(grouped, test)
    features = datasets.Features(
        image=datasets.Image(decode=False), label=datasets.ClassLabel(names=[str(digit) for digit in range(10)])
    )

    def table(rows: np.ndarray) -> Dataset:
        encoded = [{"bytes": _png(images[row]), "path": None} for row in rows]
        return Dataset.from_dict({"image": encoded, "label": bundled.target[rows]}, features=features)

    return DatasetDict(train=table(train), test=table(test))


def _png(grey: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(grey).save(file, "PNG", compress_level=0)  # stored, so the bytes are those of any zlib
    return file.getvalue()
