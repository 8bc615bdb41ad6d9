"""FKD label files: `epoch_E/batch_B.tar`, one `torch.save`d list for each batch that was labelled together.

    [crops, flips, partners, lambda, box, logits]                       SRe2L, CDA, CV-DD, FADRM
    [crops, flips, partners, lambda, box, logits, images]               G-VBSM
    [crops, flips, partners, lambda, box, logits, images, shuffles]     EDC

The released code (github.com/VILA-Lab/SRe2L and shaoshitong/EDC, relabel/utils_fkd.py) says what they mean. Crops are
top / H, left / W, height / H, width / W. The view of image `partners[i]` of the batch is pasted into view i where
`[x1:x2, y1:y2]` of (H, W) lies, `box` being x1, y1, x2, y2; mixup has a lambda and no box. Files without `images`
rely on the order of a seeded sampler: `sampler_orders`.

Files are data here: tensors, numbers and lists are read, and everything else that a pickle can hold is refused.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fadrm_hf.data.views import LabelViews
from fadrm_hf.errors import ArtifactError

ROUNDING = 1e-3  # pixels; a fraction in float32 is this exact for images of up to 10,000 pixels

_FLOATS, _INTEGERS = (torch.float32, torch.float64, torch.float16), (torch.int64, torch.int32)


@dataclass(frozen=True, eq=False)
class LabelBatch:
    """One label file, checked.

    Attributes:
        crop: (n, 4) int64: top, left, height, width in pixels.
        flip: (n,) bool.
        partner: (n,) int64, places in the batch of the views that are mixed in; `None` if nothing is.
        box: (4,) int64: top, left, height, width in pixels.
        logits: (n, C) float32.
        positions: (n,) int64, places of the images in the order of the image folder, where the file says so.
    """

    crop: Tensor
    flip: Tensor
    partner: Tensor | None
    box: Tensor
    logits: Tensor
    positions: Tensor | None

    def __len__(self) -> int:
        return len(self.crop)

    def views(self, image: Tensor) -> LabelViews:
        """Return the views of the images `image` (n,) int64, rows of some image table."""
        box = self.box.expand(len(self), 4).clone()
        if self.partner is None:
            nothing = torch.zeros_like(self.crop)
            nobody = torch.full_like(image, -1)
            return LabelViews(image, self.crop, self.flip, nobody, nothing, torch.zeros_like(self.flip), box)
        mixed = self.partner
        return LabelViews(image, self.crop, self.flip, image[mixed], self.crop[mixed], self.flip[mixed], box)


def epoch_folders(folder: Path) -> list[Path]:
    """Return the folders of all epochs, in order.

    Raises:
        ArtifactError: If there is none, or one is missing.
    """
    return _numbered(folder, "epoch_{}")


def batch_files(epoch: Path) -> list[Path]:
    """Return the files of all batches of an epoch, in order.

    Raises:
        ArtifactError: If there is none, or one is missing.
    """
    return _numbered(epoch, "batch_{}.tar")


def read_batch(path: Path, size: int, num_classes: int) -> LabelBatch:
    """Read one label file of images of `size` x `size` pixels.

    Raises:
        ArtifactError: If it holds anything but a batch of CutMix labels of so many classes; the file is named.
    """
    entries = _load(path)
    try:
        return _parse(entries, size, num_classes)
    except ArtifactError as error:
        raise ArtifactError(
            f"{_short(path)} {error}; fetch that file again, or see whether it belongs to this release"
        ) from error


def sampler_orders(num_images: int, seed: int) -> Iterator[Tensor]:
    """Yield each epoch's order of the images, without end: torch's `RandomSampler` with a generator of its own.

    The sampler draws a second order in each epoch, for the images beyond whole passes, of which it uses none; the
    next epoch begins where that leaves the generator. The seed is the release's, not derived as those of a run are.
    """
    rng = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randperm(num_images, generator=rng)
        torch.randperm(num_images, generator=rng)


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Return the entries whose names are `pattern` with 0, 1, 2, ... in it, in order."""
    wanted = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
    entries = folder.iterdir() if folder.is_dir() else iter(())
    found = {int(match[1]): entry for entry in entries if (match := wanted.fullmatch(entry.name))}
    missing = next(number for number in range(len(found) + 1) if number not in found)
    if not found or missing < len(found):
        raise ArtifactError(
            f"{folder.name}/ lacks {pattern.format(missing)}, expected FKD label files epoch_0/batch_0.tar, "
            "epoch_0/batch_1.tar, ...; fetch the release again, or set --labels"
        )
    return [found[number] for number in range(len(found))]


def _load(path: Path) -> Any:
    """Load a label file, as long as it holds tensors, numbers and lists."""
    allowed: list[Any] = [(_Number, "numpy.dtype")]
    allowed += [(_read_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]  # NumPy 1 and 2
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged bytes raise whatever the unpickler meets first
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArtifactError(
            f"{_short(path)} is damaged, or holds more than tensors, numbers and lists, which is not loaded because "
            f"it could run code ({reason}); fetch that file again from a source that you trust"
        ) from error


class _Number:
    """Stand-in for `numpy.dtype` where the corners of a box are NumPy numbers, as the released code saves them."""

    def __init__(self, kind: str, *_: bool) -> None:
        if kind not in ("i4", "i8", "f4", "f8"):
            raise ArtifactError(f"NumPy numbers of type {kind!r}")
        self.format = "<" + {"i4": "i", "i8": "q", "f4": "f", "f8": "d"}[kind]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] != "<":
            raise ArtifactError(f"NumPy numbers of byte order {state[1]!r}")


def _read_number(kind: _Number, content: bytes) -> float | int:
    """Stand in for the constructor of NumPy numbers."""
    (number,) = struct.unpack(kind.format, content)
    return float(number) if kind.format[1] in "fd" else int(number)


def _parse(entries: Any, size: int, num_classes: int) -> LabelBatch:
    if not isinstance(entries, list | tuple) or not 6 <= len(entries) <= 8:
        held = f"{len(entries)} entries" if isinstance(entries, list | tuple) else type(entries).__name__
        raise ArtifactError(f"holds {held}, expected a list of 6 to 8")
    crop, flip, partner, _, box, logits, positions, shuffles = [*entries, None, None][:8]
    _expect("logits", logits, _FLOATS, (None, num_classes))
    num = len(logits)
    if not num or not bool(torch.isfinite(logits).all()):
        raise ArtifactError("has no logits" if not num else "has logits that are not finite")
    _expect("crops", crop, _FLOATS, (num, 4))
    _expect("flips", flip, (torch.bool,), (num,))
    if positions is not None:
        _expect("image indices", positions, _INTEGERS, (num,))
    if shuffles is not None:
        _expect("shuffles", shuffles, _INTEGERS + _FLOATS, tuple(getattr(shuffles, "shape", (num, 2, 2))))
    if shuffles is not None and bool(shuffles.any()):
        raise ArtifactError("has images of shuffled patches, which no view of an artifact can show")
    return LabelBatch(
        crop=_to_pixels(crop, size),
        flip=flip,
        partner=_partner(partner, box, num),
        box=torch.zeros(4, dtype=torch.int64) if partner is None else _box(box, size),
        logits=logits.float(),
        positions=None if positions is None else positions.long(),
    )


def _expect(what: str, value: Any, dtypes: Sequence[torch.dtype], shape: tuple[int | None, ...]) -> None:
    is_plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    fits = is_plain and value.dtype in dtypes and len(value.shape) == len(shape)
    if not fits or any(want not in (None, got) for got, want in zip(value.shape, shape, strict=True)):
        found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ArtifactError(f"has {what} of {found}, expected {dtypes[0]} ({', '.join(map(str, shape))})")
    if value.nbytes > value.untyped_storage().nbytes():  # one number may stand for any shape, which would take memory
        raise ArtifactError(f"has {what} of shape {tuple(value.shape)} in {value.untyped_storage().nbytes()} bytes")


def _to_pixels(crops: Tensor, size: int) -> Tensor:
    """Convert relative boxes (n, 4) to whole pixels; refuse what is no box of whole pixels inside the image."""
    exact = crops.double() * size
    pixels = exact.round()
    top, left, height, width = pixels.unbind(dim=1)
    inside = (top >= 0) & (left >= 0) & (height >= 1) & (width >= 1) & (top + height <= size) & (left + width <= size)
    is_good = inside & ((exact - pixels).abs() <= ROUNDING).all(dim=1)
    if not is_good.all():
        row = int((~is_good).nonzero()[0])
        shown = ", ".join(f"{value:.4g}" for value in exact[row].tolist())
        raise ArtifactError(
            f"has in row {row} a crop of ({shown}) pixels (top, left, height, width), expected whole pixels inside an "
            f"image of {size} x {size}"
        )
    return pixels.long()


def _partner(partner: Any, box: Any, num: int) -> Tensor | None:
    if partner is None:
        return None
    if box is None:
        raise ArtifactError(
            "has labels of mixup, blends of whole images, which no view of an artifact can show; CutMix labels can be "
            "imported"
        )
    _expect("partners", partner, _INTEGERS, (num,))
    if not torch.equal(partner.long().sort().values, torch.arange(num)):
        raise ArtifactError(f"has partners that are no permutation of 0 to {num - 1}")
    return partner.long()


def _box(box: Any, size: int) -> Tensor:
    """Convert corners x1, y1, x2, y2 of `[x1:x2, y1:y2]` in (H, W) to top, left, height, width."""
    is_four = isinstance(box, list | tuple) and len(box) == 4
    if not is_four or any(isinstance(corner, bool) or not isinstance(corner, int) for corner in box):
        raise ArtifactError(f"has the box {box!r:.80}, expected four integers")
    top, left, bottom, right = box
    if not (0 <= top <= bottom <= size and 0 <= left <= right <= size):
        raise ArtifactError(f"has the box {box!r:.80}, expected one inside an image of {size} x {size}")
    return torch.tensor([top, left, bottom - top, right - left])


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
