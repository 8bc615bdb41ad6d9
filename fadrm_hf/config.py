"""The run as data: one frozen dataclass per stage, validated on construction.

Defaults are the FADRM paper's values (arXiv 2506.24125) with the table they come from. `None` means "what the source's
preset says" (`fadrm_hf.presets`); `fadrm_hf.presets.resolve` fills these in, and the resolved run is what is written
to the artifact's `recipe.yaml`. Areas, probabilities and accuracies are fractions; sizes are pixels.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from fadrm_hf.errors import ConfigError

Precision = Literal["fp32", "fp16", "bf16"]
Interval = tuple[float, float]
Colour = tuple[float, float, float]


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise `ConfigError` naming the field, what was expected and what was given."""
    if not condition:
        raise ConfigError(f"{name} must be {expected}, got {value!r}; set --{name}")


def _require_probability(name: str, probability: float | None) -> None:
    require(probability is None or 0.0 <= probability <= 1.0, name, probability, "a probability in [0, 1]")


def _require_area(name: str, area: Interval) -> None:
    require(len(area) == 2 and 0.0 < area[0] <= area[1] <= 1.0, name, area, "two fractions 0 < low <= high <= 1")


def _require_phase(name: str, phase: Interval | None, labels: str) -> None:
    if phase is not None:
        fits = len(phase) == 2 and 0.0 <= phase[0] < phase[1] <= 1.0
        require(fits, name, phase, "two fractions 0 <= begin < end <= 1")
        require(labels == "soft", name, phase, f"null with labels={labels!r}, which are hard throughout")


@dataclass(frozen=True)
class SourceConfig:
    """Which real images are distilled, and how they are normalised.

    Args:
        name: Hub dataset id, local image folder, local parquet or csv file or folder, or "digits" (bundled).
        config_name: Configuration of a Hub dataset that has several.
        revision: Commit, tag or branch of a Hub dataset.
        train_split: Split to distil; found ("train") when not named.
        test_split: Split to test on; found ("test", "validation", "valid", "val") when not named.
        image_column: Column of images; found from the features when not named.
        label_column: Column of class labels; found from the features when not named.
        preset: Name of the preset whose values fill what is left open; found from `name` when not given.
        size: Side of the square images.
        mean: Channel means of the normalisation, on pixels in [0, 1].
        std: Channel standard deviations of the normalisation, on pixels in [0, 1].
        licence: Licence identifier of the source, carried into the card.
        on_corrupt: Whether an image that cannot be decoded stops the run or is left out; either way it is named.
    """

    name: str = "digits"
    config_name: str | None = None
    revision: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    preset: str | None = None
    size: int | None = None
    mean: Colour | None = None
    std: Colour | None = None
    licence: str | None = None
    on_corrupt: Literal["refuse", "skip"] = "refuse"

    def __post_init__(self) -> None:
        require(bool(self.name), "source.name", self.name, "a Hub dataset id, a local path or 'digits'")
        require(self.size is None or self.size >= 8, "source.size", self.size, "at least 8 pixels")
        require(self.std is None or min(self.std) > 0, "source.std", self.std, "three positive numbers")


@dataclass(frozen=True)
class TeacherConfig:
    """The frozen networks that images are matched to and that label them.

    Args:
        names: `timm/NAME`, `timm/local-dir:PATH`, `timm/hf-hub:ORG/NAME`, `torchvision/NAME`, `transformers/ORG/NAME`,
            or `squeeze/ARCHITECTURE`: trained on the source by `SqueezeConfig` before anything else.
        min_accuracy: Gate: the least top-1 accuracy on test images with which a teacher may distil.
        gate_images: How many test images the gate measures on (the first of a seeded shuffle).
        class_order: Whether a teacher whose classes are named but stand in another order is refused or mended.
    """

    names: tuple[str, ...] = ("timm/resnet18.tv_in1k",)  # Table 8, "FADRM Model (R)"
    min_accuracy: float | None = None
    gate_images: int = 1000
    class_order: Literal["refuse", "mend"] = "refuse"

    def __post_init__(self) -> None:
        require(len(self.names) > 0, "teachers.names", self.names, "at least one teacher")
        bar = self.min_accuracy
        require(bar is None or 0.0 <= bar <= 1.0, "teachers.min_accuracy", bar, "a fraction in [0, 1]")
        require(self.gate_images >= 1, "teachers.gate_images", self.gate_images, "at least 1")


@dataclass(frozen=True)
class SqueezeConfig:
    """How a teacher is trained on the source ("squeeze"; Tables 10, 12, 14, 16).

    Args:
        epochs: Passes over the training images.
        batch_size: Images per step.
        lr: Initial learning rate of SGD, annealed to 0 by a cosine.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        crop: "pad" crops a zero-padded image (small images), "resized" a random area resized to the full size.
        padding: Pixels of padding for `crop="pad"`.
        flip_probability: Probability of a horizontal flip.
        num_workers: Processes that decode and augment images.
    """

    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    crop: Literal["pad", "resized"] | None = None
    padding: int = 4
    flip_probability: float | None = None
    num_workers: int = 0

    def __post_init__(self) -> None:
        require(self.epochs is None or self.epochs >= 1, "squeeze.epochs", self.epochs, "at least 1")
        require(self.batch_size is None or self.batch_size >= 2, "squeeze.batch_size", self.batch_size, "at least 2")
        require(self.lr is None or self.lr > 0, "squeeze.lr", self.lr, "positive")
        require(0.0 <= self.momentum < 1.0, "squeeze.momentum", self.momentum, "in [0, 1)")
        require(self.weight_decay >= 0, "squeeze.weight_decay", self.weight_decay, "0 or more")
        require(self.padding >= 0, "squeeze.padding", self.padding, "0 or more")
        require(self.num_workers >= 0, "squeeze.num_workers", self.num_workers, "0 or more")
        _require_probability("squeeze.flip_probability", self.flip_probability)


@dataclass(frozen=True)
class PatchConfig:
    """Which real crops a distilled image starts from and is mixed with again (P_s; §3.4, Table 3, Fig. 2).

    Args:
        difficulty: Which crops of a class are kept, by the teacher's cross-entropy: the lowest, those around the
            median, or the highest.
        grid: 1 for one crop per image (1x1), 2 for a mosaic of four (2x2).
        pool: How many images of a class are looked at, at most.
        crops_per_image: How many crops are scored per image; the best one stands for it.
        crop_area: Least and largest area of a crop.
    """

    difficulty: Literal["easy", "medium", "hard"] = "medium"
    grid: int = 1  # Table 3: 1x1 is the better overall
    pool: int = 300
    crops_per_image: int = 5
    crop_area: Interval = (0.08, 1.0)

    def __post_init__(self) -> None:
        require(self.grid in (1, 2), "patches.grid", self.grid, "1 (1x1) or 2 (2x2)")
        require(self.pool >= 1, "patches.pool", self.pool, "at least 1")
        require(self.crops_per_image >= 1, "patches.crops_per_image", self.crops_per_image, "at least 1")
        _require_area("patches.crop_area", self.crop_area)


@dataclass(frozen=True)
class RecoverConfig:
    """The optimisation of pixels that every recovering method shares (Table 8, Appendix B).

    Args:
        lr: Peak learning rate of Adam; a cosine over all iterations of all segments takes it to 0.
        betas: Adam's decay rates.
        bn_weight: Weight of the BatchNorm-statistics loss (not in the paper; the released code's value).
        first_bn_weight: Factor on the first BatchNorm layer's term (not in the paper; the released code's value).
        crop_area: Least and largest area of the crop that a teacher sees, one crop per batch and iteration.
        flip_probability: Probability that this view is mirrored.
        max_roll: Largest circular shift of this view, in pixels, drawn from 0 to this number for each axis.
        classes_per_shard: Classes optimised together: the images whose batch statistics are matched.
        precision: Number format of the teacher's pass; statistics, images and their gradients are always fp32.
    """

    lr: float = 0.25
    betas: Interval = (0.5, 0.9)
    bn_weight: float = 0.01
    first_bn_weight: float = 10.0
    crop_area: Interval = (0.08, 1.0)
    flip_probability: float | None = None
    max_roll: int | None = None
    classes_per_shard: int = 100
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        require(self.lr > 0, "recover.lr", self.lr, "positive")
        require(self.bn_weight >= 0, "recover.bn_weight", self.bn_weight, "0 or more")
        require(self.max_roll is None or self.max_roll >= 0, "recover.max_roll", self.max_roll, "0 or more")
        require(self.classes_per_shard >= 1, "recover.classes_per_shard", self.classes_per_shard, "at least 1")
        decay = len(self.betas) == 2 and all(0.0 <= beta < 1.0 for beta in self.betas)
        require(decay, "recover.betas", self.betas, "two numbers in [0, 1)")
        _require_area("recover.crop_area", self.crop_area)
        _require_probability("recover.flip_probability", self.flip_probability)


@dataclass(frozen=True)
class RelabelConfig:
    """The soft labels: which views the teachers label, and with which statistics (Tables 11-18).

    Args:
        epochs: Passes over the distilled images, one new view of each image in each.
        batch_size: Views labelled together.
        accumulation: The student's micro-batches per batch; BSSL computes its statistics over one micro-batch.
        batch_statistics: BSSL: BatchNorm layers normalise by the micro-batch's own statistics. False: running ones.
        crop_area: Least and largest area of a view's crop.
        flip_probability: Probability that a view is mirrored.
        cutmix: Whether a box of each view comes from another view of the batch (lambda ~ Beta(1, 1)).
        codec: How labels are stored: float16, int8, int4, top<k> such as top10, or none (`fadrm_hf.label_codec`).
        stored_epochs: How many of the epochs are labelled and stored; training reads them again for the rest of
            `epochs` (LPLD, arXiv 2410.15919; `fadrm_hf.reuse`). `None`: all of them.
    """

    epochs: int | None = None
    batch_size: int = 16
    accumulation: int = 2
    batch_statistics: bool = True
    crop_area: Interval = (0.08, 1.0)
    flip_probability: float | None = None
    cutmix: bool = True
    codec: str = "float16"
    stored_epochs: int | None = None

    def __post_init__(self) -> None:
        require(self.epochs is None or self.epochs >= 1, "relabel.epochs", self.epochs, "at least 1")
        stored, most = self.stored_epochs, self.epochs
        require(stored is None or stored >= 1, "relabel.stored_epochs", stored, "at least 1")
        fits = stored is None or most is None or stored <= most
        require(fits, "relabel.stored_epochs", stored, f"at most relabel.epochs, which is {most}")
        require(self.batch_size >= 2, "relabel.batch_size", self.batch_size, "at least 2")
        fits = 1 <= self.accumulation <= self.batch_size // 2
        require(fits, "relabel.accumulation", self.accumulation, "between 1 and half of relabel.batch_size")
        _require_area("relabel.crop_area", self.crop_area)
        _require_probability("relabel.flip_probability", self.flip_probability)

    @property
    def num_stored(self) -> int | None:
        """Epochs of labels that are stored; `None` while `epochs` is open."""
        return self.stored_epochs or self.epochs


@dataclass(frozen=True)
class StudentConfig:
    """The evaluation protocol: how a student is trained from the artifact (Tables 9, 11-18; Eq. 57).

    Args:
        name: The protocol's name, under which results are filed.
        student: Architecture, e.g. `timm/resnet18`; images of 64 px or less get a small-image stem.
        labels: "soft": the stored logits of each view; "hard": the class of each image, on the same views unmixed.
        epochs: Passes over the distilled images; `None`: as many as the labels serve.
        lr: Peak learning rate of AdamW.
        eta: Slow-down of the cosine (Eq. 57): 1 anneals to 0, 2 to half of `lr`.
        weight_decay: AdamW's weight decay, on weights of more than one dimension.
        temperature: Softmax temperature of the Kullback-Leibler loss.
        hard_phase: Where in the training, as fractions of its epochs, hard labels stand in for soft ones on the same
            mixed views (HALD, arXiv 2512.15647); `None`: nowhere.
        label_smoothing: Share of a hard label that is spread evenly over all classes.
        num_seeds: How many students are trained; the mean and standard deviation over them is reported.
        num_workers: Data-loading processes; results do not depend on it.
    """

    name: str = "fadrm"
    student: str = "timm/resnet18"
    labels: Literal["soft", "hard"] = "soft"
    epochs: int | None = None
    lr: float | None = None
    eta: float | None = None
    weight_decay: float = 0.01
    temperature: float = 20.0
    hard_phase: Interval | None = None
    label_smoothing: float = 0.0
    num_seeds: int = 3
    num_workers: int = 0

    def __post_init__(self) -> None:
        require(self.epochs is None or self.epochs >= 1, "student.epochs", self.epochs, "at least 1")
        require(self.lr is None or self.lr > 0, "student.lr", self.lr, "positive")
        require(self.eta is None or self.eta >= 1, "student.eta", self.eta, "at least 1")
        require(self.weight_decay >= 0, "student.weight_decay", self.weight_decay, "0 or more")
        require(self.temperature > 0, "student.temperature", self.temperature, "positive")
        _require_phase("student.hard_phase", self.hard_phase, self.labels)
        smooths = 0.0 <= self.label_smoothing < 1.0
        require(smooths, "student.label_smoothing", self.label_smoothing, "in [0, 1)")
        require(self.num_seeds >= 1, "student.num_seeds", self.num_seeds, "at least 1")
        require(self.num_workers >= 0, "student.num_workers", self.num_workers, "0 or more")


@dataclass(frozen=True)
class RunConfig:
    """One complete run, from the source to the artifact.

    Args:
        output: The run folder, which is the artifact; work in progress lives beside it in `<output>.work`.
        ipc: Images per class.
        seed: Every random choice derives from (seed, stage, shard).
        method: The method's own settings, e.g. `fadrm_hf.methods.fadrm.FADRM`.
        source: The real images.
        teachers: The frozen networks.
        squeeze: How `squeeze/...` teachers are trained.
        patches: The real crops to start from.
        recover: The optimisation of pixels.
        relabel: The soft labels.
        student: The protocol the artifact is meant to be evaluated with.
    """

    output: str
    ipc: int
    method: Any
    seed: int = 0
    source: SourceConfig = field(default_factory=SourceConfig)
    teachers: TeacherConfig = field(default_factory=TeacherConfig)
    squeeze: SqueezeConfig = field(default_factory=SqueezeConfig)
    patches: PatchConfig = field(default_factory=PatchConfig)
    recover: RecoverConfig = field(default_factory=RecoverConfig)
    relabel: RelabelConfig = field(default_factory=RelabelConfig)
    student: StudentConfig = field(default_factory=StudentConfig)

    def __post_init__(self) -> None:
        require(self.ipc >= 1, "ipc", self.ipc, "at least 1 image per class")
        require(bool(self.output), "output", self.output, "a folder")
