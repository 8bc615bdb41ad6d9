"""The evaluation protocol: train students from an artifact alone and say how good they are (Tables 9, 11-18, Eq. 57).

AdamW, one micro-batch at a time so that BatchNorm sees what the teachers saw, Kullback-Leibler divergence at T = 20
without the T^2 factor, a cosine slowed down by eta. The number reported is that of the last epoch.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fadrm_hf.artifact.tables import IMAGES_FOLDER, LABELS_FOLDER
from fadrm_hf.checkpoint import load_checkpoint, save_checkpoint
from fadrm_hf.config import SourceConfig, StudentConfig
from fadrm_hf.errors import StudentError
from fadrm_hf.files import write_json
from fadrm_hf.loader import Batch, Distilled
from fadrm_hf.machine import describe_machine, library_versions
from fadrm_hf.presets import student_setting
from fadrm_hf.progress import Reporter, Task
from fadrm_hf.randomness import derive_seed
from fadrm_hf.relabel import micro_batches
from fadrm_hf.schedules import cosine
from fadrm_hf.scores import predict, summarise, topk_accuracy
from fadrm_hf.sources import Source
from fadrm_hf.students import check_student, create_student

_EVALUATIONS = 10  # how often the test accuracy is looked at, to print the best epoch beside the last one
_KEPT_IN_MEMORY = 2 << 30


@dataclass(frozen=True)
class Outcome:
    """One trained student, accuracies on the test images as fractions."""

    top1: float
    top5: float
    best_epoch_top1: float | None
    seconds: float


class TestImages:
    """Batches of normalised test images; decoded once where they fit into memory.

    Args:
        source: The source with a test split.
        device: Where the batches are put.
    """

    _BATCH = 500

    def __init__(self, source: Source, device: torch.device) -> None:
        self._source, self._device = source, device
        self.labels = torch.as_tensor(source.labels("test"))
        small = len(self.labels) * 3 * source.size**2 <= _KEPT_IN_MEMORY
        self._pixels = source.pixels("test", range(len(self.labels))) if small else None

    def __iter__(self) -> Iterator[Tensor]:
        for rows in torch.arange(len(self.labels)).split(self._BATCH):
            kept = self._pixels
            pixels = self._source.pixels("test", rows.tolist()) if kept is None else kept[rows]
            yield self._source.normalise(pixels).to(self._device)


def soft_label_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch; no T^2 factor (as released).

    Args:
        student_logits: (n, C).
        teacher_logits: (n, C).
        temperature: T.
    """
    target = F.softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(F.log_softmax(student_logits / temperature, dim=1), target, reduction="batchmean")


def parameter_groups(student: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for weights of more than one dimension, none for biases and normalisation (as released)."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in student.named_parameters():
        (decayed if "weight" in name and parameter.ndim > 1 else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def protocol_of(distilled: Distilled, given: StudentConfig) -> StudentConfig:
    """`given`, with what it leaves open taken from the artifact's own protocol.

    The learning rate and its slow-down are those of the student's architecture in the papers (S1 to S4), unless it is
    the student that the artifact itself is meant for.
    """
    manifest = distilled.manifest
    own = StudentConfig(**manifest.config["student"])
    epochs = given.epochs or own.epochs or distilled.num_epochs
    if given.student == own.student and own.lr is not None and own.eta is not None:
        lr, eta = own.lr, own.eta
    else:
        lr, eta = student_setting(SourceConfig(**manifest.config["source"]), given.student, manifest.ipc)
    return replace(given, epochs=epochs, lr=given.lr or lr, eta=given.eta or eta)


class StudentTraining:
    """One student, from its initial weights to its accuracy.

    Args:
        distilled: The artifact.
        test: The images it is tested on.
        config: The protocol, with nothing left open (`protocol_of`).
        seed: Seed of the student's weights and dropout.
        device: Where it trains.
    """

    def __init__(
        self, distilled: Distilled, test: TestImages, config: StudentConfig, seed: int, device: torch.device
    ) -> None:
        assert config.epochs is not None and config.lr is not None and config.eta is not None
        self._distilled, self._test, self._config, self._seed = distilled, test, config, seed
        self._epochs, self._lr, self._eta = config.epochs, config.lr, config.eta
        self._device = device
        torch.manual_seed(derive_seed(seed, "student", config.student))
        student = create_student(config.student, len(distilled.manifest.classes.ids), distilled.manifest.pixels.size)
        self._student = student.to(device).to(memory_format=torch.channels_last).train()
        self._optimiser = torch.optim.AdamW(parameter_groups(student, config.weight_decay), lr=self._lr)

    def run(self, checkpoint: Path, task: Task) -> Outcome:
        """Train to the end, from `checkpoint` if an earlier call was interrupted.

        Args:
            checkpoint: File that holds the state between epochs; removed at the end.
            task: Bar that counts epochs.

        Raises:
            StudentError: If the loss stops being finite.
        """
        started = time.monotonic()
        fingerprint = self._fingerprint()
        curve_file = checkpoint.with_suffix(".json")
        first = load_checkpoint(checkpoint, self._student, self._optimiser, fingerprint)
        curve = [point for point in _read_curve(curve_file) if point["epoch"] <= first]
        task.skip(first)
        batches = self._distilled.batches(
            range(first, self._epochs), self._config.labels == "soft", self._config.num_workers
        )
        for epoch in range(first, self._epochs):
            loss = self._train_epoch(batches, epoch)
            if _is_evaluated(epoch, self._epochs):
                curve.append({"epoch": epoch + 1, "loss": loss} | self._accuracy())
                write_json(curve_file, curve)
                save_checkpoint(checkpoint, self._student, self._optimiser, epoch + 1, fingerprint)
                task.advance(1, **curve[-1])
            else:
                task.advance(1, loss=loss)
        for file in (checkpoint, curve_file):
            file.unlink(missing_ok=True)
        best = max(point["top1"] for point in curve)
        return Outcome(curve[-1]["top1"], curve[-1]["top5"], best, time.monotonic() - started)

    def _fingerprint(self) -> str:
        """SHA-256 of everything that decides the trained weights."""
        files = self._distilled.manifest.files
        tables = {name: record for name, record in files.items() if name.startswith((IMAGES_FOLDER, LABELS_FOLDER))}
        settings = replace(self._config, num_workers=0, num_seeds=1)
        return hashlib.sha256(repr((tables, settings, self._seed)).encode()).hexdigest()

    def _train_epoch(self, batches: Iterator[Batch], epoch: int) -> float:
        torch.manual_seed(derive_seed(self._seed, "student-epoch", epoch))  # dropout, stochastic depth
        for group in self._optimiser.param_groups:
            group["lr"] = cosine(self._lr, epoch, self._epochs, self._eta)
        steps = self._distilled.steps_per_epoch
        loss = torch.stack([self._step(next(batches)) for _ in range(steps)]).mean().item()
        if not math.isfinite(loss):
            raise StudentError(
                f"the loss of {self._config.student} became {loss} in epoch {epoch + 1}; lower --student.lr "
                f"(now {self._lr})"
            )
        return loss

    def _step(self, batch: Batch) -> Tensor:
        """One update from one batch, BatchNorm seeing one micro-batch at a time; returns the mean loss."""
        self._optimiser.zero_grad(set_to_none=True)
        sizes = micro_batches(len(batch.labels), self._distilled.relabel)
        parts = zip(batch.images.split(sizes), batch.labels.split(sizes), batch.logits.split(sizes), strict=True)
        total = torch.zeros((), device=self._device)
        for images, labels, logits in parts:
            images = images.to(self._device, memory_format=torch.channels_last)
            predicted = self._student(images)
            # Weighted by size, so that a smaller last micro-batch counts for its images and not more.
            loss = self._loss(predicted, labels.to(self._device), logits.to(self._device))
            loss = loss * (len(labels) / len(batch.labels))
            loss.backward()
            total += loss.detach()
        self._optimiser.step()
        return total

    def _loss(self, predicted: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
        if self._config.labels == "hard":
            return F.cross_entropy(predicted, labels)
        return soft_label_loss(predicted, logits, self._config.temperature)

    def _accuracy(self) -> dict[str, float]:
        logits = predict(self._student, self._test)
        return {f"top{k}": topk_accuracy(logits, self._test.labels, k) for k in (1, 5)}


def train_students(
    distilled: Distilled, source: Source, config: StudentConfig, work: Path, reporter: Reporter, device: torch.device
) -> dict[str, Any]:
    """Train one student per seed and describe the outcome.

    Args:
        distilled: The artifact.
        source: Its source, for the test images.
        config: The protocol; what it leaves open is the artifact's.
        work: Folder for checkpoints.
        reporter: Shows and logs the epochs.
        device: Where to train.

    Returns:
        The result as `results/*.json` holds it, without the command.
    """
    config = protocol_of(distilled, config)
    assert config.epochs is not None
    distilled.require_epochs(config.epochs)
    check_student(config.student, len(source.class_map), distilled.manifest.pixels.size)
    test = TestImages(source, device)
    outcomes = []
    num_epochs = config.num_seeds * config.epochs
    with reporter.stage(f"student {config.labels}", num_epochs, num_epochs * len(distilled.images)) as task:
        for seed in range(config.num_seeds):
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                training = StudentTraining(distilled, test, config, seed, device)
                outcomes.append(training.run(work / f"{_checkpoint_name(config)}-seed{seed}.safetensors", task))
    return {
        "protocol": config.name,
        "student": config.student,
        "images": "random_real" if distilled.manifest.method == "random_real" else "distilled",
        "labels": config.labels,
        "epochs": config.epochs,
        "num_images": len(distilled.images),
        "settings": asdict(config),
    } | measured(outcomes, test)


def measured(outcomes: Sequence[Outcome], test: TestImages) -> dict[str, Any]:
    """The part of a result that does not depend on what the students were trained on."""
    best = [outcome.best_epoch_top1 for outcome in outcomes if outcome.best_epoch_top1 is not None]
    return {
        "num_seeds": len(outcomes),
        "num_test_images": len(test.labels),
        "top1": summarise([outcome.top1 for outcome in outcomes]),
        "top5": summarise([outcome.top5 for outcome in outcomes]),
        "best_epoch_top1": summarise(best) if best else None,
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
        "machine": describe_machine(),
        "versions": library_versions(),
    }


def _checkpoint_name(config: StudentConfig) -> str:
    return f"{config.name}-{config.student.replace('/', '_')}-{config.labels}"


def _is_evaluated(epoch: int, epochs: int) -> bool:
    every = max(1, epochs // _EVALUATIONS)
    return epoch + 1 == epochs or (epoch + 1) % every == 0


def _read_curve(path: Path) -> list[dict[str, float]]:
    return json.loads(path.read_text()) if path.exists() else []
