"""Every path of a run: the artifact, its work folder, and the caches beside it.

RUN/                        the artifact, which is the Hub repository
  fadrm.json                the manifest, written last
  README.md                 the card
  recipe.yaml               the resolved run
  data/, soft_labels/       the tables, train-*.parquet
  teachers/                 teachers that no reader could fetch by name
  results/, assets/         evaluations and pictures
  gallery/                  a page that shows it all
RUN.work/                   unfinished work: shards by stage, log, locks, checkpoints
teachers/, votes/, statistics/   beside it, shared by all runs of a folder

No other module spells one of these names. Where a manifest names a file, it does so by its path inside the artifact.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from fadrm_hf.config import with_defaults
from fadrm_hf.config.plain_data import flatten
from fadrm_hf.config.renamed import with_current_names
from fadrm_hf.errors import ArtifactError, RunFolderError
from fadrm_hf.runtime import files

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST, CARD, RECIPE = "fadrm.json", "README.md", "recipe.yaml"
IMAGES_FOLDER, LABELS_FOLDER = "data", "soft_labels"
# Folders as prefixes of paths in a manifest.
TEACHERS, RESULTS, PICTURES, GALLERY = "teachers/", "results/", "assets/", "gallery/"
SCORES, ANALYSIS = f"{RESULTS}scores.json", f"{RESULTS}analysis.json"
# Work folders: their ending, the stages whose shards others read, and what else is in them.
WORK = ".work"
CHANGING = ".changing"  # in an artifact that is being rewritten (`fadrm_hf.report.renewal`)
PATCHES, RECOVERED, SNAPSHOTS = "patches", "recovered", "snapshots"
LOG, LOCKS, CURVES, TABLE_CACHE = "log.jsonl", "locks", "curves", "datasets"

_SHARD = ".safetensors"
_FETCH = "; fetch the artifact again, or restore it from a copy"


class RunFolder:
    """The folder of a run, which is the artifact once it is finished.

    Args:
        path: The folder; nothing is made.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest = self.path / MANIFEST
        self.card = self.path / CARD
        self.recipe = self.path / RECIPE
        self.gallery = self.path / GALLERY
        self.scores = self.path / SCORES
        self.analysis = self.path / ANALYSIS

    @property
    def is_finished(self) -> bool:
        """True if it is an artifact: the manifest is written last."""
        return self.manifest.exists()

    @property
    def work(self) -> "WorkFolder":
        """The folder of unfinished work."""
        return WorkFolder(self.path)

    def result(self, name: str) -> Path:
        """Return the file of an evaluation."""
        return self.path / RESULTS / f"{name}.json"

    def results(self) -> list[Path]:
        """Return the files of all evaluations, sorted by name."""
        measured = (self.scores, self.analysis)  # of the images, not of students
        return [path for path in sorted((self.path / RESULTS).glob("*.json")) if path not in measured]

    def picture(self, name: str) -> Path:
        """Return the file of one of the card's pictures."""
        return self.path / PICTURES / f"{name}.png"

    def pictures(self) -> list[str]:
        """Return the names of the card's pictures, sorted."""
        return [path.stem for path in sorted((self.path / PICTURES).glob("*.png"))]

    @property
    def trained_teachers(self) -> Path:
        """The folder of teachers trained here, for all runs beside it."""
        return self.path.parent / "teachers"

    @property
    def votes(self) -> Path:
        """The folder of votes on teachers, for all runs beside it."""
        return self.path.parent / "votes"

    @property
    def statistics(self) -> Path:
        """The folder of measured statistics, for all runs beside it."""
        return self.path.parent / "statistics"


class WorkFolder:
    """`<run>.work`: finished shards of every stage, the resolved run they belong to, the log.

    Args:
        run: The run folder (the artifact to be).
    """

    def __init__(self, run: Path) -> None:
        if run.name in ("", ".."):  # of "." and paths that end in "..", which have a name once they are followed
            run = run.resolve()
        if not run.name:
            raise RunFolderError(f"{run} is the root of a disk, expected a run folder; name a folder in it")
        self.path = run.with_name(f"{run.name}{WORK}")
        self.log = self.path / LOG
        self.locks = self.path / LOCKS
        self.costs = self.path / "costs.json"
        self.student = self.path / "student"
        self._recipe, self._source = self.path / "recipe.json", self.path / "source.json"
        self._code = self.path / "code.json"

    @property
    def has_begun(self) -> bool:
        """True if a run has begun here."""
        return self._recipe.exists()

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The recipe of the run that has begun here; `None` if none has."""
        return _read_recipe(self._recipe) if self.has_begun else None

    def check(self, recipe: dict[str, Any], sections: Mapping[str, Any]) -> None:
        """Refuse another run than the one that has begun here, if one has.

        Args:
            recipe: The resolved run as plain data.
            sections: As of `refuse_other_run`.

        Raises:
            RunFolderError: If it holds shards of another recipe; the settings that differ are named.
        """
        if self.has_begun:
            refuse_other_run(_read_recipe(self._recipe), recipe, sections, self.path)

    def begin(self, recipe: dict[str, Any], sections: Mapping[str, Any]) -> None:
        """Make this the folder of `recipe`, or check that it is already; see `check`.

        Of several processes that begin at once with different recipes one alone is let through.
        """
        if self.has_begun or not files.create_json(self._recipe, recipe):
            self.check(recipe, sections)

    def check_code(self, method: str, code: str) -> None:
        """Refuse a method whose code is another than that of the run that has begun here, as far as it is known.

        Args:
            method: Its name.
            code: The SHA-256 of its code.

        Raises:
            RunFolderError: If it has changed.
        """
        known = files.read_json(self._code)
        if isinstance(known, dict) and known.get(method, code) != code:
            run = self.path.with_name(self.path.name.removesuffix(WORK))
            raise RunFolderError(
                f"{run} was made by {method} as its code was before; choose another --output (for compare and ablate: "
                f"--runs), or remove {run} and {self.path} to run the method as it is now"
            )

    def remember_code(self, method: str, code: str) -> None:
        """Keep which code of a method the run has begun with."""
        if not self._code.exists():
            files.write_json(self._code, {method: code})

    def staged(self, variant: str) -> Path:
        """Return the folder of a copy that is made to be published."""
        return self.path / "publish" / f"{self.path.name.removesuffix(WORK)}-{variant}"

    def shard(self, stage: str, name: str) -> Path:
        """Return where a shard's result is, or will be."""
        return self.path / stage / f"{name}{_SHARD}"

    def remember_source(self, name: str) -> None:
        """Keep where a source of this machine is, which no file of an artifact says; this folder is never sent."""
        if Path(name).exists():
            files.write_json(self._source, {"path": str(Path(name).resolve())})

    def source(self, name: str) -> str | None:
        """Return the path of the source that the artifact calls `name`; `None` if it is not known, or not there."""
        record = files.read_json(self._source)
        path = Path(str(record["path"])) if isinstance(record, dict) and "path" in record else None
        return str(path) if path is not None and path.name == name and path.exists() else None

    def num_bytes(self) -> int:
        """Return the size of everything in it."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def save(self, stage: str, name: str, tensors: "dict[str, Tensor]") -> None:
        """Save a shard's result with a digest by which `remove_damaged` knows it."""
        from fadrm_hf.runtime import tensor_files  # it imports torch

        tensor_files.save_with_digest(self.shard(stage, name), tensors, f"{stage}/{name}")

    def missing(self, stage: str, names: Sequence[str]) -> list[str]:
        """Return those of `names` whose results are not there yet."""
        from fadrm_hf.runtime import tensor_files  # it imports torch

        return [name for name in names if not tensor_files.is_complete(self.shard(stage, name))]

    def remove_damaged(self, say: Callable[[str], None]) -> None:
        """Remove shards that are not what was saved, so that they are regenerated; every shard is read.

        Raises:
            RunFolderError: If a folder is in the place of one; nobody knows what is in it, so it is left alone.
        """
        from fadrm_hf.runtime import tensor_files  # it imports torch

        for path in sorted(self.path.glob(f"*/*{_SHARD}")):
            try:
                if tensor_files.is_intact(path, f"{path.parent.name}/{path.stem}"):
                    continue
            except IsADirectoryError as error:
                raise RunFolderError(
                    f"{path} is a folder, expected a shard; remove it and the shard is regenerated"
                ) from error
            say(f"{path} is damaged and is regenerated")
            path.unlink(missing_ok=True)


def hidden_work(folder: Path) -> Path:
    """Return where a folder is made that appears complete or not at all, e.g. a trained teacher."""
    return folder.with_name(f".{folder.name}{WORK}")


def inner_path(folder: Path, name: str) -> Path:
    """Return the path of `name` inside the artifact; names that lead out of it are refused, symlinks too.

    The Hub's download cache is all symlinks (`snapshots/REVISION/FILE` to `blobs/HASH`); these are let through.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or ":" in parts[0] or ".." in parts or "\0" in name:
        raise ArtifactError(f"{MANIFEST} names the file {name!r}, expected a path inside the artifact{_FETCH}")
    path = folder.joinpath(*parts)
    steps = [folder.joinpath(*parts[: end + 1]) for end in range(len(parts))]
    snapshots = folder.resolve().parent
    in_cache = snapshots.name == "snapshots" and path.resolve().parent == snapshots.with_name("blobs")
    if any(step.is_symlink() for step in steps) and not in_cache:
        raise ArtifactError(
            f"{folder.name} has {name!r}, which is a symbolic link; an artifact holds files only{_FETCH}"
        )
    if path.exists() and not (path.is_file() or path.is_dir()):
        # A pipe or a device, which would be read for ever.
        raise ArtifactError(f"{folder.name} has {name!r}, which is no file, but a pipe or a device{_FETCH}")
    return path


def read_inner(folder: Path, name: str) -> bytes:
    """Return the bytes of a text inside the artifact; see `inner_path`.

    Raises:
        ValueError: If it is no file, or larger than texts are.
    """
    return files.read_regular(inner_path(folder, name), files.MAX_TEXT_BYTES)


def refuse_other_run(held: dict[str, Any], wanted: dict[str, Any], sections: Mapping[str, Any], folder: Path) -> None:
    """Refuse a folder whose recipe is another than the wanted one.

    Args:
        held: The recipe in the folder. Settings that are younger than it have their defaults (`with_defaults`).
        wanted: The recipe that is to be run.
        sections: Its sections by name as the dataclasses they are, such as `vars` of a run.
        folder: Named in the message.

    Raises:
        RunFolderError: It names the settings that differ.
    """
    before, after = flatten(_completed(held, sections)), flatten(wanted)
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if names:
        shown = "; ".join(f"{name} is {before.get(name)!r} there, {after.get(name)!r} here" for name in names[:5])
        raise RunFolderError(
            f"{folder} holds another run: {shown}{' ...' if len(names) > 5 else ''}. Choose another --output "
            "(for compare and ablate: --runs), or remove that folder to start again"
        )


def require_place(folder: Path) -> None:
    """Refuse a folder in which no run can be made.

    Raises:
        RunFolderError: If it can be no folder, a file is in the way, or the folder cannot be written to.
    """
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # it is to be made, or what is in its way is named below
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunFolderError(
            f"{str(folder)!r:.80} can be no folder: {reason}; set --output to another name"
        ) from error
    existing = _nearest(folder)
    if not existing.is_dir():
        raise RunFolderError(f"{existing} is a file, expected a folder for the run; set --output to another name")
    if not os.access(existing, os.W_OK):
        raise RunFolderError(f"{existing} cannot be written to; set --output to a folder of yours")


def require_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        RunFolderError: If less than `needed_bytes` are free.
    """
    free = shutil.disk_usage(_nearest(folder)).free
    if free < needed_bytes:
        raise RunFolderError(
            f"{folder} needs about {needed_bytes / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; free some space, set "
            "--output to another disk, or lower --relabel.epochs"
        )


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest of those above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _read_recipe(path: Path) -> dict[str, Any]:
    recipe = files.read_json(path)
    if not isinstance(recipe, dict):
        raise RunFolderError(f"{path} is damaged: it is no JSON object; remove {path.parent} to start the run again")
    return with_current_names(recipe)


def _completed(held: dict[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with defaults for settings that are younger than it; a section that is none stays as it is."""
    settings = {name: section for name, section in sections.items() if is_dataclass(section)}
    plain = {name: held.get(name, {}) for name in settings}
    return held | {
        name: with_defaults(plain[name], section) if isinstance(plain[name], dict) else plain[name]
        for name, section in settings.items()
    }
