"""What was measured and is on file, and in what it differs from what a cell of the paper is of.

A measurement stands for a cell only if every setting is the one published: those of the run in `recipes/configs`,
which are the paper's, and of the student; the whole dataset at a commit of the Hub, for nobody can tell a copy's
images from its name; all classes, and all test images.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from fadrm_hf.artifact.manifest import StageRecord, read_manifest
from fadrm_hf.config import RunConfig, SourceConfig, SqueezeConfig, StudentConfig, build, read_settings
from fadrm_hf.config.datasets import PRESETS, WHOLE_DATASET, Preset, preset_of, resolve, resolve_squeeze
from fadrm_hf.config.protocols import nearest
from fadrm_hf.errors import ArtifactError
from fadrm_hf.evaluation.ablation import with_settings
from fadrm_hf.pipeline.settings import run_from_recipe
from fadrm_hf.report.card.results import Result
from fadrm_hf.report.card.scores import SCORES_NAME
from fadrm_hf.runtime.run_folder import MANIFEST, RESULTS

# Training and test images.
_NUM_IMAGES = {
    "digits": (1_297, 500),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "tiny_imagenet": (100_000, 10_000),
    "imagenette": (9_469, 3_925),
    "imagewoof": (9_025, 3_929),
    "imagenet1k": (1_281_167, 50_000),
}
_IPCS = (1, 10, 50)  # of the paper's runs
_TABLES = ("methods", "cells")  # what `compare` and `ablate` call the rows of their JSON

# Settings that decide nothing about images, labels or students, or that are compared by other means.
_IDLE = (
    "output",
    "seed",
    "student",
    "statistics",  # of layers without BatchNorm; the paper's teachers have it
    "recover.form",
    "teachers.min_accuracy",
    "teachers.gate_images",
    "teachers.class_order",
    "squeeze.num_workers",
    "source.name",
    "source.revision",
    "source.preset",
    "source.licence",
    "source.on_corrupt",
)
_FOUND = ("source.train_split", "source.test_split", "source.image_column", "source.label_column")
_LONGEST_SHOWN = 10  # values of a list; a source may name a thousand classes
_IDLE_OF_STUDENTS = ("num_seeds", "num_workers")


@dataclass(frozen=True)
class Measurement:
    """Students that were trained and tested.

    Attributes:
        file: Where it is on file, from the folder of results.
        source: What was distilled, or trained on as a whole.
        revision: The commit of the Hub that it was read from, if it was.
        result: What the students reached.
        run: How the images were made; `None` where students saw the whole dataset and nothing was distilled.
        stages: What that cost.
        gpu: On what, if it was a GPU.
    """

    file: str
    source: SourceConfig
    revision: str | None
    result: Result
    run: RunConfig | None = None
    stages: Mapping[str, StageRecord] | None = None
    gpu: str | None = None

    @property
    def preset(self) -> Preset | None:
        """That of its source."""
        return preset_of(self.source)


@dataclass(frozen=True)
class Cell:
    """What a number of the paper is of.

    Attributes:
        run: How the images are made, with nothing left open; its student is the cell's, trained as published.
    """

    run: RunConfig

    @property
    def dataset(self) -> str:
        """Name of the preset."""
        assert self.run.source.preset is not None
        return self.run.source.preset

    def differences(self, found: Measurement) -> list[str]:
        """In what a measurement is something else, in words; nothing where it stands for the cell."""
        if found.run is None or found.result["images"] != "distilled":
            return [f"{found.result['images'].replace('_', ' ')} images"]
        preset, result = PRESETS[self.dataset], found.result
        codec = result.get("label_codec", "float16")
        counted = {
            "images": (result["num_images"], self.run.ipc * preset.num_classes),
            "test images": (result["num_test_images"], _NUM_IMAGES[self.dataset][1]),
            "labels": (f"{result['labels']} {codec}", "soft float16"),
        }
        return [
            *_of_another_source(found, preset),
            *_in_words(_decisive(found.run), _decisive(self.run)),
            *_in_words(_of_student(result["settings"]), _of_student(asdict(self.run.student))),
            *(f"{name}: {ours}, not {theirs}" for name, (ours, theirs) in counted.items() if ours != theirs),
        ]


@dataclass(frozen=True)
class BoundCell:
    """A bound of Table 1: a student trained on the whole dataset by the recipe of Table 7."""

    dataset: str
    student: str

    def differences(self, found: Measurement) -> list[str]:
        """As `Cell.differences`."""
        result, preset = found.result, PRESETS[self.dataset]
        if result["images"] != "whole":
            return ["not the whole dataset"]
        train, test = _NUM_IMAGES[self.dataset]
        recipe = resolve_squeeze(replace(WHOLE_DATASET, flip_probability=None), SourceConfig(preset.name))
        counted = {
            "student": (result["student"], self.student),
            "training images": (result["num_images"], train),
            "test images": (result["num_test_images"], test),
        }
        return [
            *_of_another_source(found, preset),
            *_in_words(_of_recipe(result["settings"]), _of_recipe(asdict(recipe))),
            *(f"{name}: {ours}, not {theirs}" for name, (ours, theirs) in counted.items() if ours != theirs),
        ]


def published_cell(
    configs: Path,
    dataset: str,
    method: str,
    ipc: int,
    student: str = "timm/resnet18",
    changed: Mapping[str, Any] | None = None,
) -> Cell:
    """The cell of a table, or of an ablation.

    Args:
        configs: The folder `recipes/configs`.
        dataset: Name of the preset.
        method: "fadrm" or "fadrm_plus".
        ipc: Images per class; where there is no such run, the nearest is meant.
        student: Full name.
        changed: Settings that are others than those of the published run, by dotted name.
    """
    run = with_settings(_published_run(configs / dataset / f"{method}_ipc{nearest_ipc(ipc)}.yaml"), changed or {})
    run = resolve(replace(run, student=StudentConfig(student=student)))
    assert run.source.size is not None
    return Cell(replace(run, method=run.method.resolve(run.source.size)))


@cache
def _published_run(file: Path) -> RunConfig:
    return run_from_recipe(read_settings(file), "published")


def nearest_ipc(ipc: int) -> int:
    """The images per class of the published run that is nearest."""
    return nearest({each: each for each in _IPCS}, ipc)


def read_measurements(folder: Path) -> list[Measurement]:
    """Everything on file in a folder of results, each once, sorted by file.

    Args:
        folder: It holds copies of run folders, folders of `whole-dataset`, and tables of `compare` and `ablate`.

    Raises:
        ArtifactError: If a file is damaged.
    """
    found = [
        *(each for path in sorted(folder.glob(f"*/{MANIFEST}")) for each in _of_run(folder, path.parent)),
        *(each for path in sorted(folder.glob("*/whole-*.json")) for each in _of_bound(folder, path)),
        *(each for path in sorted(folder.glob("*.json")) for each in _of_table(folder, path)),
    ]
    return [each for each in found if not each.result.get("contributed")]


def _of_run(folder: Path, run_folder: Path) -> Iterator[Measurement]:
    manifest = read_manifest(run_folder)
    run = run_from_recipe(manifest.config, run_folder.name)
    files = [path for place in (run_folder, run_folder / RESULTS) for path in sorted(place.glob("*.json"))]
    for path in files:
        if path.name not in (MANIFEST, SCORES_NAME):
            file, result = path.relative_to(folder).as_posix(), read_document(path)
            revision, gpu = manifest.source.revision, manifest.machine.get("gpu")
            yield Measurement(file, run.source, revision, result, run, manifest.stages, gpu)


def _of_bound(folder: Path, path: Path) -> Iterator[Measurement]:
    """A result of `whole-dataset`; those of a run folder are found with it."""
    result = read_document(path)
    if not (path.parent / MANIFEST).exists() and "source" in result:
        known = {name: result["source"].get(name) for name in ("name", "preset", "size", "classes")}
        file = path.relative_to(folder).as_posix()
        yield Measurement(file, build(SourceConfig, known), result["source"]["revision"], result)


def _of_table(folder: Path, path: Path) -> Iterator[Measurement]:
    """The rows of a table, each run once."""
    document, seen = read_document(path), set()
    rows = [row for name in _TABLES if isinstance(document, dict) for row in document.get(name, [])]
    for row in rows:
        if row.get("result") is None or row["artifact"] in seen:
            continue
        seen.add(row["artifact"])
        run = run_from_recipe(row["recipe"], row["artifact"])
        stages = {name: StageRecord(**stage) for name, stage in row["stages"].items()}
        revision = row.get("source_record", {}).get("revision")
        file, gpu = path.relative_to(folder).as_posix(), row["machine"].get("gpu")
        yield Measurement(file, run.source, revision, row["result"], run, stages, gpu)


def read_document(path: Path) -> Any:
    """A JSON file; `ArtifactError` if it is damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged ({error}); remove it, or fetch it again") from error


def _of_another_source(found: Measurement, preset: Preset) -> list[str]:
    if found.revision is not None and found.source.name in preset.hub_ids:
        return []
    is_bundled = not preset.hub_ids
    return [] if is_bundled else [f"source: {found.source.name}, not {preset.hub_ids[0]} at a commit"]


def _decisive(run: RunConfig) -> dict[str, Any]:
    """The settings of a run that decide its images and labels, by dotted name."""
    flat = {"method": run.method.name} | dict(_flat(asdict(run)))
    is_squeezed = any(name.startswith("squeeze/") for name in run.teachers.names)
    idle = (*_IDLE, *(() if is_squeezed else ("squeeze",)))
    return {name: value for name, value in flat.items() if not any(f"{name}.".startswith(f"{key}.") for key in idle)}


def _of_student(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How students were trained; settings that are younger than a result have their defaults."""
    whole = asdict(StudentConfig()) | dict(settings)
    return {f"student.{name}": value for name, value in _flat(whole) if name not in _IDLE_OF_STUDENTS}


def _of_recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How students of the whole dataset were trained, likewise."""
    whole = {item.name: item.default for item in fields(SqueezeConfig)} | dict(settings)
    return {f"squeeze.{name}": value for name, value in whole.items() if name != "num_workers"}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value


def _in_words(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """Each setting that differs; what a source leaves to be found is what is written out elsewhere."""
    for name in dict.fromkeys([*theirs, *ours]):
        one, other = ours.get(name), theirs.get(name)
        if one != other and not (name in _FOUND and one is None):
            yield f"{name}: {_shown(one)}, not {_shown(other)}"


def _shown(value: Any) -> str:
    if isinstance(value, list) and len(value) > _LONGEST_SHOWN:
        return f"{len(value)} of them, {value[0]} to {value[-1]}"
    return value if isinstance(value, str) else json.dumps(value)
