"""The evaluation protocol: students trained from an artifact alone, and their accuracy (Tables 9, 11-18, Eq. 57).

Steps are those of `fadrm_hf.training.student_step`, in whose micro-batches BatchNorm sees what the teachers saw;
losses, optimiser and learning rate are those of `fadrm_hf.training.protocol`. The reported accuracy is that of the
last epoch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fadrm_hf.config import StudentConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.networks.students import check_student
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.number_format import slow_format
from fadrm_hf.runtime.progress import QUIET, Reporter
from fadrm_hf.runtime.shards import from_all
from fadrm_hf.training.accuracy import summarise
from fadrm_hf.training.loader import Distilled
from fadrm_hf.training.one_student import Outcome, StudentTraining, remove_checkpoint
from fadrm_hf.training.protocol import (
    apply_protocol,
    check_protocol,
    protocol_warnings,
    resolve_protocol,
)
from fadrm_hf.training.student_group import Launch, StudentGroup, student_group
from fadrm_hf.training.testing import TestImages

Callback = Callable[[nn.Module, int], None]


def train_students(
    distilled: Distilled,
    source: Source,
    config: StudentConfig,
    work: Path,
    reporter: Reporter,
    device: torch.device,
    on_trained: Callback | None = None,
    launch: Launch | None = None,
) -> dict[str, Any]:
    """Train one student per seed and describe the outcome.

    The processes of a launch train seeds side by side; if there are more of them, several train one student together
    (`fadrm_hf.training.student_group`). On two cores a process on each is 1.4 times as fast as one process with both
    for a network of 0.3 M weights, and at most 1.04 times for ResNet-18 (32 px, batch 16), whose convolutions keep
    two threads busy.

    Args:
        distilled: The artifact.
        source: Its source, for the test images.
        config: The protocol; open values are the artifact's.
        work: Folder for checkpoints, from which an interrupted call resumes. They stay until the result is on file
            and `remove_checkpoints` is called.
        reporter: Shows and logs the epochs.
        device: Where to train.
        on_trained: Called with each student that this process has trained, or led the training of, and its seed.
        launch: The processes that share the seeds; by default this one trains all.

    Returns:
        The result as `results/*.json` holds it, without the command.

    Raises:
        ArtifactError: If the artifact cannot be read.
        ConfigError: If its teachers cannot label as the protocol requires, or there are too few processes.
        StudentError: If the student cannot be built or trained as requested, the artifact lacks what that needs, or
            the accuracies of an earlier call are damaged.
    """
    config = resolve_protocol(distilled, config)
    distilled = apply_protocol(config, distilled)
    _check_training(distilled, source, config, reporter, device)
    launch = launch or Launch()
    with student_group(launch.state, config.num_seeds, launch.processes_per_student) as group:
        test = TestImages(source, device)
        outcomes = _train_seeds(distilled, test, config, work, reporter, group, on_trained)
        everyone = list(outcomes.values()) if launch.state is None else from_all(outcomes, launch.state)
    return result_header(distilled, config) | summarise_outcomes(everyone, test)


def remove_checkpoints(work: Path, result: Mapping[str, Any]) -> None:
    """Remove the checkpoints of students whose result is on file; not before, so that an interruption loses none.

    Args:
        work: As of `train_students`.
        result: What it returned.
    """
    for seed in range(result["num_seeds"]):
        remove_checkpoint(_checkpoint_file(work, result["protocol"], result["student"], result["labels"], seed))


def _check_training(
    distilled: Distilled, source: Source, config: StudentConfig, reporter: Reporter, device: torch.device
) -> None:
    """Refuse a training that cannot succeed, before anything is written; report what the user should know."""
    check_protocol(config, distilled)
    check_student(config.student, len(source.class_map), distilled.manifest.pixels.size)
    require_views(distilled)
    for warning in protocol_warnings(config, distilled):
        reporter.say(warning)
    if source.tests_on_training:
        reporter.say(
            "warning: the test images are training images; accuracy does not say how well new ones are classified"
        )
    if slow := slow_format("student.precision", config.precision, device.type):
        reporter.say(slow)


def _train_seeds(
    distilled: Distilled,
    test: TestImages,
    config: StudentConfig,
    work: Path,
    reporter: Reporter,
    group: StudentGroup,
    on_trained: Callback | None,
) -> dict[int, Outcome]:
    """Train the students of a group of processes; return the outcomes, by seed, to its leader."""
    seeds = range(config.num_seeds)[group.index :: group.count]
    outcomes: dict[int, Outcome] = {}
    num_epochs = len(seeds) * config.epochs
    reporter = reporter if group.is_leader else QUIET
    with reporter.stage(f"student {config.labels}", num_epochs, num_epochs * len(distilled.images)) as task:
        for seed in seeds:
            task.begin(f"seed {seed}")
            with torch.random.fork_rng(devices=[test.device] if test.device.type == "cuda" else []):
                training = StudentTraining(distilled, test, config, seed, test.device, group)
                checkpoint = _checkpoint_file(work, config.name, config.student, config.labels, seed)
                outcome = training.run(checkpoint, task)
            if group.is_leader:
                outcomes[seed] = outcome
            if group.is_leader and on_trained is not None:
                on_trained(training.student, seed)
    return outcomes


def result_header(distilled: Distilled, config: StudentConfig) -> dict[str, Any]:
    """Return the part of a result that is known before students are trained.

    Args:
        distilled: The artifact, as it is or under the protocol.
        config: The resolved protocol (`resolve_protocol`).
    """
    return {
        "protocol": config.name,
        "student": config.student,
        "images": "random_real" if distilled.manifest.method == "random_real" else "distilled",
        "labels": config.labels,
        **({"label_codec": _label_codec(apply_protocol(config, distilled))} if config.labels == "soft" else {}),
        "epochs": config.epochs,
        "num_images": len(distilled.images),
        "settings": asdict(config),
    }


def require_views(distilled: Distilled) -> None:
    """Refuse a damaged or missing table of views before anything is written: read the first batch.

    Raises:
        ArtifactError: If it cannot be read.
    """
    with distilled.batches(range(1), labels="none") as batches:
        next(batches)


def summarise_outcomes(outcomes: Sequence[Outcome], test: TestImages) -> dict[str, Any]:
    """Return the part of a result that does not depend on what the students were trained on."""
    best = [outcome.best_epoch_top1 for outcome in outcomes if outcome.best_epoch_top1 is not None]
    return {
        "num_seeds": len(outcomes),
        "num_test_images": len(test.labels),
        **({"tested_on": "training images"} if test.are_training_images else {}),
        "top1": summarise([outcome.top1 for outcome in outcomes]),
        "top5": summarise([outcome.top5 for outcome in outcomes]),
        "best_epoch_top1": summarise(best) if best else None,
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
        "machine": describe_machine(),
        "versions": library_versions(),
    }


def _label_codec(distilled: Distilled) -> str:
    """Return how the students' labels were stored; "none" if they were made online."""
    return "none" if distilled.labels_online else distilled.manifest.label_codec


def _checkpoint_file(work: Path, protocol: str, student: str, labels: str, seed: int) -> Path:
    return work / f"{protocol}-{student.replace('/', '_')}-{labels}-seed{seed}.safetensors"
