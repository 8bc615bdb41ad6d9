"""The images of a gallery: those of the artifact, and earlier stages of them from the run's work folder.

A published artifact has no work folder, so a regenerated gallery copies the earlier stages from the previous one.
"""

import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.reading import each_image
from fadrm_hf.config import RecoverConfig
from fadrm_hf.errors import ArtifactError
from fadrm_hf.report.gallery.sheets import (
    RECOVERED,
    START,
    Pictures,
    Stage,
    draw_part,
    draw_whole,
    read_pictures,
    snapshot_name,
)
from fadrm_hf.runtime.progress import Reporter, Task
from fadrm_hf.runtime.run_folder import GALLERY, PATCHES, SNAPSHOTS
from fadrm_hf.runtime.shards import range_name, recovery_shards
from fadrm_hf.runtime.tensor_files import load_tensors

_STARTS = {"noise": "noise", "patches": "real patch", "pca": "real images"}  # others: "real image"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Some images at one moment of their optimisation.

    Attributes:
        iteration: Iterations done.
        is_injected: Whether real patches were just mixed in.
        rows: Which rows of the images table.
        images: (n, 3, S, S) uint8.
    """

    iteration: int
    is_injected: bool
    rows: tuple[int, ...]
    images: Tensor

    @property
    def title(self) -> str:
        """Its title on the page."""
        return f"iteration {self.iteration:,}, {'after' if self.is_injected else 'before'} the residual"


def draw_pictures(artifact: Path, manifest: Manifest, output: Path, work: Path | None, reporter: Reporter) -> Pictures:
    """Draw the sheets of every stage, or copy them from an earlier gallery.

    Args:
        artifact: Folder with the images table, and perhaps an earlier gallery.
        manifest: Its manifest.
        output: The gallery's folder.
        work: The run's work folder, if there is one.
        reporter: Shows progress.
    """
    shards = _start_shards(work, manifest)
    snapshots = _snapshots(work, manifest) if shards else []
    earlier = None if shards else _earlier(artifact / GALLERY, manifest)
    if earlier is not None:
        return _copy_earlier(artifact, manifest, output, earlier, reporter)
    has_start = bool(shards) and manifest.method_setting("iterations", 0) > 0
    num_images = manifest.num_images * (1 + has_start) + sum(len(snapshot.rows) for snapshot in snapshots)
    pictures = Pictures.plan(manifest, num_images)
    stages = []
    with reporter.stage("gallery", pictures.ipc * (1 + has_start)) as task:
        if has_start:
            stages.append(pictures.whole_stage(START, _STARTS.get(_init_of(manifest), "real image"), 0))
            draw_whole(output, pictures, stages[0], task.counting(_patches(shards, manifest), pictures.num_classes))
        for snapshot in snapshots:
            name = snapshot_name(len(stages))
            stage = pictures.part_stage(name, snapshot.title, snapshot.iteration, snapshot.rows)
            draw_part(output, pictures, stage, snapshot.images)
            stages.append(stage)
        return pictures.with_stages([*stages, _draw_recovered(artifact, manifest, output, pictures, task)])


def _draw_recovered(artifact: Path, manifest: Manifest, output: Path, pictures: Pictures, task: Task) -> Stage:
    iterations = manifest.method_setting("iterations", 0)
    stage = pictures.whole_stage(RECOVERED, "recovered image" if iterations else "image", iterations or None)
    draw_whole(output, pictures, stage, task.counting(each_image(artifact, manifest), pictures.num_classes))
    return stage


def _earlier(gallery: Path, manifest: Manifest) -> Pictures | None:
    """Return the contents of an earlier gallery, if it has more than the artifact's own images."""
    pictures = read_pictures(gallery)
    if pictures is None or all(stage.name == RECOVERED for stage in pictures.stages):
        return None
    num_images = sum(len(stage.rows) if stage.rows else manifest.num_images for stage in pictures.stages)
    if not pictures.has_same_sheets(Pictures.plan(manifest, num_images)):
        raise ArtifactError(
            f"{gallery.name}/ has images of another artifact or version; remove that folder, and regenerate it with "
            "fadrm-hf gallery"
        )
    return pictures


def _copy_earlier(artifact: Path, manifest: Manifest, output: Path, earlier: Pictures, reporter: Reporter) -> Pictures:
    """Copy the earlier gallery's stages, and draw the images themselves from the artifact."""
    kept = [stage for stage in earlier.stages if stage.name != RECOVERED]
    for file in (file for stage in kept for file in stage.files):
        if not (artifact / GALLERY / file).is_file():
            raise ArtifactError(f"{GALLERY}{file} is missing; fetch the artifact again, or remove {GALLERY}")
        if (output / file) != (artifact / GALLERY / file):
            output.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact / GALLERY / file, output / file)
    with reporter.stage("gallery", earlier.ipc) as task:
        return earlier.with_stages([*kept, _draw_recovered(artifact, manifest, output, earlier, task)])


def _start_shards(work: Path | None, manifest: Manifest) -> list[Path]:
    """Return the files of starting images; none unless they are complete."""
    files = sorted((work / PATCHES).glob("*.safetensors")) if work else []
    return files if sum(len(load_tensors(file)["label"]) for file in files) == manifest.num_images else []


def _patches(shards: Sequence[Path], manifest: Manifest) -> Iterator[Tensor]:
    """Yield the starting images in the order of the images table."""
    tables = [load_tensors(file) for file in shards]  # mapped, not read
    rows = torch.cat([table["ipc_index"] * len(manifest.classes.ids) + table["label"] for table in tables])
    positions = {row: position for position, row in enumerate(rows.tolist())}
    ends = torch.tensor([len(table["label"]) for table in tables]).cumsum(0).tolist()
    for row in range(manifest.num_images):
        index = bisect_right(ends, positions[row])
        yield tables[index]["images"][positions[row] - (ends[index - 1] if index else 0)]


def _snapshots(work: Path | None, manifest: Manifest) -> list[Snapshot]:
    """Return the snapshots between the beginning and the end, which the other stages show."""
    shards = [load_tensors(file) for file in sorted((work / SNAPSHOTS).glob("*.safetensors"))] if work else []
    if len(shards) < 3 or work is None:
        return []
    rows = _rows_of_first_shard(work, manifest)
    return [
        Snapshot(int(shard["iteration"]), int(shard["iteration"]) == int(before["iteration"]), rows, shard["images"])
        for before, shard in pairwise(shards[:-1])
    ]


def _rows_of_first_shard(work: Path, manifest: Manifest) -> tuple[int, ...]:
    """Return the rows of the images in the snapshots, in their order."""
    num_classes = len(manifest.classes.ids)
    shard = recovery_shards(num_classes, manifest.ipc, manifest.settings("recover", RecoverConfig))[0]
    start = load_tensors(work / PATCHES / f"{range_name(shard.classes)}.safetensors")
    is_there = torch.isin(start["ipc_index"], torch.tensor(shard.ipc_indices))
    return tuple((start["ipc_index"] * num_classes + start["label"])[is_there].tolist())


def _init_of(manifest: Manifest) -> str:
    return str(manifest.method_setting("init", ""))
