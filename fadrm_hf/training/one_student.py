"""One student, from its initial weights to its accuracy on the test images, resumed where it was interrupted."""

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fadrm_hf.config import StudentConfig
from fadrm_hf.errors import StudentError
from fadrm_hf.labels.drawing import micro_batches
from fadrm_hf.networks.students import create_student
from fadrm_hf.runtime.checkpoint import load_checkpoint, save_checkpoint
from fadrm_hf.runtime.files import read_json, write_json
from fadrm_hf.runtime.progress import Task
from fadrm_hf.runtime.randomness import derive_seed
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER
from fadrm_hf.training.accuracy import predict, topk_accuracy
from fadrm_hf.training.batch import Batch, select_rows, split, to_device
from fadrm_hf.training.loader import Distilled, Labels
from fadrm_hf.training.protocol import (
    create_optimiser,
    epoch_learning_rate,
    is_hard_epoch,
    set_learning_rate,
)
from fadrm_hf.training.shared_norm import check_shareable
from fadrm_hf.training.slimming import NO_SLIMMING, SlimmingPhase
from fadrm_hf.training.student_group import ALONE, StudentGroup
from fadrm_hf.training.student_step import CapturedStep, StudentStep, by_micro_batch, measure_statistics
from fadrm_hf.training.testing import TestImages, epochs_to_test

_NUM_CHECKPOINTS = 10


@dataclass(frozen=True)
class Outcome:
    """The accuracies of one trained student on the test images, as fractions."""

    top1: float
    top5: float
    best_epoch_top1: float | None
    seconds: float


class StudentTraining:
    """One student, from its initial weights to its accuracy.

    Args:
        distilled: The artifact under the protocol (`apply_protocol`).
        test: The test images.
        config: The resolved protocol (`resolve_protocol`).
        seed: Seed of the student's weights and dropout.
        device: Where it trains.
        group: The processes that train it together, each on its own device.
        phase: Its initial network and penalty, if it is slimmed.

    Raises:
        StudentError: If there are several processes and the network cannot be divided over them.
    """

    def __init__(
        self,
        distilled: Distilled,
        test: TestImages,
        config: StudentConfig,
        seed: int,
        device: torch.device,
        group: StudentGroup = ALONE,
        phase: SlimmingPhase = NO_SLIMMING,
    ) -> None:
        self._distilled, self._test, self._config, self._seed = distilled, test, config, seed
        self._epochs, self._device, self._group = config.epochs, device, group
        torch.manual_seed(derive_seed(seed, "student", config.student))
        shape = (len(distilled.manifest.classes.ids), distilled.manifest.pixels.size)
        student = phase.network
        if student is None:
            student = create_student(config.student, *shape, config.implementation)
        self._phase_key = phase.key  # before its network is trained
        if group.size > 1:
            check_shareable(student)
        self._student = student.to(device).to(memory_format=torch.channels_last).train()
        self._optimiser = create_optimiser(config, student)
        phase.penalise(self._optimiser, student, config.student)
        self._average = None if config.ema is None else average_weights(self._student, config.ema)
        step = StudentStep(self._student, self._optimiser, config, group)
        self._step = CapturedStep(step, device) if device.type == "cuda" and group.size == 1 else step

    @property
    def student(self) -> nn.Module:
        """The network at its current weights, or at its averaged weights if the protocol evaluates those."""
        return self._student if self._average is None else self._average.module

    @property
    def _networks(self) -> nn.Module:
        """All weights that a checkpoint holds."""
        if self._average is None:
            return self._student
        return nn.ModuleDict({"student": self._student, "average": self._average.module})

    def run(self, checkpoint: Path, task: Task, num_checkpoints: int = _NUM_CHECKPOINTS) -> Outcome:
        """Train to the end; resume from `checkpoint` if an earlier call was interrupted.

        Args:
            checkpoint: File that holds the state between epochs and after the last; see `remove_checkpoint`.
            task: Bar that counts epochs.
            num_checkpoints: Approximate number of checkpoints; 1 is after the last epoch only. The test accuracy is
                measured at the last and, as long as that takes no longer than the training, at others
                (`epochs_to_test`), to print the best epoch next to the last one.

        Raises:
            RunFolderError: If the processes that train the student find different checkpoints.
            StudentError: If the loss is no longer finite.
        """
        started = time.monotonic()
        fingerprint = self._fingerprint()
        first = load_checkpoint(checkpoint, self._networks, self._optimiser, fingerprint)
        self._group.require_same_start(first)
        curve = [point for point in _read_curve(_curve_file(checkpoint)) if point["epoch"] <= first]
        started -= curve[-1]["seconds"] if curve else 0.0  # of earlier calls
        task.skip(first)
        batches = self._batches(first)
        saved = checkpoint_epochs(self._epochs, num_checkpoints)
        tested = epochs_to_test(saved, self._epochs * len(self._distilled.labels), len(self._test))
        for epoch in range(first, self._epochs):
            loss, rate = self._train_epoch(batches, epoch), epoch_learning_rate(self._config, epoch)
            if epoch + 1 in saved:
                point = {"epoch": epoch + 1, "loss": loss} | (self._accuracy(epoch) if epoch + 1 in tested else {})
                curve.append(point | {"seconds": time.monotonic() - started})
                if self._group.is_leader:
                    write_json(_curve_file(checkpoint), curve)
                    save_checkpoint(checkpoint, self._networks, self._optimiser, epoch + 1, fingerprint)
                task.advance(1, **point, lr=rate)
            else:
                task.advance(1, loss=loss, lr=rate)
        best = max(point["top1"] for point in curve if "top1" in point)
        return Outcome(curve[-1]["top1"], curve[-1]["top5"], best, curve[-1]["seconds"])

    def _batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches from epoch `first` to the end; epochs of hard labels need no logits and no teacher."""
        is_mixed, workers = self._config.labels == "soft", self._config.num_workers
        for is_hard, group in groupby(range(first, self._epochs), lambda epoch: is_hard_epoch(self._config, epoch)):
            phase = list(group)
            epochs = range(phase[0], phase[-1] + 1)
            labels: Labels | None = "none" if is_hard else None
            with self._distilled.batches(epochs, is_mixed, workers, labels=labels, device=self._device) as batches:
                yield from batches

    def _fingerprint(self) -> str:
        """Return the SHA-256 of everything that decides the trained weights."""
        files = self._distilled.manifest.files
        tables = {name: record for name, record in files.items() if name.startswith((IMAGES_FOLDER, LABELS_FOLDER))}
        settings = replace(self._config, num_workers=0, num_seeds=1)
        key = (tables, settings, self._distilled.online, self._seed, *self._phase_key)
        return hashlib.sha256(repr(key).encode()).hexdigest()

    def _train_epoch(self, batches: Iterator[Batch], epoch: int) -> float:
        rank = [self._group.rank] if self._group.rank else []  # each process draws for its own rows
        torch.manual_seed(derive_seed(self._seed, "student-epoch", epoch, *rank))  # dropout, stochastic depth
        set_learning_rate(self._optimiser, epoch_learning_rate(self._config, epoch))
        steps = self._distilled.steps_per_epoch
        is_hard = is_hard_epoch(self._config, epoch)
        loss = torch.stack([self._take(next(batches), is_hard) for _ in range(steps)]).mean().item()
        if not math.isfinite(loss):
            raise StudentError(
                f"the loss of {self._config.student} became {loss} in epoch {epoch + 1}; lower --student.lr "
                f"(now {self._config.lr})"
            )
        return loss

    def _take(self, batch: Batch, is_hard: bool) -> Tensor:
        """Take one step and return its mean loss."""
        sizes = micro_batches(len(batch.labels), self._distilled.relabel)
        loss = self._step(to_device(batch, self._device), sizes, is_hard)
        if self._average is not None and self._config.ema is not None:
            update_average(self._average, self._student, self._config.ema)
        return loss

    def _accuracy(self, epoch: int) -> dict[str, float]:
        if self._average is not None and self._config.ema_buffers != "copy":
            measure_statistics(self.student, self._views(epoch))
        labels, hits = self._test.labels, [0, 0]
        if rows := self._group.rows(len(labels)):
            logits, true = predict(self.student, self._test.batches(rows)), labels[rows.start : rows.stop]
            hits = [round(topk_accuracy(logits, true, k) * len(rows)) for k in (1, 5)]
        top1, top5 = self._group.sum_counts(hits)
        return {"top1": top1 / len(labels), "top5": top5 / len(labels)}

    def _views(self, epoch: int) -> Iterator[Tensor]:
        """Yield this process's rows of an epoch's micro-batches, as BatchNorm of the averaged network should see them.

        The network must see each micro-batch before the next is requested.
        """
        epochs, is_mixed = range(epoch, epoch + 1), self._config.labels == "soft"
        workers, device = self._config.num_workers, self._device
        with self._distilled.batches(epochs, is_mixed, workers, labels="none", device=device) as batches:
            for batch in batches:
                for part in split(batch, micro_batches(len(batch.labels), self._distilled.relabel)):
                    views = to_device(select_rows(part, self._group.rows(len(part.labels))), self._device)
                    with by_micro_batch(self.student, [len(part.labels)], self._group):
                        yield views.images


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove the checkpoint of a finished training, its curve, and half-written files."""
    temporaries = checkpoint.parent.glob(f".{checkpoint.stem}.*.tmp")
    for file in (checkpoint, _curve_file(checkpoint), *temporaries):
        file.unlink(missing_ok=True)


def average_weights(student: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential average of a student's weights, evaluated instead of the student (EDC, arXiv 2404.13733).

    The average begins at the initial weights. Its BatchNorm statistics should be measured with the averaged weights;
    the released code copies the student's, which belong to the student's latest weights (shaoshitong/EDC @ 80116a7).
    """
    average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(decay))
    average.update_parameters(student)  # the first update copies, the following ones average
    return average


@torch.no_grad()
def update_average(average: AveragedModel, student: nn.Module, decay: float) -> None:
    """Draw an average (`average_weights`) towards a student's weights.

    The numbers are those of its own `update_parameters`, which sends a GPU the number of updates each time.
    """
    torch._foreach_lerp_(list(average.module.parameters()), list(student.parameters()), 1.0 - decay)
    for kept, newest in zip(average.module.buffers(), student.buffers(), strict=True):
        kept.copy_(newest)


def checkpoint_epochs(epochs: int, number: int = _NUM_CHECKPOINTS) -> list[int]:
    """Return after which epochs, from 1, the state of a training is saved: about `number`, the last among them."""
    every = max(1, epochs // number)
    return [*range(every, epochs, every), epochs]


def _curve_file(checkpoint: Path) -> Path:
    """Return the file next to a checkpoint that holds the losses and accuracies measured so far."""
    return checkpoint.with_suffix(".json")


def _read_curve(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    curve: list[dict[str, float]] | None = read_json(path)
    if curve is None:
        checkpoint = path.with_suffix(".safetensors")
        raise StudentError(f"{path} is damaged; delete it and {checkpoint} to restart this training")
    return curve
