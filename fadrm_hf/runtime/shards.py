"""Units of work: which exist, which are done, whose they are; and the folder where they wait to be packaged.

A recovery shard is one image index of a range of classes, or all images of some classes: the images whose batch
statistics are matched together, hence the smallest unit whose result depends on nothing else. Finished shards are
files in `<run>.work/`; a restart skips them if the run is the same, and refuses if it is another.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from torch import Tensor

from fadrm_hf.config import RecoverConfig, with_defaults
from fadrm_hf.errors import ConfigError, RunFolderError
from fadrm_hf.runtime import files

Unit = TypeVar("Unit")
Value = TypeVar("Value")

_LAUNCH = ("ACCELERATE_USE_CPU", "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(days=30)  # of a process that has finished its units while others still work


@dataclass(frozen=True)
class Shard:
    """The images ipc_indices x classes, whose batch statistics are matched together.

    Attributes:
        ipc_indices: Which images of each class.
        classes: The labels of its images.
    """

    ipc_indices: range
    classes: range

    @property
    def name(self) -> str:
        """The key of its random numbers."""
        first, last = self.ipc_indices[0], self.ipc_indices[-1]
        images = f"ipc{first:05d}" if first == last else f"ipc{first:05d}to{last:05d}"
        return f"{images}-{self.classes[0]:05d}-{self.classes[-1]:05d}"

    @property
    def num_images(self) -> int:
        """How many images it has."""
        return len(self.ipc_indices) * len(self.classes)

    @property
    def files(self) -> dict[int, str]:
        """By image index the file name of its result, so that the files of any layout make the table in order."""
        return {index: Shard(range(index, index + 1), self.classes).name for index in self.ipc_indices}


@dataclass(frozen=True)
class Share:
    """One of several equal shares of a run's images, for jobs that no launcher binds together.

    Attributes:
        index: Which, from 0.
        count: Of how many.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """The share that `K:N` names, the K-th of N.

        Raises:
            ConfigError: If it names none.
        """
        found = re.fullmatch(r"([0-9]{1,6}):([0-9]{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"shards is {text!r}, expected K:N, the K-th of N jobs, as in --shards 3:8")
        return cls(int(found[1]) - 1, int(found[2]))

    def part(self, units: Sequence[Unit]) -> list[Unit]:
        """The units of this share: every `count`-th."""
        return list(units[self.index :: self.count])


WHOLE = Share()


def class_ranges(num_classes: int, per_range: int) -> list[range]:
    """Consecutive ranges of at most `per_range` labels."""
    return [range(first, min(first + per_range, num_classes)) for first in range(0, num_classes, per_range)]


def range_name(labels: range) -> str:
    """A range of labels as a file is named after it."""
    return f"{labels[0]:05d}-{labels[-1]:05d}"


def classes_together(ipc: int, config: RecoverConfig) -> int:
    """Over how many classes a shard reaches: a batch's worth with one image of each, or with all images of each."""
    return config.batch_size if config.layout == "ipc_major" else max(1, config.batch_size // ipc)


def recovery_shards(num_classes: int, ipc: int, config: RecoverConfig) -> list[Shard]:
    """All shards of a run, those of the first image index first.

    Args:
        num_classes: Number of classes.
        ipc: Images per class.
        config: Layout and batch size. "class_major" keeps the images of a class together as far as a batch holds them.
    """
    ranges = class_ranges(num_classes, classes_together(ipc, config))
    num = 1 if config.layout == "ipc_major" else min(ipc, config.batch_size)
    indices = [range(first, min(first + num, ipc)) for first in range(0, ipc, num)]
    return [Shard(together, labels) for together in indices for labels in ranges]


def mine(units: Sequence[Unit], state: PartialState) -> list[Unit]:
    """The units of this process: every `num_processes`-th.

    Args:
        units: All units of a stage, done or not: what is missing changes while other processes work, so a share of
            that would leave units to nobody.
        state: The processes.
    """
    return list(units[state.process_index :: state.num_processes])


def from_all(own: Mapping[int, Value], state: PartialState) -> list[Value]:
    """What all processes have found, in the order of its numbers; every process gets it when the last one is there.

    Args:
        own: The values of this process, by number.
        state: The processes.
    """
    everyone: dict[int, Value] = dict(gather_object(list(own.items()))) if state.num_processes > 1 else dict(own)
    return [everyone[number] for number in sorted(everyone)]


def join_world() -> PartialState:
    """The processes of this launch; see `check_world`."""
    try:
        # On its own `PartialState` does not read the variable, and processes on CPUs would not find each other.
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_PATIENCE)
    except ValueError as error:
        given = ", ".join(f"{name}={os.environ[name]!r}" for name in _LAUNCH if name in os.environ)
        raise RunFolderError(
            f"the variables of the launch ({given}) are not understood: {error}; expected numbers, and true or false "
            "for ACCELERATE_USE_CPU; unset them, or start the command by accelerate launch, which sets them"
        ) from error
    check_world(state)
    return state


def check_world(state: PartialState) -> None:
    """Refuse a launch in which processes do not know of each other, so that each would do all the work.

    Raises:
        RunFolderError: If `WORLD_SIZE` promises more processes than have joined.
    """
    promised = os.environ.get("WORLD_SIZE", "1")
    if promised != str(state.num_processes):
        raise RunFolderError(
            f"WORLD_SIZE is {promised} but {state.num_processes} process joined, expected the same number; unset it, "
            "or on CPUs launch with ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N"
        )


class WorkFolder:
    """`<run>.work`: finished shards of every stage, the resolved run they belong to, and the log.

    Args:
        run: The run folder (the artifact to be).
    """

    def __init__(self, run: Path) -> None:
        self.path = run.with_name(run.name + ".work")
        self.log = self.path / "log.jsonl"
        self._recipe, self._source = self.path / "recipe.json", self.path / "source.json"

    @property
    def is_claimed(self) -> bool:
        """Whether a run has begun here."""
        return self._recipe.exists()

    def check(self, recipe: dict[str, Any], sections: Mapping[str, Any]) -> None:
        """Refuse another run than the one that has begun here, if one has.

        Args:
            recipe: The resolved run as plain data.
            sections: As of `refuse_other_run`.

        Raises:
            RunFolderError: If it holds shards of another recipe; the settings that differ are named.
        """
        if self.is_claimed:
            refuse_other_run(_read_recipe(self._recipe), recipe, sections, self.path)

    def claim(self, recipe: dict[str, Any], sections: Mapping[str, Any]) -> None:
        """Make this the folder of `recipe`, or check that it is already; see `check`."""
        self.check(recipe, sections)
        if not self.is_claimed:
            files.write_json(self._recipe, recipe)

    def remember_source(self, name: str) -> None:
        """Keep where a source of this machine lies, which no file of an artifact tells; this folder is never sent."""
        if Path(name).exists():
            files.write_json(self._source, {"path": str(Path(name).resolve())})

    def source(self, name: str) -> str | None:
        """Where the source lies that the artifact calls by this name; `None` if that is not known, or no longer so."""
        held = files.read_json(self._source)
        path = Path(str(held["path"])) if isinstance(held, dict) and "path" in held else None
        return str(path) if path is not None and path.name == name and path.exists() else None

    def num_bytes(self) -> int:
        """Size of all that is there already."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def shard(self, stage: str, name: str) -> Path:
        """Where a shard's result is, or will be."""
        return self.path / stage / f"{name}.safetensors"

    def save(self, stage: str, name: str, tensors: dict[str, Tensor]) -> None:
        """Put a shard's result in its place, with a digest by which `remove_damaged` knows it."""
        files.save_with_digest(self.shard(stage, name), tensors, f"{stage}/{name}")

    def remove_damaged(self, say: Callable[[str], None]) -> None:
        """Remove shards that are not what was saved, so that they are made again; every shard is read.

        Raises:
            RunFolderError: If a folder is in the place of one; nobody knows what is in it, so it is left alone.
        """
        for path in sorted(self.path.glob("*/*.safetensors")):
            try:
                if files.is_intact(path, f"{path.parent.name}/{path.stem}"):
                    continue
            except IsADirectoryError as error:
                raise RunFolderError(
                    f"{path} is a folder, expected a shard; remove it and the shard is made"
                ) from error
            say(f"{path} is damaged and is made again")
            path.unlink(missing_ok=True)

    def missing(self, stage: str, names: Sequence[str]) -> list[str]:
        """Those of `names` whose results are not there yet."""
        return [name for name in names if not files.is_complete(self.shard(stage, name))]


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
    before, after = _flatten(_completed(held, sections)), _flatten(wanted)
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if names:
        shown = "; ".join(f"{name} is {before.get(name)!r} there, {after.get(name)!r} here" for name in names[:5])
        raise RunFolderError(
            f"{folder} holds another run: {shown}{' ...' if len(names) > 5 else ''}. Choose another --output, or "
            "remove that folder to start again"
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
    """The folder, or the nearest of those above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        recipe = None
    if not isinstance(recipe, dict):
        raise RunFolderError(f"{path} is damaged: it is no JSON object; remove {path.parent} to start the run again")
    return recipe


def _completed(held: dict[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the settings that are younger than it; a section that is none stays as it is."""
    settings = {name: section for name, section in sections.items() if is_dataclass(section)}
    plain = {name: held.get(name, {}) for name in settings}
    return held | {
        name: with_defaults(plain[name], section) if isinstance(plain[name], dict) else plain[name]
        for name, section in settings.items()
    }


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flatten(item, f"{prefix}.{key}" if prefix else key)
    return flat
