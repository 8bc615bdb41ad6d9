"""What a student is trained towards and how: the protocol with nothing left open, its losses, its optimiser.

FADRM matches soft labels by the Kullback-Leibler divergence at T = 20 without the T^2 factor (Tables 9, 11-18); G-VBSM
(arXiv 2311.17950) and EDC (arXiv 2404.13733) by the squared error of logits and a little cross-entropy. A protocol
may have a hard phase in the middle (HALD, arXiv 2512.15647): the same mixed views, with the smoothed classes of both
images in proportion to the pixels that show them.
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
from fadrm_hf.labels.relabel import micro_batches, split_sizes
from fadrm_hf.methods import METHODS
from fadrm_hf.networks.schedules import learning_rate
from fadrm_hf.training.loader import Distilled

# What an artifact's own protocol gives another one of the same table; elsewhere `None` has a meaning of its own.
_INHERITED = (
    "lr", "eta", "schedule", "warmup_epochs", "optimiser", "momentum", "weight_decay", "decay_everything",
    "temperature", "scale_by_temperature", "ce_weight",
)  # fmt: skip


def protocol_of(distilled: Distilled, given: StudentConfig) -> StudentConfig:
    """`given`, with what it leaves open taken from the artifact's own protocol or from the published settings.

    The artifact's own values hold for the student that it is meant for, under protocols that leave the same things
    open; any other student or protocol has the values of the papers (`student_defaults`).
    """
    manifest = distilled.manifest
    own = manifest.settings("student", StudentConfig)
    preset = preset_of(manifest.settings("source", SourceConfig))
    if given.student == own.student and table_of(given.name) == table_of(own.name):
        given = filled(given, **{name: getattr(own, name) for name in _INHERITED})
    dataset = preset.name if preset else None
    config = filled(
        given,
        epochs=own.epochs or distilled.num_epochs,
        **student_defaults(given.name, dataset, given.student, manifest.ipc),
    )
    if config.relabel is None:
        return config
    views = _own_views(config, config.relabel, manifest)
    return replace(config, relabel=None if _are_stored(views, manifest) else views)


def _own_views(config: StudentConfig, views: RelabelConfig, manifest: Manifest) -> RelabelConfig:
    """A protocol's own views in the student's batches; what has no tiles is not shuffled."""
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
    """Whether an artifact's stored labels are of such views, made in such a way, and enough of them, whatever batches.

    Labels by running statistics belong to a view alone, so that they may be shown in other batches.
    """
    stored, num = manifest.settings("relabel", RelabelConfig), len(manifest.teachers)
    law = ("batch_statistics", "crop_area", "flip_probability", "cutmix", "shuffle_tiles")
    same_law = all(getattr(stored, name) == getattr(views, name) for name in law)
    labelling = [min(config.num_teachers or num, num) for config in (stored, views)]
    alone = not views.batch_statistics and labelling == [1, 1]
    return same_law and alone and manifest.label_codec == "float16" and (views.epochs or 0) <= (stored.num_stored or 0)


def _holds_mosaics(manifest: Manifest) -> bool:
    """Whether images began as mosaics of 2x2 crops, as far as the recipe tells."""
    patches, settings = (manifest.config.get(section) for section in ("patches", "method"))
    if not isinstance(patches, dict) or patches.get("grid") != 2 or not isinstance(settings, dict):
        return False
    method = METHODS.get(manifest.method)
    return settings.get("starts_from", method and method.starts_from) in ("patches", "pca")


def shown_by(config: StudentConfig, distilled: Distilled) -> Distilled:
    """The artifact as a resolved protocol shows it: in its batches, or with views of its own."""
    if config.relabel is not None:
        return distilled.redrawn(config.relabel)
    return distilled.regrouped(config.batch_size, config.accumulation)


def check_protocol(config: StudentConfig, distilled: Distilled) -> None:
    """Refuse a resolved protocol that needs what the artifact does not hold, before anything is trained.

    Args:
        config: The protocol.
        distilled: The artifact as the protocol shows it (`shown_by`).

    Raises:
        ConfigError: If the artifact's teachers cannot label as the protocol asks.
        StudentError: If there is no teacher to label views, the stored labels lack what the loss needs, or there are
            fewer epochs of labels than the protocol has.
    """
    assert config.epochs is not None
    distilled.require_epochs(config.epochs)
    if config.labels == "hard":
        return
    codec = distilled.manifest.label_codec
    if distilled.labels_online:
        if not distilled.manifest.teachers:
            wish = "draws its own views" if distilled.redraws else "needs labels made on the fly"
            raise StudentError(
                f"protocol {config.name!r} {wish}, and {distilled.name} names no teachers to label them; use a "
                "protocol with relabel: null and stored labels, such as recipes/configs/protocols/fadrm.yaml"
            )
        check_recorded_labelling(distilled.manifest, distilled.relabel)
    elif config.loss == "mse" and codec.startswith("top"):
        raise StudentError(
            f"protocol {config.name!r} compares all logits (student.loss is 'mse'), and {distilled.name} stores its"
            f" labels as {codec}, which are some of them; set --online to have its teachers make them all, or"
            " --student.loss kl"
        )


def remarks(config: StudentConfig, distilled: Distilled) -> Iterator[str]:
    """What is worth knowing before a training by a resolved protocol begins, one line each."""
    stored = distilled.manifest.settings("relabel", RelabelConfig)
    is_replayed = config.labels == "soft" and not distilled.labels_online
    shown = distilled.relabel
    if is_replayed and stored.batch_statistics and _groups(distilled, stored) != _groups(distilled, shown):
        yield (
            f"the stored labels were made with the BatchNorm statistics of {stored.batch_size // stored.accumulation}"
            f" views at a time; protocol {config.name!r} shows them in batches of {shown.batch_size} in"
            f" {shown.accumulation} micro-batches, which these labels do not fit; --online makes labels that do"
        )


def _groups(distilled: Distilled, config: RelabelConfig) -> list[list[int]]:
    """Sizes of the micro-batches of each batch of an epoch."""
    return [micro_batches(size, config) for size in split_sizes(len(distilled.images), config.batch_size)]


def is_hard_epoch(config: StudentConfig, epoch: int) -> bool:
    """Whether an epoch (from 0) of a resolved protocol trains on hard labels."""
    if config.hard_phase is None:
        return config.labels == "hard"
    assert config.epochs is not None
    first, end = (round(fraction * config.epochs) for fraction in config.hard_phase)
    return first <= epoch < end


def learning_rate_of(config: StudentConfig, epoch: int) -> float:
    """The rate of an epoch (from 0) of a resolved protocol."""
    assert config.epochs is not None and config.lr is not None and config.eta is not None
    assert config.schedule is not None and config.warmup_epochs is not None
    return learning_rate(config.schedule, config.lr, epoch, config.epochs, config.eta, config.warmup_epochs)


def soft_loss_of(config: StudentConfig, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of a resolved protocol on soft labels, averaged over the batch.

    Args:
        config: `loss`, `temperature`, `scale_by_temperature` and `ce_weight` are used.
        student_logits: (n, C).
        teacher_logits: (n, C).
        labels: (n,) int64, the class of each view's own image, whatever is mixed in.
    """
    assert config.temperature is not None
    if config.loss == "mse":
        loss = F.mse_loss(student_logits, teacher_logits)
    else:
        loss = soft_label_loss(student_logits, teacher_logits, config.temperature)
        loss = loss * config.temperature**2 if config.scale_by_temperature else loss
    return loss + config.ce_weight * F.cross_entropy(student_logits, labels) if config.ce_weight else loss


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


def optimiser_of(config: StudentConfig, student: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a resolved protocol: AdamW, or SGD with momentum, in one pass over the weights.

    On a GPU it can be captured: its learning rate, like all that changes from step to step, is a tensor there.
    """
    assert config.lr is not None and config.weight_decay is not None and config.momentum is not None
    groups = parameter_groups(student, config.weight_decay, bool(config.decay_everything))
    device = next(student.parameters()).device
    on_gpu = device.type == "cuda"
    lr = torch.tensor(config.lr, device=device) if on_gpu else config.lr
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=lr, fused=True, capturable=on_gpu)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Let the next steps be taken at another rate, also those that are captured already."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def parameter_groups(student: nn.Module, weight_decay: float, decay_everything: bool = False) -> list[dict[str, Any]]:
    """Weight decay for weights of more than one dimension, none for biases and normalisation (as released).

    Args:
        student: The network.
        weight_decay: Weight decay.
        decay_everything: Decay the others too.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in student.named_parameters():
        (decayed if "weight" in name and parameter.ndim > 1 else free).append(parameter)
    rest = weight_decay if decay_everything else 0.0
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": rest}]
