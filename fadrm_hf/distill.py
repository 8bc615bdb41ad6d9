"""The whole line, once: source -> teachers -> patches -> recover -> relabel -> package -> card.

Everything that can be refused is refused before long work starts. Every stage writes finished shards beside the run
folder and skips those that are there, so the same command goes on where it was interrupted; the artifact appears at
the end, its manifest last.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from fadrm_hf import files
from fadrm_hf.artifact.manifest import MANIFEST_NAME, StageRecord, read_manifest
from fadrm_hf.builders.soft_labels import label_features, row_bytes
from fadrm_hf.config import RunConfig
from fadrm_hf.errors import ConfigError, RunFolderError
from fadrm_hf.label_codec import find_codec
from fadrm_hf.machine import peak_memory_bytes
from fadrm_hf.package import write_artifact
from fadrm_hf.patches import Patches, random_images, select_patches
from fadrm_hf.presets import resolve
from fadrm_hf.progress import Reporter
from fadrm_hf.randomness import generator
from fadrm_hf.recover import Recovery, check_matchable, matching, to_pixels
from fadrm_hf.relabel import Labeller, label_epoch
from fadrm_hf.shards import (
    Shard,
    WorkFolder,
    class_ranges,
    join_world,
    mine,
    recovery_shards,
    refuse_other_run,
    require_place,
    require_space,
)
from fadrm_hf.sources import Source, check_source, load_source
from fadrm_hf.students import check_student
from fadrm_hf.teachers import Teacher, check_names, prepare_teachers, public_name


def distill(run: RunConfig, quiet: bool = False) -> Path:
    """Run the line, or what is left of it.

    Args:
        run: What to distil and how; open values come from the source's preset.
        quiet: Show no progress.

    Returns:
        The artifact's folder.

    Raises:
        FadrmError: For every mistake that can be mended, before long work starts.
    """
    state = join_world()
    run, source = check_run(run)
    return Line(run, source, state, quiet).run()


def check_run(run: RunConfig) -> tuple[RunConfig, Source]:
    """Resolve a run and load its source, refusing what cannot work."""
    run = resolve(run)
    size = run.source.size
    assert size is not None
    run = replace(run, method=run.method.resolve(size))
    least = run.method.min_teachers
    if len(run.teachers.names) < least:
        raise ConfigError(
            f"method {run.method.name} needs at least {least} teachers, got {list(run.teachers.names)}; "
            "set --teachers.names"
        )
    check_names(run.teachers.names, size)
    _check_protocol(run)
    codec = find_codec(run.relabel.codec)
    _check_folder(run)
    source = load_source(run.source)
    check_source(source, run.ipc, run.ipc * run.patches.grid**2)
    codec.features(len(source.class_map))  # refuses a number of classes that it cannot store
    check_student(run.student.student, len(source.class_map), size)
    return run, source


def recipe_of(run: RunConfig) -> dict[str, Any]:
    """The run as plain data, as `recipe.yaml` and the manifest hold it; local paths are reduced to their last part."""
    recipe = asdict(run)
    recipe["method"] = {"name": run.method.name} | recipe["method"]
    recipe["output"] = Path(run.output).name
    if Path(run.source.name).exists():
        recipe["source"]["name"] = Path(run.source.name).resolve().name
    recipe["teachers"]["names"] = [public_name(name) for name in run.teachers.names]
    plain: dict[str, Any] = json.loads(json.dumps(recipe))
    return plain


class Line:
    """One run on its way from source to artifact.

    Args:
        run: A run that `check_run` has resolved.
        source: Its source.
        state: The processes that share the work.
        quiet: Show no progress.
    """

    def __init__(self, run: RunConfig, source: Source, state: PartialState, quiet: bool = False) -> None:
        self._run, self._source, self._state = run, source, state
        self._folder = Path(run.output)
        self._work = WorkFolder(self._folder)
        self._reporter = Reporter(self._work.log, quiet or not state.is_main_process)
        self._device: torch.device = state.device
        self._ranges = class_ranges(len(source.class_map), run.recover.classes_per_shard)

    def run(self) -> Path:
        """All stages, in order."""
        if (self._folder / MANIFEST_NAME).exists():
            self._reporter.say(f"{self._folder} is finished already")
            return self._folder
        with self._state.main_process_first():
            require_space(self._folder, self._expected_bytes() - self._work.num_bytes())
        with self._cost("teachers"), self._state.main_process_first():
            teachers = self._prepare_teachers()
            # Not before: a run whose teachers are refused leaves nothing behind, and may be given other settings.
            self._work.claim(recipe_of(self._run))
        with self._cost("patches"):
            self._select_patches(teachers[0])
        with self._cost("recover"):
            self._recover(teachers)
        with self._cost("relabel"):
            self._relabel(teachers)
        if self._state.is_main_process:
            self._package(teachers)
        self._state.wait_for_everyone()
        return self._folder

    def _prepare_teachers(self) -> list[Teacher]:
        run = self._run
        beside = self._folder.parent / "teachers"
        return prepare_teachers(
            run.teachers,
            run.squeeze,
            self._source,
            beside,
            run.seed,
            self._reporter,
            self._device,
            self._check_network,
        )

    def _check_network(self, name: str, module: torch.nn.Module) -> None:
        if self._run.method.iterations:
            check_matchable(name, module, self._run.recover)

    def _select_patches(self, scorer: Teacher) -> None:
        names = {_range_name(labels): labels for labels in self._ranges}
        todo = self._work.missing("patches", mine(list(names), self._state))
        run, source = self._run, self._source
        num_classes = sum(len(names[name]) for name in todo)
        with self._reporter.stage("patches", num_classes, num_classes * self._run.ipc) as task:
            for name in todo:
                labels = names[name]
                if run.method.starts_from == "random_images":
                    patches = random_images(source, labels, run.ipc, run.seed)
                else:
                    patches = select_patches(source, scorer, labels, run.ipc, run.patches, run.seed, self._device)
                files.save_tensors(self._work.shard("patches", name), vars(patches))
                task.advance(len(labels))
        self._state.wait_for_everyone()

    def _recover(self, teachers: list[Teacher]) -> None:
        run = self._run
        shards = {
            s.name: s for s in recovery_shards(len(self._source.class_map), run.ipc, run.recover.classes_per_shard)
        }
        todo = self._work.missing("recovered", mine(list(shards), self._state))
        matched = teachers if run.method.iterations else []
        num_images = sum(len(shards[name].classes) for name in todo)
        with (
            self._reporter.stage("recover", len(todo) * run.method.iterations, num_images) as task,
            matching(matched, run.recover, self._device) as matchers,
        ):

            def report(iterations: int, losses: dict[str, float]) -> None:
                task.advance(iterations, **losses)

            for name in todo:
                shard = shards[name]
                patches = self._patches_of(shard)
                labels = patches.label.to(self._device)
                rng = generator(run.seed, "recover", name)
                recovery = Recovery(matchers, labels, self._source, run.recover, run.method.iterations, rng, report)
                start = self._source.normalise(patches.images).to(self._device)
                images = to_pixels(run.method.recover(start, recovery), self._source).cpu()
                files.save_tensors(self._work.shard("recovered", name), vars(replace(patches, images=images)))
        self._state.wait_for_everyone()

    def _relabel(self, teachers: list[Teacher]) -> None:
        run = self._run
        epochs, mean, std = run.relabel.num_stored, run.source.mean, run.source.std
        assert epochs is not None and mean is not None and std is not None
        codec = find_codec(run.relabel.codec)
        names = {f"epoch{epoch:05d}": epoch for epoch in range(epochs)}
        todo = self._work.missing("soft_labels", mine(list(names), self._state))
        images = self._recovered_images()
        labeller = Labeller(teachers, run.relabel, mean, std, self._device) if codec.has_logits else None
        with self._reporter.stage("relabel", len(todo), len(todo) * len(images)) as task:
            for name in todo:
                table = label_epoch(images, labeller, run.relabel, run.seed, names[name])
                if labeller is not None:
                    table |= codec.encode(table.pop("logits"))
                files.save_tensors(self._work.shard("soft_labels", name), table)
                task.advance(1)
        self._state.wait_for_everyone()

    def _package(self, teachers: list[Teacher]) -> None:
        with self._cost("package"):
            costs = {name: StageRecord(**cost) for name, cost in self._costs().items()}
            write_artifact(self._folder, self._work.path, recipe_of(self._run), self._source, teachers, costs)
        self._reporter.say(f"{self._folder} is finished; next: fadrm-hf train-student {self._folder}")

    def _patches_of(self, shard: Shard) -> Patches:
        columns = files.load_tensors(self._work.shard("patches", _range_name(shard.classes)))
        rows = columns["ipc_index"] == shard.ipc_index
        return Patches(**{name: column[rows] for name, column in columns.items()})

    def _recovered_images(self) -> torch.Tensor:
        run = self._run
        shards = recovery_shards(len(self._source.class_map), run.ipc, run.recover.classes_per_shard)
        return torch.cat([files.load_tensors(self._work.shard("recovered", s.name))["images"] for s in shards])

    def _expected_bytes(self) -> int:
        """Shards and artifact together: pixels three times, soft labels twice, with room for tables and pictures."""
        run = self._run
        assert run.source.size is not None and run.relabel.num_stored is not None
        num_classes = len(self._source.class_map)
        num_images = run.ipc * num_classes
        pixels = num_images * 3 * run.source.size**2
        labels = num_images * run.relabel.num_stored * row_bytes(label_features(run.relabel.codec, num_classes))
        return 3 * pixels + 2 * labels + (64 << 20)

    @contextmanager
    def _cost(self, stage: str) -> Iterator[None]:
        """Add the block's seconds to the stage's cost, which survives interruptions once anything is written."""
        started = time.monotonic()
        try:
            yield
        finally:
            if self._state.is_main_process and self._work.path.exists():
                costs = self._costs()
                before = costs.get(stage, {}).get("seconds", 0.0)
                seconds = round(before + time.monotonic() - started, 1)
                costs[stage] = {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes()}
                files.write_json(self._work.path / "costs.json", costs)

    def _costs(self) -> dict[str, Any]:
        path = self._work.path / "costs.json"
        return json.loads(path.read_text()) if path.exists() else {}


def _check_protocol(run: RunConfig) -> None:
    """Refuse a protocol that trains for longer than the labels are meant for, stored or read again."""
    wanted, labelled = run.student.epochs, run.relabel.epochs
    assert wanted is not None and labelled is not None, "resolve the run first"
    if wanted > labelled:
        raise ConfigError(
            f"student.epochs is {wanted}, but relabel.epochs gives labels for {labelled}; set --student.epochs "
            f"{labelled} or less, or --relabel.epochs {wanted}"
        )


def _check_folder(run: RunConfig) -> None:
    """The run folder may hold this run, finished or not, and nothing else."""
    folder, recipe = Path(run.output), recipe_of(run)
    require_place(folder)
    work = WorkFolder(folder)
    require_place(work.path)
    if (folder / MANIFEST_NAME).exists():
        refuse_other_run(read_manifest(folder).config, recipe, folder)
        return
    work.check(recipe)
    held = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if held and not work.is_claimed:
        raise RunFolderError(
            f"{folder} holds other files ({', '.join(held[:5])}{', ...' if len(held) > 5 else ''}), expected a new or "
            "an empty folder; set --output to another one"
        )


def _range_name(labels: range) -> str:
    return f"{labels[0]:05d}-{labels[-1]:05d}"
