"""Checks that an artifact is what it says it is: every hash, every row, and sampled soft labels.

A hash says which file has changed; what the file means says which rows. An image's label and ipc index follow from its
row, and PNG carries its own checksums; parquet pages carry theirs; and a soft label can be made again from its view.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image as PillowImage
from torch import Tensor

from fadrm_hf.artifact.location import Location, table_names
from fadrm_hf.artifact.manifest import Manifest, artifact_files, is_unaltered, read_manifest
from fadrm_hf.artifact.reading import (
    Array,
    Arrays,
    decode_png,
    image_row_bytes,
    label_row_bytes,
    one_line,
    open_table,
    read_images,
    read_label_columns,
    reading,
    require_group_size,
    require_schema,
    table_files,
)
from fadrm_hf.artifact.recorded_teachers import recorded_labeller, withheld_teachers
from fadrm_hf.artifact.row_checks import bad_rows
from fadrm_hf.artifact.tables import label_names
from fadrm_hf.builders.images import image_features
from fadrm_hf.data.views import LabelViews
from fadrm_hf.errors import FadrmError
from fadrm_hf.hub.repository import fetch_all, label_folder, unlisted_files
from fadrm_hf.labels.codecs import LabelCodec, find_codec
from fadrm_hf.pipeline.legacy.order_check import TOLERANCE as IMPORTED_TOLERANCE
from fadrm_hf.runtime.files import sha256
from fadrm_hf.runtime.progress import QUIET, Reporter, Task
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER, MANIFEST
from fadrm_hf.runtime.shards import join_world

# Largest difference of a replayed logit, as a fraction of the largest magnitude in its row. Rounding to float16
# changes a logit by up to 2^-11 of itself, and other hardware by about as much again (TF32 has the same 10-bit
# mantissa, and batch statistics pass it on to the whole micro-batch); 2^-6 leaves a factor of 16 over both. Another
# crop, partner or teacher moves a row by a tenth of its scale and more.
TOLERANCE = 2.0**-6

Relabel = Callable[[Tensor, Arrays], Tensor]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: Path inside the artifact.
        where: The row or rows, or "" for the whole file.
        message: What is wrong with it.
    """

    file: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}{', ' if self.where else ''}{self.where}: {self.message}"


def verify_location(location: Location, num_steps: int = 4, reporter: Reporter = QUIET) -> list[Problem]:
    """Check an artifact wherever it is, its soft labels against those that its own teachers give.

    Args:
        location: A folder, or a repository on the Hub, of which every file is fetched.
        num_steps: See `verify_artifact`; 0 leaves the teachers alone.
        reporter: Where progress goes.

    Returns:
        What is wrong. That the teachers cannot be loaded is a problem too.
    """
    folder = fetch_all(location)
    unlisted = [Problem(name, "", f"is not in {MANIFEST}") for name in unlisted_files(location)]
    try:
        # An imported release may not know its teachers; another may have left out their weights.
        can_replay = num_steps and location.manifest.teachers and not withheld_teachers(location.manifest)
        relabel = _relabel_by_teachers(folder, location.manifest) if can_replay else None
    except FadrmError as error:
        num_steps, relabel = 0, None
        unlisted.append(Problem(MANIFEST, "teachers", f"labels cannot be made again: {error}"))
    return verify_artifact(folder, num_steps, relabel, label_folder(location), reporter) + unlisted


def _relabel_by_teachers(folder: Path, manifest: Manifest) -> Relabel:
    labeller = recorded_labeller(folder, manifest, join_world().device)

    def relabel(images: Tensor, rows: Arrays) -> Tensor:
        views = LabelViews.from_columns({name: torch.from_numpy(column) for name, column in rows.items()})
        return labeller.label(images, views)

    return relabel


def verify_artifact(
    folder: Path,
    num_steps: int = 4,
    relabel: Relabel | None = None,
    labels: Path | None = None,
    reporter: Reporter = QUIET,
) -> list[Problem]:
    """Check every file and every row, and replay sampled steps; of a damaged epoch, all steps.

    Args:
        folder: The artifact.
        num_steps: How many steps are labelled again, drawn over all epochs.
        relabel: (images (N, 3, S, S) uint8, columns of the rows of one step) -> logits (n, C) float32, by the
            teachers that labelled them; `None` leaves the logits to their checksums.
        labels: The folder that `soft_labels/` is in, if it is another.
        reporter: Where progress goes.

    Returns:
        What is wrong: files first, then images, then soft labels. Nothing if all is well.
    """
    try:
        manifest = read_manifest(folder)
    except FadrmError as error:
        return [Problem(MANIFEST, "", str(error))]
    labels = labels or folder
    tables = [*table_names(manifest, IMAGES_FOLDER), *table_names(manifest, LABELS_FOLDER)]
    with reporter.stage("verify", len(manifest.files) + len(tables)) as task:  # tables are hashed, and read
        problems = list(_check_files(folder, labels, manifest, task))
        changed = {problem.file for problem in problems}
        image_problems = list(_check_images(folder, manifest, changed, task))
        images = None if image_problems or relabel is None else read_images(folder)[0]
        check = _LabelCheck(manifest, changed, images, relabel, num_steps)
        return problems + image_problems + list(check.table(labels, task))


def _check_files(folder: Path, labels: Path, manifest: Manifest, task: Task) -> Iterator[Problem]:
    """Yield files that are missing, unknown or changed."""
    if manifest.class_map.hash != manifest.classes.hash:
        yield Problem(MANIFEST, "classes.hash", "is not the hash of the class ids; one of them was changed")
    if not is_unaltered(folder):
        yield Problem(MANIFEST, "digest", "is not the hash of the manifest; something in it was changed")
    present = {name: folder / name for name in artifact_files(folder)}
    present |= {f"{LABELS_FOLDER}/{file.name}": file for file in (labels / LABELS_FOLDER).glob("*")}
    for name in sorted(present.keys() - manifest.files.keys()):
        yield Problem(name, "", f"is not in {MANIFEST}")
    for name, record in manifest.files.items():
        if name not in present:
            yield Problem(name, "", "is missing")
        elif (size := present[name].stat().st_size) != record.bytes:
            yield Problem(name, "", f"has {size} bytes, expected {record.bytes}")
        elif (found := sha256(present[name])) != record.sha256:
            yield Problem(name, "", f"has SHA-256 {found[:12]}…, expected {record.sha256[:12]}…")
        task.advance()


def _check_images(folder: Path, manifest: Manifest, changed: set[str], task: Task) -> Iterator[Problem]:
    """Yield rows of the images table whose picture, label or position is wrong."""
    row = 0
    try:
        for file in table_files(folder, IMAGES_FOLDER):
            table, name = open_table(file), f"{IMAGES_FOLDER}/{file.name}"
            require_schema(file, table, image_features(label_names(manifest.class_map)))
            for group in range(table.num_row_groups):
                require_group_size(file, table, group, image_row_bytes(manifest))
                rows = range(row, row + table.metadata.row_group(group).num_rows)
                found = [Problem(name, where, message) for where, message in _bad_images(file, group, rows, manifest)]
                if not found and name in changed:
                    found = list(_damaged_pages(file, group, row, ""))
                yield from found
                row = rows.stop
            task.advance()
    except FadrmError as error:
        yield Problem(f"{IMAGES_FOLDER}/", "", str(error))
        return
    if row != manifest.num_images:
        yield Problem(f"{IMAGES_FOLDER}/", "", f"has {row} rows, expected {manifest.num_images}")


def _bad_images(file: Path, group: int, rows: range, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield rows of a group that are not an image of the right size with the label and ipc index of their position."""
    try:
        with reading(file):  # and without page checksums, so that a damaged row can be told from those beside it
            columns = pq.ParquetFile(file).read_row_group(group, ["image", "label", "ipc_index"]).to_pylist()
    except FadrmError as error:
        yield f"rows {rows.start} to {rows.stop - 1}", str(error)
        return
    for row, found in zip(rows, columns, strict=True):
        ipc_index, label = divmod(row, len(manifest.class_map))
        if (found["ipc_index"], found["label"]) != (ipc_index, label):
            place = f"ipc_index {found['ipc_index']}, label {found['label']}"
            yield f"row {row}", f"has {place}; by the order of rows it is {ipc_index} and {label}"
        try:
            with reading(file):
                content = (found["image"] or {}).get("bytes") or b""
                PillowImage.open(io.BytesIO(content), formats=["PNG"]).verify()
                decode_png(content, manifest.pixels.size)
        except FadrmError as error:
            yield f"row {row}", str(error)


def _damaged_pages(file: Path, group: int, first_row: int, prefix: str) -> Iterator[Problem]:
    """Yield the columns of a row group that have a page whose checksum fails, and from which row on."""
    names = pq.ParquetFile(file).schema_arrow.names
    num_rows = pq.ParquetFile(file).metadata.row_group(group).num_rows
    for column in names:
        try:
            open_table(file).read_row_group(group, [column])
        except (OSError, pa.ArrowException) as error:
            first = first_row + _readable_rows(file, group, column)
            where = f"{prefix}rows {first} to {first_row + num_rows - 1}"
            yield Problem(
                f"{file.parent.name}/{file.name}", where, f"column {column} is damaged from here: {one_line(error)}"
            )


def _readable_rows(file: Path, group: int, column: str) -> int:
    """Return how many rows of a column come before the first damaged page."""
    rows = 0
    try:
        for batch in open_table(file).iter_batches(1, row_groups=[group], columns=[column], use_threads=False):
            rows += len(batch)
    except (OSError, pa.ArrowException):
        return rows
    return rows


@dataclass(frozen=True, eq=False)
class _LabelCheck:
    """The check of the soft-label table.

    Attributes:
        manifest: What the table should be.
        changed: Files that are not what they were.
        images: (N, 3, S, S) uint8, or `None` when nothing can be replayed.
        relabel: See `verify_artifact`.
        num_steps: See `verify_artifact`.
    """

    manifest: Manifest
    changed: set[str]
    images: Tensor | None
    relabel: Relabel | None
    num_steps: int

    def table(self, folder: Path, task: Task) -> Iterator[Problem]:
        """Yield everything that is wrong with the table."""
        expected, epoch = self.manifest.label_epochs, 0
        sampled = torch.randint(0, expected, (self.num_steps,), generator=generator(0, "verify")).tolist()
        try:
            for file in table_files(folder, LABELS_FOLDER):
                table = open_table(file)
                for group in range(table.num_row_groups):
                    require_group_size(file, table, group, label_row_bytes(self.manifest))
                    yield from self._epoch(file, group, epoch, sampled.count(epoch))
                    epoch += 1
                task.advance()
        except FadrmError as error:
            yield Problem(f"{LABELS_FOLDER}/", "", str(error))
            return
        if epoch != expected:
            yield Problem(f"{LABELS_FOLDER}/", "", f"has {epoch} epochs, expected {expected}")

    def _epoch(self, file: Path, group: int, epoch: int, num_steps: int) -> Iterator[Problem]:
        name = f"{LABELS_FOLDER}/{file.name}"
        damage = list(_damaged_pages(file, group, 0, f"epoch {epoch}, ")) if name in self.changed else []
        yield from damage
        try:
            rows = read_label_columns(file, pq.ParquetFile(file), group, self.manifest)
        except FadrmError as error:
            yield Problem(name, f"epoch {epoch}", str(error))
            return
        bad_views = [
            Problem(name, f"epoch {epoch}, row {row}", why) for row, why in bad_rows(rows, epoch, self.manifest)
        ]
        yield from bad_views
        if bad_views or self.images is None or not self._codec.has_logits:
            return
        order = torch.randperm(int(rows["step"][-1]) + 1, generator=generator(0, "verify", epoch))
        for row, why in self._replay(rows, order if damage else order[:num_steps], bool(damage)):
            yield Problem(name, f"epoch {epoch}, step {rows['step'][row]}, row {row}, image {rows['image'][row]}", why)

    def _replay(self, rows: Arrays, steps: Tensor, is_damaged: bool) -> Iterator[tuple[int, str]]:
        """Label the rows of some steps again: which differ, and by how much."""
        assert self.images is not None and self.relabel is not None
        chosen = np.isin(rows["step"], steps.numpy())
        stored = self._codec.decode(rows, len(self.manifest.class_map))
        again = np.zeros_like(stored)
        for step in sorted(steps.tolist()):
            here = rows["step"] == step
            again[here] = self.relabel(self.images, {name: column[here] for name, column in rows.items()}).numpy()
        difference = self._codec.distance(rows, again)
        scale = np.maximum(np.abs(stored), np.abs(again)).max(axis=1)
        tolerance = IMPORTED_TOLERANCE if "import" in self.manifest.config else TOLERANCE
        differs = chosen & ~(difference <= tolerance * scale)  # "not a number" differs too
        if is_damaged:
            differs |= self._changed_bits(rows, again)
        for row in np.flatnonzero(differs):
            yield (
                int(row),
                f"logits differ by {difference[row]:.3g} from those the teachers give ({scale[row]:.3g} at most)",
            )

    def _changed_bits(self, rows: Arrays, again: Array) -> Array:
        """Return the rows that are not bit for bit what was labelled, if most are: on the machine that labelled."""
        coded = self._codec.encode(torch.from_numpy(again))
        differ = [(column.numpy() != rows[name]).reshape(len(again), -1).any(axis=1) for name, column in coded.items()]
        changed = np.logical_or.reduce(differ)
        return changed if changed.mean() < 0.5 else np.zeros_like(changed)

    @property
    def _codec(self) -> LabelCodec:
        return find_codec(self.manifest.label_codec)
