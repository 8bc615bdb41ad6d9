"""The settings of students trained on the soft labels."""

from dataclasses import dataclass
from typing import Literal

from fadrm_hf.config.architectures import Implementation, full_name
from fadrm_hf.config.checks import (
    OPEN,
    Interval,
    Open,
    added,
    require,
    require_finite,
    require_workers,
)
from fadrm_hf.config.relabel import RelabelConfig


@dataclass(frozen=True)
class StudentConfig:
    """The evaluation protocol: how a student is trained from the artifact (Tables 9, 11-18; Eq. 57).

    Defaults are FADRM's. `None` stands for the value that the protocol's table gives for the source, the student and
    the images per class (`fadrm_hf.config.protocols`), unless another meaning is written below.

    Args:
        name: The protocol's name, under which results are filed and values left open are looked up.
        student: Architecture, e.g. `timm/resnet18`, or its short name, `resnet18`; images of 64 px or less get a
            small-image stem.
        implementation: Whose network is trained where the papers' released code and the library of its name differ:
            "released": no residual branch starts at zero, and up to 64 px the small networks of the released code
            with its first weights; or "library", timm's or torchvision's own.
        labels: "soft": the logits of each view; "hard": the class of each image, on the same views unmixed.
        epochs: Passes over the distilled images; `None`: as many as the labels serve.
        lr: Peak learning rate.
        eta: Slow-down of the schedule (Eq. 57): 1 anneals to 0, 2 to half of `lr`.
        schedule: "cosine"; "ssrs": EDC's smoothing, which drops at 5/6 of the training and then falls to 0 (arXiv
            2404.13733, Eq. 33); "linear": what EDC's code for ImageNet-1k does instead of the published cosine;
            "steps": halved at 80, 90 and 95 % of the training.
        warmup_epochs: Epochs over which the rate rises linearly from 1 % of its peak before the schedule begins.
        optimiser: "adamw" or "sgd".
        momentum: Momentum of SGD.
        weight_decay: Weight decay, on weights of more than one dimension.
        decay_everything: Decay biases and normalisation too (as released in SRe2L's code for CIFAR).
        loss: What draws the student to soft labels: "kl", the Kullback-Leibler divergence at `temperature`; "mse", the
            mean squared error over all logits; or "gift", the angle between its logits and the refined labels of GIFT
            (arXiv 2405.14736).
        temperature: Softmax temperature of "kl".
        scale_by_temperature: Multiply "kl" by the square of the temperature (as released in SRe2L's code for
            Tiny-ImageNet; no other protocol does).
        ce_weight: Weight of the cross-entropy with the class of each view's own image, whatever is mixed in (gamma of
            G-VBSM and EDC), on top of soft labels.
        ema: Decay per step of an exponential average of the student's weights, which is evaluated in its place;
            `None`: the student itself is.
        ema_buffers: BatchNorm statistics of the averaged weights: "estimate": measured with them on the last epoch's
            views; "copy": the student's own (as released in EDC's code).
        batch_size: Views per step; `None`: those that were labelled together.
        accumulation: Micro-batches per step; BatchNorm sees one at a time. `None`: as labelled, or 1 if `batch_size`
            is given.
        relabel: The protocol's own views, redrawn and labelled on the fly by the artifact's teachers; their epochs
            and batches are the student's. `None`: those of the protocol's table; most have none: what is stored.
        hard_phase: Where in the training, as fractions of its epochs, hard labels stand in for soft ones on the same
            mixed views (HALD, arXiv 2512.15647); `None`: nowhere.
        label_smoothing: Share of a hard label that is spread evenly over all classes.
        precision: Number format of the student's convolutions and matrix products ("bf16": autocast; "tf32": fp32
            whose factors a GPU rounds to 11 bits); weights, optimiser, loss and the evaluation are always fp32.
        num_seeds: How many students are trained; the mean and standard deviation over them is reported.
        num_workers: Data-loading processes; results do not depend on it.
    """

    name: str = "fadrm"
    student: str = "timm/resnet18"
    implementation: Implementation = added("released", before="library")
    labels: Literal["soft", "hard"] = "soft"
    epochs: Open[int] = OPEN
    lr: Open[float] = OPEN
    eta: Open[float] = OPEN
    schedule: Open[Literal["cosine", "ssrs", "linear", "steps"]] = "cosine"
    warmup_epochs: Open[int] = 0
    optimiser: Open[Literal["adamw", "sgd"]] = "adamw"
    momentum: Open[float] = 0.9
    weight_decay: Open[float] = 0.01
    decay_everything: Open[bool] = False
    loss: Literal["kl", "mse", "gift"] = "kl"
    temperature: Open[float] = 20.0
    scale_by_temperature: Open[bool] = False
    ce_weight: Open[float] = 0.0
    ema: float | None = None
    ema_buffers: Literal["estimate", "copy"] = "estimate"
    batch_size: int | None = None
    accumulation: int | None = None
    relabel: RelabelConfig | None = None
    hard_phase: Interval | None = None
    label_smoothing: float = 0.0
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    num_seeds: int = 3
    num_workers: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "student", full_name(self.student))
        require_finite("student", self)
        self._require_steps()
        require(self.temperature is None or self.temperature > 0, "student.temperature", self.temperature, "positive")
        require(self.ce_weight is None or self.ce_weight >= 0, "student.ce_weight", self.ce_weight, "0 or more")
        require(self.ema is None or 0.0 < self.ema < 1.0, "student.ema", self.ema, "between 0 and 1")
        _require_phase("student.hard_phase", self.hard_phase, self.labels)
        smooths = 0.0 <= self.label_smoothing < 1.0
        require(smooths, "student.label_smoothing", self.label_smoothing, "in [0, 1)")
        require(self.num_seeds >= 1, "student.num_seeds", self.num_seeds, "at least 1")
        require_workers("student.num_workers", self.num_workers)

    def _require_steps(self) -> None:
        """Check the optimiser, its schedule and its batches."""
        require(self.epochs is None or self.epochs >= 1, "student.epochs", self.epochs, "at least 1")
        require(self.lr is None or self.lr > 0, "student.lr", self.lr, "positive")
        require(self.eta is None or self.eta >= 1, "student.eta", self.eta, "at least 1")
        warmup, momentum, decay = self.warmup_epochs, self.momentum, self.weight_decay
        require(warmup is None or warmup >= 0, "student.warmup_epochs", warmup, "0 or more")
        require(momentum is None or 0.0 <= momentum < 1.0, "student.momentum", momentum, "in [0, 1)")
        require(decay is None or decay >= 0, "student.weight_decay", decay, "0 or more")
        size, parts = self.batch_size, self.accumulation
        require(size is None or size >= 2, "student.batch_size", size, "at least 2")
        fits = parts is None or (parts >= 1 and (size is None or parts <= size // 2))
        require(fits, "student.accumulation", parts, "between 1 and half of the batch size")


def _require_phase(name: str, phase: Interval | None, labels: str) -> None:
    if phase is not None:
        fits = len(phase) == 2 and 0.0 <= phase[0] < phase[1] <= 1.0
        require(fits, name, phase, "two fractions 0 <= begin < end <= 1")
        require(labels == "soft", name, phase, f"null with labels={labels!r}, which are hard throughout")
