"""Several methods, one source, one protocol, n seeds: the parts of each run that are missing are made, then one table.

Every method has a run folder of its own and works in a process of its own, so that its peak memory is its own and a
method that fails, by an error or by taking all the memory, ends nothing but itself. What a run folder holds already,
images, labels or the result of the same protocol, is not made again. Runs are claimed, so that any number of commands
share the methods of one comparison, or the cells of one sweep (`fadrm_hf.evaluation.ablation`).
"""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

from fadrm_hf.artifact.manifest import Manifest, read_manifest
from fadrm_hf.config import RunConfig, StudentConfig
from fadrm_hf.config.datasets import resolve
from fadrm_hf.data.sources import load_source
from fadrm_hf.errors import ConfigError, FadrmError
from fadrm_hf.evaluation.measured_tables import SCORES, accuracies, mean_and_std, with_suffix, write_table
from fadrm_hf.evaluation.results import find_result, record_result, result_name
from fadrm_hf.methods import title_of
from fadrm_hf.networks.students import check_student
from fadrm_hf.pipeline.distill import check_run, distill
from fadrm_hf.pipeline.run import recipe_of
from fadrm_hf.report.card.results import Result
from fadrm_hf.report.card.text import machine_line, render, size
from fadrm_hf.report.pictures.accuracy import draw_comparison
from fadrm_hf.runtime import terminal
from fadrm_hf.runtime.files import read_json, sha256, write_bytes, write_json
from fadrm_hf.runtime.locks import Locks
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import LOCKS, RESULTS, RunFolder, WorkFolder
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.runtime.terminal import duration
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.protocol import resolve_protocol
from fadrm_hf.training.train_student import result_header, train_students

# A process that has imported the library makes those of the methods, where there can be one; none inherits a GPU.
_START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_TOUCH_EVERY = 5.0  # seconds
_LONGEST_REASON = 4000  # characters; a pipe holds more than that until somebody reads it


@dataclass(frozen=True)
class Contender:
    """One method of a comparison.

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


@dataclass(frozen=True)
class Row:
    """One method's line of the table.

    Attributes:
        method: Its name.
        artifact: Its run folder.
        manifest: What the artifact is and what it cost; `None` of a method that failed.
        result: What its students reached, as `results/*.json` of the artifact holds it; `None` likewise.
        failure: Why it failed.
    """

    method: str
    artifact: str
    manifest: Manifest | None = None
    result: Result | None = None
    failure: str | None = None

    def values(self) -> dict[str, Any]:
        """The numbers of the table by column: accuracies as fractions, sizes in bytes, times in seconds.

        `distillation_seconds` is every stage but the teachers', whose training the methods share; `peak_memory_bytes`
        is the most that the process took in one of these. `label_bytes` are those of the stored labels, whether the
        protocol read them or not. All but the first three are absent of a method that failed.
        """
        named = {"method": self.method, "title": title_of(self.method), "failure": self.failure}
        if self.manifest is None or self.result is None:
            return named
        return named | _costs(self.manifest) | accuracies(self.result)


def check_contender(run: RunConfig, protocol: StudentConfig) -> Contender:
    """Resolve a method's run, refusing what cannot work before anything is made.

    Args:
        run: Its run.
        protocol: How its students are trained.

    Raises:
        FadrmError: If the run, the student or the protocol cannot be used with this source.
    """
    run, source = check_run(run)
    assert run.source.size is not None and run.relabel.epochs is not None
    check_student(protocol.student, len(source.class_map), run.source.size)
    source.rows("test")  # raises where there is nothing to test students on
    filled = resolve(replace(run, student=protocol)).student
    if filled.relabel is None and filled.epochs is not None and filled.epochs > run.relabel.epochs:
        raise ConfigError(
            f"protocol {protocol.name} trains for {filled.epochs} epochs, the labels of {run.method.name} serve "
            f"{run.relabel.epochs}; set --student.epochs {run.relabel.epochs} or less, or --relabel.epochs "
            f"{filled.epochs}"
        )
    return Contender(run, protocol)


def compare(contenders: Sequence[Contender], output: Path, command: str, reporter: Reporter) -> list[Row]:
    """Distil and measure what is missing; the table is written after each method, with those that are done by then.

    Several commands with the same methods share them, and all write the same table in the end.

    Args:
        contenders: The methods, each from `check_contender`, in the order of the table.
        output: The table's name without suffix; `.md`, `.csv`, `.png` and `.json` are written.
        command: What was typed, for the record.
        reporter: Says which method is being worked on, and which failed and why.

    Returns:
        A row for each method.
    """
    by_name = {Path(contender.run.output).name: contender for contender in contenders}

    def show(rows: Mapping[str, Row]) -> None:
        write_comparison([rows[name] for name in by_name if name in rows], contenders[0], output, command)

    rows = measure_shared(by_name, command, reporter, show)
    return [rows[name] for name in by_name]


def measure_shared(
    contenders: Mapping[str, Contender],
    command: str,
    reporter: Reporter,
    show: Callable[[Mapping[str, Row]], None],
) -> dict[str, Row]:
    """Distil and measure the runs that nobody has finished or is at work on, until all are done.

    Args:
        contenders: By the name of the run folder; the folders lie side by side.
        command: What was typed, for the record.
        reporter: Says which run is worked on, which failed and why, and who is waited for.
        show: Given the rows by name that are there by now, after each run that is done here and in the end.

    Returns:
        A row for each run, of whoever measured it; runs that failed elsewhere are tried here too.
    """
    own: dict[str, Row] = {}
    runs = Path(next(iter(contenders.values())).run.output).parent
    locks = Locks(runs / LOCKS, reporter.say, reporter.say)

    def is_done(name: str) -> bool:
        return name in own or _file_of_result(contenders[name]) is not None

    for name in locks.take("runs", {name: name for name in contenders}, is_done):
        reporter.say(f"{name}: {sum(map(is_done, contenders)) + 1}/{len(contenders)}")
        own[name] = row = measure_apart(contenders[name], command, locks.touch)
        if row.result is None:
            reporter.say(f"{name} failed: {row.failure}")
        else:
            _remember(contenders[name], row.result)
        show(finished_rows(contenders) | own)
    rows = finished_rows(contenders) | own
    show(rows)
    return rows


def finished_rows(contenders: Mapping[str, Contender]) -> dict[str, Row]:
    """The runs that have been measured under these very settings, by whomever, by name."""
    files = {name: _file_of_result(contender) for name, contender in contenders.items()}
    return {name: _row(file) for name, file in files.items() if file is not None}


def measure(contender: Contender, command: str) -> Path:
    """Distil, and train students, unless that has been done already.

    Args:
        contender: A method.
        command: What was typed, for the record.

    Returns:
        The file of the result.

    Raises:
        FadrmError: If a teacher is refused, a folder holds another run, or a student cannot be trained.
    """
    folder = distill(contender.run)
    distilled = load_distilled(folder)
    finished = find_result(folder, result_header(distilled, resolve_protocol(distilled, contender.protocol)))
    if finished is not None:
        return finished
    work, source = WorkFolder(folder), load_source(contender.run.source)
    reporter, device = Reporter(work.log), join_world().device
    result = train_students(distilled, source, contender.protocol, work.path, reporter, device)
    return record_result(folder, result | {"command": command})


def write_comparison(rows: Sequence[Row], contender: Contender, output: Path, command: str) -> None:
    """Write the table as Markdown, CSV and a picture, and every value as JSON.

    Args:
        rows: The methods, in the order of the table.
        contender: One of them, for what they share: source, images per class, protocol.
        output: The table's name without suffix.
        command: What was typed.
    """
    run, done = contender.run, [row for row in rows if row.result is not None]
    source = run.source.title
    shared = {
        "title": f"{source}, {run.ipc} image{'s' if run.ipc > 1 else ''} per class, under `{contender.protocol.name}`",
        "command": command,
        "source": source,
        "ipc": run.ipc,
        "seed": run.seed,
        "protocol": _protocol_settings(done) or asdict(contender.protocol),
        "machines": machines_of(done),
    }
    if done:
        write_bytes(with_suffix(output, "png"), draw_comparison([row.values() for row in done]))
    document, text = shared | {"methods": [everything(row) for row in rows]}, _as_markdown(rows, shared, output.name)
    write_table(output, document, [row.values() for row in rows], text)


def measure_apart(contender: Contender, command: str, touch: Callable[[], None] = lambda: None) -> Row:
    """`measure` in a process of its own; a process that was killed tells nothing, but by which signal.

    Args:
        contender: A method.
        command: What was typed, for the record.
        touch: Called every few seconds meanwhile.

    Returns:
        Its row, with the failure if there is one.
    """
    context: Any = multiprocessing.get_context(_START)
    if _START == "forkserver":
        context.set_forkserver_preload([__name__])
    answers, question = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(contender, command, question, terminal.progress.quiet))
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
    row = Row(contender.method, contender.run.output)
    try:
        answer = json.loads(answers.recv_bytes())
    except EOFError:
        return replace(row, failure=f"its process ended with code {process.exitcode}; -9 is mostly a lack of memory")
    finally:
        answers.close()
    if "failure" in answer:
        return replace(row, failure=answer["failure"])
    manifest, result = read_manifest(Path(contender.run.output)), json.loads(Path(answer["result"]).read_text("utf-8"))
    return replace(row, manifest=manifest, result=result)


def _answer(contender: Contender, command: str, question: Connection, quiet: bool) -> None:
    """`measure`, and tell the file of the result, or why there is none. An unforeseen error is also shown in full."""
    try:
        with terminal.speaking(quiet=quiet):
            told = {"result": str(measure(contender, command))}
    except KeyboardInterrupt:
        return
    except Exception as error:
        name = "" if isinstance(error, FadrmError) else f"{type(error).__name__}: "
        question.send_bytes(json.dumps({"failure": f"{name}{error}"[:_LONGEST_REASON]}).encode())
        if isinstance(error, FadrmError):
            return
        raise
    question.send_bytes(json.dumps(told).encode())


def _row(file: Path) -> Row:
    """The row of a run from the file of its result."""
    folder = file.parent.parent
    manifest = read_manifest(folder)
    return Row(manifest.method, str(folder), manifest, json.loads(file.read_text("utf-8")))


def _file_of_result(contender: Contender) -> Path | None:
    """The result of a run, if it is that of these very settings; cheap enough to be asked all the time."""
    note = read_json(_note_of(contender)) or {}
    file = Path(contender.run.output) / RESULTS / str(note.get("result"))
    return file if file.is_file() and sha256(file) == note.get("sha256") else None


def _remember(contender: Contender, result: Result) -> None:
    file = RunFolder(contender.run.output).result(result_name(result))
    write_json(_note_of(contender), {"result": file.name, "sha256": sha256(file)})


def _note_of(contender: Contender) -> Path:
    """Where it is noted what a run has reached under these settings: beside the run, one file for each protocol."""
    folder, settings = Path(contender.run.output), [recipe_of(contender.run), asdict(contender.protocol)]
    identity = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return folder.parent / "measured" / folder.name / f"{identity[:16]}.json"


def _costs(manifest: Manifest) -> dict[str, Any]:
    own = [stage for name, stage in manifest.stages.items() if name != "teachers"]
    return {
        "num_images": manifest.num_images,
        "teachers": [teacher.name for teacher in manifest.teachers],
        "distillation_seconds": round(sum(stage.seconds for stage in own), 1),
        "peak_memory_bytes": max((stage.peak_memory_bytes or 0 for stage in own), default=0) or None,
        "image_bytes": manifest.bytes.images,
        "label_bytes": manifest.bytes.soft_labels,
    }


def everything(row: Row) -> dict[str, Any]:
    """A row's numbers, and what they were taken from."""
    if row.manifest is None:
        return row.values()
    manifest = row.manifest
    return row.values() | {
        "artifact": Path(row.artifact).name,
        "recipe": manifest.config,
        "source_record": asdict(manifest.source),
        "teacher_records": [asdict(teacher) for teacher in manifest.teachers],
        "stages": {name: asdict(stage) for name, stage in manifest.stages.items()},
        "machine": manifest.machine,
        "versions": manifest.versions,
        "result": row.result,
    }


def _protocol_settings(rows: Sequence[Row]) -> dict[str, Any]:
    """The settings that students were trained with; those that the artifacts decided differently, by method."""
    settings = {row.method: row.result["settings"] for row in rows if row.result is not None}
    first: dict[str, Any] = next(iter(settings.values()), {})
    same = {name for name in first if all(each.get(name) == first[name] for each in settings.values())}
    return {
        name: first[name] if name in same else {method: each.get(name) for method, each in settings.items()}
        for name in first
    }


def machines_of(rows: Sequence[Row]) -> list[str]:
    """Every machine that a number comes from, once."""
    machines = [part["machine"] for row in rows if row.manifest for part in (vars(row.manifest), row.result or {})]
    return list(dict.fromkeys(map(machine_line, machines)))


def _as_markdown(rows: Sequence[Row], shared: dict[str, Any], name: str) -> str:
    return render(
        "comparison.md",
        **shared,
        name=name,
        settings=yaml.safe_dump(shared["protocol"], sort_keys=False, allow_unicode=True).strip(),
        rows=[_cells(row.values()) for row in rows if row.failure is None],
        failed=[row for row in rows if row.failure is not None],
    )


def _cells(values: dict[str, Any]) -> list[str]:
    """A row as the Markdown table shows it, percentages and sizes with their units in the head or in the cell."""
    return [
        values["title"],
        ", ".join(name.rpartition("/")[2] for name in values["teachers"]),
        values["labels"],
        str(values["epochs"]),
        str(values["num_seeds"]),
        *(mean_and_std(values[f"{name}_mean"], values[f"{name}_std"]) for name in SCORES),
        duration(values["distillation_seconds"]),
        duration(values["student_seconds"]),
        size(values["peak_memory_bytes"]),
        size(values["image_bytes"]),
        size(values["label_bytes"]),
    ]
