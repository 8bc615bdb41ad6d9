"""From a source's name to its tables: the bundled digits, a local folder or file, or a Hub dataset.

Hub datasets go through `datasets` with no remote code; local ones are read by `fadrm_hf.data.sources.layouts`.
"""

import csv
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import datasets
from datasets import ClassLabel, Dataset, DatasetDict
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import DatasetInfo
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2: the client's own

from fadrm_hf.config import SourceConfig
from fadrm_hf.config.datasets import PRESETS
from fadrm_hf.data.sources.digits import read_digits
from fadrm_hf.data.sources.layouts import FILE_SUFFIXES, Tables, read_file, read_folder
from fadrm_hf.data.sources.layouts.archives import ARCHIVE_SUFFIXES, unpack_command, unpacked_name
from fadrm_hf.data.sources.layouts.folder import IMAGE_SUFFIXES
from fadrm_hf.data.sources.layouts.parquet_tables import read_card
from fadrm_hf.errors import SourceError, unknown
from fadrm_hf.runtime.run_folder import CARD

_ACCEPTED = "a Hub dataset id, a local image folder, a parquet, csv or json file, a folder of them, or 'digits'"
# What libraries raise for files that are not theirs.
_DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError, csv.Error)

Read = TypeVar("Read")


def read_tables(config: SourceConfig) -> Tables:
    """Read the splits of a source.

    Raises:
        SourceError: The source does not exist, cannot be reached, or cannot be read.
    """
    if config.name == "digits":
        return read_digits()
    path = Path(config.name).expanduser()
    if path.is_dir():
        return _reading(config, lambda: read_folder(path, config))
    if path.exists():
        if path.suffix.lower() in ARCHIVE_SUFFIXES:
            raise SourceError(
                f"source {config.name!r} is an archive, which is not read as it is; unpack it: "
                f"{unpack_command(str(path))}; then set --source.name {shlex.quote(unpacked_name(str(path)))}"
            )
        if path.suffix.lower() not in FILE_SUFFIXES or not path.is_file():
            raise SourceError(
                f"source {config.name!r} is a {path.suffix or 'nameless'} file, expected one of "
                f"{', '.join(FILE_SUFFIXES)}; set --source.name to such a file or to a folder"
            )
        return _reading(config, lambda: read_file(path, config))
    if config.name.startswith((".", "/", "~")) or config.name.count("/") > 1 or path.suffix in FILE_SUFFIXES:
        raise SourceError(f"{_no_such(config.name, path)}; expected {_ACCEPTED}; set --source.name")
    is_of_the_hub = config.revision is not None or config.name in _known_names()
    if "/" in config.name and path.parent.is_dir() and not is_of_the_hub:
        raise SourceError(
            f"{_no_such(config.name, path)}; set --source.name, or --source.revision main for the Hub dataset of that "
            "name"
        )
    return _hub_tables(config)


def _hub_tables(config: SourceConfig) -> Tables:
    """Read a Hub dataset: one of image files as a folder, all others as `datasets` reads them."""
    info = _hub_info(config)
    revision = info.sha if info else None
    if info and _is_image_folder(info):
        local = _reading(config, lambda: snapshot_download(config.name, repo_type="dataset", revision=revision))
        tables = _reading(config, lambda: read_folder(Path(local), config))
        return Tables(**(vars(tables) | {"revision": revision}))
    loaded: DatasetDict = _reading(
        config, lambda: datasets.load_dataset(config.name, config.config_name, revision=revision)
    )
    splits = _with_written_names(dict(loaded), config, revision)
    return Tables(splits, "a Hub dataset", revision=revision or _cached_commit(loaded, config))


def _with_written_names(splits: dict[str, Dataset], config: SourceConfig, revision: str | None) -> dict[str, Dataset]:
    """Give classes their names as the card writes them, where YAML reads no text: `no`, `1.0`."""
    misread = {
        column: feature
        for table in splits.values()
        for column, feature in table.features.items()
        if isinstance(feature, ClassLabel) and not all(isinstance(name, str) for name in feature.names)
    }
    for column, feature in misread.items():
        card: str = _reading(config, lambda: hf_hub_download(
            config.name, CARD, repo_type="dataset", revision=revision
        ))  # fmt: skip
        names = read_card(Path(card)).class_names(column, config.config_name)
        if names is None or len(names) != feature.num_classes or len(set(names)) < len(names):
            odd = next(name for name in feature.names if not isinstance(name, str))
            raise SourceError(
                f"{CARD} of Hub dataset {config.name!r} names a class of column {column!r} in dataset_info that "
                f"YAML reads as {odd!r}, expected text; put the names in quotes there, as in 'no', or in a copy of it "
                "that --source.name is set to"
            )
        splits = {split: table.cast_column(column, ClassLabel(names=names)) for split, table in splits.items()}
    return splits


def _is_image_folder(info: DatasetInfo) -> bool:
    """Return whether a repository holds images as files and nothing that `datasets` reads by itself."""
    suffixes = {Path(file.rfilename).suffix.lower() for file in info.siblings or []}
    return bool(suffixes & IMAGE_SUFFIXES) and not suffixes & {".parquet", ".arrow", ".tar", ".py", ".zip", ".gz"}


def _no_such(name: str, path: Path) -> str:
    beside = [str(entry) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"there is no file or folder {name!r}: {unknown('source', name, [*beside, *_known_names()])}"


def _known_names() -> list[str]:
    return ["digits", *(hub_id for preset in PRESETS.values() for hub_id in preset.hub_ids)]


def _hub_info(config: SourceConfig) -> DatasetInfo | None:
    """Return what the Hub says of the dataset, or `None` in offline mode, where only cached datasets are read."""
    try:
        return HfApi().dataset_info(config.name, revision=config.revision, timeout=20)
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
    """Return the Hub commit in the path of a cached dataset; offline, `datasets` serves the latest of any revision."""
    folders = [Path(file["filename"]).parent.name for table in tables.values() for file in table.cache_files]
    commit = next((folder for folder in folders if re.fullmatch("[0-9a-f]{40}", folder)), None)
    if config.revision not in (None, commit):
        raise SourceError(
            f"source {config.name!r} is cached at commit {commit}, expected revision {config.revision!r}, which "
            "cannot be looked up offline; go online, or set --source.revision to that commit"
        )
    return commit


def _reading(config: SourceConfig, read: Callable[[], Read]) -> Read:
    """Return what `read` gives; what it raises for tables that are none is a `SourceError`."""
    try:
        return read()
    except SourceError:
        raise
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
