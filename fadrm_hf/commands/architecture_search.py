"""Whether an artifact ranks architectures as the whole dataset does: `rank-architectures`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fadrm_hf.artifact.recorded_source import source_of
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.cross_architecture import refuse_one_student
from fadrm_hf.commands.measuring import protocol_given, student_options, table_place, table_summary
from fadrm_hf.commands.options.training import RankArchitecturesOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config.datasets import resolve_squeeze
from fadrm_hf.evaluation.architecture_search import (
    Search,
    check_architectures,
    correlations,
    prepare_search,
    search,
)
from fadrm_hf.evaluation.measured_tables import mean_and_std, with_suffix, write_table
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.hub import open_artifact
from fadrm_hf.report.card.text import machine_line, render
from fadrm_hf.report.pictures.accuracy import draw_ranking
from fadrm_hf.runtime.files import write_bytes
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import require_place
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.runtime.terminal import duration
from fadrm_hf.training.accuracy import summarise
from fadrm_hf.training.loader import load_distilled


@student_options("--architectures")
def rank_architectures_command(call: Call) -> Summary:
    """Run `fadrm-hf rank-architectures ARTIFACT --architectures '[A, B, C]'`."""
    options: RankArchitecturesOptions = call.options
    refuse_one_student(call, "--architectures", "'[A,B,C]'")
    architectures = check_architectures(options.architectures)
    location = open_artifact(options.artifact, options.revision)
    place = result_folder(location, options.output)
    protocols = [protocol_given(call, location.manifest, student) for student in architectures]
    name = f"rank-architectures-{place.folder.name}-{protocols[0].name}-{protocols[0].labels}"
    output = table_place(options.table, place, name)
    state = join_world()
    source = source_of(location, options.source.name)
    whole = Path(options.whole or f"runs/whole-{Path(location.manifest.source.name).name}")
    networks = Path(options.teachers)
    for folder in (whole, networks):
        require_place(folder)
    distilled = load_distilled(location, streaming=options.streaming, online=options.makes_labels)
    recipe = resolve_squeeze(options.squeeze, source.config)
    prepared = prepare_search(distilled, source, protocols, place, recipe, networks, whole, output)
    reporter = Reporter(place.work.log, quiet=not state.is_main_process)
    rows = search(prepared, output, call.typed, reporter, state, options.processes_per_student)
    if not state.is_main_process:
        return Summary()
    _write(prepared, rows, call.typed, output)
    return table_summary(output)


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
