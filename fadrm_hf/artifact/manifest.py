"""The manifest: what made an artifact, and the hash of every file in it. Written last.

So a folder with a manifest is a finished artifact. Readers ignore keys they do not know, and refuse a newer major
version; files are named by paths relative to the artifact that never lead out of it.
"""

import hashlib
import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from fadrm_hf import __version__
from fadrm_hf.config import LARGEST_SIDE, RunConfig, SourceConfig, build, values_before
from fadrm_hf.config.citation import Paper
from fadrm_hf.config.plain_data import PlainDataError, read_record
from fadrm_hf.config.renamed import with_current_names
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.errors import UPGRADE, ArtifactError, ConfigError, FadrmError
from fadrm_hf.runtime.files import MAX_TEXT_BYTES, parse_json, read_regular, sha256, write_bytes
from fadrm_hf.runtime.run_folder import (
    CARD,
    GALLERY,
    IMAGES_FOLDER,
    LABELS_FOLDER,
    MANIFEST,
    PICTURES,
    RESULTS,
    RunFolder,
    inner_path,
)

logger = logging.getLogger(__name__)

Settings = TypeVar("Settings")

FORMAT_VERSION = "1.0"
MAX_MANIFEST_BYTES = MAX_TEXT_BYTES
# What evaluation and the card may rewrite; everything else keeps the hash it was packaged with.
_REFRESHED = (CARD, RESULTS, PICTURES, GALLERY)
_NAMING_SETTINGS = ("config", "method_record")
_NO_SECTIONS = ("output", "ipc", "seed")
_SECTIONS = ("import", "edit", *(item.name for item in fields(RunConfig) if item.name not in _NO_SECTIONS))
_ARXIV = re.compile(r"[\w.-]+(/\d+)?")


@dataclass(frozen=True)
class ClassRecord:
    """The classes in label order: ids, names, and `ClassMap.hash` of the ids."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    hash: str


@dataclass(frozen=True)
class PixelRecord:
    """Side of the images in pixels, and the normalisation of teachers and students, on pixels in [0, 1]."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class MethodRecord:
    """A method for readers who may not have it: its title and paper, and what its images began as."""

    title: str
    paper: Paper | None = None
    init: str | None = None


@dataclass(frozen=True)
class SourceRecord:
    """The real images that were distilled; `revision` is known for Hub datasets only.

    `gated` says whether the source's terms ask for consent, which a copy of these images must ask for too. `test_rows`
    were held out of the training images; `tests_on_training` says that training images stand in for test images.
    """

    name: str
    fingerprint: str
    revision: str | None = None
    licence: str | None = None
    licence_link: str | None = None
    gated: bool = False
    test_rows: tuple[int, ...] | None = None
    tests_on_training: bool = False


@dataclass(frozen=True)
class TeacherRecord:
    """One teacher; `path` is its folder inside the artifact when no reader could fetch it by name.

    Attributes:
        needs_import: Whether its architecture is registered in timm by `import fadrm_hf` only.
        vote: `Teacher.vote`, if teachers voted.
    """

    name: str
    sha256: str
    revision: str | None = None
    accuracy: float | None = None
    path: str | None = None
    needs_import: bool = False
    vote: float | None = None


@dataclass(frozen=True)
class StageRecord:
    """The cost of one stage; peak memory is the process's, in bytes."""

    seconds: float
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class TableBytes:
    """Bytes of the two tables as stored."""

    images: int
    soft_labels: int


@dataclass(frozen=True)
class FileRecord:
    """Hash and size of one file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Everything a reader may want to know about an artifact, and can check.

    Attributes:
        method: The method's name, e.g. "fadrm".
        method_record: What to call it and to cite; `None` in early artifacts, and for a method unknown to its maker.
        ipc: Images per class.
        label_epochs: Epochs of soft labels.
        config: The resolved run.
        classes: Ids and names in label order.
        source: The real images.
        teachers: Who was matched and who labelled, in order.
        pixels: Size and normalisation.
        seeds: The seed that every random choice derives from, by name.
        versions: Library versions (`fadrm_hf.runtime.machine.library_versions`).
        machine: Processor, cores, memory, accelerator; never a host or user name.
        stages: Cost of every stage, in order.
        bytes: Size of the tables; filled in by `write_manifest`.
        files: Every file of the artifact but this one; filled in by `write_manifest`.
        label_codec: How logits are stored.
        label_repository: `ORG/NAME@COMMIT` of the Hub dataset that holds the soft labels, if they are kept apart.
        format_version: Version of this layout.
        fadrm_hf_version: Version of the library that wrote it.
        digest: SHA-256 of the file with this value empty; filled in by `write_manifest`.
    """

    method: str
    ipc: int
    label_epochs: int
    config: dict[str, Any]
    classes: ClassRecord
    source: SourceRecord
    teachers: tuple[TeacherRecord, ...]
    pixels: PixelRecord
    seeds: dict[str, int]
    versions: dict[str, str]
    machine: dict[str, Any]
    stages: dict[str, StageRecord]
    bytes: TableBytes = TableBytes(0, 0)
    files: dict[str, FileRecord] = field(default_factory=dict)
    label_codec: str = "float16"
    label_repository: str | None = None
    method_record: MethodRecord | None = None
    format_version: str = FORMAT_VERSION
    fadrm_hf_version: str = __version__
    digest: str = ""

    @property
    def class_map(self) -> ClassMap:
        """The classes, as every other stage knows them."""
        return ClassMap(self.classes.ids, self.classes.names)

    def settings(self, section: str, kind: type[Settings]) -> Settings:
        """Return a section of the run that made the artifact, e.g. `settings("relabel", RelabelConfig)`.

        Raises:
            ArtifactError: If it is absent, or holds values that no run can have.
        """
        return parse_settings(self.config.get(section), kind, f"config.{section}")

    @property
    def method_title(self) -> str:
        """The method as papers spell it."""
        if self.method_record is not None:
            return self.method_record.title
        from fadrm_hf.methods import title_of  # needed for early artifacts alone

        return title_of(self.method)

    @property
    def paper(self) -> Paper | None:
        """The method's paper."""
        if self.method_record is not None:
            return self.method_record.paper
        from fadrm_hf.methods import paper_of

        return paper_of(self.method)

    def method_setting(self, name: str, missing: Any = None) -> Any:
        """Return a setting of the run's method: of the recipe, else the method, or its record if it is unknown."""
        recipe = self.config.get("method")
        if isinstance(recipe, dict) and name in recipe:
            return recipe[name]
        from fadrm_hf.methods import METHODS

        return getattr(METHODS.get(self.method, self.method_record), name, missing)

    @property
    def source_title(self) -> str:
        """The source's name in a table of results; errors as of `settings`."""
        return self.settings("source", SourceConfig).title

    @property
    def num_images(self) -> int:
        """Rows of the images table, and of each epoch of soft labels."""
        return self.ipc * len(self.classes.ids)


def parse_settings(given: Any, kind: type[Settings], where: str) -> Settings:
    """Return a section of settings from plain data; keys of a newer version are left out.

    Absent ones have the values that they had before there was the setting (`fadrm_hf.config.checks.added`).

    Raises:
        ArtifactError: If it is no section of settings, or holds values that no run can have.
    """
    if not isinstance(given, dict):
        raise _damaged(f"has {where} = {given!r}, expected a section of settings")
    known = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    try:
        return build(kind, values_before(kind) | {name: value for name, value in given.items() if name in known})
    except (FadrmError, TypeError, ValueError) as error:
        raise _damaged(f"has unusable settings in {where}: {error}") from error


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a finished artifact, checked but for the contents of the files it names."""
    path = RunFolder(folder).manifest
    try:
        document = parse_json(read_regular(path, MAX_MANIFEST_BYTES))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(
            f"{folder} {f'has no {MANIFEST}' if folder.is_dir() else 'is no folder'}: it is no artifact, or an"
            " unfinished one; check the path, or run the same `fadrm-hf distill` command again to finish it"
        ) from error
    except ValueError as error:
        raise _damaged(f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _damaged(f"holds {type(document).__name__}, expected an object")
    _require_readable(document.get("format_version"))
    try:
        document |= with_current_names({name: document[name] for name in _NAMING_SETTINGS if name in document})
        manifest = read_record(Manifest, document, unknown=_warn_of)
    except (PlainDataError, ConfigError, RecursionError) as error:
        raise _damaged(str(error)) from error
    if len(manifest.classes.ids) != len(manifest.classes.names) or not manifest.classes.ids:
        raise _damaged(f"has {len(manifest.classes.ids)} class ids for {len(manifest.classes.names)} names")
    _require_possible(manifest)
    for name in manifest.files:
        inner_path(folder, name)
    for teacher in manifest.teachers:
        if teacher.path is not None:
            inner_path(folder, teacher.path)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of a finished folder, and return it with `files` and `bytes` filled in."""
    manifest = replace(manifest, bytes=table_bytes(folder))
    return _write(folder, manifest, {name: _record(folder, name) for name in artifact_files(folder)})


def with_files(text: str, contents: Mapping[str, bytes]) -> str:
    """Return a manifest after some files were added or replaced; all else in it stays, keys of newer versions too.

    Args:
        text: The manifest as it was written.
        contents: What the files hold now, by their paths inside the artifact.
    """
    document = json.loads(text)
    records = {
        name: {"sha256": hashlib.sha256(file).hexdigest(), "bytes": len(file)} for name, file in contents.items()
    }
    document |= {"files": dict(sorted((document["files"] | records).items())), "digest": ""}
    return _dump(document | {"digest": _digest(_dump(document))})


def is_unaltered(folder: Path) -> bool:
    """Return whether the manifest is byte for byte as it was written."""
    return read_manifest(folder).digest == _digest(RunFolder(folder).manifest.read_text(encoding="utf-8"))


def refresh_files(folder: Path) -> Manifest:
    """Take up a new card, new pictures and new results; the other files keep their record, so damage stays visible."""
    manifest = read_manifest(folder)
    kept = {name: record for name, record in manifest.files.items() if not name.startswith(_REFRESHED)}
    fresh = [name for name in artifact_files(folder) if name.startswith(_REFRESHED)]
    return _write(folder, manifest, kept | {name: _record(folder, name) for name in fresh})


def artifact_files(folder: Path) -> list[str]:
    """Return every file but the manifest and hidden ones (`.gitattributes`, caches), as sorted posix paths.

    Links, pipes and devices are among them, so that whoever hashes or sends files refuses them by name.
    """
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    visible = (path for path in found if not any(part.startswith(".") for part in path.parts))
    return sorted(path.as_posix() for path in visible if path.as_posix() != MANIFEST)


def table_bytes(folder: Path) -> TableBytes:
    """Return the sizes of the two tables in a folder."""
    tables = (folder / table for table in (IMAGES_FOLDER, LABELS_FOLDER))
    return TableBytes(*(sum(file.stat().st_size for file in table.glob("*")) for table in tables))


def _write(folder: Path, manifest: Manifest, files: dict[str, FileRecord]) -> Manifest:
    manifest = replace(manifest, files=dict(sorted(files.items())), digest="")
    manifest = replace(manifest, digest=_digest(_dump(asdict(manifest))))
    write_bytes(RunFolder(folder).manifest, _dump(asdict(manifest)).encode())
    return manifest


def _dump(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _digest(text: str) -> str:
    return hashlib.sha256(re.sub(r'"digest": "\w*"', '"digest": ""', text).encode()).hexdigest()


def _record(folder: Path, name: str) -> FileRecord:
    path = inner_path(folder, name)
    return FileRecord(sha256(path), path.stat().st_size)


def _damaged(reason: str) -> ArtifactError:
    return ArtifactError(f"{MANIFEST} {reason}; fetch the artifact again, or restore it from a copy")


def _warn_of(keys: list[str]) -> None:
    logger.warning(
        "%s has keys that fadrm_hf %s does not know: %s",
        MANIFEST,
        __version__,
        ", ".join(key if key.isprintable() else repr(key) for key in keys),
    )


def _require_readable(version: object) -> None:
    major = version.split(".")[0] if isinstance(version, str) else ""
    if not major.isdecimal():
        raise _damaged(f"has format_version {version!r}, expected a string like {FORMAT_VERSION!r}")
    if int(major) > int(FORMAT_VERSION.split(".")[0]):
        raise ArtifactError(
            f"this artifact has format {version}, fadrm_hf {__version__} reads up to {FORMAT_VERSION[:-1]}x; {UPGRADE}"
        )


def _require_possible(manifest: Manifest) -> None:
    """Refuse numbers that no run has, since readers set memory aside by them and weigh labels with them."""
    for name in _SECTIONS:
        if not isinstance(section := manifest.config.get(name, {}), dict):
            raise _damaged(f"has config.{name} = {section!r:.80}, expected a section of settings")
    size, mean, std = manifest.pixels.size, manifest.pixels.mean, manifest.pixels.std
    for name, value in (("ipc", manifest.ipc), ("label_epochs", manifest.label_epochs), ("pixels.size", size)):
        if value < 1:
            raise _damaged(f"has {name} = {value}, expected at least 1")
    if size > LARGEST_SIDE:
        raise _damaged(f"has pixels.size = {size:,}, expected at most {LARGEST_SIDE:,}")
    for teacher in manifest.teachers:
        if teacher.vote is not None and not 0 <= teacher.vote <= 1:
            raise _damaged(f"has vote = {teacher.vote} for teacher {teacher.name!r}, expected a fraction in [0, 1]")
    if (paper := manifest.method_record and manifest.method_record.paper) and not _ARXIV.fullmatch(paper.arxiv):
        raise _damaged(f"has method_record.paper.arxiv = {paper.arxiv!r:.80}, expected an arXiv id like '2506.24125'")
    are_colours = len(mean) == len(std) == 3 and all(map(math.isfinite, mean)) and all(0 < s < math.inf for s in std)
    if not are_colours:
        raise _damaged(
            f"has pixels.mean = {mean} and pixels.std = {std}, expected three numbers each, the std positive"
        )
