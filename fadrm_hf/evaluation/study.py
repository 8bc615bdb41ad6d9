"""The one shape of a study: check, rows, table, pictures.

Whoever builds a study checks it, so that what cannot work is refused before anything is trained (`check_each`). Its
`measure` yields the finished rows after each one, reusing what is on file, and its `table` describes them.
`run_study` does the rest.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from accelerate import PartialState

from fadrm_hf.errors import ConfigError, FadrmError
from fadrm_hf.evaluation.measured_tables import StudyTable
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.progress import Reporter, Task
from fadrm_hf.runtime.shards import from_all, mine
from fadrm_hf.training.loader import Distilled
from fadrm_hf.training.one_student import remove_checkpoint

Rows = TypeVar("Rows")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Session:
    """One call of a study.

    Attributes:
        output: The table's name without suffix.
        command: What was typed, for the record.
        reporter: Prints what is measured, what failed, and which process is waited for.
        state: The processes that share the work, each with the device that its students train on.
        processes_per_student: How many processes train one student together at least.
    """

    output: Path
    command: str
    reporter: Reporter
    state: PartialState
    processes_per_student: int = 1

    def part(self, name: str) -> "Session":
        """Return the session of a study within this one; its table is named after both."""
        return replace(self, output=self.output.with_name(f"{self.output.name}-{name}"))


class Study(ABC, Generic[Rows]):
    """Something to measure row by row, and the table of it."""

    @abstractmethod
    def measure(self, session: Session) -> Iterator[Rows]:
        """Yield the finished rows whenever there is one more, in every process; nothing is measured twice."""

    @abstractmethod
    def table(self, rows: Rows) -> StudyTable:
        """Describe the rows that are finished."""


def run_study(study: Study[Rows], session: Session) -> Rows:
    """Measure what is missing, and write the table after each row, so that it holds what is finished by then.

    Returns:
        All rows, in every process.

    Raises:
        StudentError, TeacherError: If a training diverges.
    """
    for finished in study.measure(session):
        rows = finished
        if session.state.is_main_process:
            study.table(rows).write(session.output, session.command)
    session.state.wait_for_everyone()
    return rows


def check_each(tasks: Mapping[str, Callable[[], Value]]) -> dict[str, Value]:
    """Return the outcome of every task by its name.

    Raises:
        ConfigError: If some cannot be done; every one is named, with the reason.
    """
    done, wrong = {}, []
    for name, task in tasks.items():
        try:
            done[name] = task()
        except FadrmError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    return done


@dataclass(frozen=True)
class UnitOfWork:
    """A measurement with a file of its own.

    Attributes:
        file: Where it is filed.
        stages: Names of its trainings, each with a checkpoint.
        measure: Takes the checkpoints and the bar that counts epochs.
    """

    file: Path
    stages: Sequence[str]
    measure: Callable[[list[Path], Task], Mapping[str, Any]]


def measure_units(stage: str, units: Sequence[UnitOfWork], num_epochs: int, session: Session) -> list[dict[str, Any]]:
    """Return all measurements, of `num_epochs` each; those that are not on file are divided over all processes."""
    numbers = mine(range(len(units)), session.state)
    measured: dict[int, dict[str, Any]] = {}
    with session.reporter.stage(stage, len(numbers) * num_epochs) as task:
        for number in numbers:
            unit = units[number]
            checkpoints = [unit.file.with_name(f"{unit.file.stem}-{name}.safetensors") for name in unit.stages]
            if unit.file.exists():
                task.skip(num_epochs)
            else:
                write_json(unit.file, unit.measure(checkpoints, task))
                for checkpoint in checkpoints:
                    remove_checkpoint(checkpoint)
            measured[number] = json.loads(unit.file.read_text("utf-8"))
    return from_all(measured, session.state)


def fingerprint(*key: object) -> str:
    """Return 16 digits that differ wherever something that decides a measurement does."""
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]


def table_hashes(distilled: Distilled, folders: tuple[str, ...]) -> dict[str, str]:
    """Return the hash of every file of an artifact's tables, by name."""
    files = distilled.manifest.files
    return {name: record.sha256 for name, record in files.items() if name.startswith(folders)}
