"""A network slimmed by an artifact alone: `slim`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fadrm_hf.arguments import parse
from fadrm_hf.artifact.recorded_source import source_of
from fadrm_hf.card.text import render
from fadrm_hf.card.writing import machine_line
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
from fadrm_hf.hub import open_artifact
from fadrm_hf.loader import load_distilled
from fadrm_hf.machine import describe_machine, library_versions
from fadrm_hf.measured_tables import mean_and_std, with_suffix, write_table
from fadrm_hf.network_slimming import STAGES, Slimming, describe, prepare_slimming, slim, usual_student
from fadrm_hf.progress import Reporter
from fadrm_hf.results import result_folder
from fadrm_hf.scores import summarise
from fadrm_hf.shards import join_world

_DESCRIPTION = """Train a VGG on an artifact with a penalty on the scales of BatchNorm, take out its least channels,
and train what is left on the artifact again; accuracies and parameters before and after, in one table.

Options are those of fadrm-hf train-student, and --ratio, --scale_penalty, --tuning_epochs, --table. What is measured
is not measured again."""
_TITLES = {
    "trained": "trained, with the penalty",
    "pruned": "channels taken out",
    "tuned": "trained again",
}


@student_options()
def slim_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf slim ARTIFACT --ratio 0.5`."""
    words = spell_out_online(arguments)
    parser = student_parser("fadrm-hf slim", _DESCRIPTION)
    parser.add_argument("--ratio", type=float, default=0.5, help="Share of all channels that is taken out.")
    parser.add_argument(
        "--scale_penalty", type=float, default=1e-4, help="Weight of the L1 norm of BatchNorm's scales (lambda)."
    )
    parser.add_argument(
        "--tuning_epochs", type=int, default=None, help="Length of the second training; the first one's if not given."
    )
    parser.add_argument(
        "--table", type=str, default=None, help="Table's name without suffix; slim-... beside the results."
    )
    asked = parse(parser, words)
    location = open_artifact(asked.artifact, asked.revision)
    place = result_folder(location, asked.output)
    manifest = location.manifest
    student = asked.student or usual_student(manifest.pixels.size)
    given = protocol_given(parser, words, manifest, asked.name, student)
    name = f"slim-{place.folder.name}-{given.name}-{given.labels}-{given.student.replace('/', '_')}-{asked.ratio:g}"
    output = table_place(asked.table, place, name)
    state = join_world()
    distilled = load_distilled(location, streaming=asked.streaming, online=asked.online)
    source = source_of(location, asked.source.name)
    slimming = prepare_slimming(distilled, source, given, asked.ratio, asked.scale_penalty, asked.tuning_epochs)
    reporter = Reporter(place.work.log, quiet=not state.is_main_process)
    seeds = slim(slimming, place.work.path, reporter, state)
    if state.is_main_process:
        _write(slimming, seeds, as_typed("slim", arguments), output)
        say(f"{with_suffix(output, 'md')}")
    return table_summary(output) if state.is_main_process else Summary()


def _write(slimming: Slimming, seeds: Sequence[dict[str, Any]], command: str, output: Path) -> None:
    """The stages as Markdown and CSV, and every value as JSON."""
    manifest = slimming.distilled.manifest
    shared = {
        "title": f"{manifest.source_title} by {manifest.method}, {manifest.ipc} images per class: a network "
        "slimmed by the distilled images alone",
        "command": command,
    } | describe(slimming)
    machine = describe_machine()
    details = {"seeds": seeds, "machine": machine, "versions": library_versions()}
    stages = [_stage(name, seeds) for name in STAGES]
    rows = [
        [
            _TITLES[stage["stage"]],
            f"{stage['parameters'] / 1e6:.3g} M",
            *(mean_and_std(stage[f"{name}_mean"], stage[f"{name}_std"]) for name in ("top1", "top5")),
        ]
        for stage in stages
    ]
    text = render(
        "slimming.md",
        **shared,
        name=output.name,
        rows=rows,
        widths=[seed["widths"]["after"] for seed in seeds],
        whole=seeds[0]["widths"]["before"],
        num_seeds=len(seeds),
        machine=machine_line(machine),
    )
    write_table(output, shared | details, stages, text)


def _stage(name: str, seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row by column: parameters are the mean over seeds, accuracies fractions."""
    when = "before" if name == "trained" else "after"
    accuracies = {key: summarise([seed[key][name] for seed in seeds]) for key in ("top1", "top5")}
    return {
        "stage": name,
        "parameters": round(sum(seed["parameters"][when] for seed in seeds) / len(seeds)),
        "channels": round(sum(sum(seed["widths"][when]) for seed in seeds) / len(seeds), 1),
        **{f"{key}_{kind}": round(value[kind], 6) for key, value in accuracies.items() for kind in ("mean", "std")},
    }
