"""A network slimmed by a distilled dataset alone (EDC, arXiv 2404.13733, Fig. 4): no real image is trained on.

Three stages, each seed by itself: train a student by the artifact's protocol with a penalty on the scales of BatchNorm
(`fadrm_hf.training.slimming`); take out the channels with the smallest; train what is left by the same protocol
again. EDC says VGG11-BN and names neither ratio, penalty, lengths nor labels. If nothing else is asked for, half of
the channels go, the penalty is network slimming's 1e-4 (arXiv 1708.06519), both trainings are as long as the protocol
and on the artifact's own labels, and the learning rate of the second begins anew.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fadrm_hf.config import LARGEST_SMALL_SIZE, StudentConfig, require
from fadrm_hf.data.sources import Source
from fadrm_hf.evaluation.measured_tables import StudyTable, images_per_class, mean_and_std
from fadrm_hf.evaluation.study import Session, Study, UnitOfWork, fingerprint, measure_units, table_hashes
from fadrm_hf.methods import title_of
from fadrm_hf.networks.students import check_student, create_student
from fadrm_hf.runtime.progress import Task
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER
from fadrm_hf.training.accuracy import predict, summarise, topk_accuracy
from fadrm_hf.training.loader import Distilled
from fadrm_hf.training.one_student import StudentTraining
from fadrm_hf.training.protocol import apply_protocol, check_protocol, resolve_protocol
from fadrm_hf.training.slimming import SlimmingPhase, channels_to_keep, find_chain, remove_channels
from fadrm_hf.training.testing import TestImages
from fadrm_hf.training.train_student import require_views

# What accuracies are measured after, with what the table calls it.
_STAGES = {"trained": "trained, with the penalty", "pruned": "channels taken out", "tuned": "trained again"}
_SIZES = ("parameters", "multiply_adds", "widths")  # of a network, before and after
Measured = list[dict[str, Any]]  # for each seed


@dataclass(frozen=True)
class SlimmedStudent:
    """A student to be slimmed on one artifact.

    Attributes:
        distilled: The artifact.
        source: Its source, for the test images.
        protocol: How the student is trained, with nothing left open.
        tuning: How what is left of it is trained.
        ratio: Share of the channels that is taken out, of all layers together.
        scale_penalty: Weight of the penalty on scales in the first training.
    """

    distilled: Distilled
    source: Source
    protocol: StudentConfig
    tuning: StudentConfig
    ratio: float
    scale_penalty: float

    @property
    def images(self) -> str:
        """What the table calls the images of the artifact."""
        manifest = self.distilled.manifest
        return f"{title_of(manifest.method)}, {manifest.ipc} per class"

    def fingerprint(self, seed: int) -> str:
        """Return what tells measurements of different networks apart."""
        distilled = self.distilled
        files = table_hashes(distilled, (IMAGES_FOLDER, LABELS_FOLDER))
        labels = (distilled.online, [teacher.sha256 for teacher in distilled.manifest.teachers])
        settings = [replace(each, num_workers=0, num_seeds=1) for each in (self.protocol, self.tuning)]
        shared = (files, labels, self.source.fingerprint, settings)
        return fingerprint(*shared, self.ratio, self.scale_penalty, _SIZES, seed)


@dataclass(frozen=True)
class NetworkSlimming(Study[list[Measured]]):
    """Networks slimmed alike on an artifact, and on another as a control.

    Attributes:
        students: The student on the artifact, and, if there is a control, on that.
        work: Folder of checkpoints and of measurements that are on file, which are not made again.
    """

    students: Sequence[SlimmedStudent]
    work: Path

    def measure(self, session: Session) -> Iterator[list[Measured]]:
        """Slim one student per seed; seeds are divided over all processes.

        Yields:
            Once, for each artifact and seed: "seed", "top1" and "top5" by stage, the sizes of the network before and
            after, and "seconds".
        """
        yield [self._measure(student, session) for student in self.students]

    def _measure(self, student: SlimmedStudent, session: Session) -> Measured:
        test = TestImages(student.source, session.state.device)
        units = [
            UnitOfWork(
                self.work / f"slim-{student.fingerprint(seed)}.json",
                ["training", "tuning"],
                partial(_slim, student, seed, test, session.state.device),
            )
            for seed in range(student.protocol.num_seeds)
        ]
        num_epochs = student.protocol.epochs + student.tuning.epochs
        return measure_units("slim", units, num_epochs, session)

    def table(self, rows: list[Measured]) -> StudyTable:
        """Describe the stages, and what the images are worth against the control."""
        student, seeds = self.students[0], rows[0]
        protocol, manifest = student.protocol, student.distilled.manifest
        by_images: list[dict[str, Any]] = [
            {"images": student.images, "seeds": measured}
            for student, measured in zip(self.students, rows, strict=True)
        ]
        stages = [{"images": each["images"]} | _stage(name, each["seeds"]) for each in by_images for name in _STAGES]
        return StudyTable(
            title=f"{manifest.source_title} by {title_of(manifest.method)}, {images_per_class(manifest.ipc)}: a "
            "network slimmed by the distilled images alone",
            template="slimming.md",
            facts={
                "student": protocol.student,
                "protocol": protocol.name,
                "labels": protocol.labels,
                "ratio": student.ratio,
                "scale_penalty": student.scale_penalty,
                "epochs": protocol.epochs,
                "tuning_epochs": student.tuning.epochs,
                "settings": asdict(protocol),
            },
            values={
                "seeds": seeds,
                **({"control": by_images[1]} if len(by_images) > 1 else {}),
            },
            texts={
                "rows": [_cells(stage, len(rows[0])) for stage in stages],
                "worth": _worth(rows),
                "widths": [[seed["widths"]["after"] for seed in measured] for measured in rows],
                "whole": seeds[0]["widths"]["before"],
                "num_seeds": len(seeds),
            },
            rows=stages,
            measured_here=True,
        )


def usual_student(size: int) -> str:
    """Return VGG-11 with BatchNorm for images of `size` pixels: EDC's, or the network for small images up to 64 px."""
    return "timm/vgg11_bn_small" if size <= LARGEST_SMALL_SIZE else "timm/vgg11_bn"


def prepare_slimming(
    distilled: Distilled,
    source: Source,
    given: StudentConfig,
    ratio: float,
    scale_penalty: float,
    tuning_epochs: int | None = None,
) -> SlimmedStudent:
    """Resolve the protocol, refusing what cannot work before anything is trained.

    What it leaves open is taken from the artifact or from the tables; for the rest see `SlimmedStudent`. The second
    training is as long as the first if `tuning_epochs` is not given.

    Raises:
        ArtifactError: If the artifact cannot be read.
        ConfigError: For a ratio, penalty or length that cannot be.
        StudentError: If the student cannot be slimmed, or cannot be trained as asked.
    """
    require(0.0 <= ratio < 1.0, "ratio", ratio, "a share of the channels in [0, 1)")
    require(0.0 <= scale_penalty < 1.0, "scale_penalty", scale_penalty, "in [0, 1)")
    require(tuning_epochs is None or tuning_epochs >= 1, "tuning_epochs", tuning_epochs, "at least 1")
    protocol = resolve_protocol(distilled, given)
    views, length = protocol.relabel, tuning_epochs or protocol.epochs
    tuning = replace(protocol, epochs=length, relabel=views and replace(views, epochs=length))
    for each in (protocol, tuning):
        check_protocol(each, apply_protocol(each, distilled))
    num_classes, size = len(source.class_map), distilled.manifest.pixels.size
    check_student(protocol.student, num_classes, size)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        find_chain(create_student(protocol.student, num_classes, size), protocol.student)
    require_views(distilled)
    return SlimmedStudent(distilled, source, protocol, tuning, ratio, scale_penalty)


def multiply_adds(network: nn.Module, size: int) -> int:
    """Count multiplications, each with its addition, of convolutions and linear layers for one image.

    Args:
        network: In evaluation mode.
        size: Side of the image in pixels.
    """
    image = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return int(counter.get_total_flops()) // 2  # it counts additions apart


def _slim(
    student: SlimmedStudent, seed: int, test: TestImages, device: torch.device, checkpoints: list[Path], task: Task
) -> dict[str, Any]:
    name, size = student.protocol.student, student.distilled.manifest.pixels.size

    def train(protocol: StudentConfig, phase: SlimmingPhase, checkpoint: Path) -> tuple[nn.Module, float]:
        images = apply_protocol(protocol, student.distilled)
        training = StudentTraining(images, test, protocol, seed, device, phase=phase)
        seconds = training.run(checkpoint, task, num_checkpoints=1).seconds
        return training.student.eval(), seconds

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trained, seconds = train(student.protocol, SlimmingPhase(scale_penalty=student.scale_penalty), checkpoints[0])
        scales = [norm.weight for norm in find_chain(trained, name).norms]
        pruned = remove_channels(trained, channels_to_keep(scales, student.ratio), name)
        tuned, more = train(student.tuning, SlimmingPhase(copy.deepcopy(pruned).requires_grad_()), checkpoints[1])
    networks = dict(zip(_STAGES, (trained, pruned, tuned), strict=True))
    logits = {stage: predict(network, test.batches()) for stage, network in networks.items()}
    before_and_after = {"before": trained, "after": pruned}
    return {
        "seed": seed,
        **{f"top{k}": {stage: topk_accuracy(each, test.labels, k) for stage, each in logits.items()} for k in (1, 5)},
        "parameters": {when: _num_parameters(network) for when, network in before_and_after.items()},
        "multiply_adds": {when: multiply_adds(network, size) for when, network in before_and_after.items()},
        "widths": {when: find_chain(network, name).widths for when, network in before_and_after.items()},
        "seconds": seconds + more,
    }


def _num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _stage(name: str, seeds: Measured) -> dict[str, Any]:
    """Return a row by column: sizes are means over seeds, accuracies fractions."""
    when = "before" if name == "trained" else "after"
    accuracies = {key: summarise([seed[key][name] for seed in seeds]) for key in ("top1", "top5")}
    return {
        "stage": name,
        **{key: round(sum(seed[key][when] for seed in seeds) / len(seeds)) for key in ("multiply_adds", "parameters")},
        "channels": round(sum(sum(seed["widths"][when]) for seed in seeds) / len(seeds), 1),
        **{f"{key}_{kind}": round(value[kind], 6) for key, value in accuracies.items() for kind in ("mean", "std")},
    }


def _cells(stage: dict[str, Any], num_seeds: int) -> list[str]:
    return [
        stage["images"],
        _STAGES[stage["stage"]],
        f"{stage['multiply_adds'] / 1e6:.3g} M",
        f"{stage['parameters'] / 1e6:.3g} M",
        *(mean_and_std(stage[f"{name}_mean"], stage[f"{name}_std"], num_seeds) for name in ("top1", "top5")),
    ]


def _worth(rows: Sequence[Measured]) -> str | None:
    """Return how much better the slimmed network is than the control's, in points; `None` without a control."""
    if len(rows) < 2:
        return None
    ours, control = (summarise([seed["top1"]["tuned"] for seed in seeds]) for seeds in rows)
    spread = f" ± {100 * math.hypot(ours['std'], control['std']):.1f}" if len(rows[0]) > 1 else ""
    return f"{100 * (ours['mean'] - control['mean']):+.1f}{spread} points"
