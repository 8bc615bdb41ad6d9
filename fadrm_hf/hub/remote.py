"""Repositories on the Hub: what one holds, what is to be in it, and the difference."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoSibling

from fadrm_hf.hub.retry import Patience, retry
from fadrm_hf.hub.session import status_of
from fadrm_hf.runtime.files import sha256

Kind = Literal["dataset", "model", "space"]
Content = Path | bytes

FIRST_VERSION = "v1.0"
_VERSION = re.compile(r"v(\d+)\.(\d+)")


@dataclass(frozen=True)
class LocalFile:
    """A file to be sent: its path or its content, its SHA-256 and its size."""

    content: Content
    sha256: str
    bytes: int

    @classmethod
    def of(cls, content: Content) -> "LocalFile":
        """Return a file whose hash is not known yet."""
        if isinstance(content, Path):
            return cls(content, sha256(content), content.stat().st_size)
        return cls(content, hashlib.sha256(content).hexdigest(), len(content))

    def git_oid(self) -> str:
        """Return the SHA-1 by which git knows it."""
        content = self.content.read_bytes() if isinstance(self.content, Path) else self.content
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub; git knows it by the SHA-1 of its content, or, if it is large, of a pointer to it."""

    bytes: int
    git_oid: str | None
    sha256: str | None

    def holds(self, file: LocalFile) -> bool:
        """Return whether it has the content of a local file."""
        if self.bytes != file.bytes:
            return False
        return self.sha256 == file.sha256 if self.sha256 else self.git_oid == file.git_oid()


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
        """True if the repository holds exactly what it shall."""
        return not (self.new or self.changed or self.deleted)

    @property
    def sent(self) -> list[str]:
        """The files that have to be there and are not, by name."""
        return sorted({**self.new, **self.changed})


def look(api: HfApi, repo_id: str, patience: Patience, kind: Kind = "dataset") -> Remote:
    """Return a repository as it is now.

    Raises:
        HubError: If the Hub does not tell.
    """

    def ask() -> Remote:
        try:
            info: Any = api.repo_info(repo_id, repo_type=kind, files_metadata=True)
        except RepositoryNotFoundError as error:
            if status_of(error) != 404:  # also said of a token that is no good
                raise
            return Remote(repo_id)
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id, repo_type=kind).tags}
        is_gated = bool(getattr(info, "gated", False))
        return Remote(repo_id, info.sha, _visible(info.siblings or ()), tags, bool(info.private), is_gated)

    return retry(f"looking at {repo_id}", ask, patience=patience)


def files_at(
    api: HfApi, repo_id: str, revision: str, patience: Patience, kind: Kind = "dataset"
) -> Mapping[str, RemoteFile]:
    """Return the files of a repository at a revision."""

    def ask() -> Mapping[str, RemoteFile]:
        info: Any = api.repo_info(repo_id, repo_type=kind, revision=revision, files_metadata=True)
        return _visible(info.siblings or ())

    return retry(f"looking at {repo_id}@{revision}", ask, patience=patience)


def compare(remote: Mapping[str, RemoteFile], local: Mapping[str, LocalFile]) -> Plan:
    """Return what has to change for a repository to hold exactly these files."""
    shared = {name: remote[name].holds(file) for name, file in local.items() if name in remote}
    return Plan(
        new={name: file.bytes for name, file in local.items() if name not in remote},
        changed={name: local[name].bytes for name, is_same in shared.items() if not is_same},
        unchanged={name: local[name].bytes for name, is_same in shared.items() if is_same},
        deleted={name: file.bytes for name, file in remote.items() if name not in local},
    )


def next_version(tags: Iterable[str]) -> str:
    """Return the version after the highest one among tags, e.g. v1.1 after v1.0; other tags do not count."""
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
