"""Runs that are distilled and measured next to each other: the methods of a comparison, the cells of a sweep.

Every run has a folder of its own and a process of its own, so that its peak memory is its own and a run that fails,
by an error or by taking all the memory, ends nothing but itself. Images, labels and a result of the same protocol
that are in its folder already are reused. A run is locked while it is measured, so that any number of commands share
the runs of one comparison or sweep.
"""

import hashlib
import json
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from fadrm_hf.artifact.manifest import Manifest, parse_settings, read_manifest
from fadrm_hf.config import RunConfig, SourceConfig, StudentConfig, build
from fadrm_hf.config.datasets import resolve
from fadrm_hf.data.sources import Source, load_source
from fadrm_hf.errors import ConfigError, FadrmError
from fadrm_hf.evaluation.measured_tables import accuracies
from fadrm_hf.evaluation.results import find_result, record_result, result_name
from fadrm_hf.evaluation.study import Session
from fadrm_hf.methods import METHODS, import_methods, title_of
from fadrm_hf.methods.own import place_of
from fadrm_hf.networks.students import check_student
from fadrm_hf.pipeline.distill import check_run, distill
from fadrm_hf.pipeline.run import recipe_of
from fadrm_hf.pipeline.settings import run_from_recipe
from fadrm_hf.report.card.results import Result
from fadrm_hf.report.card.text import machine_line
from fadrm_hf.runtime import terminal
from fadrm_hf.runtime.files import read_json, sha256, write_json
from fadrm_hf.runtime.locks import Locks
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import LOCKS, RunFolder, WorkFolder
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.protocol import resolve_protocol
from fadrm_hf.training.train_student import remove_checkpoints, result_header, train_students

# A process that has imported the library forks those of the runs, where that is possible; none inherits a GPU.
_START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_TOUCH_EVERY = 5.0  # seconds
_LONGEST_REASON = 4000  # characters; a pipe holds more than that until somebody reads it


@dataclass(frozen=True)
class ComparedMethod:
    """One method of a comparison, or one cell of a sweep.

    Attributes:
        run: Its run, with nothing left open.
        protocol: How its students are trained; what it leaves open is taken from the artifact.
    """

    run: RunConfig
    protocol: StudentConfig

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.run.method.name)

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return Path(self.run.output).name

    @property
    def note(self) -> Path:
        """The file next to the run folders that notes what the run has reached, one for each protocol."""
        return Path(self.run.output).parent / "measured" / self.name / f"{self._identity}.json"

    @property
    def students(self) -> Path:
        """The folder of its unfinished students, which are in nobody's way if other settings are asked for later."""
        return RunFolder(self.run.output).work.path / "students" / self._identity

    @property
    def _identity(self) -> str:
        settings = [recipe_of(self.run), asdict(self.protocol)]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def result_file(self) -> Path | None:
        """The result of the run, if it is of these very settings; cheap enough to be read all the time."""
        note = read_json(self.note) or {}
        file = RunFolder(self.run.output).result(Path(str(note.get("result"))).stem)
        return file if file.is_file() and sha256(file) == note.get("sha256") else None


@dataclass(frozen=True)
class MethodRow:
    """One row of a table of runs.

    Attributes:
        method: Its method's name.
        artifact: Its run folder.
        manifest: What the artifact is and what it cost; `None` if the run failed.
        result: What its students reached, as `results/*.json` of the artifact holds it; `None` if the run failed.
        failure: Why it failed.
    """

    method: str
    artifact: str
    manifest: Manifest | None = None
    result: Result | None = None
    failure: str | None = None

    @classmethod
    def of_result(cls, file: Path) -> "MethodRow":
        """Build the row of a finished run from the file of its result."""
        folder = file.parent.parent
        manifest = read_manifest(folder)
        return cls(manifest.method, str(folder), manifest, json.loads(file.read_text("utf-8")))

    def values(self) -> dict[str, Any]:
        """Return the numbers of the table by column: accuracies as fractions, sizes in bytes, times in seconds.

        `distillation_seconds` is every stage but the teachers', whose training the methods share; `peak_memory_bytes`
        is the most that the process took in one of these. `label_bytes` are those of the stored labels, whether or
        not the protocol read them. A run that failed has the first three alone.
        """
        named = {"method": self.method, "title": title_of(self.method), "failure": self.failure}
        if self.manifest is None or self.result is None:
            return named
        return named | _costs(self.manifest) | accuracies(self.result)

    def record(self) -> dict[str, Any]:
        """Return its numbers, and what they were taken from."""
        if self.manifest is None:
            return self.values()
        manifest = self.manifest
        return self.values() | {
            "artifact": Path(self.artifact).name,
            "recipe": manifest.config,
            "source_record": asdict(manifest.source),
            "teacher_records": [asdict(teacher) for teacher in manifest.teachers],
            "stages": {name: asdict(stage) for name, stage in manifest.stages.items()},
            "machine": manifest.machine,
            "versions": manifest.versions,
            "result": self.result,
        }


def check_compared_method(
    run: RunConfig, protocol: StudentConfig, load: Callable[[SourceConfig], Source]
) -> ComparedMethod:
    """Resolve a run, refusing what cannot work before anything is made.

    A folder that already holds this run for another student serves as well: the protocol trains the students.

    Args:
        run: The run.
        protocol: How its students are trained.
        load: Reads the source, as in `check_run`.

    Raises:
        FadrmError: If the run, the student or the protocol cannot be used with this source.
    """
    own = run.student
    run, source = check_run(replace(run, student=_held_student(Path(run.output)) or own), load=load)
    check_student(protocol.student, len(source.class_map), run.source.size)
    source.rows("test")  # raises where there is nothing to test students on
    filled = resolve(replace(run, student=protocol)).student
    if filled.relabel is None and filled.epochs > run.relabel.epochs:
        raise ConfigError(
            f"protocol {protocol.name} trains for {filled.epochs} epochs, the labels of {run.method.name} serve "
            f"{run.relabel.epochs}; set --student.epochs {run.relabel.epochs} or less, or --relabel.epochs "
            f"{filled.epochs}"
        )
    # What the protocol leaves open is taken from the artifact, which must not be that of another student.
    is_own = resolve(replace(run, student=own)).student == run.student
    return ComparedMethod(run, protocol if is_own else filled)


def _held_student(folder: Path) -> StudentConfig | None:
    """Return the protocol of the run that a folder holds; `None` if it holds none."""
    recipe = read_manifest(folder).config if RunFolder(folder).is_finished else WorkFolder(folder).recipe
    return None if recipe is None else parse_settings(recipe.get("student"), StudentConfig, "student")


def measure_shared(methods: Mapping[str, ComparedMethod], session: Session) -> Iterator[dict[str, MethodRow]]:
    """Measure the runs that are neither finished nor being measured by another command, until all are finished.

    Args:
        methods: By the name of the run folder; these are in one folder.
        session: Its reporter names the run that is measured, those that failed and why, and who is waited for.

    Yields:
        The rows of runs that are finished by now, whoever measured them, or that failed here: after each run and at
        the end. Runs that failed elsewhere are tried here too.
    """
    own: dict[str, MethodRow] = {}
    reporter = session.reporter
    locks = Locks(Path(next(iter(methods.values())).run.output).parent / LOCKS, reporter.say, reporter.say)

    def is_done(name: str) -> bool:
        return name in own or methods[name].result_file is not None

    for name in locks.take("runs", {name: name for name in methods}, is_done):
        reporter.say(f"{name}: {sum(map(is_done, methods)) + 1}/{len(methods)}")
        own[name] = row = measure_apart(methods[name], session.command, locks.touch)
        if row.result is None:
            reporter.say(f"{name} failed: {row.failure}")
        else:
            file = RunFolder(row.artifact).result(result_name(row.result))
            write_json(methods[name].note, {"result": file.name, "sha256": sha256(file)})
        yield finished_rows(methods) | own
    yield finished_rows(methods) | own


def finished_rows(methods: Mapping[str, ComparedMethod]) -> dict[str, MethodRow]:
    """Return the rows of runs that anybody has measured under these very settings, by name."""
    files = {name: method.result_file for name, method in methods.items()}
    return {name: MethodRow.of_result(file) for name, file in files.items() if file is not None}


def measure_apart(method: ComparedMethod, command: str, touch: Callable[[], None] = lambda: None) -> MethodRow:
    """Measure a run in a process of its own, calling `touch` every few seconds meanwhile.

    Where a method is known to this process alone, as in a notebook, runs are measured in this process.

    Returns:
        Its row, with the failure if there is one; of a process that was killed only the signal is known.
    """
    if any(place_of(known) is None for known in METHODS.values()):
        return _row_of(method, _answer(method, command))
    context: Any = multiprocessing.get_context(_START)
    if _START == "forkserver":
        context.set_forkserver_preload([__name__])
    answers, question = context.Pipe(duplex=False)
    place = str(place_of(type(method.run.method)))
    process = context.Process(target=_send_answer, args=(place, _Plain.of(method), command, question))
    with _without_main():
        process.start()
    question.close()
    try:
        while process.is_alive():
            process.join(_TOUCH_EVERY)
            touch()
    except BaseException:  # an interruption is this process's; the other must not go on alone
        process.terminate()
        process.join()
        raise
    try:
        answer = json.loads(answers.recv_bytes())
    except EOFError:
        answer = {"failure": f"its process ended with code {process.exitcode} ({_reason_of(process.exitcode)})"}
    finally:
        answers.close()
    return _row_of(method, answer)


def _reason_of(code: int) -> str:
    """Return what the exit code of a process that gave no answer says."""
    if code >= 0:
        return "what it printed before that says why"
    name = signal.Signals(-code).name
    return f"{name}: mostly a lack of memory; lower --recover.batch_size" if name == "SIGKILL" else f"{name}"


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the program from a process that is started meanwhile, which would execute a script of the user again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _row_of(method: ComparedMethod, answer: Mapping[str, str]) -> MethodRow:
    if "failure" in answer:
        return MethodRow(method.method, method.run.output, failure=answer["failure"])
    return MethodRow.of_result(Path(answer["file"]))


def measure(method: ComparedMethod, command: str) -> Path:
    """Distil, and train students, unless that has been done already.

    Returns:
        The file of the result.

    Raises:
        FadrmError: If a teacher is refused, a folder holds another run, or a student cannot be trained.
    """
    folder = distill(method.run)
    distilled = load_distilled(folder)
    finished = find_result(folder, result_header(distilled, resolve_protocol(distilled, method.protocol)))
    if finished is not None:
        return finished
    source = load_source(method.run.source)
    reporter, device = Reporter(RunFolder(folder).work.log), join_world().device
    result = train_students(distilled, source, method.protocol, method.students, reporter, device)
    filed = record_result(folder, result | {"command": command})
    remove_checkpoints(method.students, result)
    return filed


@dataclass(frozen=True)
class _Plain:
    """A compared method as plain data, which a process reads that does not know the method's class yet."""

    output: str
    recipe: dict[str, Any]
    protocol: dict[str, Any]
    quiet: bool

    @classmethod
    def of(cls, method: ComparedMethod) -> "_Plain":
        """Return a compared method as plain data."""
        recipe = asdict(method.run)
        recipe["method"] |= {"name": method.method}
        return cls(method.run.output, recipe, asdict(method.protocol), terminal.progress.quiet)

    def read(self) -> ComparedMethod:
        """Return the compared method."""
        plain = json.loads(json.dumps(self.recipe))
        return ComparedMethod(run_from_recipe(plain, self.output), build(StudentConfig, self.protocol))


def _send_answer(place: str, plain: _Plain, command: str, question: Connection) -> None:
    """Measure in a process of its own, which imports the method first, and send the answer."""
    with terminal.speaking(quiet=plain.quiet):
        try:
            import_methods([place])
            answer = _answer(plain.read(), command)
        except KeyboardInterrupt:
            return
    question.send_bytes(json.dumps(answer).encode())


def _answer(method: ComparedMethod, command: str) -> dict[str, str]:
    """Measure, and return the file of the result, or the failure. An unforeseen error is also shown in full."""
    try:
        return {"file": str(measure(method, command))}
    except Exception as error:
        if not isinstance(error, FadrmError):
            traceback.print_exc()
        name = "" if isinstance(error, FadrmError) else f"{type(error).__name__}: "
        return {"failure": f"{name}{error}"[:_LONGEST_REASON]}


def machines_of(rows: Sequence[MethodRow]) -> list[str]:
    """Return every machine that a number comes from, once."""
    machines = [part["machine"] for row in rows if row.manifest for part in (vars(row.manifest), row.result or {})]
    return list(dict.fromkeys(map(machine_line, machines)))


def _costs(manifest: Manifest) -> dict[str, Any]:
    stages = [stage for name, stage in manifest.stages.items() if name != "teachers"]
    return {
        "num_images": manifest.num_images,
        "teachers": [teacher.name for teacher in manifest.teachers],
        "distillation_seconds": round(sum(stage.seconds for stage in stages), 1),
        "peak_memory_bytes": max((stage.peak_memory_bytes or 0 for stage in stages), default=0) or None,
        "image_bytes": manifest.bytes.images,
        "label_bytes": manifest.bytes.soft_labels,
    }
