"""Measuring an artifact: `train-student`, and `baselines` for what it must be compared with."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace

from accelerate import PartialState

from fadrm_hf.arguments import new_parser, parse, run_from_recipe
from fadrm_hf.baselines import comparison_table, measure_baselines
from fadrm_hf.commands.output import as_typed, console, say
from fadrm_hf.config import StudentConfig
from fadrm_hf.errors import ConfigError, FadrmError
from fadrm_hf.loader import Distilled, load_distilled
from fadrm_hf.progress import Reporter
from fadrm_hf.results import describe_result, record_result
from fadrm_hf.shards import WorkFolder, join_world
from fadrm_hf.sources import Source, load_source
from fadrm_hf.train_student import train_students


@contextmanager
def _student_options() -> Iterator[None]:
    """Messages name the options as a command spells them that has those of the student without `student.`."""
    try:
        yield
    except FadrmError as error:
        raise type(error)(re.sub(r"\bstudent\.(?=[a-z])", "", str(error))) from error


@_student_options()
def train_student_command(arguments: Sequence[str]) -> int:
    """`fadrm-hf train-student ARTIFACT`."""
    parser = new_parser(
        "fadrm-hf train-student", "Train students from an artifact alone and record how good they are."
    )
    parser.add_argument("artifact", type=str, help="Run folder.")
    parser.add_argument(
        "--source.name", type=str, default=None, help="Where the test images are, if not where they were."
    )
    parser.add_class_arguments(StudentConfig)
    parser.set_defaults(student=None)
    parsed = parse(parser, arguments).as_dict()
    distilled = load_distilled(parsed["artifact"])
    student = parsed.pop("student") or distilled.manifest.config["student"]["student"]
    given = {field.name: parsed[field.name] for field in fields(StudentConfig) if field.name in parsed}
    config = StudentConfig(student=student, **given)
    device = _only_process().device
    source = _source_of(distilled, parsed["source"]["name"])
    work = WorkFolder(distilled.folder)
    result = train_students(distilled, source, config, work.path, Reporter(work.log), device)
    path = record_result(distilled.folder, result | {"command": as_typed("train-student", arguments)})
    say(describe_result(result))
    say(f"{path}")
    return 0


@_student_options()
def baselines_command(arguments: Sequence[str]) -> int:
    """`fadrm-hf baselines ARTIFACT`."""
    parser = new_parser("fadrm-hf baselines", "Train students on what an artifact must be compared with.")
    parser.add_argument("artifact", type=str, help="Run folder.")
    parser.add_argument("--student", type=str, default=None, help="Architecture; the artifact's own if not given.")
    parser.add_argument(
        "--num_seeds", type=int, default=None, help="Students per row; the artifact's own if not given."
    )
    parser.add_argument("--rows", type=list[str], default=["random_real", "distilled", "whole"], help="Which images.")
    parser.add_argument("--source.name", type=str, default=None, help="Where the source is, if not where it was.")
    parsed = parse(parser, arguments)
    distilled = load_distilled(parsed.artifact)
    run = run_from_recipe(distilled.manifest.config, parsed.artifact)
    given = {k: v for k, v in (("student", parsed.student), ("num_seeds", parsed.num_seeds)) if v is not None}
    where = replace(run.source, name=parsed.source.name or run.source.name)
    run = replace(run, student=replace(run.student, **given), source=where)
    source = _source_of(distilled, parsed.source.name)
    device = _only_process().device
    measure_baselines(run, source, parsed.rows, as_typed("baselines", arguments), device, quiet=False)
    console.print(comparison_table(distilled.folder, run.student.student))
    _print_where_to_look(distilled)
    return 0


def _only_process() -> PartialState:
    """The process of a command that trains students one after another; several would all do the same."""
    state = join_world()
    if state.num_processes > 1:
        raise ConfigError(
            f"students train in one process, {state.num_processes} were launched; use accelerate launch "
            "--num_processes 1, or the command without accelerate"
        )
    return state


def _source_of(distilled: Distilled, name: str | None) -> Source:
    """The artifact's source, for its test images; refused if its classes are not the artifact's."""
    run = run_from_recipe(distilled.manifest.config, str(distilled.folder))
    source = load_source(replace(run.source, name=name or run.source.name))
    if source.class_map.hash != distilled.manifest.classes.hash:
        raise ConfigError(
            f"source {source.config.name} has other classes than {distilled.folder}, or in another order; give the "
            "source it was distilled from to --source.name"
        )
    return source


def _print_where_to_look(distilled: Distilled) -> None:
    stages = ", ".join(f"{name} {stage.seconds:.0f} s" for name, stage in distilled.manifest.stages.items())
    say(f"stages: {stages}")
    say(f"card: {distilled.folder / 'README.md'}   pictures: {distilled.folder / 'assets'}")
