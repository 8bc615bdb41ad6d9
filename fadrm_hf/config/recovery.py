"""The settings of recovery, and of the statistics of real images that it matches."""

from dataclasses import dataclass
from typing import Literal

from fadrm_hf.config.checks import (
    OPEN,
    Interval,
    Open,
    Precision,
    added,
    require,
    require_area,
    require_probability,
)


@dataclass(frozen=True)
class StatisticsConfig:
    """Statistics of layers that keep none of their own, gathered in one pass over the training images.

    Args:
        images_per_class: How many training images of each class are looked at, the first of a seeded shuffle. `None`:
            all of them.
        augment: Whether they are cropped and mirrored as teachers are trained (`squeeze`), as released; or seen whole.
        patch_side: Side of the blocks, in positions of a feature map, whose mean and variance are gathered beside the
            channels'. `None`: 4 up to 64 px, 16 above (released code of G-VBSM).
        batch_size: Images per forward pass; only "batches" depend on it.
        global_variance: Variance of all images: of all their positions together ("pooled"); or the mean of the
            variances of random batches ("batches"), as released by G-VBSM and EDC, which lacks what differs between
            batches.
        class_variance: Variance of a class's images: of all their positions together ("pooled"); or the mean of each
            image's own ("images"), as released by EDC, which lacks what differs between images.
    """

    images_per_class: int | None = None
    augment: bool = True
    patch_side: int | None = None
    batch_size: int = 256
    global_variance: Literal["pooled", "batches"] = "pooled"
    class_variance: Literal["pooled", "images"] = "pooled"

    def __post_init__(self) -> None:
        num, side = self.images_per_class, self.patch_side
        require(num is None or num >= 1, "statistics.images_per_class", num, "at least 1")
        require(side is None or side >= 1, "statistics.patch_side", side, "at least 1")
        require(self.batch_size >= 1, "statistics.batch_size", self.batch_size, "at least 1")


@dataclass(frozen=True)
class RecoverConfig:
    """The optimisation of pixels that every recovering method shares (Table 8, Appendix B).

    Args:
        lr: Peak learning rate of Adam; a cosine over all iterations of all segments takes it to 0.
        betas: Adam's decay rates.
        statistics_weight: Weight of the loss of matched statistics (not in the paper; the released code's value).
        first_bn_multiplier: Factor on the first matched layer's term (not in the paper; the released code's value).
        tv_weight: Weight of the total variation of the images; 0 in every released script.
        l2_weight: Weight of the Euclidean norm of the images; 0 in every released script.
        crop: What a teacher sees in each iteration, one crop per batch: "resized" a random area enlarged to the full
            size, "pad" a window of the padded image.
        crop_area: Least and largest area for `crop="resized"`.
        padding: Pixels of padding for `crop="pad"`, of the mean colour.
        flip_probability: Probability that this view is mirrored.
        max_roll: Largest circular shift of this view, in pixels, drawn from 0 to this number for each axis.
        symmetric_roll: Whether shifts are drawn from -`max_roll` on (SRe2L's code for Tiny-ImageNet).
        layout: Which images are optimised together: "ipc_major" one of each class, "class_major" all of some classes.
        batch_size: How many images are optimised together, so that their joint statistics are matched; the method's
            own number for so many classes if not given.
        teacher_order: Where teachers that take turns begin: with the first in every batch of images ("shard", as
            FADRM), or where the batch before ended ("run", as G-VBSM and EDC).
        precision: Number format of the teacher's pass; statistics, images and their gradients are always fp32. "tf32"
            is fp32 but that a GPU rounds the factors of products to 11 bits, those of views included.
        form: How a step is computed, the same mathematics each time: "compiled" (`fadrm_hf.networks.fused`), "eager"
            without machine code made for it, "plain" as the published loop does it (`fadrm_hf.recovery.plain`).
            `None`: compiled where the run is long enough to win back the time that compiling takes.
    """

    lr: float = 0.25
    betas: Interval = (0.5, 0.9)
    statistics_weight: float = 0.01
    first_bn_multiplier: float = 10.0
    tv_weight: float = 0.0
    l2_weight: float = 0.0
    crop: Literal["resized", "pad"] = "resized"
    crop_area: Interval = (0.08, 1.0)
    padding: int = 4
    flip_probability: Open[float] = OPEN
    max_roll: Open[int] = OPEN
    symmetric_roll: bool = False
    layout: Literal["ipc_major", "class_major"] = "ipc_major"
    batch_size: Open[int] = added(OPEN, before=100)
    teacher_order: Literal["shard", "run"] = "shard"
    precision: Precision = "fp32"
    form: Open[Literal["compiled", "eager", "plain"]] = OPEN

    def __post_init__(self) -> None:
        require(self.lr > 0, "recover.lr", self.lr, "positive")
        require(self.statistics_weight >= 0, "recover.statistics_weight", self.statistics_weight, "0 or more")
        require(self.tv_weight >= 0, "recover.tv_weight", self.tv_weight, "0 or more")
        require(self.l2_weight >= 0, "recover.l2_weight", self.l2_weight, "0 or more")
        require(self.padding >= 0, "recover.padding", self.padding, "0 or more")
        require(self.max_roll is None or self.max_roll >= 0, "recover.max_roll", self.max_roll, "0 or more")
        size = self.batch_size
        require(size is OPEN or size >= 1, "recover.batch_size", size, "at least 1")
        decay = len(self.betas) == 2 and all(0.0 <= beta < 1.0 for beta in self.betas)
        require(decay, "recover.betas", self.betas, "two numbers in [0, 1)")
        require_area("recover.crop_area", self.crop_area)
        require_probability("recover.flip_probability", self.flip_probability)
