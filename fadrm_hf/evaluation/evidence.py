"""The measurements on file, and in what each differs from a cell of the paper.

A measurement is the paper's cell only if every setting is the published one: those of the run in `recipes/configs`,
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
from fadrm_hf.config import OPEN, RunConfig, SourceConfig, SqueezeConfig, StudentConfig, build, read_settings
from fadrm_hf.config.datasets import PRESETS, WHOLE_DATASET, Preset, preset_of, resolve, resolve_squeeze
from fadrm_hf.config.plain_data import flatten
from fadrm_hf.config.protocols import nearest
from fadrm_hf.errors import ArtifactError
from fadrm_hf.evaluation.sweep import with_settings
from fadrm_hf.pipeline.settings import run_from_recipe
from fadrm_hf.report.card.results import Result
from fadrm_hf.report.card.scores import SCORES_NAME
from fadrm_hf.runtime.files import MAX_TEXT_BYTES, parse_json, read_regular
from fadrm_hf.runtime.run_folder import MANIFEST, RESULTS, RunFolder

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
_TABLES = ("methods", "cells")  # the names of the rows in the JSON of `compare` and of `ablate`

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
_IDLE_OF_STUDENTS = ("num_seeds", "num_workers")
_DETECTED = ("source.train_split", "source.test_split", "source.image_column", "source.label_column")
_LONGEST_SHOWN = 10  # values of a list; a source may name a thousand classes

Values = dict[str, Any]  # by dotted name
Settings = tuple[Values, ...]  # of the run, of the student, and what was counted


@dataclass(frozen=True)
class Measurement:
    """Students that were trained and tested.

    Attributes:
        file: Its file, from the folder of results.
        source: What was distilled, or trained on as a whole.
        revision: The commit of the Hub that the source was read from, if it was.
        result: What the students reached.
        run: How the images were made; `None` where students saw the whole dataset and nothing was distilled.
        stages: What making them cost.
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

    def settings(self) -> Settings:
        """Return everything that decides its number, but the source."""
        result = self.result
        test_images = result["num_test_images"]
        if self.run is None or result["images"] == "whole":
            return _recipe_settings(result["settings"], result["student"], (result["num_images"], test_images))
        labels = f"{result['labels']} {result.get('label_codec', 'float16')}"
        return _run_settings(self.run, result["settings"], (result["num_images"], test_images), labels)


@dataclass(frozen=True)
class Cell:
    """A number of the paper.

    Attributes:
        dataset: Name of the preset.
        images: "distilled", or "whole": a bound of Table 1, trained by the recipe of Table 7.
        settings: As those of a measurement.
    """

    dataset: str
    images: str
    settings: Settings

    def differences(self, measurement: Measurement) -> list[str]:
        """Return in what a measurement is something else, in words; nothing where it is the cell's."""
        if measurement.result["images"] != self.images:
            return [f"{measurement.result['images'].replace('_', ' ')} images"]
        hub_ids, source = PRESETS[self.dataset].hub_ids, measurement.source.name
        is_source = not hub_ids or (measurement.revision is not None and source in hub_ids)
        other_source = [] if is_source else [f"source: {source}, not {hub_ids[0]} at a commit"]
        pairs = zip(measurement.settings(), self.settings, strict=True)
        return [*other_source, *(text for ours, theirs in pairs for text in _in_words(ours, theirs))]


def published_cell(
    configs: Path,
    dataset: str,
    method: str,
    ipc: int,
    student: str = "timm/resnet18",
    changed: Mapping[str, Any] | None = None,
) -> Cell:
    """Return the cell of a table, or of an ablation.

    `method` is "fadrm" or "fadrm_plus", `student` a full name; `changed` are settings that differ from those of the
    published run, by dotted name. Where there is no run of so many images per class, the nearest is meant.
    """
    run = with_settings(_published_run(configs / dataset / f"{method}_ipc{nearest_ipc(ipc)}.yaml"), changed or {})
    run = resolve(replace(run, student=StudentConfig(student=student)))
    run = replace(run, method=run.method.resolve(run.source.size))
    num_images = run.ipc * PRESETS[dataset].num_classes, _NUM_IMAGES[dataset][1]
    return Cell(dataset, "distilled", _run_settings(run, asdict(run.student), num_images, "soft float16"))


def whole_dataset_cell(dataset: str, student: str) -> Cell:
    """Return the cell of a student, by its full name, that was trained on the whole dataset."""
    recipe = resolve_squeeze(replace(WHOLE_DATASET, flip_probability=OPEN), SourceConfig(PRESETS[dataset].name))
    return Cell(dataset, "whole", _recipe_settings(asdict(recipe), student, _NUM_IMAGES[dataset]))


@cache
def _published_run(file: Path) -> RunConfig:
    return run_from_recipe(read_settings(file), "published")


def nearest_ipc(ipc: int) -> int:
    """Return the images per class of the published run that is nearest."""
    return nearest({each: each for each in _IPCS}, ipc)


def read_measurements(folder: Path) -> list[Measurement]:
    """Return everything on file in a folder of results, each once, sorted by file.

    Args:
        folder: It holds copies of run folders, folders of `whole-dataset`, and tables of `compare` and `ablate`.

    Raises:
        ArtifactError: If a file is damaged.
    """
    measurements = [
        *(each for path in sorted(folder.glob(f"*/{MANIFEST}")) for each in _of_run(folder, path.parent)),
        *(each for path in sorted(folder.glob("*/whole-*.json")) for each in _of_whole_dataset(folder, path)),
        *(each for path in sorted(folder.glob("*.json")) for each in _of_table(folder, path)),
    ]
    return [each for each in measurements if not each.result.get("contributed")]


def read_document(path: Path) -> Any:
    """Return the contents of a JSON file.

    Raises:
        ArtifactError: If it is damaged.
    """
    try:
        return parse_json(read_regular(path, MAX_TEXT_BYTES))
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged ({error}); remove it, or fetch it again") from error


def _of_run(folder: Path, run_folder: Path) -> Iterator[Measurement]:
    manifest = read_manifest(run_folder)
    run = run_from_recipe(manifest.config, run_folder.name)
    files = [path for parent in (run_folder, run_folder / RESULTS) for path in sorted(parent.glob("*.json"))]
    for path in files:
        if path.name not in (MANIFEST, SCORES_NAME):
            file, result = path.relative_to(folder).as_posix(), read_document(path)
            revision, gpu = manifest.source.revision, manifest.machine.get("gpu")
            yield Measurement(file, run.source, revision, result, run, manifest.stages, gpu)


def _of_whole_dataset(folder: Path, path: Path) -> Iterator[Measurement]:
    """Yield a result of `whole-dataset`; those in a run folder are read with it."""
    result = read_document(path)
    if not RunFolder(path.parent).is_finished and "source" in result:
        source = {name: result["source"].get(name) for name in ("name", "preset", "size", "classes")}
        file = path.relative_to(folder).as_posix()
        yield Measurement(file, build(SourceConfig, source), result["source"]["revision"], result)


def _of_table(folder: Path, path: Path) -> Iterator[Measurement]:
    """Yield the rows of a table, each run once."""
    document = read_document(path)
    rows = [row for name in _TABLES if isinstance(document, dict) for row in document.get(name, [])]
    finished: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.get("result") is not None:
            finished.setdefault(row["artifact"], row)
    for row in finished.values():
        run = run_from_recipe(row["recipe"], row["artifact"])
        stages = {name: StageRecord(**stage) for name, stage in row["stages"].items()}
        revision = row.get("source_record", {}).get("revision")
        file, gpu = path.relative_to(folder).as_posix(), row["machine"].get("gpu")
        yield Measurement(file, run.source, revision, row["result"], run, stages, gpu)


def _run_settings(run: RunConfig, student: Mapping[str, Any], num_images: tuple[int, int], labels: str) -> Settings:
    """Return what decides a run's number; settings of the student that are younger than it have their defaults."""
    flat = {"method": run.method.name} | _flat(asdict(run))
    is_squeezed = any(name.startswith("squeeze/") for name in run.teachers.names)
    idle = (*_IDLE, *(() if is_squeezed else ("squeeze",)))
    decisive = {n: value for n, value in flat.items() if not any(f"{n}.".startswith(f"{each}.") for each in idle)}
    whole = _flat(asdict(StudentConfig()) | dict(student))
    of_student = {f"student.{name}": value for name, value in whole.items() if name not in _IDLE_OF_STUDENTS}
    counts = dict(zip(("images", "test images"), num_images, strict=True))
    return decisive, of_student, counts | {"labels": labels}


def _recipe_settings(recipe: Mapping[str, Any], student: str, num_images: tuple[int, int]) -> Settings:
    """Return what decides the number of a student of the whole dataset, likewise."""
    whole = {item.name: item.default for item in fields(SqueezeConfig)} | dict(recipe)
    of_recipe = {f"squeeze.{name}": value for name, value in whole.items() if name != "num_workers"}
    counts = dict(zip(("training images", "test images"), num_images, strict=True))
    return of_recipe, {"student": student} | counts


def _flat(settings: Mapping[str, Any]) -> Values:
    """Return settings by dotted name, as JSON gives them back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flatten(settings).items()}


def _in_words(ours: Values, theirs: Values) -> Iterator[str]:
    """Describe each setting that differs; what a source leaves to be detected is what is written out elsewhere."""
    for name in dict.fromkeys([*theirs, *ours]):
        one, other = ours.get(name), theirs.get(name)
        if one != other and not (name in _DETECTED and one is None):
            yield f"{name}: {_shown(one)}, not {_shown(other)}"


def _shown(value: Any) -> str:
    if isinstance(value, list) and len(value) > _LONGEST_SHOWN:
        return f"{len(value)} of them, {value[0]} to {value[-1]}"
    return value if isinstance(value, str) else json.dumps(value)
