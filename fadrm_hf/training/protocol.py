"""The resolved protocol of a student: its losses, its optimiser, its learning rate.

FADRM matches soft labels by the Kullback-Leibler divergence at T = 20 without the T^2 factor (Tables 9, 11-18); G-VBSM
(arXiv 2311.17950) and EDC (arXiv 2404.13733) by the squared error of logits and a little cross-entropy; GIFT (arXiv
2405.14736) by the angle to labels that a little of the class is mixed into. A protocol may have a hard phase in the
middle (HALD, arXiv 2512.15647): the same mixed views, with the smoothed classes of both images in proportion to the
pixels that show them.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.recorded_teachers import check_recorded_labelling
from fadrm_hf.config import RelabelConfig, SourceConfig, StudentConfig, filled
from fadrm_hf.config.datasets import preset_of
from fadrm_hf.config.protocols import student_defaults, table_of
from fadrm_hf.errors import StudentError
from fadrm_hf.labels.drawing import micro_batches, split_sizes
from fadrm_hf.networks.schedules import learning_rate
from fadrm_hf.training.loader import Distilled

_GIFT_WEIGHT = 0.1  # of the class in GIFT's labels; code, LINs-lab/GIFT @ ec9503e
_GIFT_SMOOTHING = 0.1  # of that class; likewise

# Settings that another protocol of the same table inherits from the artifact's; `None` has a meaning in the others.
_INHERITED = (
    "lr", "eta", "schedule", "warmup_epochs", "optimiser", "momentum", "weight_decay", "decay_everything",
    "temperature", "scale_by_temperature", "ce_weight",
)  # fmt: skip


def resolve_protocol(distilled: Distilled, requested: StudentConfig) -> StudentConfig:
    """Return a protocol with open values filled in from the artifact's own protocol or from the published settings.

    The artifact's own values hold for the student that it is meant for, under protocols that leave the same values
    open; any other student or protocol has the values of the papers (`student_defaults`).
    """
    manifest = distilled.manifest
    usual = manifest.settings("student", StudentConfig)
    preset = preset_of(manifest.settings("source", SourceConfig))
    if requested.student == usual.student and table_of(requested.name) == table_of(usual.name):
        requested = filled(requested, **{name: getattr(usual, name) for name in _INHERITED})
    dataset = preset.name if preset else None
    config = filled(
        requested,
        epochs=usual.epochs or distilled.num_epochs,
        **student_defaults(requested.name, dataset, requested.student, manifest.ipc),
    )
    if config.relabel is None:
        return config
    views = _resolve_views(config, config.relabel, manifest)
    return replace(config, relabel=None if _are_stored(views, manifest) else views)


def _resolve_views(config: StudentConfig, views: RelabelConfig, manifest: Manifest) -> RelabelConfig:
    """Return a protocol's own views in the student's batches; tiles are shuffled in mosaics only."""
    stored = manifest.settings("relabel", RelabelConfig)
    batch_size = config.batch_size or views.batch_size
    views = filled(views, flip_probability=0.5 if stored.flip_probability is None else stored.flip_probability)
    return replace(
        views,
        epochs=config.epochs,
        stored_epochs=None,
        batch_size=batch_size,
        accumulation=config.accumulation or (1 if config.batch_size else views.accumulation),
        shuffle_tiles=views.shuffle_tiles if _holds_mosaics(manifest) else 1,
    )


def _are_stored(views: RelabelConfig, manifest: Manifest) -> bool:
    """Return whether the stored labels are of such views, made in the same way, and enough, in whatever batches.

    A label by running statistics belongs to a view alone, so that it may be used in other batches.
    """
    stored, num = manifest.settings("relabel", RelabelConfig), len(manifest.teachers)
    law = ("batch_statistics", "crop_area", "flip_probability", "cutmix", "shuffle_tiles")
    same_law = all(getattr(stored, name) == getattr(views, name) for name in law)
    labelling = [min(config.num_teachers or num, num) for config in (stored, views)]
    alone = not views.batch_statistics and labelling == [1, 1]
    return same_law and alone and manifest.label_codec == "float16" and (views.epochs or 0) <= (stored.num_stored or 0)


def _holds_mosaics(manifest: Manifest) -> bool:
    """Return whether images began as mosaics of 2x2 crops, as far as the recipe records it."""
    patches, settings = (manifest.config.get(section) for section in ("patches", "method"))
    if not isinstance(patches, dict) or patches.get("grid") != 2 or not isinstance(settings, dict):
        return False
    return manifest.method_setting("init") in ("patches", "pca")


def apply_protocol(config: StudentConfig, distilled: Distilled) -> Distilled:
    """Return the artifact under a resolved protocol: in the protocol's batches, or with views of its own."""
    if config.relabel is not None:
        return distilled.redrawn(config.relabel)
    return distilled.regrouped(config.batch_size, config.accumulation)


def check_protocol(config: StudentConfig, distilled: Distilled) -> None:
    """Refuse a resolved protocol that needs what the artifact (`apply_protocol`) lacks, before anything is trained.

    Raises:
        ConfigError: If the artifact's teachers cannot label as the protocol requires.
        StudentError: If there is no teacher to label views, the stored labels lack what the loss needs, or there are
            fewer epochs of labels than the protocol has.
    """
    distilled.require_epochs(config.epochs)
    if config.labels == "hard":
        return
    codec = distilled.manifest.label_codec
    if distilled.labels_online:
        if not distilled.manifest.teachers:
            reason = "draws its own views" if distilled.redraws else "needs labels made during training"
            raise StudentError(
                f"protocol {config.name!r} {reason}, and {distilled.name} names no teachers to label them; use a "
                "protocol with relabel: null and stored labels, such as recipes/configs/protocols/fadrm.yaml"
            )
        check_recorded_labelling(distilled.manifest, distilled.relabel)
    elif config.loss != "kl" and codec.startswith("top"):
        raise StudentError(
            f"protocol {config.name!r} compares all logits (student.loss is {config.loss!r}), and {distilled.name}"
            f" stores its labels as {codec}, which keeps some of them; set --online to have its teachers make them"
            " all, or --student.loss kl"
        )


def protocol_warnings(config: StudentConfig, distilled: Distilled) -> Iterator[str]:
    """Yield what a user should know before training by a resolved protocol begins, one line each."""
    stored = distilled.manifest.settings("relabel", RelabelConfig)
    is_replayed = config.labels == "soft" and not distilled.labels_online
    used = distilled.relabel
    if is_replayed and stored.batch_statistics and _groups(distilled, stored) != _groups(distilled, used):
        yield (
            f"the stored labels were made with the BatchNorm statistics of {stored.batch_size // stored.accumulation}"
            f" views at a time; protocol {config.name!r} shows them in batches of {used.batch_size} in"
            f" {used.accumulation} micro-batches, which these labels do not fit; --online makes labels that do"
        )


def _groups(distilled: Distilled, config: RelabelConfig) -> list[list[int]]:
    """Return the sizes of the micro-batches of each batch of an epoch."""
    return [micro_batches(size, config) for size in split_sizes(len(distilled.images), config.batch_size)]


def is_hard_epoch(config: StudentConfig, epoch: int) -> bool:
    """Return whether an epoch (from 0) of a resolved protocol trains on hard labels."""
    if config.hard_phase is None:
        return config.labels == "hard"
    first, end = (round(fraction * config.epochs) for fraction in config.hard_phase)
    return first <= epoch < end


def epoch_learning_rate(config: StudentConfig, epoch: int) -> float:
    """Return the learning rate of an epoch (from 0) of a resolved protocol."""
    return learning_rate(config.schedule, config.lr, epoch, config.epochs, config.eta, config.warmup_epochs)


def soft_loss(
    config: StudentConfig,
    student_logits: Tensor,  # (n, C)
    teacher_logits: Tensor,  # (n, C)
    labels: Tensor,  # (n,) int64, the class of each view's own image
) -> Tensor:
    """Return the loss of a resolved protocol on soft labels, averaged over the batch."""
    if config.loss == "mse":
        loss = F.mse_loss(student_logits, teacher_logits)
    elif config.loss == "gift":
        loss = gift_loss(student_logits, teacher_logits, labels)
    else:
        loss = soft_label_loss(student_logits, teacher_logits, config.temperature)
        loss = loss * config.temperature**2 if config.scale_by_temperature else loss
    return loss + config.ce_weight * F.cross_entropy(student_logits, labels) if config.ce_weight else loss


def soft_label_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return KL(softmax(teacher / T) || softmax(student / T)) of logits (n, C), averaged over n, without T^2."""
    target = F.softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(F.log_softmax(student_logits / temperature, dim=1), target, reduction="batchmean")


def gift_loss(
    student_logits: Tensor,  # (n, C)
    teacher_logits: Tensor,  # (n, C)
    labels: Tensor,  # (n,) int64, the class of each view's own image
) -> Tensor:
    """Return 1 - cos(student, unit(teacher) + 0.1 unit(smoothed class)) of logits, averaged over n (GIFT)."""
    rest = _GIFT_SMOOTHING / max(1, teacher_logits.shape[1] - 1)
    smoothed = torch.full_like(teacher_logits, rest).scatter(1, labels[:, None], 1.0 - _GIFT_SMOOTHING)
    refined = F.normalize(teacher_logits, dim=1) + _GIFT_WEIGHT * F.normalize(smoothed, dim=1)
    return 1.0 - F.cosine_similarity(student_logits, refined, dim=1).mean()


def hard_label_loss(
    student_logits: Tensor,  # (n, C)
    labels: Tensor,  # (n,) int64, the class of each view's own image
    mix_labels: Tensor,  # (n,) int64, the class of the image that is mixed in
    mix_shares: Tensor,  # (n,) float32 in [0, 1], the share of pixels that shows the image mixed in
    smoothing: float,  # share of either class that is spread evenly over all C (0.8 in HALD)
) -> Tensor:
    """Return the cross-entropy at T = 1 with the classes of both images of each view, averaged over the batch."""
    own, mixed = (
        F.cross_entropy(student_logits, classes, reduction="none", label_smoothing=smoothing)
        for classes in (labels, mix_labels)
    )
    return ((1.0 - mix_shares) * own + mix_shares * mixed).mean()


def create_optimiser(config: StudentConfig, student: nn.Module) -> torch.optim.Optimizer:
    """Create the fused optimiser of a resolved protocol: AdamW, or SGD with momentum.

    On a GPU it can be captured: all values that change from step to step, such as the learning rate, are tensors.
    """
    groups = parameter_groups(student, config.weight_decay, config.decay_everything)
    device = next(student.parameters()).device
    on_gpu = device.type == "cuda"
    lr = torch.tensor(config.lr, device=device) if on_gpu else config.lr
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=lr, fused=True, capturable=on_gpu)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next steps, including steps that are captured already."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def parameter_groups(student: nn.Module, weight_decay: float, decay_everything: bool = False) -> list[dict[str, Any]]:
    """Return parameter groups in which biases and normalisation have no weight decay (as released), or all have."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in student.named_parameters():
        (decayed if "weight" in name and parameter.ndim > 1 else free).append(parameter)
    rest = weight_decay if decay_everything else 0.0
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": rest}]
