"""Codecs of soft labels: each turns a teacher's logits into columns of the soft-label table, and back.

    float16    every logit
    int8 int4  every logit, as a code between the least and the greatest of its row
    top<k>     the k greatest logits, e.g. top10, and one value for all the others
    none       nothing: the teachers label the stored views again while a student trains

The manifest names the codec. A new way to store labels is a class here and an entry of `_CODECS`; shards, builders,
artifact and readers ask the codec which columns there are and of what type. Every codec rounds logits to float16
first, so a table coded again from float16 is byte for byte the table that would have been made at once.
"""

import re
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Features, List, Value
from torch import Tensor

from fadrm_hf.errors import UPGRADE, ArtifactError, ConfigError, TeacherError

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Columns = dict[str, npt.NDArray[Any]]

_CODES = np.arange(256, dtype=np.uint8)
_PAIRS = np.stack([_CODES & 15, _CODES >> 4], axis=1).astype(np.float32).view(np.uint64)[:, 0]  # byte -> two floats

_NO_LABELS = "codec none stores no labels; the teachers that the manifest names give them, view by view"

_DECODE_INT8 = """\
def decode(rows, num_classes):
    low, scale = (rows[name].astype(np.float32)[:, None] for name in ("low", "scale"))
    return rows["codes"].astype(np.float32) * scale + low
"""
_DECODE_INT4 = """\
def decode(rows, num_classes):
    low, scale = (rows[name].astype(np.float32)[:, None] for name in ("low", "scale"))
    pairs = np.stack([rows["codes"] & 15, rows["codes"] >> 4], axis=2)
    codes = pairs.reshape(len(pairs), -1)[:, :num_classes]
    return codes.astype(np.float32) * scale + low
"""


class LabelCodec(ABC):
    """A way to store logits, one table row per view.

    Attributes:
        name: As configs and manifests spell it.
        has_logits: Whether there are labels to decode; if not, only `features` and `encode` may be called.
        is_lossy: Whether labels that were stored this way are too poor to be coded in another.
        decode_snippet: NumPy code that defines `decode(rows, num_classes)`: the columns as arrays (n, ...) to logits
            (n, C). For readers without this library; bit for bit what `decode` gives.
    """

    name: str
    has_logits = True
    is_lossy = True
    decode_snippet = ""

    @abstractmethod
    def features(self, num_classes: int) -> Features:
        """Return the columns of the labels; refuse a number of classes that cannot be stored this way."""

    @abstractmethod
    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Store `logits` (n, C) float32, finite and within ±65504, as the tensors of these columns, each (n, ...)."""

    def unusable(self, columns: Columns, num_classes: int) -> Flags:
        """Return which rows stand for no logits, (n,): not finite, or of classes that do not exist."""
        raise ArtifactError(_NO_LABELS)

    def decode(self, columns: Columns, num_classes: int) -> Floats:
        """Return the logits (n, C) that the arrays of the columns, each (n, ...), stand for; every row is usable."""
        raise ArtifactError(_NO_LABELS)

    def distance(self, columns: Columns, logits: Floats) -> Floats:
        """Return how far, (n,), usable columns are from `logits` (n, C), beyond what rounding to a code may change.

        It is "not a number" where `logits` is.
        """
        raise ArtifactError(_NO_LABELS)


class Float16(LabelCodec):
    """Every logit as a half: relative error at most 2^-11, which a softmax at T = 20 does not see."""

    name, is_lossy = "float16", False
    decode_snippet = """\
def decode(rows, num_classes):
    return rows["logits"].astype(np.float32)
"""

    def features(self, num_classes: int) -> Features:
        """Return one column `logits` of `num_classes` halves."""
        return Features({"logits": List(Value("float16"), length=num_classes)})

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Round `logits` (n, C) float32 to halves; values that are not finite or beyond ±65504 are refused."""
        return {"logits": _halves(logits)}

    def unusable(self, columns: Columns, num_classes: int) -> Flags:
        """Return which rows hold a value that is not finite."""
        return _not_finite(columns["logits"])

    def decode(self, columns: Columns, num_classes: int) -> Floats:
        """Return the halves `logits` (n, C) as float32, exactly."""
        return columns["logits"].astype(np.float32)

    def distance(self, columns: Columns, logits: Floats) -> Floats:
        """Return the largest difference in each row; rounding changes far less than what differs between machines."""
        return np.abs(self.decode(columns, logits.shape[1]) - logits).max(axis=1)


class Affine(LabelCodec):
    """Every logit as a whole number of steps above the least of its row: the error is at most half a step.

    Each row has its step, so that the greatest logit is the greatest code; in a row of equal logits it is 0.

    Args:
        bits: Bits of a code: 8, or 4 for two codes in a byte, the first of them in the lower half.
    """

    def __init__(self, bits: int) -> None:
        self.name = f"int{bits}"
        self.decode_snippet = _DECODE_INT8 if bits == 8 else _DECODE_INT4
        self._per_byte, self._greatest = 8 // bits, 2**bits - 1

    def features(self, num_classes: int) -> Features:
        """Return `low` and `scale`, halves, the least logit and the step; `codes`, bytes, in the order of classes."""
        num_bytes = -(-num_classes // self._per_byte)
        codes = List(Value("uint8"), length=num_bytes)
        return Features({"low": Value("float16"), "scale": Value("float16"), "codes": codes})

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Round `logits` (n, C) float32 to halves, and these to the nearest code."""
        exact = _halves(logits).double()
        low, high = exact.aminmax(dim=1, keepdim=True)
        scale = _halves_above((high - low) / self._greatest)
        codes = ((exact - low) / torch.where(scale > 0, scale, 1.0).double()).round().to(torch.uint8)
        if self._per_byte == 2:
            first, second = codes[:, 0::2].clone(), codes[:, 1::2]
            first[:, : second.shape[1]] |= second << 4
            codes = first
        return {"low": low[:, 0].half(), "scale": scale[:, 0], "codes": codes}

    def unusable(self, columns: Columns, num_classes: int) -> Flags:
        """Return which rows have a least logit or step that is not finite, or a negative step."""
        low, scale = columns["low"].astype(np.float32), columns["scale"].astype(np.float32)
        usable: Flags = np.isfinite(low) & np.isfinite(scale) & (scale >= 0)
        return ~usable

    def decode(self, columns: Columns, num_classes: int) -> Floats:
        """Return low + scale x code, in float32."""
        if self._per_byte == 1:
            logits = columns["codes"].astype(np.float32)
        else:
            pairs = _PAIRS.take(columns["codes"]).view(np.float32)
            logits = pairs if pairs.shape[1] == num_classes else pairs[:, :num_classes].copy()
        logits *= columns["scale"].astype(np.float32)[:, None]
        logits += columns["low"].astype(np.float32)[:, None]
        return logits

    def distance(self, columns: Columns, logits: Floats) -> Floats:
        """Return the largest difference in each row, less half a step."""
        difference = np.abs(self.decode(columns, logits.shape[1]) - logits).max(axis=1)
        return np.maximum(difference - columns["scale"].astype(np.float32) / 2, np.float32(0))


class TopK(LabelCodec):
    """The k greatest logits, and one value for the others that leaves these k their probabilities.

    The others share r = T log(mean(exp(z / T))), so that their probabilities at temperature T sum up to what they
    were, and those of the k classes are exact. T is 20, the temperature of the loss that students are trained with; at
    another one these are close, not exact. It belongs to the codec, not to a config, so that a table means the same
    wherever it is read and whatever temperature its recipe names.

    Args:
        k: How many logits are kept, at least 1 and fewer than there are classes.
    """

    temperature = 20.0
    decode_snippet = """\
def decode(rows, num_classes):
    rest = rows["rest"].astype(np.float32)
    logits = np.repeat(rest[:, None], num_classes, axis=1)
    classes = rows["classes"].astype(np.int64)
    np.put_along_axis(logits, classes, rows["values"].astype(np.float32), axis=1)
    return logits
"""

    def __init__(self, k: int) -> None:
        self.name = f"top{k}"
        self._k = k

    def features(self, num_classes: int) -> Features:
        """Return `classes` and `values` of the k greatest logits, the greatest first, and `rest`, a half."""
        kind = str(self._kind(num_classes)).removeprefix("torch.")
        classes, values = List(Value(kind), length=self._k), List(Value("float16"), length=self._k)
        return Features({"classes": classes, "values": values, "rest": Value("float16")})

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Round `logits` (n, C) float32 to halves and keep the k greatest; of equal ones the first classes."""
        halves = _halves(logits)
        kind = self._kind(logits.shape[1])
        ordered, classes = halves.float().sort(dim=1, descending=True, stable=True)
        rest = torch.from_numpy(self._rest(ordered[:, self._k :].numpy()))
        return {
            "classes": classes[:, : self._k].to(kind),
            "values": ordered[:, : self._k].half(),
            "rest": rest.half(),
        }

    def unusable(self, columns: Columns, num_classes: int) -> Flags:
        """Return which rows hold a value that is not finite, or a class that does not exist."""
        classes = columns["classes"].astype(np.int64)
        unknown: Flags = (classes.min(axis=1) < 0) | (classes.max(axis=1) >= num_classes)
        return unknown | _not_finite(columns["values"]) | _not_finite(columns["rest"][:, None])

    def decode(self, columns: Columns, num_classes: int) -> Floats:
        """Return the kept logits at their classes, `rest` at all others."""
        rest = columns["rest"].astype(np.float32)
        logits = np.repeat(rest[:, None], num_classes, axis=1)
        np.put_along_axis(logits, columns["classes"].astype(np.int64), columns["values"].astype(np.float32), axis=1)
        return logits

    def distance(self, columns: Columns, logits: Floats) -> Floats:
        """Return the largest difference in a kept logit or in `rest`, or by which a greater logit was passed over.

        `rest` is compared with the classes that are not stored, whichever these are: two logits that are equal to
        within rounding may change places at the k-th.
        """
        classes = columns["classes"].astype(np.int64)
        stored = np.take_along_axis(logits, classes, axis=1)
        others = logits.copy()
        np.put_along_axis(others, classes, -np.inf, axis=1)
        value = np.abs(columns["values"].astype(np.float32) - stored).max(axis=1)
        passed_over = np.maximum(others.max(axis=1) - stored.min(axis=1), np.float32(0))
        rest = np.abs(columns["rest"].astype(np.float32) - self._rest(others, others.shape[1] - self._k))
        return np.maximum(np.maximum(value, passed_over), rest)

    def _kind(self, num_classes: int) -> torch.dtype:
        """Return the smallest integers that number so many classes."""
        if self._k >= num_classes:
            raise ConfigError(
                f"label codec {self.name} keeps {self._k} of {num_classes} classes, expected fewer than there are; "
                "choose a smaller k, or float16, which stores them all"
            )
        return torch.uint8 if num_classes <= 2**8 else torch.int16 if num_classes <= 2**15 else torch.int32

    def _rest(self, others: Floats, num: int | None = None) -> Floats:
        """Return the value of the other logits of each row, of all (n, m) or of the `num` that are finite."""
        scaled = others.astype(np.float64) / self.temperature
        greatest = scaled.max(axis=1, keepdims=True)
        mean = np.exp(scaled - greatest).sum(axis=1) / (num or others.shape[1])
        return (self.temperature * (greatest[:, 0] + np.log(mean))).astype(np.float32)


class NoLabels(LabelCodec):
    """Views only: the teachers that the manifest names label them again, in every epoch of training."""

    name, has_logits = "none", False

    def features(self, num_classes: int) -> Features:
        """Return no columns."""
        return Features({})

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return no columns."""
        return {}


_CODECS: dict[str, LabelCodec] = {codec.name: codec for codec in (Float16(), Affine(8), Affine(4), NoLabels())}


def find_codec(name: str) -> LabelCodec:
    """Return the codec that a config or a manifest names; refuse an unknown name."""
    top = re.fullmatch(r"top([1-9]\d{0,5})", name)
    codec = TopK(int(top[1])) if top else _CODECS.get(name)
    if codec is None:
        raise ArtifactError(
            f"unknown label codec {name!r}, expected {', '.join(_CODECS)}, or top<k> with k of 1 or more, e.g. top10; "
            f"for labels of a newer version {UPGRADE}"
        )
    return codec


def _halves(logits: Tensor) -> Tensor:
    """Round `logits` (n, C) to halves; refuse a row that they cannot hold."""
    halves = logits.half()
    row_is_bad = ~torch.isfinite(halves).all(dim=1)
    if row_is_bad.any():
        row = int(row_is_bad.nonzero()[0])
        worst = float(logits[row][~torch.isfinite(halves[row])][0])
        raise TeacherError(
            f"logits of row {row} hold {worst:g}, expected finite values within ±65504 (float16); "
            "look for a diverged teacher, or pixels that are normalised twice"
        )
    return halves


def _halves_above(values: Tensor) -> Tensor:
    """Round `values`, float64, 0 or more, up to halves."""
    nearest = values.half()
    is_below = nearest.double() < values
    return (nearest.view(torch.int16) + is_below.short()).view(torch.float16)  # the next half has the next bits


def _not_finite(values: npt.NDArray[Any]) -> Flags:
    """Return which rows of (n, m) hold a value that is not finite, (n,)."""
    return np.asarray(~np.isfinite(values.astype(np.float32)).all(axis=1))
