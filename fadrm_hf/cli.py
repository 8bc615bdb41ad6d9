"""`fadrm-hf COMMAND`: the same programs as `accelerate launch recipes/COMMAND.py`.

    fadrm-hf distill --config recipes/configs/digits/fadrm_ipc10.yaml     source -> artifact
    fadrm-hf train-teacher --architecture resnet18 --source.name DATASET   a teacher of your own
    fadrm-hf train-student runs/fadrm-digits-ipc10 --student timm/resnet18 artifact -> accuracy
    fadrm-hf baselines runs/fadrm-digits-ipc10                             what to compare it with
    fadrm-hf verify runs/fadrm-digits-ipc10                                hashes, tables, sampled labels
    fadrm-hf methods | students | sources                                  what there is, by name

Exit codes: 0 done; 1 verify found differences; 2 a mistake in the input, named; 130 interrupted.
"""

import errno
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from rich.console import Console
from torch import Tensor

from fadrm_hf.arguments import new_parser, parse, parse_run, run_from_recipe
from fadrm_hf.artifact.manifest import MANIFEST_NAME, read_manifest
from fadrm_hf.artifact.recorded_teachers import recorded_labeller
from fadrm_hf.baselines import comparison_table, measure_baselines
from fadrm_hf.config import SourceConfig, SqueezeConfig, StudentConfig, require
from fadrm_hf.distill import distill
from fadrm_hf.errors import ConfigError, FadrmError, unknown
from fadrm_hf.loader import Distilled, load_distilled
from fadrm_hf.methods import METHODS
from fadrm_hf.presets import PRESETS, resolve_source, resolve_squeeze
from fadrm_hf.progress import Reporter
from fadrm_hf.results import describe_result, record_result
from fadrm_hf.shards import WorkFolder, join_world
from fadrm_hf.sources import Source, load_source
from fadrm_hf.students import list_students
from fadrm_hf.teachers.squeeze import squeeze
from fadrm_hf.train_student import train_students
from fadrm_hf.verify import Problem, verify_artifact
from fadrm_hf.views import LabelViews

_out = Console()
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is returned."""
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if command in ("-h", "--help"):
        _say((__doc__ or "").strip())
        return 0
    try:
        if command not in COMMANDS:
            raise ConfigError(unknown("command", command, COMMANDS))
        return COMMANDS[command](rest)
    except FadrmError as error:
        _fail(str(error))
        return 2
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        where = f" at {error.filename}" if error.filename else ""
        _fail(
            f"{error.strerror}{where}; what is finished is kept: free some space or make the folder writable, then "
            "run the same command again to go on"
        )
        return 2
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to go on where it was")
        return 130


def distill_command(arguments: Sequence[str]) -> int:
    """`fadrm-hf distill`."""
    distill(parse_run(arguments))
    return 0


def train_teacher_command(arguments: Sequence[str]) -> int:
    """`fadrm-hf train-teacher`."""
    parser = new_parser("fadrm-hf train-teacher", "Train a teacher on a source and save it as a timm model directory.")
    parser.add_argument(
        "--architecture", type=str, default="resnet18", help="timm's name; <= 64 px: small-image stem."
    )
    parser.add_argument(
        "--output", type=str, default=None, help="Folder; runs/teachers/ARCHITECTURE-SOURCE if not given."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of weights, order and augmentation.")
    parser.add_class_arguments(SourceConfig, "source")
    parser.add_class_arguments(SqueezeConfig, "squeeze")
    parsed = parse(parser, arguments)
    source_config = resolve_source(SourceConfig(**parsed.source.as_dict()))
    recipe = resolve_squeeze(SqueezeConfig(**parsed.squeeze.as_dict()), source_config)
    name = f"{parsed.architecture}-{Path(source_config.name).name}"
    folder = Path(parsed.output or f"runs/teachers/{name}")
    source = load_source(source_config)
    reporter = Reporter(WorkFolder(folder).log)
    squeeze(source, parsed.architecture, recipe, folder, parsed.seed, reporter, join_world().device)
    reporter.say(f"{folder} is finished; use it as --teachers.names timm/local-dir:{folder}")
    return 0


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
    path = record_result(distilled.folder, result | {"command": _typed("train-student", arguments)})
    _say(describe_result(result))
    _say(f"{path}")
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
    measure_baselines(run, source, parsed.rows, _typed("baselines", arguments), device, quiet=False)
    _out.print(comparison_table(distilled.folder, run.student.student))
    _print_where_to_look(distilled)
    return 0


def verify_command(arguments: Sequence[str]) -> int:
    """`fadrm-hf verify FOLDER`."""
    parser = new_parser("fadrm-hf verify", "Recompute every hash and relabel sampled views with the teachers.")
    parser.add_argument("artifact", type=str, help="Run folder.")
    parser.add_argument("--num_steps", type=int, default=4, help="Labelled batches to replay.")
    parsed = parse(parser, arguments)
    require(parsed.num_steps >= 0, "num_steps", parsed.num_steps, "0 or more")
    problems = _verify(Path(parsed.artifact), parsed.num_steps)
    for problem in problems:
        _say(str(problem))
    _say(f"{parsed.artifact}: {len(problems)} problems" if problems else f"{parsed.artifact}: sound")
    return 1 if problems else 0


def _verify(folder: Path, num_steps: int) -> list[Problem]:
    """All checks; without its teachers, all but the replay of soft labels, which then counts as a problem."""
    manifest = read_manifest(folder)  # without a readable one there is nothing to check anything against
    try:
        labeller = recorded_labeller(folder, manifest, join_world().device) if num_steps else None
    except FadrmError as error:
        return [
            *verify_artifact(folder, 0),
            Problem(MANIFEST_NAME, "teachers", f"labels cannot be made again: {error}"),
        ]
    if labeller is None:
        return verify_artifact(folder, 0)

    def relabel(images: Tensor, rows: dict[str, np.ndarray]) -> Tensor:
        views = LabelViews.from_columns({name: torch.from_numpy(column) for name, column in rows.items()})
        return labeller.label(images, views)

    return verify_artifact(folder, num_steps, relabel)


def list_command(catalogue: Callable[[], dict[str, str]]) -> Callable[[Sequence[str]], int]:
    """A command that prints names and descriptions."""

    def run(arguments: Sequence[str]) -> int:
        if arguments and arguments[0] not in ("-h", "--help"):
            raise ConfigError(f"unrecognized arguments: {shlex.join(arguments)}; expected none: this prints a list")
        for name, description in catalogue().items():
            _say(f"{name:<28} {description}")
        return 0

    return run


def _methods() -> dict[str, str]:
    return {name: (method.__doc__ or "").strip().splitlines()[0] for name, method in METHODS.items()}


def _sources() -> dict[str, str]:
    return {
        name: f"{preset.num_classes:,} classes, {preset.size} px, {', '.join(preset.hub_ids) or 'bundled'}"
        for name, preset in PRESETS.items()
    }


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "distill": distill_command,
    "train-teacher": train_teacher_command,
    "train-student": train_student_command,
    "baselines": baselines_command,
    "verify": verify_command,
    "methods": list_command(_methods),
    "students": list_command(list_students),
    "sources": list_command(_sources),
}


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


def _typed(command: str, arguments: Sequence[str]) -> str:
    """What was typed, without the folders of this machine."""
    words = [Path(word).name if Path(word).is_absolute() or word.startswith("..") else word for word in arguments]
    return shlex.join(["fadrm-hf", command, *words])


def _print_where_to_look(distilled: Distilled) -> None:
    stages = ", ".join(f"{name} {stage.seconds:.0f} s" for name, stage in distilled.manifest.stages.items())
    _say(f"stages: {stages}")
    _say(f"card: {distilled.folder / 'README.md'}   pictures: {distilled.folder / 'assets'}")


def _say(line: str) -> None:
    """Print a line as it is: what is piped or copied must not be broken at the width of a terminal."""
    _out.print(line, highlight=False, markup=False, soft_wrap=True)


def _fail(message: str) -> None:
    Console(stderr=True).print(f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
