"""PNG files as Pillow does not give them: all 16 bits of their colours, and pixels beside text too long for it."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_DEPTH, _COLOURS = 24, 25  # where a file states them: its header is always its first chunk
_GREY_WITH_ALPHA, _RGB, _RGB_WITH_ALPHA = 4, 2, 6
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")


def read_deep_colours(content: bytes) -> np.ndarray | None:
    """Return the colours of a PNG file with 16 bits in each of several bands, uint16, or `None` for any other.

    Pillow keeps the upper byte of each value; told that values are little-endian, it keeps the lower one.

    Returns:
        Red, green and blue, (H, W, 3), or grey, (H, W), without transparency.
    """
    if not content.startswith(PNG_SIGNATURE) or len(content) <= _COLOURS or content[_DEPTH] != 16:
        return None
    if content[_COLOURS] in (_RGB, _RGB_WITH_ALPHA):
        name = "RGB" if content[_COLOURS] == _RGB else "RGBA"
        upper, lower = (_unpacked(content, f"{name};16{order}")[:, :, :3] for order in "BL")
    elif content[_COLOURS] == _GREY_WITH_ALPHA:
        upper, lower, *_ = np.moveaxis(_unpacked(content, "RGBA"), 2, 0)  # four bytes, two of each band
    else:
        return None
    return upper.astype(np.uint16) << 8 | lower


def _unpacked(content: bytes, raw_mode: str) -> np.ndarray:
    """Return the bands of a PNG file, (H, W, bands), whose bytes are taken to be in one of Pillow's raw modes."""
    image: Any = Image.open(BytesIO(without_text(content)), formats=["PNG"])
    image.tile = [(*tile[:3], raw_mode) for tile in image.tile]
    return np.asarray(image)


def without_text(content: bytes) -> bytes:
    """Return a PNG file without its text chunks, of which Pillow reads only so much."""
    kept, at = [content[:8]], 8
    while at + 8 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] not in _TEXT_CHUNKS:
            kept.append(content[at:end])
        at = end
    return b"".join(kept)
