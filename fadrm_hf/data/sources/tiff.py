"""TIFF files with more bands than Pillow knows: satellites' and microscopes', of any number of bands and 8 to 64 bits.

Strips and tiles, bands side by side or one after the other, plain, LZW, Deflate or PackBits, with or without the
horizontal predictor; by the TIFF 6.0 specification.
"""

import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import TiffImagePlugin

from fadrm_hf.errors import SourceError

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS_PER_STRIP = 256, 257, 258, 259, 262, 277, 278
_STRIP_OFFSETS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_RGB = 2
_ALPHA = (1, 2)
_NAMES = {1: "plain", 5: "LZW", 8: "Deflate", 32946: "Deflate", 32773: "PackBits"}
_MOST_VALUES = 1 << 30


def _tags(content: bytes) -> Any:
    file = BytesIO(content)
    tags: Any = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if content[2:4] in (b"+\0", b"\0+") else 8))
    file.seek(tags.next)
    tags.load(file)
    return tags


def num_bands(content: bytes) -> int:
    """Return how many bands a TIFF file has."""
    return int(_tags(content).get(_SAMPLES, 1))


def bits_per_band(content: bytes) -> int:
    """Return how many bits a band of a TIFF file has."""
    return _many(_tags(content).get(_BITS, (1,)))[0]


def tiff_size(content: bytes) -> tuple[int, int]:
    """Return width and height of a TIFF file."""
    tags = _tags(content)
    return int(tags[_WIDTH]), int(tags[_HEIGHT])


def rgb_bands(content: bytes) -> tuple[int, int, int] | None:
    """Return the bands that a TIFF file states to be red, green and blue, where its others are not transparency."""
    tags = _tags(content)
    extra = tags.get(_EXTRA, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    is_opaque = not extra or extra[0] not in _ALPHA
    return (0, 1, 2) if tags.get(_PHOTOMETRIC) == _RGB and is_opaque else None


def read_tiff(content: bytes) -> np.ndarray:
    """Return the pixels of the first image in a TIFF file, (H, W, bands).

    Raises:
        SourceError: It is packed in a way that is not read.
    """
    tags = _tags(content)
    width, height, bands = int(tags[_WIDTH]), int(tags[_HEIGHT]), int(tags.get(_SAMPLES, 1))
    if width * height * bands > _MOST_VALUES:
        raise SourceError(f"is {width}x{height} with {bands} bands, expected at most {_MOST_VALUES} values")
    dtype = _dtype(tags, content)
    compression, is_apart = int(tags.get(_COMPRESSION, 1)), int(tags.get(_PLANAR, 1)) == 2
    if compression not in _NAMES:
        raise SourceError(f"is a TIFF of {bands} bands in compression {compression}, expected {_named()}; save it so")
    is_tiled = _TILE_WIDTH in tags
    tile_width = int(tags[_TILE_WIDTH]) if is_tiled else width
    tile_height = int(tags[_TILE_HEIGHT] if is_tiled else min(tags.get(_ROWS_PER_STRIP, height), height))
    offsets = _many(tags[_TILE_OFFSETS if is_tiled else _STRIP_OFFSETS])
    lengths = _many(tags[_TILE_BYTES if is_tiled else _STRIP_BYTES])
    across, down = -(-width // tile_width), -(-height // tile_height)
    depth = 1 if is_apart else bands
    pixels = np.zeros((down * tile_height, across * tile_width, bands), dtype.newbyteorder("="))
    for place, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        band, part = divmod(place, across * down)
        top, left = part // across * tile_height, part % across * tile_width
        rows = tile_height if is_tiled else min(tile_height, height - top)
        unpacked = _unpacked(content[offset : offset + length], compression)
        tile = np.frombuffer(unpacked, dtype, rows * tile_width * depth).reshape(rows, tile_width, depth)
        if int(tags.get(_PREDICTOR, 1)) == 2:
            tile = tile.cumsum(axis=1, dtype=dtype.newbyteorder("="))
        pixels[top : top + rows, left : left + tile_width, slice(band, band + 1) if is_apart else slice(None)] = tile
    return pixels[:height, :width]


def _dtype(tags: Any, content: bytes) -> "np.dtype[Any]":
    bits, kind = _many(tags.get(_BITS, (1,)))[0], _many(tags.get(_FORMAT, (1,)))[0]
    letter = {1: "u", 2: "i", 3: "f"}.get(kind)
    if letter is None or bits not in (8, 16, 32, 64) or (letter == "f" and bits == 8):
        raise SourceError(f"is a TIFF of {bits} bits of kind {kind}, expected 8, 16, 32 or 64 bits; save it so")
    return np.dtype(f"{'<' if content[:2] == b'II' else '>'}{letter}{bits // 8}")


def _many(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (int(value),)


def _named() -> str:
    return ", ".join(dict.fromkeys(_NAMES.values()))


def _unpacked(packed: bytes, compression: int) -> bytes:
    if compression == 5:
        return _from_lzw(packed)
    if compression == 32773:
        return _from_packbits(packed)
    return packed if compression == 1 else zlib.decompress(packed)


def _from_packbits(packed: bytes) -> bytes:
    out, at = bytearray(), 0
    while at < len(packed):
        count = packed[at]
        if count < 128:
            out += packed[at + 1 : at + 2 + count]
            at += 2 + count
        else:
            out += packed[at + 1 : at + 2] * (257 - count if count > 128 else 0)
            at += 2 if count > 128 else 1
    return bytes(out)


def _from_lzw(packed: bytes) -> bytes:
    """Unpack TIFF's LZW: codes of 9 to 12 bits, the highest bit first, 256 clears the table and 257 ends."""
    out, table = bytearray(), [bytes([value]) for value in range(256)] + [b"", b""]
    bits, num_bits, width, last = 0, 0, 9, b""
    for byte in packed:
        bits, num_bits = bits << 8 | byte, num_bits + 8
        if num_bits < width:
            continue
        num_bits -= width
        code, bits = bits >> num_bits, bits & ((1 << num_bits) - 1)
        if code == 257:
            break
        if code == 256:
            del table[258:]
            width, last = 9, b""
            continue
        entry = table[code] if code < len(table) else last + last[:1]
        out += entry
        if last:
            table.append(last + entry[:1])
        last = entry
        width = 9 + (len(table) >= 511) + (len(table) >= 1023) + (len(table) >= 2047)
    return bytes(out)
