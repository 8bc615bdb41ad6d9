"""Measuring an artifact: `train-student`, and `baselines` for what it must be compared with."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

from accelerate import PartialState
from jsonargparse import ArgumentParser
from torch import nn

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.recorded_source import place_of_source, source_of
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.output import as_typed, say
from fadrm_hf.commands.sharing import Sharing, add_sharing_options
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import StudentConfig, build
from fadrm_hf.config.protocols import PROTOCOLS, protocol_section
from fadrm_hf.config.students import full_name
from fadrm_hf.errors import ConfigError, FadrmError, unknown
from fadrm_hf.evaluation.baselines import compared_results, comparison_table, measure_baselines
from fadrm_hf.evaluation.measured_tables import with_suffix
from fadrm_hf.evaluation.results import ResultFolder, describe_result, result_folder
from fadrm_hf.hub import open_artifact
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.pipeline.arguments import new_parser, parse, run_from_recipe
from fadrm_hf.report.gallery import pages_of
from fadrm_hf.runtime import terminal
from fadrm_hf.runtime.files import read_json
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RESULTS, require_place
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.runtime.tracking import curves_of, recording
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.train_student import require_views, train_students


@contextmanager
def student_options(student: str = "--student") -> Iterator[None]:
    """Messages name the options as a command spells them that has those of the student without `student.`.

    Args:
        student: The command's option that names an architecture.
    """
    try:
        yield
    except FadrmError as error:
        message = str(error).replace("--student.student", student)
        raise type(error)(re.sub(r"\bstudent\.(?=[a-z])", "", message)) from error


@student_options()
def train_student_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf train-student ARTIFACT`."""
    # `--artifact NAME` is NAME: `accelerate launch` users like their arguments named.
    words = [word.removeprefix("--artifact=") for word in arguments if word != "--artifact"]
    words = spell_out_online(words)
    parser = _train_student_parser()
    asked = parse(parser, words)
    sharing = Sharing(asked.save_student, asked.push_student, asked.private, asked.send_result)
    sharing.require_login()
    location = open_artifact(asked.artifact, asked.revision)
    config = protocol_given(parser, words, location.manifest, asked.name, asked.student)
    parsed = asked.as_dict()
    sharing.check(location, config)
    place = result_folder(location, parsed["output"])
    curves = curves_of(asked.tracker, place.work.path)
    state = join_world()
    distilled = load_distilled(location, streaming=parsed["streaming"], online=parsed["online"])
    source = source_of(location, parsed["source"]["name"])
    first: list[nn.Module] = []  # the student of the first seed, which is the one to share

    def keep(module: nn.Module, seed: int) -> None:
        if seed == 0:
            first.append(module)

    reporter = Reporter(place.work.log, not state.is_main_process, curves if state.is_main_process else None)
    work, together = place.work.path, parsed["processes_per_student"]
    reporter.say(f"{config.student} on {location.name}; its accuracy will be in {place.folder / RESULTS}")
    with recording(curves, asdict(config)):
        result = train_students(distilled, source, config, work, reporter, state.device, keep, state, together)
    if not state.is_main_process:
        return Summary()
    result |= {"command": as_typed("train-student", arguments)}
    path = place.add(result)
    say(describe_result(result))
    if not path.is_relative_to(place.folder):
        reporter.say(
            f"it is a trial: the number on file, by the artifact's own settings, stays in {place.folder / RESULTS}"
        )
    say(f"{path}")
    sharing.share(first[0], result, path, place)
    is_local = pinned_repository(location) is None
    paths = {"result": path} | ({} if curves is None else {"curves": curves.place})
    return Summary(paths, result, ["baselines" if is_local else "score", asked.artifact])


@student_options()
def baselines_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf baselines ARTIFACT`."""
    parser = new_parser("fadrm-hf baselines", "Train students on what an artifact must be compared with.")
    parser.add_argument("artifact", type=str, help="Run folder.")
    parser.add_argument("--student", type=str, default=None, help="Architecture; the artifact's own if not given.")
    parser.add_argument(
        "--num_seeds", type=int, default=None, help="Students per row; the artifact's own if not given."
    )
    parser.add_argument("--rows", type=list[str], default=["random_real", "distilled", "whole"], help="Which images.")
    parser.add_argument("--protocol", type=str, default=None, help="By its name; the artifact's own if not given.")
    parser.add_argument("--source.name", type=str, default=None, help="Where the source is, if not where it was.")
    parsed = parse(parser, arguments)
    location = open_artifact(parsed.artifact)
    if pinned_repository(location):
        raise ConfigError(
            f"baselines are filed with the artifact, and {location.name} is on the Hub; give a run folder, e.g. a copy"
            f" made by: hf download --repo-type dataset {parsed.artifact} --local-dir FOLDER"
        )
    run = run_from_recipe(location.manifest.config, parsed.artifact)
    given = {k: v for k, v in (("student", parsed.student), ("num_seeds", parsed.num_seeds)) if v is not None}
    where = replace(run.source, name=place_of_source(location, parsed.source.name))
    protocol = run.student if parsed.protocol is None else _named_protocol(parsed.protocol, run.student)
    run = replace(run, student=replace(protocol, **given), source=where)
    source = source_of(location, parsed.source.name)
    require_views(load_distilled(location))
    state = join_world()
    command, quiet = as_typed("baselines", arguments), not state.is_main_process
    measure_baselines(run, source, parsed.rows, command, state, quiet)
    if quiet:
        return Summary()
    terminal.results.print(comparison_table(location.folder, run.student.student, run.student.name))
    say("stages: " + ", ".join(f"{name} {stage.seconds:.0f} s" for name, stage in location.manifest.stages.items()))
    rows = compared_results(location.folder, run.student.student, run.student.name)
    paths = {"results": location.folder / RESULTS, **pages_of(location.folder)}
    return Summary(paths, {"rows": rows}, ["score", parsed.artifact])


def only_process() -> PartialState:
    """The process of a command whose work is not divided; several would all do the same."""
    state = join_world()
    if state.num_processes > 1:
        raise ConfigError(
            f"this command runs in one process, {state.num_processes} were launched; use accelerate launch "
            "--num_processes 1, or the command without accelerate"
        )
    return state


def _train_student_parser() -> ArgumentParser:
    parser = student_parser(
        "fadrm-hf train-student", "Train students from an artifact alone and record how good they are."
    )
    parser.add_argument(
        "--tracker", type=str, default=None, help="Live curves in tensorboard, wandb, trackio or another tracker."
    )
    add_sharing_options(parser)
    return parser


def student_parser(program: str, description: str) -> ArgumentParser:
    """A parser of what every command takes that trains students from an artifact: where it is, and the protocol.

    The protocol's name and student are left open: they are the artifact's own, which is not known yet.
    """
    parser = new_parser(program, description)
    parser.add_argument("artifact", type=str, help="Run folder, or ORG/NAME on the Hub; --artifact NAME is the same.")
    parser.add_argument("--revision", type=str, default=None, help="Tag, branch or commit on the Hub.")
    parser.add_argument(
        "--streaming", action="store_true", help="Read soft labels from the Hub as they are needed; none are kept."
    )
    parser.add_argument(
        "--online",
        action="store_true",
        help="Make soft labels on the fly with the artifact's teachers; --labels online is the same.",
    )
    parser.add_argument(
        "--output",
        type=str,
        default=None,
        help="Folder for results; the run folder, or runs/ORG--NAME for an artifact on the Hub, if not given.",
    )
    parser.add_argument(
        "--source.name", type=str, default=None, help="Where the test images are, if not where they were."
    )
    parser.add_argument(
        "--processes_per_student",
        type=int,
        default=1,
        help="How many processes of a launch train one student together at least; more do where there are more of them"
        " than seeds. The student is the same up to rounding.",
    )
    parser.add_class_arguments(StudentConfig)
    parser.set_defaults(name=None, student=None)
    return parser


def _named_protocol(name: str, own: StudentConfig) -> StudentConfig:
    """A protocol by its name, for the artifact's own student and number of seeds."""
    if name not in PROTOCOLS:
        raise ConfigError(f"{unknown('protocol', name, PROTOCOLS)}; set --protocol")
    return build(StudentConfig, protocol_section(name) | {"student": own.student, "num_seeds": own.num_seeds})


def examining_parser(program: str, description: str) -> ArgumentParser:
    """A parser of what every command takes that measures an artifact and trains nothing."""
    parser = new_parser(program, description)
    parser.add_argument("artifact", type=str, help="Run folder, or ORG/NAME on the Hub.")
    parser.add_argument("--revision", type=str, default=None, help="Tag, branch or commit on the Hub.")
    parser.add_argument("--source.name", type=str, default=None, help="Where the source is, if not where it was.")
    parser.add_argument("--output", type=str, default=None, help="Folder for the numbers; see train-student.")
    return parser


def table_summary(output: Path, code: ExitCode = ExitCode.DONE) -> Summary:
    """The end of a command that has written a table; `output` is its name without suffix."""
    files = {name: with_suffix(output, suffix) for name, suffix in (("table", "md"), ("csv", "csv"), ("json", "json"))}
    return Summary(files, read_json(files["json"]) or {}, code=code)


def table_place(asked: str | None, place: ResultFolder, name: str) -> Path:
    """A table's name without suffix: the one that is asked for, or `name` beside the results.

    Raises:
        RunFolderError: If nothing can be written there.
    """
    output = Path(asked or place.folder.parent / name)
    require_place(output.parent)
    return output


def protocol_given(
    parser: ArgumentParser, words: Sequence[str], manifest: Manifest, name: str | None, student: str | None
) -> StudentConfig:
    """The protocol that a command line asks for; what it leaves open is the artifact's own, or of a protocol's name.

    Args:
        parser: From `student_parser`.
        words: The command line.
        manifest: The artifact's.
        name: Protocol that is asked for; its values are those that the name stands for.
        student: Architecture that is asked for; for another than the artifact's, what depends on it is left open.
    """
    own = manifest.settings("student", StudentConfig)
    if name is not None:
        values = protocol_section(name) | {"student": student or own.student}
    elif student is None or full_name(student) == own.student:
        values = asdict(own)
    else:
        values = asdict(own) | dict.fromkeys(("lr", "eta", "batch_size")) | {"student": student}
    parser.set_defaults(values)
    parsed = parse(parser, words).as_dict()
    return build(StudentConfig, {field.name: parsed[field.name] for field in fields(StudentConfig)})


def spell_out_online(words: Sequence[str]) -> list[str]:
    """`--labels online` as `--online`: how labels come about, not of which kind they are."""
    spelled: list[str] = []
    for word in words:
        if word == "online" and spelled[-1:] == ["--labels"]:
            spelled[-1] = "--online"
        else:
            spelled.append("--online" if word == "--labels=online" else word)
    return spelled
