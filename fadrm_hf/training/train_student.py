"""The evaluation protocol: train students from an artifact alone and say how good they are (Tables 9, 11-18, Eq. 57).

Steps are those of `fadrm_hf.training.student_step`, in whose micro-batches BatchNorm sees what the teachers saw;
losses, optimiser and learning rate are those of `fadrm_hf.training.protocol`. The number reported is that of the last
epoch.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn

from fadrm_hf.config import StudentConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import StudentError
from fadrm_hf.labels.relabel import micro_batches
from fadrm_hf.networks.students import check_student, create_student
from fadrm_hf.runtime.checkpoint import load_checkpoint, save_checkpoint
from fadrm_hf.runtime.files import read_json, write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.number_format import slow_format
from fadrm_hf.runtime.progress import QUIET, Reporter, Task
from fadrm_hf.runtime.randomness import derive_seed
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER
from fadrm_hf.runtime.shards import from_all
from fadrm_hf.training.accuracy import predict, summarise, topk_accuracy
from fadrm_hf.training.loader import Batch, Distilled, Labels
from fadrm_hf.training.protocol import (
    check_protocol,
    is_hard_epoch,
    learning_rate_of,
    optimiser_of,
    protocol_of,
    remarks,
    set_learning_rate,
    shown_by,
)
from fadrm_hf.training.shared_norm import check_shareable
from fadrm_hf.training.slimming import USUAL, Stage
from fadrm_hf.training.student_group import ALONE, StudentGroup, student_group
from fadrm_hf.training.student_step import CapturedStep, StudentStep, by_micro_batch, on_device, rows_of, split
from fadrm_hf.training.weight_average import WeightAverage

_EVALUATIONS = 10  # how often the test accuracy is looked at, to print the best epoch beside the last one
_KEPT_IN_MEMORY = 2 << 30
_TESTED_TOGETHER = 500
_TESTED_ON_CPU = 50  # 1.4 times as fast as 500 (ResNet-18, 32 px, two cores): activations stay in the cache

Keep = Callable[[nn.Module, int], None]


@dataclass(frozen=True)
class Outcome:
    """One trained student, accuracies on the test images as fractions."""

    top1: float
    top5: float
    best_epoch_top1: float | None
    seconds: float


class TestImages:
    """Batches of normalised test images; decoded once where they fit into memory, as bytes on the device.

    Args:
        source: The source with a test split.
        device: Where the batches are put.
    """

    def __init__(self, source: Source, device: torch.device) -> None:
        self._source, self._device = source, device
        self._batch = _TESTED_ON_CPU if device.type == "cpu" else _TESTED_TOGETHER
        self.labels = torch.as_tensor(source.labels("test"))
        small = len(self.labels) * 3 * source.size**2 <= _KEPT_IN_MEMORY
        self._pixels = source.pixels("test", range(len(self.labels))).to(device) if small else None

    def __iter__(self) -> Iterator[Tensor]:
        return self.batches(range(len(self.labels)))

    def batches(self, wanted: range) -> Iterator[Tensor]:
        """Batches of some of the images, given by their places."""
        for first in range(wanted.start, wanted.stop, self._batch):
            rows = range(first, min(first + self._batch, wanted.stop))
            kept = self._pixels
            pixels = self._source.pixels("test", rows) if kept is None else kept[rows.start : rows.stop]
            normalised = self._source.normalise(pixels.to(self._device))
            yield normalised.contiguous(memory_format=torch.channels_last)


class StudentTraining:
    """One student, from its initial weights to its accuracy.

    Args:
        distilled: The artifact as the protocol shows it (`shown_by`).
        test: The images it is tested on.
        config: The protocol, with nothing left open (`protocol_of`).
        seed: Seed of the student's weights and dropout.
        device: Where it trains.
        group: The processes that train it together, each on its own device.
        stage: What it begins with and is drawn to beside the labels, where it is slimmed.

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
        stage: Stage = USUAL,
    ) -> None:
        assert config.epochs is not None
        self._distilled, self._test, self._config, self._seed = distilled, test, config, seed
        self._epochs, self._device, self._group = config.epochs, device, group
        torch.manual_seed(derive_seed(seed, "student", config.student))
        shape = (len(distilled.manifest.classes.ids), distilled.manifest.pixels.size)
        student = create_student(config.student, *shape) if stage.network is None else stage.network
        self._stage_key = stage.key  # before its network is trained
        if group.size > 1:
            check_shareable(student)
        self._student = student.to(device).to(memory_format=torch.channels_last).train()
        self._optimiser = optimiser_of(config, student)
        stage.penalise(self._optimiser, student, config.student)
        self._average = None if config.ema is None else WeightAverage(self._student, config.ema)
        step = StudentStep(self._student, self._optimiser, self._average, config, group)
        self._step = CapturedStep(step, device) if device.type == "cuda" and group.size == 1 else step

    @property
    def student(self) -> nn.Module:
        """The network, as far as it is trained; its averaged weights where the protocol evaluates these."""
        return self._student if self._average is None else self._average.module

    @property
    def _networks(self) -> nn.Module:
        """All weights that a checkpoint holds."""
        if self._average is None:
            return self._student
        return nn.ModuleDict({"student": self._student, "average": self._average.module})

    def run(self, checkpoint: Path, task: Task, evaluations: int = _EVALUATIONS) -> Outcome:
        """Train to the end, from `checkpoint` if an earlier call was interrupted or has ended already.

        Args:
            checkpoint: File that holds the state between epochs and after the last; see `forget`.
            task: Bar that counts epochs.
            evaluations: About how often the accuracy is looked at; 1 is after the last epoch only.

        Raises:
            RunFolderError: If the processes that train it find different checkpoints.
            StudentError: If the loss stops being finite.
        """
        started = time.monotonic()
        fingerprint = self._fingerprint()
        first = load_checkpoint(checkpoint, self._networks, self._optimiser, fingerprint)
        self._group.require_same_start(first)
        curve = [point for point in _read_curve(_curve_of(checkpoint)) if point["epoch"] <= first]
        started -= curve[-1]["seconds"] if curve else 0.0  # those of the earlier calls
        task.skip(first)
        batches = self._batches(first)
        for epoch in range(first, self._epochs):
            loss, rate = self._train_epoch(batches, epoch), learning_rate_of(self._config, epoch)
            if _is_evaluated(epoch, self._epochs, evaluations):
                shown = {"epoch": epoch + 1, "loss": loss} | self._accuracy(epoch)
                curve.append(shown | {"seconds": time.monotonic() - started})
                if self._group.leads:
                    write_json(_curve_of(checkpoint), curve)
                    save_checkpoint(checkpoint, self._networks, self._optimiser, epoch + 1, fingerprint)
                task.advance(1, **shown, lr=rate)
            else:
                task.advance(1, loss=loss, lr=rate)
        best = max(point["top1"] for point in curve)
        return Outcome(curve[-1]["top1"], curve[-1]["top5"], best, curve[-1]["seconds"])

    def _batches(self, first: int) -> Iterator[Batch]:
        """The batches from epoch `first` to the end; epochs of hard labels read no logits and ask no teacher."""
        is_mixed, workers = self._config.labels == "soft", self._config.num_workers
        for is_hard, group in groupby(range(first, self._epochs), lambda epoch: is_hard_epoch(self._config, epoch)):
            phase = list(group)
            epochs = range(phase[0], phase[-1] + 1)
            labels: Labels | None = "none" if is_hard else None
            with self._distilled.batches(epochs, is_mixed, workers, labels=labels, device=self._device) as batches:
                yield from batches

    def _fingerprint(self) -> str:
        """SHA-256 of everything that decides the trained weights."""
        files = self._distilled.manifest.files
        tables = {name: record for name, record in files.items() if name.startswith((IMAGES_FOLDER, LABELS_FOLDER))}
        settings = replace(self._config, num_workers=0, num_seeds=1)
        key = (tables, settings, self._distilled.online, self._seed, *self._stage_key)
        return hashlib.sha256(repr(key).encode()).hexdigest()

    def _train_epoch(self, batches: Iterator[Batch], epoch: int) -> float:
        rank = [self._group.rank] if self._group.rank else []  # each process draws for rows of its own
        torch.manual_seed(derive_seed(self._seed, "student-epoch", epoch, *rank))  # dropout, stochastic depth
        set_learning_rate(self._optimiser, learning_rate_of(self._config, epoch))
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
        """One update; returns the mean loss."""
        sizes = micro_batches(len(batch.labels), self._distilled.relabel)
        return self._step(on_device(batch, self._device), sizes, is_hard)

    def _accuracy(self, epoch: int) -> dict[str, float]:
        if self._average is not None and self._config.ema_buffers == "copy":
            self._average.copy_buffers(self._student)
        elif self._average is not None:
            self._average.estimate_buffers(self._views(epoch))
        labels, hits = self._test.labels, [0, 0]
        if own := self._group.rows(len(labels)):
            logits, true = predict(self.student, self._test.batches(own)), labels[own.start : own.stop]
            hits = [round(topk_accuracy(logits, true, k) * len(own)) for k in (1, 5)]
        top1, top5 = self._group.totals(hits)
        return {"top1": top1 / len(labels), "top5": top5 / len(labels)}

    def _views(self, epoch: int) -> Iterator[Tensor]:
        """The micro-batches of an epoch's views once more, as BatchNorm saw them; of each what this process holds.

        The network that they are for, the averaged one, must see each before the next is asked for.
        """
        epochs, is_mixed = range(epoch, epoch + 1), self._config.labels == "soft"
        workers, device = self._config.num_workers, self._device
        with self._distilled.batches(epochs, is_mixed, workers, labels="none", device=device) as batches:
            for batch in batches:
                for part in split(batch, micro_batches(len(batch.labels), self._distilled.relabel)):
                    shown = on_device(rows_of(part, self._group.rows(len(part.labels))), self._device)
                    with by_micro_batch(self.student, [len(part.labels)], self._group):
                        yield shown.images


def train_students(
    distilled: Distilled,
    source: Source,
    config: StudentConfig,
    work: Path,
    reporter: Reporter,
    device: torch.device,
    keep: Keep | None = None,
    state: PartialState | None = None,
    processes_per_student: int = 1,
) -> dict[str, Any]:
    """Train one student per seed and describe the outcome.

    Processes of a launch train seeds side by side; where there are more of them, several train one student together
    (`fadrm_hf.training.student_group`). On two cores a process on each is 1.4 times as fast as one process with both
    for a network of 0.3 M weights, and no more than 1.04 times for ResNet-18 (32 px, batch 16), whose convolutions
    keep two threads busy.

    Args:
        distilled: The artifact.
        source: Its source, for the test images.
        config: The protocol; what it leaves open is the artifact's.
        work: Folder for checkpoints, from which an interrupted call goes on; none is left there at the end.
        reporter: Shows and logs the epochs.
        device: Where to train.
        keep: Called with each student that this process has trained, or led the training of, and its seed.
        state: The processes that share the seeds; if not given, this one trains all, whoever else there is.
        processes_per_student: How many of them train one student at least; its result does not depend on it.

    Returns:
        The result as `results/*.json` holds it, without the command.

    Raises:
        ArtifactError: If the artifact cannot be read.
        ConfigError: If its teachers cannot label as the protocol asks, or there are too few processes.
        StudentError: If the student cannot be built or trained as asked, the artifact lacks what that needs, or the
            accuracies of an earlier call are damaged.
    """
    config = protocol_of(distilled, config)
    distilled = shown_by(config, distilled)
    assert config.epochs is not None
    check_protocol(config, distilled)
    check_student(config.student, len(source.class_map), distilled.manifest.pixels.size)
    require_views(distilled)
    for remark in remarks(config, distilled):
        reporter.say(remark)
    if slow := slow_format("student.precision", config.precision, device.type):
        reporter.say(slow)
    checkpoints = [work / f"{_checkpoint_name(config)}-seed{seed}.safetensors" for seed in range(config.num_seeds)]
    with student_group(state, config.num_seeds, processes_per_student) as group:
        test = TestImages(source, device)
        seeds = range(config.num_seeds)[group.index :: group.count]
        own: dict[int, Outcome] = {}
        num_epochs = len(seeds) * config.epochs
        speaking = reporter if group.leads else QUIET
        with speaking.stage(f"student {config.labels}", num_epochs, num_epochs * len(distilled.images)) as task:
            for seed in seeds:
                task.begin(f"seed {seed}")
                with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                    training = StudentTraining(distilled, test, config, seed, device, group)
                    outcome = training.run(checkpoints[seed], task)
                if group.leads:
                    own[seed] = outcome
                if group.leads and keep is not None:
                    keep(training.student, seed)
        outcomes = list(own.values()) if state is None else from_all(own, state)
        for seed in own:  # not before all are trained: an interruption loses none
            forget(checkpoints[seed])
    return known_of_result(distilled, config) | measured(outcomes, test)


def known_of_result(distilled: Distilled, config: StudentConfig) -> dict[str, Any]:
    """The part of a result that is known before students are trained.

    Args:
        distilled: The artifact, as it is or as the protocol shows it.
        config: The protocol, with nothing left open (`protocol_of`).
    """
    return {
        "protocol": config.name,
        "student": config.student,
        "images": "random_real" if distilled.manifest.method == "random_real" else "distilled",
        "labels": config.labels,
        **({"label_codec": _codec_of(shown_by(config, distilled))} if config.labels == "soft" else {}),
        "epochs": config.epochs,
        "num_images": len(distilled.images),
        "settings": asdict(config),
    }


def require_views(distilled: Distilled) -> None:
    """Read the first batch, so that a table that is damaged or missing is found before anything is written.

    Raises:
        ArtifactError: If it cannot be read.
    """
    with distilled.batches(range(1), labels="none") as batches:
        next(batches)


def forget(checkpoint: Path) -> None:
    """Remove the checkpoint of a finished training, and what lies with it or was left half written."""
    temporaries = checkpoint.parent.glob(f".{checkpoint.stem}.*.tmp")
    for file in (checkpoint, _curve_of(checkpoint), *temporaries):
        file.unlink(missing_ok=True)


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


def _codec_of(distilled: Distilled) -> str:
    """How the labels were stored that students were trained on; "none": made on the fly."""
    return "none" if distilled.labels_online else distilled.manifest.label_codec


def _checkpoint_name(config: StudentConfig) -> str:
    return f"{config.name}-{config.student.replace('/', '_')}-{config.labels}"


def _is_evaluated(epoch: int, epochs: int, evaluations: int) -> bool:
    every = max(1, epochs // evaluations)
    return epoch + 1 == epochs or (epoch + 1) % every == 0


def _curve_of(checkpoint: Path) -> Path:
    """The file beside a checkpoint that holds what was measured so far."""
    return checkpoint.with_suffix(".json")


def _read_curve(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    curve: list[dict[str, float]] | None = read_json(path)
    if curve is None:
        checkpoint = path.with_suffix(".safetensors")
        raise StudentError(f"{path} is damaged; delete it and {checkpoint} to begin this training anew")
    return curve
