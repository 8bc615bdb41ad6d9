"""The settings of soft labels."""

from dataclasses import dataclass
from typing import Literal

from fadrm_hf.config.checks import (
    OPEN,
    Interval,
    Open,
    Precision,
    require,
    require_area,
    require_probability,
)


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
        codec: How labels are stored: float16, int8, int4, top<k> such as top10, or none
            (`fadrm_hf.labels.codecs`).
        stored_epochs: How many of the epochs are labelled and stored; training reads them again for the rest of
            `epochs` (LPLD, arXiv 2410.15919; `fadrm_hf.training.reuse`). `None`: all of them.
        num_teachers: How many teachers label, from the first on. `None`: all that recover.
        ensemble: How logits of several become one label: their "mean"; the mean after each teacher's logits of a batch
            were scaled to one Frobenius norm, "frobenius" (G-VBSM's code for ImageNet-1k); or their mean weighted by
            "votes" (CV-DD).
        vote_temperature: Weights of votes are softmax(vote / temperature), votes in per cent (CV-DD's code: 10).
        shuffle_tiles: Tiles per row and column of a mosaic whose rows and columns each view permutes before its crop
            (RDED); 1 leaves images as they are.
        precision: Number format of the teachers' pass; BatchNorm's statistics, and labels, are fp32 before they are
            stored. bf16 has 8 significant bits, which labels show. "tf32" is fp32 but that a GPU rounds the factors of
            products to 11 bits, which is several times as fast; a CPU does not.
    """

    epochs: Open[int] = OPEN
    batch_size: int = 16
    accumulation: int = 2
    batch_statistics: bool = True
    crop_area: Interval = (0.08, 1.0)
    flip_probability: Open[float] = OPEN
    cutmix: bool = True
    codec: str = "float16"
    stored_epochs: int | None = None
    num_teachers: int | None = None
    ensemble: Literal["mean", "frobenius", "votes"] = "mean"
    vote_temperature: float = 10.0
    shuffle_tiles: int = 1
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        require(self.epochs is None or self.epochs >= 1, "relabel.epochs", self.epochs, "at least 1")
        stored, most = self.stored_epochs, self.epochs
        require(stored is None or stored >= 1, "relabel.stored_epochs", stored, "at least 1")
        fits = stored is None or most is None or stored <= most
        require(fits, "relabel.stored_epochs", stored, f"at most relabel.epochs, which is {most}")
        require(self.batch_size >= 2, "relabel.batch_size", self.batch_size, "at least 2")
        fits = 1 <= self.accumulation <= self.batch_size // 2
        require(fits, "relabel.accumulation", self.accumulation, "between 1 and half of relabel.batch_size")
        require(
            self.num_teachers is None or self.num_teachers >= 1, "relabel.num_teachers", self.num_teachers, "1 or more"
        )
        require(self.vote_temperature > 0, "relabel.vote_temperature", self.vote_temperature, "positive")
        require(self.shuffle_tiles in (1, 2), "relabel.shuffle_tiles", self.shuffle_tiles, "1 (no shuffle) or 2 (2x2)")
        require_area("relabel.crop_area", self.crop_area)
        require_probability("relabel.flip_probability", self.flip_probability)

    @property
    def num_stored(self) -> int:
        """Return how many epochs of labels are stored."""
        return self.stored_epochs or self.epochs
