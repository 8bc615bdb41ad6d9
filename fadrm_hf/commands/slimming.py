"""A network slimmed by an artifact alone: `slim`."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fadrm_hf.artifact.location import LocalFolder, Location
from fadrm_hf.artifact.recorded_source import place_of_source, source_of
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
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.baselines import random_real_artifact
from fadrm_hf.evaluation.measured_tables import mean_and_std, with_suffix, write_table
from fadrm_hf.evaluation.network_slimming import STAGES, Slimming, describe, prepare_slimming, slim, usual_student
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.hub import open_artifact
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.methods import title_of
from fadrm_hf.pipeline.arguments import parse, run_from_recipe
from fadrm_hf.report.card.text import render
from fadrm_hf.report.card.writing import machine_line
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.accuracy import summarise
from fadrm_hf.training.loader import load_distilled

_DESCRIPTION = """Train a VGG on an artifact with a penalty on the scales of BatchNorm, take out its least channels,
and train what is left on the artifact again; accuracies, parameters and multiply-adds before and after, in one table.

Options are those of fadrm-hf train-student, and --ratio, --scale_penalty, --tuning_epochs, --control, --table. What
is measured is not measured again."""
_RANDOM_REAL = "random_real"
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
        "--control",
        type=str,
        default=None,
        help="What the same is done with, to tell what the images are worth: random_real, which makes random real "
        "images with labels of the same teachers, as baselines does, or any other artifact of the same source.",
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
    reporter = Reporter(place.work.log, quiet=not state.is_main_process)

    def prepare(images: Location) -> Slimming:
        distilled = load_distilled(images, streaming=asked.streaming, online=asked.online)
        source = source_of(images, asked.source.name)
        return prepare_slimming(distilled, source, given, asked.ratio, asked.scale_penalty, asked.tuning_epochs)

    slimmings = [prepare(location)]  # before the control is made, so that what cannot work is refused first
    if asked.control is not None:
        slimmings.append(prepare(_control(asked.control, location, asked.source.name, not state.is_main_process)))
    measured = [(slimming, slim(slimming, place.work.path, reporter, state)) for slimming in slimmings]
    if state.is_main_process:
        _write(measured, as_typed("slim", arguments), output)
        say(f"{with_suffix(output, 'md')}")
    return table_summary(output) if state.is_main_process else Summary()


def _control(asked: str, location: Location, source: str | None, quiet: bool) -> Location:
    """The artifact that an artifact is held against.

    Raises:
        ConfigError: If random images are to be made beside an artifact that is no folder of one's own.
    """
    if asked != _RANDOM_REAL:
        return open_artifact(asked)
    if pinned_repository(location):
        raise ConfigError(
            f"--control {_RANDOM_REAL} makes its images beside the artifact, and {location.name} is on the Hub; give "
            "a run folder, or the name of an artifact of random real images to --control"
        )
    run = run_from_recipe(location.manifest.config, str(location.folder))
    where = replace(run.source, name=place_of_source(location, source))
    return LocalFolder(random_real_artifact(replace(run, source=where), quiet))


Measured = tuple[Slimming, Sequence[dict[str, Any]]]  # what was slimmed, and what came out for each seed


def _write(measured: Sequence[Measured], command: str, output: Path) -> None:
    """The stages as Markdown and CSV, and every value as JSON."""
    slimming, seeds = measured[0]
    manifest = slimming.distilled.manifest
    shared = {
        "title": f"{manifest.source_title} by {title_of(manifest.method)}, {manifest.ipc} images per class: a network "
        "slimmed by the distilled images alone",
        "command": command,
    } | describe(slimming)
    machine = describe_machine()
    stages = [{"images": _images(each)} | _stage(name, found) for each, found in measured for name in STAGES]
    control = [{"control": {"images": _images(each), "seeds": found}} for each, found in measured[1:]]
    details = {"seeds": seeds, "machine": machine, "versions": library_versions()}
    text = render(
        "slimming.md",
        **shared,
        name=output.name,
        rows=[_cells(stage) for stage in stages],
        worth=_worth(measured),
        widths=[[seed["widths"]["after"] for seed in found] for _, found in measured],
        whole=seeds[0]["widths"]["before"],
        num_seeds=len(seeds),
        machine=machine_line(machine),
    )
    write_table(output, shared | details | (control[0] if control else {}), stages, text)


def _images(slimming: Slimming) -> str:
    """What the table calls the images of an artifact."""
    manifest = slimming.distilled.manifest
    return f"{title_of(manifest.method)}, {manifest.ipc} per class"


def _cells(stage: dict[str, Any]) -> list[str]:
    return [
        stage["images"],
        _TITLES[stage["stage"]],
        f"{stage['multiply_adds'] / 1e6:.3g} M",
        f"{stage['parameters'] / 1e6:.3g} M",
        *(mean_and_std(stage[f"{name}_mean"], stage[f"{name}_std"]) for name in ("top1", "top5")),
    ]


def _worth(measured: Sequence[Measured]) -> str | None:
    """How much better the slimmed network is for the images than for the control, in points; `None` without one."""
    if len(measured) < 2:
        return None
    own, other = (summarise([seed["top1"][STAGES[-1]] for seed in seeds]) for _, seeds in measured)
    spread = f" ± {100 * math.hypot(own['std'], other['std']):.1f}" if len(measured[0][1]) > 1 else ""
    return f"{100 * (own['mean'] - other['mean']):+.1f}{spread} points"


def _stage(name: str, seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row by column: sizes are means over seeds, accuracies fractions."""
    when = "before" if name == "trained" else "after"
    accuracies = {key: summarise([seed[key][name] for seed in seeds]) for key in ("top1", "top5")}
    return {
        "stage": name,
        **{key: round(sum(seed[key][when] for seed in seeds) / len(seeds)) for key in ("multiply_adds", "parameters")},
        "channels": round(sum(sum(seed["widths"][when]) for seed in seeds) / len(seeds), 1),
        **{f"{key}_{kind}": round(value[kind], 6) for key, value in accuracies.items() for kind in ("mean", "std")},
    }
