"""Class-incremental learning from one artifact (FADRM, §4.6, Fig. 6), by DM's protocol.

The protocol (arXiv 2110.04181; `CL_DM.py` of VICO-UoE/DatasetCondensation): classes arrive in steps, in an order drawn
for each repetition. After each step a new network is trained from scratch on the distilled images of all classes seen
so far, and tested on the test images of these. Several orders times several networks give mean and standard deviation.

What the papers leave open, and what is done here: students are trained by the artifact's own protocol, or the one that
is asked for, where DM uses SGD with hard labels. Views are drawn anew, so that only seen classes are mixed, and
labelled on the fly by the artifact's teachers. These know all classes; of their logits those of the seen ones are
used, before the softmax, and a student has no others. With `labels="hard"` no teacher is asked.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import ClassRecord
from fadrm_hf.config import StudentConfig, require
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.measured_tables import StudyTable, images_per_class, mean_and_std
from fadrm_hf.evaluation.study import Session, Study, UnitOfWork, fingerprint, measure_units, table_hashes
from fadrm_hf.networks.students import check_student
from fadrm_hf.runtime.progress import Task
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER
from fadrm_hf.training.accuracy import summarise
from fadrm_hf.training.loader import Distilled
from fadrm_hf.training.one_student import StudentTraining
from fadrm_hf.training.protocol import apply_protocol, check_protocol, resolve_protocol
from fadrm_hf.training.testing import TestImages

Step = dict[str, Any]
ImagesOf = Callable[[tuple[int, ...]], tuple[Distilled, TestImages]]


@dataclass(frozen=True)
class Learner:
    """One network to be trained.

    Attributes:
        order: Which order of the classes, from 0.
        step: How many steps have arrived, from 1.
        classes: The labels of all classes seen by then, ascending.
        seed: Which network; no two of a study have the same, so that the last step, where all orders see the same
            classes, has as many networks as any other.
    """

    order: int
    step: int
    classes: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class ContinualLearning(Study[list[Step]]):
    """A class-incremental evaluation.

    Attributes:
        distilled: The artifact.
        source: Its source, for the test images.
        protocol: How students are trained, with nothing left open; `num_seeds` networks for each order and step.
        num_steps: In how many steps the classes arrive.
        num_orders: How many orders of the classes are tried.
        work: Folder of checkpoints and of accuracies that are on file, which are not measured again.
    """

    distilled: Distilled
    source: Source
    protocol: StudentConfig
    num_steps: int
    num_orders: int
    work: Path

    @property
    def learners(self) -> list[Learner]:
        """All networks, those of one step of one order next to each other."""
        num_classes, num_seeds = len(self.source.class_map), self.protocol.num_seeds
        return [
            Learner(order, step, classes, seed)
            for order in range(self.num_orders)
            for step, classes in enumerate(classes_seen(num_classes, self.num_steps, order), start=1)
            for seed in range(order * num_seeds, (order + 1) * num_seeds)
        ]

    def measure(self, session: Session) -> Iterator[list[Step]]:
        """Train and test every network; networks are divided over all processes.

        Yields:
            Once, for each step its number, how many classes are seen, and the top-1 accuracy on their test images:
            mean, standard deviation and values over orders and networks, those of one order next to each other.
        """
        learners, device = self.learners, session.state.device

        @lru_cache(maxsize=1)  # networks that see the same classes are next to each other
        def images_of(classes: tuple[int, ...]) -> tuple[Distilled, TestImages]:
            test = TestImages(_test_images_of(self.source, classes), device)
            return of_classes(self.distilled, self.protocol, classes), test

        units = [
            UnitOfWork(
                self.work / f"continual-{self._fingerprint(learner)}.json",
                ["training"],
                partial(self._train, learner, images_of, device),
            )
            for learner in learners
        ]
        measured = measure_units("continual", units, self.protocol.epochs, session)
        top1 = [(learner.step, float(values["top1"])) for learner, values in zip(learners, measured, strict=True)]
        yield [
            {
                "step": step,
                "num_classes": next(len(learner.classes) for learner in learners if learner.step == step),
                "top1": summarise([accuracy for number, accuracy in top1 if number == step]),
            }
            for step in range(1, self.num_steps + 1)
        ]

    def table(self, rows: list[Step]) -> StudyTable:
        """Describe the steps, and the mean of each network over them."""
        manifest, protocol = self.distilled.manifest, self.protocol
        by_network = zip(*(step["top1"]["values"] for step in rows), strict=True)
        average = summarise([sum(values) / len(values) for values in by_network])
        images = f"{manifest.source_title} by {manifest.method}, {images_per_class(manifest.ipc)}"
        return StudyTable(
            title=f"{images}, in {self.num_steps} steps",
            template="continual_learning.md",
            facts={
                "num_orders": self.num_orders,
                "num_seeds": protocol.num_seeds,
                "student": protocol.student,
                "protocol": protocol.name,
                "labels": protocol.labels,
                "epochs": protocol.epochs,
            },
            values={"steps": rows, "average": average, "settings": asdict(protocol)},
            texts={
                "rows": [[step["step"], step["num_classes"], _accuracy(step["top1"])] for step in rows],
                "average": _accuracy(average),
            },
            rows=[
                {name: step[name] for name in ("step", "num_classes")}
                | {f"top1_{name}": step["top1"][name] for name in ("mean", "std")}
                for step in rows
            ],
            measured_here=True,
        )

    def _train(
        self, learner: Learner, images_of: ImagesOf, device: torch.device, checkpoints: list[Path], task: Task
    ) -> dict[str, Any]:
        images, test = images_of(learner.classes)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            training = StudentTraining(images, test, self.protocol, learner.seed, device)
            outcome = training.run(checkpoints[0], task, num_checkpoints=1)
        return asdict(learner) | {"top1": outcome.top1, "seconds": outcome.seconds}

    def _fingerprint(self, learner: Learner) -> str:
        files = table_hashes(self.distilled, (IMAGES_FOLDER,))
        settings = replace(self.protocol, num_workers=0, num_seeds=1)
        teachers = [teacher.sha256 for teacher in self.distilled.manifest.teachers]
        views = apply_protocol(self.protocol, self.distilled).relabel
        return fingerprint(files, teachers, self.source.fingerprint, settings, views, learner.classes, learner.seed)


def classes_seen(num_classes: int, num_steps: int, order: int) -> list[tuple[int, ...]]:
    """Return the labels of the classes seen after each step, ascending; larger steps come first.

    Orders are DM's own, numpy's permutations seeded by their number, so that they can be compared.

    Args:
        num_classes: How many classes there are.
        num_steps: In how many steps they arrive, as equal as can be.
        order: Which order, from 0.
    """
    arriving = np.array_split(np.random.RandomState(order).permutation(num_classes), num_steps)
    return [tuple(sorted(np.concatenate(arriving[: step + 1]).tolist())) for step in range(num_steps)]


def prepare_continual_learning(
    distilled: Distilled, source: Source, given: StudentConfig, num_steps: int, num_orders: int, work: Path
) -> ContinualLearning:
    """Resolve the protocol, refusing what cannot work before anything is trained.

    What it leaves open is taken from the artifact or from the tables; for the rest see `ContinualLearning`.

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
    study = ContinualLearning(distilled, source, protocol, num_steps, num_orders, work)
    first = study.learners[0].classes
    check_protocol(protocol, of_classes(distilled, protocol, first))
    check_student(protocol.student, len(first), distilled.manifest.pixels.size)
    return study


def of_classes(distilled: Distilled, protocol: StudentConfig, classes: Sequence[int]) -> Distilled:
    """Return an artifact as if it had been distilled from some of its classes: fewer images, views of these alone.

    Args:
        distilled: The artifact.
        protocol: How students are trained, with nothing left open: its own views, or such as the artifact stores.
        classes: Labels, ascending; a class's new label is its index among them.
    """
    rows, labels = _rows_of(distilled.labels, classes)
    class_map = distilled.manifest.class_map
    chosen = replace(class_map, ids=_chosen(class_map.ids, classes), names=_chosen(class_map.names, classes))
    record = ClassRecord(chosen.ids, chosen.names, chosen.hash)
    whole, manifest = distilled.location, replace(distilled.manifest, classes=record)
    location = _PartialLocation(whole.name, whole.folder, manifest, whole)
    views = replace(apply_protocol(protocol, distilled).relabel, epochs=protocol.epochs, stored_epochs=None)
    part = replace(distilled, location=location, images=distilled.images[rows], labels=labels)
    return part.redrawn(views)


@dataclass(frozen=True)
class _PartialLocation(Location):
    """An artifact's location with some of the classes in its manifest; its files are those of all."""

    whole: Location

    def local(self, name: str) -> Path:
        return self.whole.local(name)

    def stream(self, name: str) -> BinaryIO:
        return self.whole.stream(name)


def _test_images_of(source: Source, classes: Sequence[int]) -> Source:
    """Return the test images of some classes, labelled by their indices among these."""
    all_labels = torch.as_tensor(source.labels("test"))
    rows, labels = _rows_of(all_labels, classes)
    column = torch.full_like(all_labels, -1).index_copy(0, rows, labels)
    test = source.rows("test").remove_columns("label").add_column("label", column.tolist())
    return replace(source, test=test.select(rows.tolist()))


def _rows_of(labels: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the rows that have one of the ascending `classes`, and its index among them; both (n,) int64."""
    chosen = torch.tensor(classes)
    rows = torch.isin(labels, chosen).nonzero().squeeze(1)
    return rows, torch.searchsorted(chosen, labels[rows])


def _accuracy(top1: dict[str, Any]) -> str:
    return mean_and_std(top1["mean"], top1["std"], len(top1["values"]))


def _chosen(texts: Sequence[str], classes: Sequence[int]) -> tuple[str, ...]:
    return tuple(texts[label] for label in classes)
