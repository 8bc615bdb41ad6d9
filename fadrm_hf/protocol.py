"""What a student is trained towards: the protocol with nothing left open, its losses, and which epoch has which.

Soft labels are matched by the Kullback-Leibler divergence at T = 20 without the T^2 factor (Tables 9, 11-18). A
protocol may have a hard phase in the middle (HALD, arXiv 2512.15647): the same mixed views, with the smoothed classes
of both images in proportion to the pixels that show them.
"""

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fadrm_hf.config import SourceConfig, StudentConfig
from fadrm_hf.loader import Distilled
from fadrm_hf.presets import student_setting


def protocol_of(distilled: Distilled, given: StudentConfig) -> StudentConfig:
    """`given`, with what it leaves open taken from the artifact's own protocol.

    The learning rate and its slow-down are those of the student's architecture in the papers (S1 to S4), unless it is
    the student that the artifact itself is meant for.
    """
    manifest = distilled.manifest
    own = manifest.settings("student", StudentConfig)
    epochs = given.epochs or own.epochs or distilled.num_epochs
    if given.student == own.student and own.lr is not None and own.eta is not None:
        lr, eta = own.lr, own.eta
    else:
        lr, eta = student_setting(manifest.settings("source", SourceConfig), given.student, manifest.ipc)
    return replace(given, epochs=epochs, lr=given.lr or lr, eta=given.eta or eta)


def is_hard_epoch(config: StudentConfig, epoch: int) -> bool:
    """Whether an epoch (from 0) of a resolved protocol trains on hard labels."""
    if config.hard_phase is None:
        return config.labels == "hard"
    assert config.epochs is not None
    first, end = (round(fraction * config.epochs) for fraction in config.hard_phase)
    return first <= epoch < end


def soft_label_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch; no T^2 factor (as released).

    Args:
        student_logits: (n, C).
        teacher_logits: (n, C).
        temperature: T.
    """
    target = F.softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(F.log_softmax(student_logits / temperature, dim=1), target, reduction="batchmean")


def hard_label_loss(
    student_logits: Tensor, labels: Tensor, mix_labels: Tensor, mix_shares: Tensor, smoothing: float
) -> Tensor:
    """Cross-entropy at T = 1 with the classes of both images of each view, averaged over the batch.

    Args:
        student_logits: (n, C).
        labels: (n,) int64, the class of each view's own image.
        mix_labels: (n,) int64, the class of the image that is mixed in.
        mix_shares: (n,) float32 in [0, 1], the share of the view's pixels that shows it.
        smoothing: Share of either class that is spread evenly over all C (0.8 in HALD, arXiv 2512.15647).
    """
    own, mixed = (
        F.cross_entropy(student_logits, classes, reduction="none", label_smoothing=smoothing)
        for classes in (labels, mix_labels)
    )
    return ((1.0 - mix_shares) * own + mix_shares * mixed).mean()


def parameter_groups(student: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for weights of more than one dimension, none for biases and normalisation (as released)."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in student.named_parameters():
        (decayed if "weight" in name and parameter.ndim > 1 else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
