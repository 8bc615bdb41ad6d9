"""Making an artifact: `distill`, and `train-teacher` for a teacher of one's own."""

import json
from pathlib import Path

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.info import described
from fadrm_hf.commands.inspect import source_options
from fadrm_hf.commands.options.making import DistillOptions, PackageOptions, TrainTeacherOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config.datasets import resolve_source, resolve_squeeze
from fadrm_hf.data.sources import load_source, with_own_preset
from fadrm_hf.networks.teachers.squeeze import squeeze
from fadrm_hf.pipeline.distill import distill, package, say_source
from fadrm_hf.report.gallery.writing import pages_of
from fadrm_hf.runtime.files import read_json
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RunFolder, WorkFolder
from fadrm_hf.runtime.shards import Share, join_world
from fadrm_hf.runtime.tracking import Curves, curves_of


def distill_command(call: Call) -> Summary:
    """Run `fadrm-hf distill`."""
    options: DistillOptions = call.options
    share = Share() if options.shards is None else Share.parse(options.shards)
    run = call.request.run
    folder = Path(run.output)
    curves = curves_of(options.tracker, WorkFolder(folder).path)
    distill(run, share=share, snapshots=options.snapshots, curves=curves)
    return _summary(call, folder, curves)


def package_command(call: Call) -> Summary:
    """Run `fadrm-hf package`, with the options of distill."""
    options: PackageOptions = call.options
    assert options is not None  # --shards and the like are those of the jobs
    run = call.request.run
    package(run)
    return _summary(call, Path(run.output))


def _summary(call: Call, folder: Path, curves: Curves | None = None) -> Summary:
    """Return the results and a command that uses them; while other jobs recover images, one that finishes the run."""
    recorded: dict[str, Path | str] = {} if curves is None else {"curves": curves.place}
    if not RunFolder(folder).is_finished:
        return Summary({"work": WorkFolder(folder).path, **recorded}, following=["package", *call.words_of_run])
    made = {"artifact": folder, **pages_of(folder), **recorded}
    return Summary(made, described(read_manifest(folder)), ["train-student", str(folder)])


def train_teacher_command(call: Call) -> Summary:
    """Run `fadrm-hf train-teacher`."""
    options: TrainTeacherOptions = call.options
    source_config = resolve_source(with_own_preset(options.source))
    recipe = resolve_squeeze(options.squeeze, source_config)
    name = f"{options.architecture}-{Path(source_config.name).name}"
    folder = Path(options.output or f"runs/teachers/{name}")
    source = load_source(source_config)
    reporter = Reporter(WorkFolder(folder).log)
    say_source(source, reporter)
    squeeze(source, options.architecture, recipe, folder, options.seed, reporter, join_world().device)
    record = read_json(folder / "config.json")["fadrm"]
    result = {name: record[name] for name in ("accuracy", "epochs", "source")}
    teacher = f"--teachers.names={json.dumps([f'timm/local-dir:{folder}'])}"
    return Summary({"teacher": folder}, result, ["distill", teacher, *source_options(options.source)])
