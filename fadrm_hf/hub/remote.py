"""What a repository of a dataset or a Space holds, what is to be in it, and the difference."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from huggingface_hub import DatasetInfo, HfApi, SpaceInfo
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoSibling

from fadrm_hf.hub.commit import Patience, insist
from fadrm_hf.hub.session import status_of

_VERSION = re.compile(r"v(\d+)\.(\d+)")
FIRST_VERSION = "v1.0"

Kind = Literal["dataset", "space"]


@dataclass(frozen=True)
class LocalFile:
    """A file to be sent: where it lies, its SHA-256 and its size."""

    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub; git knows it by the SHA-1 of its content, or, if it is large, of a pointer to it."""

    bytes: int
    git_oid: str | None
    sha256: str | None

    def holds(self, file: LocalFile) -> bool:
        """Whether it has the content of a local file."""
        if self.bytes != file.bytes:
            return False
        return self.sha256 == file.sha256 if self.sha256 else self.git_oid == _git_oid(file.path)


@dataclass(frozen=True)
class Remote:
    """A repository as it was when it was looked at.

    Attributes:
        id: `ORG/NAME`.
        commit: Head of its main branch; `None` if there is no repository.
        files: Its files at that commit but for hidden ones (`.gitattributes`), which are the Hub's.
        tags: Tags and their commits.
        is_private: Whether only its owners see it.
        is_gated: Whether readers have to agree to terms; of a Space nobody can ask that.
    """

    id: str
    commit: str | None = None
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    is_private: bool = False
    is_gated: bool = False


@dataclass(frozen=True)
class Plan:
    """The difference between a repository and what it shall hold: names of files and their bytes."""

    new: Mapping[str, int]
    changed: Mapping[str, int]
    unchanged: Mapping[str, int]
    deleted: Mapping[str, int]

    @property
    def is_empty(self) -> bool:
        """Whether the repository holds exactly what it shall."""
        return not (self.new or self.changed or self.deleted)

    @property
    def sent(self) -> list[str]:
        """The files that have to be there and are not, by name."""
        return sorted({**self.new, **self.changed})


def look(api: HfApi, repo_id: str, patience: Patience, kind: Kind = "dataset") -> Remote:
    """A repository as it is now.

    Raises:
        HubError: If the Hub does not tell.
    """
    return insist(f"looking at {repo_id}", lambda: _look(api, repo_id, kind), patience=patience)


def _look(api: HfApi, repo_id: str, kind: Kind) -> Remote:
    try:
        info = _info(api, repo_id, kind)
    except RepositoryNotFoundError as error:
        if status_of(error) != 404:  # also said of a token that is no good
            raise
        return Remote(repo_id)
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id, repo_type=kind).tags}
    assert info.sha is not None
    is_gated = bool(getattr(info, "gated", False))
    return Remote(repo_id, info.sha, _visible(info.siblings or ()), tags, bool(info.private), is_gated)


def files_at(
    api: HfApi, repo_id: str, revision: str, patience: Patience, kind: Kind = "dataset"
) -> Mapping[str, RemoteFile]:
    """The files of a repository at a revision."""

    def ask() -> Mapping[str, RemoteFile]:
        return _visible(_info(api, repo_id, kind, revision).siblings or ())

    return insist(f"looking at {repo_id}@{revision}", ask, patience=patience)


def _info(api: HfApi, repo_id: str, kind: Kind, revision: str | None = None) -> DatasetInfo | SpaceInfo:
    ask = api.space_info if kind == "space" else api.dataset_info
    return ask(repo_id, revision=revision, files_metadata=True)


def compare(remote: Mapping[str, RemoteFile], local: Mapping[str, LocalFile]) -> Plan:
    """What has to change for a repository to hold exactly these files."""
    shared = {name: remote[name].holds(file) for name, file in local.items() if name in remote}
    return Plan(
        new={name: file.bytes for name, file in local.items() if name not in remote},
        changed={name: local[name].bytes for name, is_same in shared.items() if not is_same},
        unchanged={name: local[name].bytes for name, is_same in shared.items() if is_same},
        deleted={name: file.bytes for name, file in remote.items() if name not in local},
    )


def next_version(tags: Iterable[str]) -> str:
    """The version after the highest one among tags, e.g. v1.1 after v1.0; other tags do not count."""
    versions = [(int(found[1]), int(found[2])) for tag in tags if (found := _VERSION.fullmatch(tag))]
    if not versions:
        return FIRST_VERSION
    major, minor = max(versions)
    return f"v{major}.{minor + 1}"


def _visible(siblings: Iterable[RepoSibling]) -> dict[str, RemoteFile]:
    return {
        sibling.rfilename: RemoteFile(sibling.size or 0, sibling.blob_id, sibling.lfs.sha256 if sibling.lfs else None)
        for sibling in siblings
        if not any(part.startswith(".") for part in PurePosixPath(sibling.rfilename).parts)
    }


def _git_oid(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
