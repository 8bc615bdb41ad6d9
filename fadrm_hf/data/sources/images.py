"""Encoded images to RGB pixels: every mode that photographs come in, and a square of fixed size from any of them."""

import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fadrm_hf.config import Colour
from fadrm_hf.errors import SourceError

MAX_PIXELS = 89_478_485  # Pillow's own limit, above which it warns of a decompression bomb
MAX_THREADS = 8
ROWS_PER_TASK = 8
SMALL_BYTES = 5000  # below this threads only wait for each other: Pillow opens a file in Python, then decodes in C

_WHITE = (255, 255, 255, 255)
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow before 11.3 opens some 16-bit PNGs as "I"
# What Pillow raises for damaged files, by format: only what is none of these is a mistake of ours.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class Encoded(TypedDict):
    """An image as `datasets.Image(decode=False)` gives it: its file's bytes, or the path of the file."""

    bytes: bytes | None
    path: str | None


def read(encoded: Encoded) -> bytes:
    """The bytes of an image's file."""
    if encoded["bytes"] is not None:
        return encoded["bytes"]
    if encoded["path"] is None:
        raise SourceError("holds no image: neither bytes nor a path")
    try:
        return Path(encoded["path"]).read_bytes()
    except OSError as error:
        raise SourceError(f"cannot be opened: {error.strerror or error}") from error


def decode(content: bytes) -> Image.Image:
    """The upright RGB image in the bytes of an image file; what is transparent becomes white.

    Raises:
        SourceError: the bytes are no image, are damaged, or hold an image of more than `MAX_PIXELS`.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise SourceError(f"is {image.width}x{image.height}, expected at most {MAX_PIXELS} pixels")
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except SourceError:
        raise
    except _BOMB as error:
        raise SourceError(f"is too large, expected at most {MAX_PIXELS} pixels ({error})") from error
    except _DAMAGE as error:
        reason = "it is no image file" if isinstance(error, UnidentifiedImageError) else str(error)
        raise SourceError(f"cannot be decoded: {reason}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BITS:
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.rint(values.clip(0, 65535) / 257).astype(np.uint8))  # 65535 / 257 = 255
    if image.mode == "F":
        raise SourceError("holds floating-point pixels, whose range no file states; expected 8 or 16-bit ones")
    if image.has_transparency_data:
        foreground = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), foreground).convert("RGB")
    return image.convert("RGB")


def normalise(pixels: Tensor, mean: Colour, std: Colour) -> Tensor:
    """What networks see: (..., 3, H, W) pixels in [0, 255] -> (pixels / 255 - mean) / std, float32."""
    centre, scale = torch.tensor([mean, std], device=pixels.device)[:, :, None, None]
    return (pixels.float() / 255 - centre) / scale


def to_pixels(images: Tensor, mean: Colour, std: Colour) -> Tensor:
    """The inverse, in uint8: (..., 3, H, W) normalised, rounded half to even (truncation would darken every image)."""
    centre, scale = torch.tensor([mean, std], device=images.device)[:, :, None, None]
    return ((images * scale + centre) * 255.0).round().clamp(0, 255).to(torch.uint8)


def square(image: Image.Image, size: int) -> Image.Image:
    """The test view: all of a small image (`size` <= 64), or the centre of a photograph.

    A photograph's shorter side becomes `size * 8 // 7` (256 for 224), of which the centre is kept, on the pixel grid
    of torchvision's `Resize` and `CenterCrop`. It is cut out and resized in one step, so a very long image costs no
    more than others; only the outermost pixels differ, whose filter sees nothing beyond the cut. Bilinear, antialias.
    """
    if image.size == (size, size):
        return image
    if size <= 64:
        return image.resize((size, size), Image.Resampling.BILINEAR)
    shorter = size * 8 // 7
    spans = []
    for length in image.size:
        resized = shorter * length // min(image.size)
        first = round((resized - size) / 2)
        spans.append((first * length / resized, (first + size) * length / resized))
    (left, right), (top, bottom) = spans
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def in_threads(work: Callable[[Sequence[int]], None], encoded: Sequence[Encoded]) -> None:
    """Call `work` with successive parts of the positions in `encoded`, in threads where that is faster."""
    positions = range(len(encoded))
    sizes = [SMALL_BYTES if item["bytes"] is None else len(item["bytes"]) for item in encoded]
    if sum(sizes) < SMALL_BYTES * len(sizes) or len(sizes) <= ROWS_PER_TASK:
        work(positions)
        return
    parts = [positions[at : at + ROWS_PER_TASK] for at in range(0, len(positions), ROWS_PER_TASK)]
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(work, parts):  # draws the results, so that the first error is raised here
            continue
