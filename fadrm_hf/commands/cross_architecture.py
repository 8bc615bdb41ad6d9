"""One artifact, many students: `cross-architecture`."""

from collections.abc import Sequence
from dataclasses import replace

from jsonargparse import ArgumentParser

from fadrm_hf.artifact.recorded_source import source_of
from fadrm_hf.commands.measuring import (
    protocol_given,
    spell_out_online,
    student_options,
    student_parser,
    table_place,
    table_summary,
)
from fadrm_hf.commands.output import as_typed, say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import require
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.cross_architecture import examine, prepare_examination
from fadrm_hf.evaluation.measured_tables import with_suffix
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.hub import open_artifact
from fadrm_hf.pipeline.arguments import parse
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.loader import load_distilled

_DESCRIPTION = """Train several students from one artifact by one protocol, and write one table with published numbers.

Options are those of fadrm-hf train-student, but for --students, and hold for all of them. Learning rate and η are
those of the tables for each student; results that are there under the same settings are used again."""


@student_options("--students")
def cross_architecture_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf cross-architecture ARTIFACT --students '[A, B]'`."""
    words = spell_out_online(list(_spell_out(arguments)))
    parser = _parser()
    asked = parse(parser, words)
    students = asked.students
    require(bool(students), "students", students, "a list of students, such as '[resnet18,swin_tiny]'")
    location = open_artifact(asked.artifact, asked.revision)
    place = result_folder(location, asked.output)
    given = [protocol_given(parser, words, location.manifest, asked.name, student) for student in students]
    protocols = [replace(protocol, student=student) for protocol, student in zip(given, students, strict=True)]
    name = f"cross-architecture-{place.folder.name}-{protocols[0].name}"
    output = table_place(asked.table, place, name)
    state = join_world()
    distilled = load_distilled(location, streaming=asked.streaming, online=asked.online)
    source = source_of(location, asked.source.name)
    examination = prepare_examination(distilled, source, protocols, place)
    reporter = Reporter(place.work.log, quiet=not state.is_main_process)
    command, together = as_typed("cross-architecture", arguments), asked.processes_per_student
    examine(examination, output, command, reporter, state, together)
    if state.is_main_process:
        say(f"{with_suffix(output, 'md')}")
    return table_summary(output) if state.is_main_process else Summary()


def _parser() -> ArgumentParser:
    parser = student_parser("fadrm-hf cross-architecture", _DESCRIPTION)
    parser.add_argument(
        "--students", type=list[str], default=[], help="Short or full names; fadrm-hf students lists those of papers."
    )
    parser.add_argument(
        "--protocol", type=str, default=None, help="YAML file, or a protocol's name; the artifact's own if not given."
    )
    parser.add_argument(
        "--table",
        type=str,
        default=None,
        help="Table's name without suffix; cross-architecture-... beside the results.",
    )
    return parser


def _spell_out(arguments: Sequence[str]) -> list[str]:
    """`--protocol FILE` as `--config FILE`, `--protocol NAME` as `--name NAME`, which train-student has.

    Raises:
        ConfigError: For `--student`, which is one.
    """
    words: list[str] = []
    for word in arguments:
        option, _, value = word.partition("=")
        if option == "--student":
            raise ConfigError("--student names one student; here --students names them all: --students '[A, B]'")
        if option == "--protocol" and value:
            words += _named(value)
        elif words[-1:] == ["--protocol"]:
            words[-1:] = _named(word)
        else:
            words.append(word)
    return words


def _named(protocol: str) -> list[str]:
    is_file = protocol.endswith((".yaml", ".yml")) or "/" in protocol
    return ["--config" if is_file else "--name", protocol]
