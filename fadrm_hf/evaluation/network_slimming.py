"""A network slimmed by a distilled dataset alone (EDC, arXiv 2404.13733, Fig. 4): no real image is trained on.

Three stages, each seed by itself: train a student by the artifact's protocol with a penalty on the scales of BatchNorm
(`fadrm_hf.training.slimming`); take out the channels with the smallest; train what is left by the same protocol
again. EDC says VGG11-BN and names neither ratio, penalty, lengths nor labels. If nothing else is asked for, half of
the channels go, the penalty is network slimming's 1e-4 (arXiv 1708.06519), both trainings are as long as the protocol
and on the artifact's own labels, and the learning rate of the second begins anew.
"""

import copy
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fadrm_hf.config import LARGEST_SMALL_SIZE, StudentConfig, require
from fadrm_hf.data.sources import Source
from fadrm_hf.networks.students import check_student, create_student
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.progress import Reporter, Task
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER
from fadrm_hf.runtime.shards import from_all, mine
from fadrm_hf.training.accuracy import predict, topk_accuracy
from fadrm_hf.training.loader import Distilled
from fadrm_hf.training.one_student import StudentTraining, TestImages, remove_checkpoint
from fadrm_hf.training.protocol import apply_protocol, check_protocol, resolve_protocol
from fadrm_hf.training.slimming import SlimmingPhase, channels_to_keep, find_chain, remove_channels
from fadrm_hf.training.train_student import require_views

STAGES = ("trained", "pruned", "tuned")  # what accuracies are measured after
SIZES = ("parameters", "multiply_adds", "widths")  # what is told of a network before and after


@dataclass(frozen=True)
class Slimming:
    """A student to be slimmed.

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


def usual_student(size: int) -> str:
    """VGG-11 with BatchNorm for images of `size` pixels: EDC's, or the network for small images up to 64 px."""
    return "timm/vgg11_bn_small" if size <= LARGEST_SMALL_SIZE else "timm/vgg11_bn"


def prepare_slimming(
    distilled: Distilled,
    source: Source,
    given: StudentConfig,
    ratio: float,
    scale_penalty: float,
    tuning_epochs: int | None = None,
) -> Slimming:
    """Resolve the protocol, refusing what cannot work before anything is trained.

    Args:
        distilled: The artifact.
        source: Its source.
        given: The protocol; what it leaves open is taken from the artifact or from the tables.
        ratio: Share of the channels to take out.
        scale_penalty: Weight of the penalty on scales.
        tuning_epochs: Length of the second training; that of the first if not given.

    Raises:
        ArtifactError: If the artifact cannot be read.
        ConfigError: For a ratio, penalty or length that cannot be.
        StudentError: If the student cannot be slimmed, or cannot be trained as asked.
    """
    require(0.0 <= ratio < 1.0, "ratio", ratio, "a share of the channels in [0, 1)")
    require(0.0 <= scale_penalty < 1.0, "scale_penalty", scale_penalty, "in [0, 1)")
    require(tuning_epochs is None or tuning_epochs >= 1, "tuning_epochs", tuning_epochs, "at least 1")
    protocol = resolve_protocol(distilled, given)
    own = protocol.relabel
    length = tuning_epochs or protocol.epochs
    tuning = replace(protocol, epochs=length, relabel=own and replace(own, epochs=length))
    for each in (protocol, tuning):
        check_protocol(each, apply_protocol(each, distilled))
    num_classes, size = len(source.class_map), distilled.manifest.pixels.size
    check_student(protocol.student, num_classes, size)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        find_chain(create_student(protocol.student, num_classes, size), protocol.student)
    require_views(distilled)
    return Slimming(distilled, source, protocol, tuning, ratio, scale_penalty)


def slim(slimming: Slimming, work: Path, reporter: Reporter, state: PartialState) -> list[dict[str, Any]]:
    """Slim one student per seed; seeds are divided over all processes.

    Args:
        slimming: From `prepare_slimming`.
        work: Folder for checkpoints and what is known; an interrupted call goes on from there, and a finished one is
            not repeated.
        reporter: Shows and logs the epochs.
        state: The processes, each with the device that its students train on.

    Returns:
        For each seed "seed", "top1" and "top5" by stage, `SIZES` before and after, and "seconds".

    Raises:
        StudentError: If a training diverges.
    """
    seeds = mine(range(slimming.protocol.num_seeds), state)
    lengths = [slimming.protocol.epochs or 0, slimming.tuning.epochs or 0]
    own: dict[int, dict[str, Any]] = {}
    with reporter.stage("slim", len(seeds) * sum(lengths)) as task:
        test = TestImages(slimming.source, state.device)
        for seed in seeds:
            file = work / f"slim-{_fingerprint(slimming, seed)}.json"
            if file.exists():
                task.skip(sum(lengths))
            else:
                write_json(file, _slim_one(slimming, seed, file, test, task, state.device))
                for checkpoint in _checkpoints(file):
                    remove_checkpoint(checkpoint)
            own[seed] = json.loads(file.read_text("utf-8"))
    return from_all(own, state)


def _slim_one(
    slimming: Slimming, seed: int, file: Path, test: TestImages, task: Task, device: torch.device
) -> dict[str, Any]:
    first, second = _checkpoints(file)
    name, size = slimming.protocol.student, slimming.distilled.manifest.pixels.size
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        stage = SlimmingPhase(scale_penalty=slimming.scale_penalty)
        student, seconds = _train(slimming, slimming.protocol, seed, stage, first, test, task, device)
        scales = [norm.weight for norm in find_chain(student, name).norms]
        small = remove_channels(student, channels_to_keep(scales, slimming.ratio), name)
        tuned = copy.deepcopy(small).requires_grad_()
        tuned, more = _train(slimming, slimming.tuning, seed, SlimmingPhase(tuned), second, test, task, device)
    networks = dict(zip(STAGES, (student, small, tuned), strict=True))
    logits = {stage: predict(network, test) for stage, network in networks.items()}
    return {
        "seed": seed,
        **{f"top{k}": {stage: topk_accuracy(each, test.labels, k) for stage, each in logits.items()} for k in (1, 5)},
        "parameters": {"before": _num_parameters(student), "after": _num_parameters(small)},
        "multiply_adds": {"before": multiply_adds(student, size), "after": multiply_adds(small, size)},
        "widths": {"before": find_chain(student, name).widths, "after": find_chain(small, name).widths},
        "seconds": seconds + more,
    }


def _train(
    slimming: Slimming,
    protocol: StudentConfig,
    seed: int,
    stage: SlimmingPhase,
    checkpoint: Path,
    test: TestImages,
    task: Task,
    device: torch.device,
) -> tuple[nn.Module, float]:
    """The network that a stage leaves, in evaluation mode, and the seconds that it took."""
    shown = apply_protocol(protocol, slimming.distilled)
    training = StudentTraining(shown, test, protocol, seed, device, phase=stage)
    seconds = training.run(checkpoint, task, num_evaluations=1).seconds
    return training.student.eval(), seconds


def _checkpoints(file: Path) -> list[Path]:
    """Of both trainings, beside what is known in the end."""
    return [file.with_name(f"{file.stem}-{name}.safetensors") for name in ("training", "tuning")]


def _num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, size: int) -> int:
    """Multiplications, each with its addition, of the convolutions and linear layers of a network for one image.

    Args:
        network: In evaluation mode.
        size: Side of the image in pixels.
    """
    image = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return int(counter.get_total_flops()) // 2  # it counts additions apart


def _fingerprint(slimming: Slimming, seed: int) -> str:
    """Of everything that decides what is measured."""
    manifest = slimming.distilled.manifest
    tables = (IMAGES_FOLDER, LABELS_FOLDER)
    files = {name: record.sha256 for name, record in manifest.files.items() if name.startswith(tables)}
    teachers = [teacher.sha256 for teacher in manifest.teachers]
    settings = [replace(each, num_workers=0, num_seeds=1) for each in (slimming.protocol, slimming.tuning)]
    labels = (slimming.distilled.online, teachers)
    key = (files, labels, slimming.source.fingerprint, settings, slimming.ratio, slimming.scale_penalty, SIZES, seed)
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]


def describe(slimming: Slimming) -> dict[str, Any]:
    """How the students are slimmed, for the record."""
    return {
        "student": slimming.protocol.student,
        "protocol": slimming.protocol.name,
        "labels": slimming.protocol.labels,
        "ratio": slimming.ratio,
        "scale_penalty": slimming.scale_penalty,
        "epochs": slimming.protocol.epochs,
        "tuning_epochs": slimming.tuning.epochs,
        "settings": asdict(slimming.protocol),
    }
