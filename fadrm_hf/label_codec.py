"""How soft labels are stored: a codec turns a teacher's logits into columns of the soft-label table, and back.

The manifest names the codec. A new way to store labels is a class here and a line in `CODECS`; shards, builders,
artifact and readers ask the codec which columns there are and of what type.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from datasets import Features, List, Value
from torch import Tensor

from fadrm_hf.errors import ArtifactError, TeacherError, unknown

Columns = dict[str, npt.NDArray[np.generic]]


class LabelCodec(Protocol):
    """A way to store logits, one table row per view."""

    name: str

    def features(self, num_classes: int) -> Features:
        """The columns of the table that hold the labels."""

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """`logits` (n, C) float32, any finite value, as the tensors of these columns, each (n, ...)."""

    def decode(self, columns: Columns) -> npt.NDArray[np.float32]:
        """The logits (n, C) that the arrays of these columns, each (n, ...), stand for."""


class Float16:
    """Every logit as a half: relative error at most 2^-11, which a softmax at T = 20 does not see."""

    name = "float16"

    def features(self, num_classes: int) -> Features:
        """One column `logits` of `num_classes` halves."""
        return Features({"logits": List(Value("float16"), length=num_classes)})

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Round `logits` (n, C) float32 to halves; values that are not finite or beyond ±65504 are refused."""
        halves = logits.half()
        row_is_bad = ~torch.isfinite(halves).all(dim=1)
        if row_is_bad.any():
            row = int(row_is_bad.nonzero()[0])
            worst = float(logits[row][~torch.isfinite(halves[row])][0])
            raise TeacherError(
                f"logits of row {row} hold {worst:g}, expected finite values within ±65504 (float16); "
                "look for a diverged teacher, or pixels that are normalised twice"
            )
        return {"logits": halves}

    def decode(self, columns: Columns) -> npt.NDArray[np.float32]:
        """The halves `logits` (n, C) as float32, exactly."""
        return columns["logits"].astype(np.float32)


CODECS: dict[str, LabelCodec] = {"float16": Float16()}


def find_codec(name: str) -> LabelCodec:
    """The codec that a manifest names."""
    if name not in CODECS:
        raise ArtifactError(f"{unknown('label codec', name, CODECS)}; for a newer one: pip install -U fadrm_hf")
    return CODECS[name]
