"""A folder made of a finished artifact: it appears whole or not at all, and nothing that is damaged gets into it."""

import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import Manifest, artifact_files, write_manifest
from fadrm_hf.artifact.reading import num_label_epochs, table_files
from fadrm_hf.errors import ArtifactError, RunFolderError
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.report.card.writing import write_card
from fadrm_hf.report.gallery.writing import write_gallery
from fadrm_hf.runtime.files import sha256, write_bytes
from fadrm_hf.runtime.locks import locked
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import (
    GALLERY,
    LABELS_FOLDER,
    MANIFEST,
    PICTURES,
    RESULTS,
    RunFolder,
    WorkFolder,
    hidden_work,
    inner_path,
    require_place,
)

# Later than the rest of an artifact, perhaps a moment before its manifest is.
_REFRESHED = (RESULTS, PICTURES, GALLERY)
_REMOVED = ".removed"  # ending of a hidden folder that is being removed


@contextmanager
def appearing(output: Path, reporter: Reporter) -> Iterator[Path]:
    """Yield a hidden folder to fill, which takes the name `output` at the end of the block.

    A call that is killed leaves it hidden, and the next one begins anew; one that fails removes it. Another process
    that makes the same folder is waited for.

    Args:
        output: A new or an empty folder.
        reporter: Says who is waited for.

    Raises:
        RunFolderError: If `output` holds anything, or nothing can be made there.
    """
    output = output if output.name else output.resolve()
    require_place(output)
    _require_empty(output)
    work = hidden_work(output)
    lock = work.with_suffix(".lock")
    with locked(lock, reporter.say):
        try:
            _require_empty(output)  # of two that began at once, one has made it
            _remove_whole(work)  # of a call that was killed
            work.mkdir()
            yield work
        except BaseException:
            _remove_whole(work)
            raise
        finally:
            # Not after the folder has its name: nobody would remove it if this process were killed in between. Whoever
            # begins from here on takes the hidden folder away as a whole, so that never half of it appears.
            with suppress(OSError):  # Windows removes no file that is open
                lock.unlink()
        if output.exists():
            output.rmdir()  # it is empty
        try:
            work.replace(output)
        except FileNotFoundError as error:
            raise RunFolderError(
                f"another process has begun to make {output}, expected one at a time; wait for it"
            ) from error


def _remove_whole(work: Path) -> None:
    """Remove a hidden folder under another name, so that whoever looks sees all of it or nothing."""
    for stale in work.parent.glob(f"{work.stem}.*{_REMOVED}"):
        shutil.rmtree(stale, ignore_errors=True)
    removed = work.with_name(f"{work.stem}.{secrets.token_hex(4)}{_REMOVED}")
    with suppress(FileNotFoundError):
        work.replace(removed)
    shutil.rmtree(removed, ignore_errors=True)


def public_name(location: Location) -> str:
    """Return the name by which others know an artifact: `ORG/NAME@COMMIT`, or that of its folder."""
    repository = pinned_repository(location)
    return str(repository) if repository else location.folder.resolve().name


def require_unchanged(manifest: Manifest, paths: Mapping[str, Path]) -> None:
    """Refuse files that differ from the manifest: the manifest of what is made of them would hide it.

    Args:
        manifest: Of the artifact.
        paths: Where its files are, by their names in it; those that commands rewrite are left out.

    Raises:
        ArtifactError: If one has another hash.
    """
    for name, path in paths.items():
        is_recorded = name in manifest.files and not name.startswith(_REFRESHED)
        if is_recorded and sha256(path) != manifest.files[name].sha256:
            raise ArtifactError(
                f"{name} is damaged: it is not what {MANIFEST} says (SHA-256); fetch the artifact again"
            )


def require_all_epochs(manifest: Manifest, labels: Path) -> None:
    """Refuse a label table with another number of epochs than the manifest says; `labels` has `soft_labels/`."""
    if (stored := num_label_epochs(labels)) != manifest.label_epochs:
        raise ArtifactError(
            f"{LABELS_FOLDER}/ has {stored} epochs, {MANIFEST} says {manifest.label_epochs}; fetch the artifact again"
        )


def require_whole(folder: Path, labels: Path, manifest: Manifest) -> None:
    """Refuse an artifact that is not what its manifest says; `labels` has `soft_labels/`."""
    require_unchanged(manifest, {name: folder / name for name in artifact_files(folder)})
    tables = table_files(labels, LABELS_FOLDER)
    require_unchanged(manifest, {f"{LABELS_FOLDER}/{file.name}": file for file in tables})
    require_all_epochs(manifest, labels)


def copy_files(folder: Path, names: Iterable[str], work: Path) -> None:
    """Copy files of an artifact, by their names in it, into the folder of another."""
    for name in names:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(inner_path(folder, name), work / name)


def finish(
    work: Path, manifest: Manifest, recipe: dict[str, Any], title: str, has_gallery: bool, reporter: Reporter
) -> Manifest:
    """Write recipe, card, gallery and manifest of an artifact whose tables are there; return the manifest.

    Args:
        work: The folder.
        manifest: What it will say, but for the files.
        recipe: The settings that it is made by.
        title: The name that its folder will have.
        has_gallery: Whether it has a gallery.
        reporter: Shows progress.
    """
    write_bytes(RunFolder(work).recipe, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).encode())
    write_card(work, manifest, name=title)
    if has_gallery:
        write_gallery(work, manifest, reporter=reporter, name=title)
    return write_manifest(work, manifest)


def inherit_source(output: Path, folder: Path, manifest: Manifest) -> None:
    """Remember for an artifact where the source is on this machine, if that is known of the one it is made of.

    Args:
        output: The artifact to be.
        folder: The artifact that it is made of.
        manifest: Of either; both are of one source.
    """
    name = (manifest.config.get("source") or {}).get("name")  # not every release of others has settings
    if name and (place := WorkFolder(folder).source(str(name))):
        WorkFolder(output).remember_source(place)


def _require_empty(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise RunFolderError(f"{output} is a file, expected a new or an empty folder")
    held = sorted(entry.name for entry in output.iterdir()) if output.exists() else []
    if held:
        raise RunFolderError(
            f"{output} holds files ({', '.join(held[:5])}{', ...' if len(held) > 5 else ''}), expected a new or an "
            "empty folder; name another one"
        )
