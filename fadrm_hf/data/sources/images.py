"""Encoded images to RGB pixels: every mode that photographs come in, and a square of fixed size from any of them."""

import importlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from PIL import Image, UnidentifiedImageError

from fadrm_hf.config.checks import Interval
from fadrm_hf.data.sources.png import PNG_SIGNATURE, read_deep_colours, without_text
from fadrm_hf.data.sources.tiff import TIFF_SIGNATURES, bits_per_band, num_bands, read_tiff, rgb_bands, tiff_size
from fadrm_hf.errors import SourceError

MAX_PIXELS = 89_478_485  # Pillow's own limit, above which it warns of a decompression bomb
MAX_THREADS = 8
ROWS_PER_TASK = 8
SMALL_BYTES = 5000  # below this threads only wait for each other: Pillow opens a file in Python, then decodes in C

# The formats that are read, by Pillow's names, and no other: Pillow would start Ghostscript for PostScript.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "HEIF")
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # Pillow before 11.3 opens some 16-bit PNGs as "I"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_WHITE = (255, 255, 255, 255)
_UNREAD = "unread"
_ORIENTATION = 0x0112
_TRANSPOSED = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
               7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip
_HEIF = (b"heic", b"heix", b"mif1", b"msf1")
# What Pillow raises for damaged files, by format: only what is none of these is a mistake of ours.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, struct.error, zlib.error)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True)
class PixelRule:
    """How the values in image files become 8-bit RGB, where that is not said by the file.

    Args:
        bands: Which three bands of an image with more than three are red, green and blue, counted from 0.
        value_range: The values of images with more than 8 bits, or of fractions, that are black and white.
    """

    bands: tuple[int, int, int] | None = None
    value_range: Interval | None = None


AS_FILED = PixelRule()


class Encoded(TypedDict):
    """An image as `datasets.Image(decode=False)` gives it: its file's bytes, or the path of the file."""

    bytes: bytes | None
    path: str | None


def read(encoded: Encoded | None) -> bytes:
    """Return the bytes of an image's file."""
    if encoded is None:
        raise SourceError("is not there: the row holds no image")
    if encoded["bytes"] is not None:
        return encoded["bytes"]
    if encoded["path"] is None:
        raise SourceError("is not there: the row holds no image, neither bytes nor a path")
    try:
        return Path(encoded["path"]).read_bytes()
    except OSError as error:
        raise SourceError(f"cannot be opened: {error.strerror or error}") from error


def decode(content: bytes, rule: PixelRule = AS_FILED) -> Image.Image:
    """Return the upright RGB image in the bytes of an image file; what is transparent becomes white.

    Raises:
        SourceError: The bytes are no image, are damaged, or hold an image of more than `MAX_PIXELS`.
    """
    with opened(content) as image:
        return _to_rgb(image, content, rule)


@contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """Open an image file, as it is, for as long as the block; what is wrong with it is a `SourceError`."""
    if content.startswith(LFS_POINTER):
        raise SourceError("is a Git LFS pointer, not the image itself; run git lfs pull in its repository")
    try:
        with _open(content) as image:
            yield image
    except SourceError:
        raise
    except _BOMB as error:
        raise SourceError(f"is too large, expected at most {MAX_PIXELS} pixels ({error})") from error
    except _DAMAGE as error:
        reason = "it is no image file" if isinstance(error, UnidentifiedImageError) else str(error)
        needed = "; it is HEIC: pip install pillow-heif" if content[8:12] in _HEIF else ""
        raise SourceError(f"cannot be decoded: {reason}{needed}") from error


def _open(content: bytes) -> Image.Image:
    """Open an image in one of `FORMATS`; a TIFF that Pillow does not know is read by our own reader."""
    try:
        image: Image.Image = Image.open(BytesIO(content), formats=_formats())
        if image.width * image.height > MAX_PIXELS:
            raise SourceError(f"is {image.width}x{image.height}, expected at most {MAX_PIXELS} pixels")
        if image.format == "PNG":
            image.load()  # text that is too long may come after the pixels
        return image
    except UnidentifiedImageError:
        if not content.startswith(TIFF_SIGNATURES):
            raise
        stand_in = Image.new("L", tiff_size(content))  # the pixels are read when they are asked for
        stand_in.info[_UNREAD] = True
        return stand_in
    except ValueError:
        if not content.startswith(PNG_SIGNATURE) or (bare := without_text(content)) == content:
            raise
        return Image.open(BytesIO(bare), formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this Pillow reads; HEIC needs a package beside it."""
    Image.init()
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _to_rgb(image: Image.Image, content: bytes, rule: PixelRule) -> Image.Image:
    values = deep_values(image, content, rule)
    if values is not None:
        pixels = Image.fromarray(_to_bytes(values, rule.value_range)).convert("RGB")
        if image.format == "PNG" and image.mode == "RGBA":
            pixels.putalpha(image.getchannel("A"))
        return _on_white(_upright(pixels, image))
    upright = _upright(image, image)
    if rule.bands is not None and len(image.getbands()) > 3:
        return Image.fromarray(np.ascontiguousarray(np.asarray(upright)[:, :, list(rule.bands)]))
    return _on_white(upright)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, _WHITE)
    return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")


def deep_values(image: Image.Image, content: bytes, rule: PixelRule, in_full: bool = False) -> np.ndarray | None:
    """Return the pixels in a file, (H, W) or (H, W, 3), where they need more than 8 bits or a choice of bands.

    Args:
        image: The opened file.
        content: Its bytes.
        rule: The bands that are chosen, and the range.
        in_full: Also of images with three bands of 16 bits, of which Pillow reads the upper 8.

    Raises:
        SourceError: It has more than four bands, and none are chosen.
    """
    in_full = in_full or rule.value_range is not None
    if not content.startswith(TIFF_SIGNATURES):
        if image.mode in DEEP_MODES:
            return np.asarray(image)
        return read_deep_colours(content) if in_full else None
    num = num_bands(content)
    bands = rule.bands if num > 3 and rule.bands else rgb_bands(content)
    if bands is None and num > 4:
        raise SourceError(
            f"has {num} bands, expected three; name those of red, green and blue, counted from 0: "
            "--source.bands '[2,1,0]'"
        )
    if bands is not None and max(bands) >= num:
        raise SourceError(f"has {num} bands, counted from 0, expected {list(bands)} among them; set --source.bands")
    is_deep = num == 3 and bits_per_band(content) > 8 and in_full
    if bands is not None and (num > 3 or is_deep):
        return np.ascontiguousarray(read_tiff(content)[:, :, list(bands)])
    if image.info.get(_UNREAD):
        values = read_tiff(content)
        return values if num == 3 else values[:, :, 0]
    return np.asarray(image) if image.mode in DEEP_MODES else None


def described_mode(image: Image.Image, content: bytes) -> str:
    """Return an image's colour mode, or its number of bands where no mode stands for them."""
    num = num_bands(content) if content.startswith(TIFF_SIGNATURES) else 0
    return f"{num} bands" if num > len(image.getbands()) or image.info.get(_UNREAD) else image.mode


def _to_bytes(values: np.ndarray, value_range: Interval | None) -> np.ndarray:
    """Scale values to 0 to 255, uint8."""
    if values.dtype == np.uint8 and value_range is None:
        return values
    if value_range is None and values.dtype.kind == "f":
        raise SourceError(
            "holds floating-point pixels, whose range no file states; expected 8 or 16-bit ones; set "
            "--source.value_range '[BLACK, WHITE]'"
        )
    low, high = value_range or (0, 65535)
    if values.dtype == np.uint8 and high > 255:
        return values  # of a source whose other images are deeper
    scaled = (np.nan_to_num(values.astype(np.float64), nan=low).clip(low, high) - low) / ((high - low) / 255)
    return np.rint(scaled).astype(np.uint8)  # 65535 / 257 = 255


def _upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """Turn pixels as the EXIF orientation of their image says; one that says nothing known is left as it is."""
    try:
        said: Any = image.getexif().get(_ORIENTATION)
        said = said[0] if isinstance(said, tuple) and said else said
    except _DAMAGE:
        said = None
    turn = _TRANSPOSED.get(said) if isinstance(said, int) else None
    return pixels.transpose(Image.Transpose[turn]) if turn else pixels


def square(image: Image.Image, size: int) -> Image.Image:
    """Return the test view: all of a small image (`size` <= 64), or the centre of a photograph.

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


def in_threads(work: Callable[[Sequence[int]], None], encoded: Sequence[Encoded | None]) -> None:
    """Call `work` with successive parts of the positions in `encoded`, in threads where that is faster."""
    positions = range(len(encoded))
    sizes = [SMALL_BYTES if item is None or item["bytes"] is None else len(item["bytes"]) for item in encoded]
    if sum(sizes) < SMALL_BYTES * len(sizes) or len(sizes) <= ROWS_PER_TASK:
        work(positions)
        return
    parts = [positions[at : at + ROWS_PER_TASK] for at in range(0, len(positions), ROWS_PER_TASK)]
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(work, parts):  # draws the results, so that the first error is raised here
            continue
