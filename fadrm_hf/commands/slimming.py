"""A network slimmed by an artifact alone: `slim`."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fadrm_hf.artifact.location import LocalFolder, Location
from fadrm_hf.artifact.recorded_source import place_of_source, source_of
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.measuring import protocol_given, student_options, table_place, table_summary
from fadrm_hf.commands.options.training import SlimOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.baselines import random_real_artifact
from fadrm_hf.evaluation.measured_tables import mean_and_std, write_table
from fadrm_hf.evaluation.network_slimming import STAGES, Slimming, describe, prepare_slimming, slim, usual_student
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.hub import open_artifact
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.methods import title_of
from fadrm_hf.pipeline.settings import run_from_recipe
from fadrm_hf.report.card.text import machine_line, render
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.accuracy import summarise
from fadrm_hf.training.loader import load_distilled

_RANDOM_REAL = "random_real"
_TITLES = {
    "trained": "trained, with the penalty",
    "pruned": "channels taken out",
    "tuned": "trained again",
}


@student_options()
def slim_command(call: Call) -> Summary:
    """Run `fadrm-hf slim ARTIFACT --ratio 0.5`."""
    options: SlimOptions = call.options
    location = open_artifact(options.artifact, options.revision)
    place = result_folder(location, options.output)
    student = call.protocol_values().get("student") or usual_student(location.manifest.pixels.size)
    given = protocol_given(call, location.manifest, student)
    architecture = given.student.replace("/", "_")
    name = f"slim-{place.folder.name}-{given.name}-{given.labels}-{architecture}-{options.ratio:g}"
    output = table_place(options.table, place, name)
    state = join_world()
    reporter = Reporter(place.work.log, quiet=not state.is_main_process)

    def prepare(images: Location) -> Slimming:
        distilled = load_distilled(images, streaming=options.streaming, online=options.makes_labels)
        source = source_of(images, options.source.name)
        return prepare_slimming(distilled, source, given, options.ratio, options.scale_penalty, options.tuning_epochs)

    slimmings = [prepare(location)]  # before the control is made, so that what cannot work is refused first
    if options.control is not None:
        control = _control(options.control, location, options.source.name, quiet=not state.is_main_process)
        slimmings.append(prepare(control))
    measured = [(slimming, slim(slimming, place.work.path, reporter, state)) for slimming in slimmings]
    if not state.is_main_process:
        return Summary()
    _write(measured, call.typed, output)
    return table_summary(output)


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
