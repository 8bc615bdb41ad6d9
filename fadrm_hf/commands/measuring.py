"""Measuring an artifact: `train-student`, and `baselines` for what it must be compared with."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from accelerate import PartialState
from torch import nn

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.recorded_source import place_of_source, source_of
from fadrm_hf.commands.call import Call, known_protocol
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.options.training import BaselinesOptions, TrainStudentOptions
from fadrm_hf.commands.output import say
from fadrm_hf.commands.sharing import Sharing
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import StudentConfig, build
from fadrm_hf.config.architectures import full_name
from fadrm_hf.config.protocols import protocol_section
from fadrm_hf.errors import ConfigError, FadrmError
from fadrm_hf.evaluation.baselines import compared_results, comparison_table, measure_baselines
from fadrm_hf.evaluation.measured_tables import with_suffix
from fadrm_hf.evaluation.results import ResultFolder, describe_result, result_folder
from fadrm_hf.hub import open_artifact
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.pipeline.settings import run_from_recipe
from fadrm_hf.report.gallery.writing import pages_of
from fadrm_hf.runtime import terminal
from fadrm_hf.runtime.files import read_json
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RESULTS, require_place
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.runtime.tracking import curves_of, recording
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.student_group import Launch
from fadrm_hf.training.train_student import remove_checkpoints, require_views, train_students


@contextmanager
def student_options(student: str = "--student") -> Iterator[None]:
    """Spell options in messages as a command does that has those of the student without `student.`.

    Args:
        student: The command's option that names an architecture.
    """
    try:
        yield
    except FadrmError as error:
        message = str(error).replace("--student.student", student)
        raise type(error)(re.sub(r"\bstudent\.(?=[a-z])", "", message)) from error


@student_options()
def train_student_command(call: Call) -> Summary:
    """Run `fadrm-hf train-student ARTIFACT`."""
    options: TrainStudentOptions = call.options
    sharing = Sharing(options.save_student, options.push_student, options.private, options.send_result)
    sharing.require_login()
    location = open_artifact(options.artifact, options.revision)
    config = protocol_given(call, location.manifest)
    sharing.check(location, config)
    place = result_folder(location, options.output)
    curves = curves_of(options.tracker, place.work.path)
    state = join_world()
    distilled = load_distilled(location, streaming=options.streaming, online=options.makes_labels)
    source = source_of(location, options.source.name)
    first: list[nn.Module] = []  # the student of the first seed, which is the one to share

    def keep(module: nn.Module, seed: int) -> None:
        if seed == 0:
            first.append(module)

    reporter = Reporter(place.work.log, not state.is_main_process, curves if state.is_main_process else None)
    work, together = place.work.path, options.processes_per_student
    reporter.say(f"{config.student} on {location.name}; its accuracy will be in {place.folder / RESULTS}")
    with recording(curves, asdict(config)):
        result = train_students(distilled, source, config, work, reporter, state.device, keep, Launch(state, together))
    if not state.is_main_process:
        return Summary()
    result |= {"command": call.typed}
    path = place.add(result)
    remove_checkpoints(work, result)
    say(describe_result(result))
    if not path.is_relative_to(place.folder):
        reporter.say(
            f"this is a trial: the number on file, by the artifact's own settings, stays in {place.folder / RESULTS}"
        )
    say(f"{path}")
    sharing.share(first[0], result, path, place)
    is_local = pinned_repository(location) is None
    paths = {"result": path} | ({} if curves is None else {"curves": curves.place})
    return Summary(paths, result, ["baselines" if is_local else "score", options.artifact])


@student_options()
def baselines_command(call: Call) -> Summary:
    """Run `fadrm-hf baselines ARTIFACT`."""
    options: BaselinesOptions = call.options
    location = open_artifact(options.artifact)
    if pinned_repository(location):
        raise ConfigError(
            f"baselines are filed with the artifact, and {location.name} is on the Hub; give a run folder, e.g. a copy"
            f" made by: hf download --repo-type dataset {options.artifact} --local-dir FOLDER"
        )
    run = run_from_recipe(location.manifest.config, options.artifact)
    given = {name: value for name in ("student", "num_seeds") if (value := getattr(options, name)) is not None}
    where = replace(run.source, name=place_of_source(location, options.source.name))
    protocol = run.student
    if options.protocol is not None:
        own = {"student": protocol.student, "num_seeds": protocol.num_seeds}
        protocol = build(StudentConfig, protocol_section(known_protocol(options.protocol)) | own)
    run = replace(run, student=replace(protocol, **given), source=where)
    source = source_of(location, options.source.name)
    require_views(load_distilled(location))
    state = join_world()
    quiet = not state.is_main_process
    measure_baselines(run, source, options.rows, call.typed, state, quiet)
    if quiet:
        return Summary()
    terminal.results.print(comparison_table(location.folder, run.student.student, run.student.name))
    say("stages: " + ", ".join(f"{name} {stage.seconds:.0f} s" for name, stage in location.manifest.stages.items()))
    rows = compared_results(location.folder, run.student.student, run.student.name)
    paths = {"results": location.folder / RESULTS, **pages_of(location.folder)}
    return Summary(paths, {"rows": rows}, ["score", options.artifact])


def only_process() -> PartialState:
    """Return the process of a command that runs in one only; several would all do the same."""
    state = join_world()
    if state.num_processes > 1:
        raise ConfigError(
            f"this command runs in one process, {state.num_processes} were launched; use accelerate launch "
            "--num_processes 1, or the command without accelerate"
        )
    return state


def table_summary(output: Path, code: ExitCode = ExitCode.DONE) -> Summary:
    """Print where a table is and return how its command ends; `output` is the table's name without suffix."""
    files = {name: with_suffix(output, suffix) for name, suffix in (("table", "md"), ("csv", "csv"), ("json", "json"))}
    say(f"{files['table']}")
    return Summary(files, read_json(files["json"]) or {}, code=code)


def table_place(asked: str | None, place: ResultFolder, name: str) -> Path:
    """Return a table's name without suffix: the requested one, or `name` next to the results.

    Raises:
        RunFolderError: If nothing can be written there.
    """
    output = Path(asked or place.folder.parent / name)
    require_place(output.parent)
    return output


def protocol_given(call: Call, manifest: Manifest, student: str | None = None) -> StudentConfig:
    """Return the requested protocol; open values are the artifact's own, or those of a protocol's name.

    Args:
        call: The command, whose options are those of `StudentOptions`.
        manifest: The artifact's.
        student: Architecture, where the command names several; for another than the artifact's, what depends on it is
            left open.
    """
    own, asked = manifest.settings("student", StudentConfig), call.protocol_values()
    student, name = student or asked.get("student"), asked.get("name")
    if name is not None:
        values = protocol_section(name) | {"student": own.student}
    elif student is None or full_name(student) == own.student:
        values = asdict(own)
    else:
        values = asdict(own) | dict.fromkeys(("lr", "eta", "batch_size"))
    return build(StudentConfig, values | asked | ({} if student is None else {"student": student}))
