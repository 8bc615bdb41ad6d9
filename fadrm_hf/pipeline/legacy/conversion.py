"""An earlier release becomes an artifact: the same pixels, the same views, the same labels, in the tables of a run."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fadrm_hf.artifact.manifest import StageRecord, read_manifest
from fadrm_hf.builders.soft_labels import label_features, row_bytes
from fadrm_hf.config import (
    RecoverConfig,
    RelabelConfig,
    SourceConfig,
    SqueezeConfig,
    StudentConfig,
    TeacherConfig,
    filled,
)
from fadrm_hf.config.datasets import preset_of, resolve_squeeze
from fadrm_hf.config.protocols import student_defaults
from fadrm_hf.data.sources import Source, load_source
from fadrm_hf.errors import ConfigError, RunFolderError
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.labels.relabel import Labeller, check_labelling
from fadrm_hf.networks.teachers import Teacher, prepare_teachers, public_name
from fadrm_hf.pipeline.legacy.order_check import compare_with_classes, compare_with_teachers
from fadrm_hf.pipeline.legacy.release import Release
from fadrm_hf.pipeline.package import write_artifact
from fadrm_hf.runtime.machine import peak_memory_bytes
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RunFolder, WorkFolder, refuse_other_run, require_place, require_space
from fadrm_hf.runtime.shards import join_world, recovery_shards

_TOGETHER = 100  # images that are decoded before they are written


@dataclass(frozen=True)
class ImportConfig:
    """Release to import, and what is known of how it was made.

    Args:
        images: Folder with a folder of images for each class.
        labels: Folder of FKD label files, `epoch_0/batch_0.tar` and so on.
        output: The artifact to be.
        method: The method that made the images, e.g. "sre2l".
        sampler_seed: Seed of the order of images in each epoch (`--fkd-seed` of the released code).
        source: What was distilled; gives classes, normalisation and test images.
        teachers: Who labelled, if that is known: the labels are compared with theirs, and verified again later.
        relabel: How they labelled; epochs, batch size and CutMix are taken from the files.
        student: The protocol the artifact is meant to be evaluated with.
    """

    images: str
    labels: str
    output: str
    method: str = "sre2l"
    sampler_seed: int = 42
    source: SourceConfig = field(default_factory=SourceConfig)
    teachers: TeacherConfig | None = None
    relabel: RelabelConfig = field(default_factory=lambda: RelabelConfig(batch_statistics=False))
    student: StudentConfig = field(default_factory=StudentConfig)


def import_release(config: ImportConfig, quiet: bool = False) -> Path:
    """Convert a release, or what is left of it: the same call again resumes an interrupted one.

    Args:
        config: What and how.
        quiet: Show no progress.

    Returns:
        The artifact's folder.

    Raises:
        ArtifactError: A file of the release is missing, damaged or cannot be represented, or its labels do not
            belong to its images.
        ClassMapError: Its classes are not the source's.
        FadrmError: Other mistakes that can be mended.
    """
    if config.teachers is None and not find_codec(config.relabel.codec).has_logits:
        raise ConfigError("relabel.codec is none, which needs the teachers that labelled; set --teachers.names")
    folder, work = Path(config.output), WorkFolder(Path(config.output))
    require_place(folder)
    source = load_source(config.source)
    release = Release(Path(config.images), Path(config.labels), source.class_map, source.size, config.sampler_seed)
    relabel = _resolve_relabel(config, release)
    recipe = _recipe(config, source, release, relabel)
    reporter = Reporter(work.log, quiet)
    sections = {"source": config.source, "relabel": relabel, "student": config.student}
    if _is_finished(folder, work, recipe, sections):
        reporter.say(f"{folder} is finished already")
        return folder
    require_space(folder, _expected_bytes(release, source, relabel) - work.num_bytes())
    started = time.monotonic()
    teachers = _check_order(config, source, release, relabel, reporter)
    work.begin(recipe, sections)
    work.remember_source(config.source.name)
    _convert_images(release, source, work, reporter)
    _convert_labels(release, relabel, work, reporter)
    costs = {"import": StageRecord(round(time.monotonic() - started, 1), peak_memory_bytes())}
    write_artifact(folder, work.path, recipe, source, teachers, costs, reporter)
    reporter.say(f"{folder} is finished")
    return folder


def _resolve_relabel(config: ImportConfig, release: Release) -> RelabelConfig:
    """Resolve how the labels were made, as far as the files tell."""
    relabel, batch_size = config.relabel, release.batch_size
    if config.teachers:
        check_labelling(relabel, len(config.teachers.names), has_votes=False)
    left_over = release.num_images % batch_size
    if relabel.batch_statistics and config.teachers and left_over:
        raise ConfigError(
            f"teachers.names are given and relabel.batch_statistics is true, but the last batch has {left_over} "
            f"images, not {batch_size}, and the released code takes its statistics over other groups than are used "
            "here; leave --teachers.names out"
        )
    return replace(
        relabel,
        epochs=len(release.epochs),
        batch_size=batch_size,
        flip_probability=0.5 if relabel.flip_probability is None else relabel.flip_probability,  # as released
        cutmix=release.mixed,
    )


def _recipe(config: ImportConfig, source: Source, release: Release, relabel: RelabelConfig) -> dict[str, Any]:
    """Return the import as plain data for the manifest; local paths are reduced to their last part."""
    student, ipc = config.student, release.images.ipc
    preset = preset_of(source.config)
    values = student_defaults(student.name, preset.name if preset else None, student.student, ipc)
    student = filled(student, **values, epochs=relabel.epochs)
    recipe = {
        "output": Path(config.output).name,
        "ipc": ipc,
        "seed": config.sampler_seed,
        "method": {"name": config.method},
        "import": {
            "images": f"{release.images.formats()}, decoded once and stored as PNG",
            "labels": "FKD label files, of views that Pillow rounded to whole grey levels",
            "sampler_seed": config.sampler_seed,
            "fingerprint": _fingerprint(Path(config.images), release),
        },
        "source": asdict(source.config) | {"name": config.source.public_name},
        "teachers": {"names": [public_name(name) for name in config.teachers.names] if config.teachers else []},
        "relabel": asdict(relabel),
        "student": asdict(student),
    }
    plain: dict[str, Any] = json.loads(json.dumps(recipe))
    return plain


def _fingerprint(folder: Path, release: Release) -> str:
    """Return a SHA-256 over names and sizes of the images, so that no import resumes with other ones."""
    entries = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in release.images.files]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _is_finished(folder: Path, work: WorkFolder, recipe: dict[str, Any], sections: Mapping[str, Any]) -> bool:
    """Return whether the folder holds this import already; a folder that holds something else is refused."""
    if RunFolder(folder).is_finished:
        refuse_other_run(read_manifest(folder).config, recipe, sections, folder)
        return True
    work.check(recipe, sections)
    if folder.exists() and any(folder.iterdir()) and not work.has_begun:
        raise RunFolderError(f"{folder} holds other files, expected a new or an empty folder; set --output")
    return False


def _expected_bytes(release: Release, source: Source, relabel: RelabelConfig) -> int:
    """Return the bytes of shards and artifact together."""
    pixels = 3 * source.size**2
    labels = relabel.epochs * row_bytes(label_features(relabel.codec, len(source.class_map)))
    return 2 * release.num_images * (pixels + labels) + (16 << 20)


def _check_order(
    config: ImportConfig, source: Source, release: Release, relabel: RelabelConfig, reporter: Reporter
) -> list[Teacher]:
    """Refuse labels that do not belong to the images; returns the teachers, if they are known."""
    if config.teachers is None:
        compare_with_classes(release, len(source.class_map))
        return []
    squeeze, beside = resolve_squeeze(SqueezeConfig(), source.config), RunFolder(config.output).trained_teachers
    device, (mean, std) = join_world().device, (source.config.mean, source.config.std)
    teachers = prepare_teachers(config.teachers, squeeze, source, beside, 0, reporter, device)
    compare_with_teachers(release, Labeller(teachers, relabel, mean, std, device))
    return teachers


def _convert_images(release: Release, source: Source, work: WorkFolder, reporter: Reporter) -> None:
    """Decode the images into the shards of a run."""
    positions = release.images.rows.argsort()  # of each row of the image table
    num_classes = len(source.class_map)
    shards = {s.name: s for s in recovery_shards(num_classes, release.images.ipc, RecoverConfig(batch_size=_TOGETHER))}
    todo = [shards[name] for name in work.missing("recovered", list(shards))]
    with reporter.stage("images", len(todo), sum(len(shard.classes) for shard in todo)) as task:
        for shard in todo:
            label = torch.tensor(shard.classes)
            columns = {
                "images": release.pixels(positions[shard.ipc_indices[0] * num_classes + label]),
                "label": label,
                "ipc_index": torch.full_like(label, shard.ipc_indices[0]),
                "source_index": torch.empty((len(label), 0), dtype=torch.int64),  # no release tells
            }
            work.save("recovered", shard.name, columns)
            task.advance(1)


def _convert_labels(release: Release, relabel: RelabelConfig, work: WorkFolder, reporter: Reporter) -> None:
    """Write the epochs that are not there yet, one in memory at a time."""
    codec = find_codec(relabel.codec)
    names = {f"epoch{epoch:05d}": epoch for epoch in range(len(release.epochs))}
    todo = {names[name]: name for name in work.missing("soft_labels", list(names))}
    with reporter.stage("soft labels", len(todo), len(todo) * release.num_images) as task:
        for epoch, order in release.orders(set(todo)):
            table = release.read_epoch(epoch, order)
            table |= codec.encode(table.pop("logits"))
            work.save("soft_labels", todo[epoch], table)
            task.advance(1)
