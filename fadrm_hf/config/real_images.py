"""The settings of real images: their source, their teachers, and the crops that a distilled image starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fadrm_hf.config.architectures import Implementation
from fadrm_hf.config.checks import (
    OPEN,
    Colour,
    Interval,
    Open,
    added,
    require,
    require_area,
    require_probability,
    require_workers,
)

LARGEST_SIDE = 4096  # pixels, four times that of the largest images that classifiers are shown
LARGEST_SMALL_SIZE = 64  # pixels; Tiny-ImageNet is the largest source that papers train with a small-image stem

Init = Literal["patches", "random_images", "noise", "el2n", "pca", "graded"]  # what a distilled image begins as


@dataclass(frozen=True)
class SourceConfig:
    """Real images to distil, and their normalisation.

    Args:
        name: Hub dataset id, local image folder, local parquet or csv file or folder, or "digits" (bundled).
        config_name: Configuration of a Hub dataset that has several.
        revision: Commit, tag or branch of a Hub dataset.
        train_split: Split to distil; found ("train") when not named.
        test_split: Split to test on; found ("test", "validation", "valid", "val") when not named.
        test_fraction: Share of each class's training images that is held out to test on, always the same ones; for
            sources without a test split.
        image_column: Column of images; found from the features when not named.
        label_column: Column of class labels; found from the features when not named. Of image folders, folder2 is the
            second level of folders, and file_name what the names of the images begin with.
        classes: Names of the classes that are used, in the order in which they are numbered here; images of others are
            left out. All classes, as the source orders them, when not given.
        preset: Name of the preset whose values fill what is left open, or "none"; found from `name` when not given.
        bands: Which bands of images with more than three are red, green and blue, counted from 0.
        value_range: Which values are black and white in images of more than 8 bits; measured when not given.
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
    test_fraction: float | None = None
    image_column: str | None = None
    label_column: str | None = None
    classes: tuple[str | int | float | bool, ...] | None = None  # names; numbers are taken as their text
    preset: str | None = None
    bands: tuple[int, int, int] | None = None
    value_range: Interval | None = None
    size: Open[int] = OPEN
    mean: Open[Colour] = OPEN
    std: Open[Colour] = OPEN
    licence: Open[str] = OPEN
    on_corrupt: Literal["refuse", "skip"] = "refuse"

    def __post_init__(self) -> None:
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        require(bool(self.name), "source.name", self.name, "a Hub dataset id, a local path or 'digits'")
        fits = self.size is None or 8 <= self.size <= LARGEST_SIDE
        require(fits, "source.size", self.size, f"at least 8 and at most {LARGEST_SIDE} pixels")
        require(self.std is None or min(self.std) > 0, "source.std", self.std, "three positive numbers")
        share = self.test_fraction
        require(share is None or 0 < share < 1, "source.test_fraction", share, "between 0 and 1")
        either = share is None or self.test_split is None
        require(either, "source.test_fraction", share, f"left out where source.test_split is {self.test_split!r}")
        bands = self.bands
        require(bands is None or min(bands) >= 0, "source.bands", bands, "three bands, counted from 0")
        limits = self.value_range
        require(limits is None or limits[0] < limits[1], "source.value_range", limits, "two values, the lower first")
        once = self.classes is None or len(set(self.classes)) == len(self.classes) >= 2
        require(once, "source.classes", self.classes, "two or more names of classes, each once")

    @property
    def public_name(self) -> str:
        """Return the source's name for files that others read: a Hub id as it is, the last part of a local path."""
        path = Path(self.name)
        return path.resolve().name if path.exists() else self.name

    @property
    def title(self) -> str:
        """Return the source's name for tables: without folders, with the number of classes where not all are used."""
        name = Path(self.name).name
        return name if self.classes is None else f"{len(self.classes)} classes of {name}"


@dataclass(frozen=True)
class TeacherConfig:
    """The frozen networks that images are matched to and that label them.

    Args:
        names: `timm/NAME`, `timm/local-dir:PATH`, `timm/hf-hub:ORG/NAME`, `torchvision/NAME`, `transformers/ORG/NAME`,
            or `squeeze/ARCHITECTURE`: trained on the source by `SqueezeConfig` before anything else.
        min_accuracy: Gate: the least top-1 accuracy on test images with which a teacher may distil.
        gate_images: How many test images the gate measures on (the first of a seeded shuffle).
        class_order: Whether a teacher whose classes are named but in another order, or that has more, is mended or
            refused.
    """

    names: tuple[str, ...] = ("timm/resnet18.tv_in1k",)  # Table 8, "FADRM Model (R)"
    min_accuracy: float | None = None
    gate_images: int = 1000
    class_order: Literal["refuse", "mend"] = "mend"

    def __post_init__(self) -> None:
        require(len(self.names) > 0, "teachers.names", self.names, "at least one teacher")
        bar = self.min_accuracy
        require(bar is None or 0.0 <= bar <= 1.0, "teachers.min_accuracy", bar, "a fraction in [0, 1]")
        require(self.gate_images >= 1, "teachers.gate_images", self.gate_images, "at least 1")


@dataclass(frozen=True)
class SqueezeConfig:
    """Training of a teacher on the source ("squeeze"; Tables 10, 12, 14, 16).

    On a GPU the factors of products are rounded to TF32; the accuracy is measured in fp32.

    Args:
        epochs: Passes over the training images.
        batch_size: Images per step.
        lr: Peak learning rate.
        momentum: Momentum of SGD.
        weight_decay: Weight decay.
        optimiser: "sgd", or "adam" with the decay added to the gradient (as released by CV-DD for CIFAR).
        warmup_epochs: Epochs over which the rate rises linearly from 1 % of its peak before it falls.
        schedule: "cosine" to 0, or "constant" (as released by G-VBSM for CIFAR).
        implementation: Whose network is trained where the papers' released code and timm differ: see
            `student.implementation`.
        crop: "pad" crops a zero-padded image (small images), "resized" a random area resized to the full size.
        padding: Pixels of padding for `crop="pad"`.
        flip_probability: Probability of a horizontal flip.
        cutmix: Whether a box of each view shows another view of the batch, and its class counts for as many pixels
            (Table 7, training on the whole dataset; no teacher of the paper).
        num_workers: Processes that decode and augment images.
    """

    epochs: Open[int] = OPEN
    batch_size: Open[int] = OPEN
    lr: Open[float] = OPEN
    momentum: float = 0.9
    weight_decay: float = 1e-4
    optimiser: Literal["sgd", "adam"] = added("sgd", before="sgd")
    warmup_epochs: int = added(0, before=0)
    schedule: Literal["cosine", "constant"] = added("cosine", before="cosine")
    implementation: Implementation = added("released", before="library")
    crop: Open[Literal["pad", "resized"]] = OPEN
    padding: Open[int] = OPEN
    flip_probability: Open[float] = OPEN
    cutmix: bool = added(False, before=False)
    num_workers: int = 0

    def __post_init__(self) -> None:
        require(self.epochs is None or self.epochs >= 1, "squeeze.epochs", self.epochs, "at least 1")
        require(self.batch_size is None or self.batch_size >= 2, "squeeze.batch_size", self.batch_size, "at least 2")
        require(self.lr is None or self.lr > 0, "squeeze.lr", self.lr, "positive")
        require(0.0 <= self.momentum < 1.0, "squeeze.momentum", self.momentum, "in [0, 1)")
        require(self.weight_decay >= 0, "squeeze.weight_decay", self.weight_decay, "0 or more")
        require(self.warmup_epochs >= 0, "squeeze.warmup_epochs", self.warmup_epochs, "0 or more")
        require(self.padding is None or self.padding >= 0, "squeeze.padding", self.padding, "0 or more")
        require_workers("squeeze.num_workers", self.num_workers)
        require_probability("squeeze.flip_probability", self.flip_probability)


@dataclass(frozen=True)
class PatchConfig:
    """Real crops that a distilled image starts from and is mixed with again (P_s; §3.4, Table 3, Fig. 2).

    Args:
        difficulty: Which crops of a class are kept, by the teacher's cross-entropy: the lowest, those around the
            median, or the highest.
        grid: 1 for one crop per image (1x1), 2 for a mosaic of four (2x2).
        pool: How many images of a class are looked at, at most.
        crops_per_image: How many crops are scored per image; the best one stands for it.
        crop_area: Least and largest area of a crop.
        flip_probability: Probability that a starting image is mirrored (EDC).
    """

    difficulty: Literal["easy", "medium", "hard"] = "medium"
    grid: int = 1  # Table 3: 1x1 is the better overall
    pool: int = 300
    crops_per_image: int = 5
    crop_area: Interval = (0.08, 1.0)
    flip_probability: float = 0.0

    def __post_init__(self) -> None:
        require(self.grid in (1, 2), "patches.grid", self.grid, "1 (1x1) or 2 (2x2)")
        require(self.pool >= 1, "patches.pool", self.pool, "at least 1")
        require(self.crops_per_image >= 1, "patches.crops_per_image", self.crops_per_image, "at least 1")
        require_area("patches.crop_area", self.crop_area)
        require_probability("patches.flip_probability", self.flip_probability)
