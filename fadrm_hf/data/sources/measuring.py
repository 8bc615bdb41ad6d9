"""What images look like before they are used: sizes, colour modes, and the range of values of more than 8 bits."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fadrm_hf.config.checks import Interval
from fadrm_hf.data.sources import images
from fadrm_hf.errors import SourceError

_BITS = (8, 10, 12, 14, 16)  # of cameras and scanners
_FULL = (0.0, 65535.0)


@dataclass(frozen=True)
class Measured:
    """What some images of a source look like.

    Args:
        num_images: How many were looked at.
        smallest: Width and height of the one with the fewest pixels.
        largest: The same of the one with the most.
        modes: How many have each of Pillow's colour modes, or so many bands.
        value_range: The values that are black and white, where images need more than 8 bits and the whole of 16 is
            not used; `None` where the files say it.
        num_pointers: How many are Git LFS pointers.
    """

    num_images: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    modes: dict[str, int]
    value_range: Interval | None
    num_pointers: int


def measure(contents: Iterable[bytes], rule: images.PixelRule) -> Measured:
    """Look at some images; those that cannot be read are left out here, and found when images are checked."""
    modes: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    extremes: list[tuple[float, float, str]] = []
    count = pointers = 0
    for content in contents:
        count += 1
        pointers += content.startswith(images.LFS_POINTER)
        try:
            with images.opened(content) as image:
                sizes.append(image.size)
                modes[images.described_mode(image, content)] += 1
                values = images.deep_values(image, content, rule, in_full=True)
            if values is not None and values.dtype != np.uint8:
                extremes.append((float(np.nanmin(values)), float(np.nanmax(values)), values.dtype.kind))
        except SourceError:
            continue
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size)) or [(0, 0)]
    return Measured(count, by_area[0], by_area[-1], dict(modes), _range_of(extremes), pointers)


def _range_of(extremes: list[tuple[float, float, str]]) -> Interval | None:
    """Return black and white of values between these: full scales of cameras, or else the values themselves."""
    if not extremes:
        return None
    low, high = min(low for low, _, _ in extremes), max(high for _, high, _ in extremes)
    is_fraction = any(kind == "f" for *_, kind in extremes)
    if low >= 0 and high <= 1:
        return (0.0, 1.0)
    if low >= 0 and not is_fraction:
        bits = next((bits for bits in _BITS if high < 2**bits), None)
        if bits:
            found = (0.0, 2.0**bits - 1)
            return None if found == _FULL else found
    if low >= 0 and high <= 255:
        return (0.0, 255.0)
    return (low, high) if high > low else (low, low + 1)
