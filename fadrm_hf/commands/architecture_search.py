"""Whether an artifact ranks architectures as the whole dataset does: `rank-architectures`."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

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
from fadrm_hf.config import SqueezeConfig, build
from fadrm_hf.config.datasets import WHOLE_DATASET, resolve_squeeze
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.architecture_search import (
    SMALL_ARCHITECTURES,
    Search,
    check_architectures,
    correlations,
    prepare_search,
    search,
)
from fadrm_hf.evaluation.measured_tables import mean_and_std, with_suffix, write_table
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.hub import open_artifact
from fadrm_hf.pipeline.arguments import parse
from fadrm_hf.report.card.text import duration, render
from fadrm_hf.report.card.writing import machine_line
from fadrm_hf.report.pictures import draw_ranking
from fadrm_hf.runtime.files import write_bytes
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import require_place
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.accuracy import summarise
from fadrm_hf.training.loader import load_distilled

_DESCRIPTION = """Train several architectures on an artifact and on its whole source; say how alike the rankings are.

Options are those of fadrm-hf train-student, but for --architectures, and hold for all of them; --squeeze.X is how the
whole source is trained on, by default as in FADRM's Table 7. Results that are there under the same settings are used
again, also those of cross-architecture and whole-dataset."""


@student_options("--architectures")
def rank_architectures_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf rank-architectures ARTIFACT --architectures '[A, B, C]'`."""
    words = spell_out_online(arguments)
    if any(word.partition("=")[0] == "--student" for word in words):
        raise ConfigError(
            "--student names one student; here --architectures names them all: --architectures '[A,B,C]'"
        )
    parser = _parser()
    asked = parse(parser, words)
    architectures = check_architectures(asked.architectures)
    location = open_artifact(asked.artifact, asked.revision)
    place = result_folder(location, asked.output)
    given = [protocol_given(parser, words, location.manifest, asked.name, each) for each in architectures]
    protocols = [replace(each, student=student) for each, student in zip(given, architectures, strict=True)]
    name = f"rank-architectures-{place.folder.name}-{protocols[0].name}-{protocols[0].labels}"
    output = table_place(asked.table, place, name)
    state = join_world()
    source = source_of(location, asked.source.name)
    whole = Path(asked.whole or f"runs/whole-{Path(location.manifest.source.name).name}")
    networks = Path(asked.teachers)
    for folder in (whole, networks):
        require_place(folder)
    distilled = load_distilled(location, streaming=asked.streaming, online=asked.online)
    recipe = resolve_squeeze(build(SqueezeConfig, asked.squeeze.as_dict()), source.config)
    prepared = prepare_search(distilled, source, protocols, place, recipe, networks, whole, output)
    reporter = Reporter(place.work.log, quiet=not state.is_main_process)
    command = as_typed("rank-architectures", arguments)
    rows = search(prepared, output, command, reporter, state, asked.processes_per_student)
    if state.is_main_process:
        _write(prepared, rows, command, output)
        say(f"{with_suffix(output, 'md')}")
    return table_summary(output) if state.is_main_process else Summary()


def _parser() -> ArgumentParser:
    parser = student_parser("fadrm-hf rank-architectures", _DESCRIPTION)
    parser.add_argument(
        "--architectures",
        type=list[str],
        default=list(SMALL_ARCHITECTURES),
        help="Short or full names, at least three; twelve small networks if not given.",
    )
    parser.add_argument(
        "--whole",
        type=str,
        default=None,
        help="Where results on the whole source are filed, as whole-dataset --output; runs/whole-SOURCE if not given.",
    )
    parser.add_argument("--teachers", type=str, default="runs/teachers", help="Where networks of these are kept.")
    parser.add_argument(
        "--table", type=str, default=None, help="Table's name without suffix; rank-architectures-... beside results."
    )
    parser.add_class_arguments(SqueezeConfig, "squeeze")
    recipe = asdict(WHOLE_DATASET) | {"flip_probability": None}  # the dataset's: digits are not mirrored
    parser.set_defaults({f"squeeze.{name}": value for name, value in recipe.items()})
    return parser


def _write(prepared: Search, rows: Sequence[dict[str, Any]], command: str, output: Path) -> None:
    """The ranking as Markdown, CSV and a picture, and every value as JSON."""
    examination, recipe = prepared.examination, prepared.bound.recipe
    manifest, protocol = examination.distilled.manifest, examination.protocols[0]
    found, machine = correlations(rows), describe_machine()
    shared = {
        "title": f"Architectures ranked by {manifest.source_title}, {manifest.ipc} images per class by "
        f"{manifest.method}, and by all of its images",
        "command": command,
        "protocol": protocol.name,
        "labels": protocol.labels,
        "epochs": protocol.epochs,
        "whole_epochs": recipe.epochs,
        "num_seeds": protocol.num_seeds,
    }
    details = {"recipe": asdict(recipe), "machine": machine, "versions": library_versions()}
    plain = [{name: value for name, value in row.items() if not name.endswith("_values")} for row in rows]
    write_bytes(with_suffix(output, "png"), draw_ranking(rows))
    seconds = {side: duration(sum(row[f"{side}_seconds"] for row in rows)) for side in ("distilled", "whole")}
    text = render(
        "architecture_search.md",
        **shared,
        name=output.name,
        rows=[_line(row) for row in sorted(rows, key=lambda row: -row["whole_mean"])],
        correlations=[_correlation(name, found) for name in ("spearman", "kendall")],
        num_architectures=len(rows),
        chance=found["chance"],
        seconds=seconds,
        machine=machine_line(machine),
    )
    write_table(output, shared | {"correlations": found, "architectures": rows} | details, plain, text)


def _line(row: dict[str, Any]) -> list[str]:
    sides = ("whole", "distilled")
    return [
        row["title"],
        f"{row['parameters'] / 1e6:.3g} M",
        *(mean_and_std(row[f"{side}_mean"], row[f"{side}_std"]) for side in sides),
        *(f"{row[f'{side}_rank']:g}" for side in sides),
    ]


def _correlation(name: str, found: dict[str, Any]) -> list[str]:
    """Of mean accuracies, and over seeds where there are several; a dash for what is not defined."""
    title = {"spearman": "Spearman's ρ", "kendall": "Kendall's τ-b"}[name]
    values = [value for value in found["by_seed"][name] if value is not None]
    whole = "–" if found[name] is None else f"{found[name]:.3f}"
    summary = summarise(values) if len(values) > 1 else None
    return [title, whole, f"{summary['mean']:.3f} ± {summary['std']:.3f}" if summary else "–"]
