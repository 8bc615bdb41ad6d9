"""Class-incremental learning from one artifact (FADRM, §4.6, Fig. 6), by DM's protocol.

The protocol (arXiv 2110.04181; `CL_DM.py` of VICO-UoE/DatasetCondensation): classes arrive in steps, in an order drawn
for each repetition. After each step a new network is trained from scratch on the distilled images of all classes seen
so far, and tested on the test images of these. Several orders times several networks give mean and standard deviation.

What the papers leave open, and what is done here: students are trained by the artifact's own protocol, or the one that
is asked for, where DM uses SGD with hard labels. Views are drawn anew, so that only seen classes are mixed, and
labelled on the fly by the artifact's teachers. These know all classes; of their logits those of the seen ones are
used, before the softmax, and a student has no others. With `labels="hard"` no teacher is asked.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import ClassRecord, Manifest
from fadrm_hf.config import StudentConfig, require
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ConfigError
from fadrm_hf.networks.students import check_student
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.progress import Reporter, Task
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER
from fadrm_hf.runtime.shards import from_all, mine
from fadrm_hf.training.accuracy import summarise
from fadrm_hf.training.loader import Distilled
from fadrm_hf.training.one_student import StudentTraining, TestImages, remove_checkpoint
from fadrm_hf.training.protocol import apply_protocol, check_protocol, resolve_protocol


@dataclass(frozen=True)
class Unit:
    """One network to be trained.

    Attributes:
        order: Which order of the classes, from 0.
        step: How many steps have arrived, from 1.
        classes: The labels of all classes seen by then, ascending.
        seed: Which network; no two of a course have the same, so that the last step, where all orders see the same
            classes, has as many networks as any other.
    """

    order: int
    step: int
    classes: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class Course:
    """A class-incremental evaluation.

    Attributes:
        distilled: The artifact.
        source: Its source, for the test images.
        protocol: How students are trained, with nothing left open; `num_seeds` networks for each order and step.
        num_steps: In how many steps the classes arrive.
        num_orders: How many orders of the classes are tried.
    """

    distilled: Distilled
    source: Source
    protocol: StudentConfig
    num_steps: int
    num_orders: int

    @property
    def units(self) -> list[Unit]:
        """All networks, those of one step of one order beside one another."""
        num_classes, num_seeds = len(self.source.class_map), self.protocol.num_seeds
        return [
            Unit(order, step, classes, seed)
            for order in range(self.num_orders)
            for step, classes in enumerate(classes_seen(num_classes, self.num_steps, order), start=1)
            for seed in range(order * num_seeds, (order + 1) * num_seeds)
        ]


def classes_seen(num_classes: int, num_steps: int, order: int) -> list[tuple[int, ...]]:
    """The labels of the classes seen after each step, ascending; steps are as equal as can be, larger ones first.

    Orders are DM's own, numpy's permutations seeded by their number, so that they can be compared.

    Args:
        num_classes: How many classes there are.
        num_steps: In how many steps they arrive.
        order: Which order, from 0.
    """
    arriving = np.array_split(np.random.RandomState(order).permutation(num_classes), num_steps)
    return [tuple(sorted(np.concatenate(arriving[: step + 1]).tolist())) for step in range(num_steps)]


def prepare_course(
    distilled: Distilled, source: Source, given: StudentConfig, num_steps: int, num_orders: int
) -> Course:
    """Resolve the protocol, refusing what cannot work before anything is trained.

    Args:
        distilled: The artifact.
        source: Its source.
        given: The protocol; what it leaves open is taken from the artifact or from the tables.
        num_steps: In how many steps the classes arrive.
        num_orders: How many orders of the classes are tried.

    Raises:
        ConfigError: For a number of steps or orders that cannot be.
        StudentError: If the student cannot be trained as asked, or the artifact names no teachers to label views.
    """
    num_classes = len(source.class_map)
    require(2 <= num_steps <= num_classes, "steps", num_steps, f"from 2 to {num_classes}, the number of classes")
    require(num_orders >= 1, "orders", num_orders, "at least 1")
    fewest = num_classes // num_steps * distilled.manifest.ipc
    if fewest < 2:
        raise ConfigError(
            f"steps is {num_steps}, with which a first step has {fewest} image, expected at least 2 for BatchNorm; set"
            f" --steps {num_classes // 2} or less, or use an artifact of more images per class"
        )
    protocol = resolve_protocol(distilled, given)
    course = Course(distilled, source, protocol, num_steps, num_orders)
    first = course.units[0].classes
    check_protocol(protocol, of_classes(distilled, protocol, first))
    check_student(protocol.student, len(first), distilled.manifest.pixels.size)
    return course


def learn_continually(course: Course, work: Path, reporter: Reporter, state: PartialState) -> list[dict[str, Any]]:
    """Train and test every network; networks are divided over all processes.

    Args:
        course: From `prepare_course`.
        work: Folder for checkpoints and the accuracies that are known; an interrupted call goes on from there, and a
            finished one is not repeated.
        reporter: Shows and logs the epochs.
        state: The processes, each with the device that its students train on.

    Returns:
        For each step its number, how many classes are seen, and the top-1 accuracy on their test images: mean,
        standard deviation and values over orders and networks, those of one order beside one another.

    Raises:
        StudentError: If a training diverges.
    """
    units = course.units
    own: dict[int, float] = {}
    numbers = mine(range(len(units)), state)
    num_epochs = len(numbers) * (course.protocol.epochs or 0)
    with reporter.stage("continual", num_epochs) as task:
        for _, same in groupby(numbers, key=lambda number: (units[number].order, units[number].step)):
            together = list(same)
            found = _accuracies(course, [units[number] for number in together], work, task, state.device)
            own |= dict(zip(together, found, strict=True))
    accuracies = from_all(own, state)
    return [
        {
            "step": step,
            "num_classes": next(len(unit.classes) for unit in units if unit.step == step),
            "top1": summarise([value for unit, value in zip(units, accuracies, strict=True) if unit.step == step]),
        }
        for step in range(1, course.num_steps + 1)
    ]


def of_classes(distilled: Distilled, protocol: StudentConfig, classes: Sequence[int]) -> Distilled:
    """An artifact as if it had been distilled from some of its classes: fewer images, views of these alone.

    Args:
        distilled: The artifact.
        protocol: How students are trained, with nothing left open: its own views, or such as the artifact stores.
        classes: Labels, ascending; a new label is a class's place among them.
    """
    rows, labels = _rows_of(distilled.labels, classes)
    known = distilled.manifest.class_map
    chosen = replace(known, ids=_chosen(known.ids, classes), names=_chosen(known.names, classes))
    record = ClassRecord(chosen.ids, chosen.names, chosen.hash)
    location = _OfClasses(distilled.location, replace(distilled.manifest, classes=record))
    views = replace(apply_protocol(protocol, distilled).relabel, epochs=protocol.epochs, stored_epochs=None)
    part = replace(distilled, location=location, images=distilled.images[rows], labels=labels)
    return part.redrawn(views)


@dataclass(frozen=True)
class _OfClasses:
    """An artifact's location, whose manifest has some of the classes; its files are those of all."""

    whole: Location
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def folder(self) -> Path:
        return self.whole.folder

    def local(self, name: str) -> Path:
        return self.whole.local(name)

    def stream(self, name: str) -> BinaryIO:
        return self.whole.stream(name)


def _accuracies(
    course: Course, units: Sequence[Unit], work: Path, task: Task, device: torch.device
) -> Iterator[float]:
    """The accuracies of networks that see the same classes; those that are known are not measured again."""
    files = [work / f"continual-{_fingerprint(course, unit)}.json" for unit in units]
    if not all(file.exists() for file in files):
        shown = of_classes(course.distilled, course.protocol, units[0].classes)
        test = TestImages(_tested_on(course.source, units[0].classes), device)
    for unit, file in zip(units, files, strict=True):
        if file.exists():
            task.skip(course.protocol.epochs or 0)
        else:
            checkpoint = file.with_suffix(".safetensors").with_stem(f"{file.stem}-training")
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                training = StudentTraining(shown, test, course.protocol, unit.seed, device)
                outcome = training.run(checkpoint, task, num_evaluations=1)
            write_json(file, asdict(unit) | {"top1": outcome.top1, "seconds": outcome.seconds})
            remove_checkpoint(checkpoint)
        yield float(json.loads(file.read_text("utf-8"))["top1"])


def _fingerprint(course: Course, unit: Unit) -> str:
    """Of everything that decides an accuracy."""
    manifest = course.distilled.manifest
    files = {name: record.sha256 for name, record in manifest.files.items() if name.startswith(IMAGES_FOLDER)}
    settings = replace(course.protocol, num_workers=0, num_seeds=1)
    teachers = [teacher.sha256 for teacher in manifest.teachers]
    views = apply_protocol(course.protocol, course.distilled).relabel
    key = (files, teachers, course.source.fingerprint, settings, views, unit.classes, unit.seed)
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]


def _tested_on(source: Source, classes: Sequence[int]) -> Source:
    """The test images of some classes, labelled by their places among these."""
    known = torch.as_tensor(source.labels("test"))
    rows, labels = _rows_of(known, classes)
    column = torch.full_like(known, -1).index_copy(0, rows, labels)
    test = source.rows("test").remove_columns("label").add_column("label", column.tolist())
    return replace(source, test=test.select(rows.tolist()))


def _rows_of(labels: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The rows that have one of the ascending `classes`, and its place among them; both (n,) int64."""
    chosen = torch.tensor(classes)
    rows = torch.isin(labels, chosen).nonzero().squeeze(1)
    return rows, torch.searchsorted(chosen, labels[rows])


def _chosen(texts: Sequence[str], classes: Sequence[int]) -> tuple[str, ...]:
    return tuple(texts[label] for label in classes)
