"""Where an artifact is: a folder of this machine, or a repository on the Hub. Readers ask a location for its files."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fadrm_hf.artifact.manifest import Manifest, read_manifest
from fadrm_hf.errors import ArtifactError
from fadrm_hf.runtime.run_folder import inner_path


@dataclass(frozen=True)
class Location(ABC):
    """An artifact, wherever it is.

    Attributes:
        name: What the user calls it: a path, or `ORG/NAME@COMMIT`.
        folder: Local folder with at least the manifest; of a Hub repository it is a snapshot in the cache, never
            written to.
        manifest: The manifest, checked.
    """

    name: str
    folder: Path
    manifest: Manifest = field(repr=False)

    @abstractmethod
    def local(self, name: str) -> Path:
        """Return the complete file `name` (a path inside the artifact) on this disk, downloaded first if need be."""

    @abstractmethod
    def stream(self, name: str) -> BinaryIO:
        """Open the file `name` for reading and seeking; from the Hub only the ranges that are read travel."""


@dataclass(frozen=True, init=False)
class LocalFolder(Location):
    """An artifact in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), folder, read_manifest(folder))

    def local(self, name: str) -> Path:
        """Return the file; see `Location.local`."""
        path = inner_path(self.folder, name)
        if not path.is_file():
            raise ArtifactError(f"{self.name} has no {name}; fetch the artifact again, or restore it from a copy")
        return path

    def stream(self, name: str) -> BinaryIO:
        """Open the file; see `Location.stream`."""
        return open(self.local(name), "rb")


def table_names(manifest: Manifest, table: str) -> list[str]:
    """Return the parquet files of a table that the manifest names, in row order."""
    return sorted(name for name in manifest.files if name.startswith(f"{table}/") and name.endswith(".parquet"))
