"""Artifacts on the Hub: a name becomes a commit, and a commit a location whose files arrive when they are asked for.

Only what the manifest names is ever fetched, by paths that stay inside the artifact; sizes are known before anything
is downloaded. Nothing that is fetched is executed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from huggingface_hub import (
    HfApi,
    HfFileSystem,
    HfFileSystemFile,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2: the client's own

from fadrm_hf.artifact.location import LocalFolder, Location, table_names
from fadrm_hf.artifact.manifest import MAX_MANIFEST_BYTES, read_manifest
from fadrm_hf.errors import ArtifactError, HubError
from fadrm_hf.hub.session import talking_to_hub
from fadrm_hf.runtime.run_folder import CHANGING, LABELS_FOLDER, MANIFEST, inner_path

_NAME = re.compile(r"(?:hf://)?(?:datasets/)?(?P<id>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
_CODE = (".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".py", ".sh", ".so")
_STREAMED_AT_ONCE = 1 << 20  # a row group is read in pieces of its columns; a larger read-ahead would be thrown away
_UNREACHABLE = (OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError, httpx.TransportError)


@dataclass(frozen=True)
class RepoName:
    """A dataset repository, as a user names it: `ORG/NAME`, perhaps with a revision."""

    id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.id}@{self.revision}" if self.revision else self.id


def parse_name(name: str) -> RepoName:
    """Parse `org/name`, `org/name@v1.0` or `hf://datasets/org/name@v1.0`.

    Raises:
        HubError: If it is none of these.
    """
    match = _NAME.fullmatch(name)
    if match is None or ".." in name:
        raise HubError(
            f"{name!r} is neither a folder nor a repository; expected a run folder, ORG/NAME or ORG/NAME@TAG"
        )
    return RepoName(match["id"], match["revision"])


def open_artifact(name: str | Path, revision: str | None = None, reads_tables: bool = True) -> Location:
    """Open an artifact by its folder or its name on the Hub, pinned to the commit that is there now.

    Args:
        name: A folder, or `ORG/NAME`, `ORG/NAME@REVISION`.
        revision: Tag, branch or commit of a repository.
        reads_tables: Whether its tables will be read, whose sizes are then compared with what the manifest implies.

    Raises:
        ArtifactError: If it is no artifact, or damaged, hostile, or of a newer format.
        HubError: If the Hub does not give it.
    """
    folder = Path(name)
    if revision is None and _has_lost_its_folder(str(name), folder):
        raise ArtifactError(
            f"{name} is no folder, expected one in {folder.parent}/, which there is; check the path, or write"
            f" hf://datasets/{name} for the repository of that name on the Hub"
        )
    if folder.exists() or _looks_local(str(name)):
        if (folder / CHANGING).exists():
            from fadrm_hf.report.renewal import finish_change  # it imports torch
            from fadrm_hf.runtime.progress import Reporter

            finish_change(folder, Reporter().say)
        location: Location = LocalFolder(folder)
    else:
        given = parse_name(str(name))
        if revision and given.revision and revision != given.revision:
            raise HubError(f"{name} and --revision {revision} name two revisions; give one of them")
        location = _open_repository(replace(given, revision=revision or given.revision))
    if reads_tables:
        from fadrm_hf.artifact.reading import require_plausible_sizes  # it imports torch

        require_plausible_sizes(location.manifest)
    apart = location.manifest.label_repository
    if apart is None:
        return location
    return _WithLabelsApart(location.name, location.folder, location.manifest, location, parse_name(apart))


def pinned_repository(location: Location) -> RepoName | None:
    """Return the repository and commit (40 hexadecimal digits) of an artifact; `None` for a local folder."""
    base = location.base if isinstance(location, _WithLabelsApart) else location
    return base.repo if isinstance(base, _Repository) else None


def fetch_all(location: Location) -> Path:
    """Return the artifact's folder with every file of the manifest in it, but for soft labels kept apart."""
    for name in location.manifest.files:
        location.local(name)
    return location.folder


def label_folder(location: Location) -> Path:
    """Return the folder that has the soft labels: the artifact's own, or that of a repository apart."""
    names = table_names(location.manifest, LABELS_FOLDER)
    return location.local(names[0]).parent.parent if names else location.folder


def unlisted_files(location: Location) -> tuple[str, ...]:
    """Return the files of a repository that its manifest does not name; of a folder see `verify_artifact`."""
    base = location.base if isinstance(location, _WithLabelsApart) else location
    return base.unlisted if isinstance(base, _Repository) else ()


@dataclass(frozen=True)
class _Repository(Location):
    """An artifact on the Hub at one commit."""

    repo: RepoName
    unlisted: tuple[str, ...] = ()

    def local(self, name: str) -> Path:
        num_bytes = self._expected_bytes(name)
        inner_path(self.folder, name)
        return _download(self.repo, name, num_bytes)

    def stream(self, name: str) -> BinaryIO:
        return _stream(self.repo, name, self._expected_bytes(name))

    def _expected_bytes(self, name: str) -> int:
        record = self.manifest.files.get(name)
        if record is None:
            raise ArtifactError(f"{self.name} has no file {name} in its {MANIFEST}; check the revision")
        return record.bytes


@dataclass(frozen=True)
class _WithLabelsApart(Location):
    """An artifact whose soft labels are in a repository of their own."""

    base: Location
    labels: RepoName

    def local(self, name: str) -> Path:
        if not self._is_apart(name):
            return self.base.local(name)
        return _download(self.labels, name, self.manifest.files[name].bytes)

    def stream(self, name: str) -> BinaryIO:
        if not self._is_apart(name):
            return self.base.stream(name)
        return _stream(self.labels, name, self.manifest.files[name].bytes)

    def _is_apart(self, name: str) -> bool:
        return name.startswith(f"{LABELS_FOLDER}/") and not (self.folder / name).exists()


def _open_repository(name: RepoName) -> _Repository:
    try:
        with talking_to_hub(f"reading {name}, which is no folder here"):
            info = HfApi().dataset_info(name.id, revision=name.revision, files_metadata=True)
    except HubError as error:
        if not isinstance(error.__cause__, _UNREACHABLE):
            raise
        path = _download(name, MANIFEST)  # what is in the cache can be read without the Hub
        return _repository(RepoName(name.id, path.parent.name), path.parent)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    _refuse_code(str(name), list(sizes))
    if MANIFEST not in sizes:
        raise ArtifactError(f"{name} has no {MANIFEST}: it is no artifact of fadrm_hf; check the name and revision")
    if sizes[MANIFEST] > MAX_MANIFEST_BYTES:
        raise ArtifactError(
            f"{MANIFEST} of {name} has {sizes[MANIFEST]:,} bytes, expected at most {MAX_MANIFEST_BYTES:,};"
            " it is not read"
        )
    assert info.sha is not None
    repo = RepoName(name.id, info.sha)
    return _repository(repo, _download(repo, MANIFEST).parent, sizes)


def _repository(repo: RepoName, folder: Path, files: Iterable[str] = ()) -> _Repository:
    """Return the artifact with this manifest; files that are not hidden, and that it does not name, are unlisted."""
    manifest = read_manifest(folder)
    unlisted = (name for name in files if name not in (MANIFEST, *manifest.files) and not name.startswith("."))
    return _Repository(str(repo), folder, manifest, repo, tuple(unlisted))


def _refuse_code(name: str, files: list[str]) -> None:
    found = [file for file in files if PurePosixPath(file).suffix.lower() in _CODE]
    if found:
        raise ArtifactError(
            f"{name} holds {', '.join(found[:3])}: files that can carry code have no place in an artifact; nothing was"
            " downloaded"
        )


def _download(name: RepoName, file: str, expected_bytes: int | None = None) -> Path:
    """Return the file in the cache; its size is checked before it is downloaded and after."""
    with talking_to_hub(f"reading {name}/{file}"):
        if expected_bytes is not None and _cached(name, file) is None:
            url = hf_hub_url(name.id, file, repo_type="dataset", revision=name.revision)
            _require_size(f"{name}/{file}", get_hf_file_metadata(url).size, expected_bytes)
        path = Path(hf_hub_download(name.id, file, repo_type="dataset", revision=name.revision))
        _require_size(f"{name}/{file}", path.stat().st_size, expected_bytes)
    return path


def _stream(name: RepoName, file: str, expected_bytes: int) -> BinaryIO:
    """Open the file: from the cache if it is there, else on the Hub."""
    cached = _cached(name, file)
    if cached is not None:
        _require_size(f"{name}/{file}", cached.stat().st_size, expected_bytes)
        return cached.open("rb")
    try:
        with talking_to_hub(f"reading {name}/{file}"):
            opened = _HubFile(f"datasets/{name}/{file}")
    except FileNotFoundError as error:
        raise HubError(f"reading {name}/{file}: the repository has no such file; it was changed") from error
    _require_size(f"{name}/{file}", opened.size, expected_bytes)
    return cast(BinaryIO, opened)


class _HubFile(HfFileSystemFile):
    """A file on the Hub, read in ranges; what goes wrong on the way is a `HubError`."""

    def __init__(self, path: str) -> None:
        super().__init__(HfFileSystem(), path, block_size=_STREAMED_AT_ONCE)

    def _fetch_range(self, start: int, end: int) -> bytes:
        with talking_to_hub(f"reading {self.path.removeprefix('datasets/')}"):
            return super()._fetch_range(start, end)


def _cached(name: RepoName, file: str) -> Path | None:
    """Return the path of the file in the cache, if it is there."""
    found = try_to_load_from_cache(name.id, file, revision=name.revision, repo_type="dataset")
    return Path(found) if isinstance(found, str) else None


def _require_size(name: str, found: int | None, expected: int | None) -> None:
    if None not in (found, expected) and found != expected:
        raise ArtifactError(f"{name} has {found:,} bytes, {MANIFEST} says {expected:,}; fetch it again")


def _has_lost_its_folder(name: str, folder: Path) -> bool:
    """Return whether a name could be a repository's and is rather that of a folder that does not exist here."""
    is_of_the_hub = name.startswith(("hf://", "datasets/")) or "@" in name
    return not is_of_the_hub and not _looks_local(name) and folder.parent.is_dir() and not folder.exists()


def _looks_local(name: str) -> bool:
    """Return whether a name that is no folder of this machine was meant as one."""
    is_prefixed = name.startswith(("hf://", "datasets/"))
    return name.startswith((".", "/", "~")) or (name.count("/") != 1 and not is_prefixed)
