"""Rows of the soft-label table that no student may see: outside the images, in the wrong place, or without a label."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.config import RelabelConfig
from fadrm_hf.labels.codecs import Columns, find_codec
from fadrm_hf.labels.drawing import split_sizes

Flags = npt.NDArray[np.bool_]

_ROWS_AT_ONCE = 4096  # rows whose labels are looked at together, so that a large epoch needs no second copy


def bad_rows(columns: Columns, epoch: int, manifest: Manifest) -> Iterator[tuple[int, str]]:
    """Yield what is wrong with the rows of one stored epoch, in vectorised passes.

    Args:
        columns: The epoch as it is stored; columns of the codec are looked at if they are there.
        epoch: Which epoch it should be.
        manifest: What the table should be.

    Returns:
        Pairs of a row within the epoch and a sentence about it.
    """
    image, partner, num_images = columns["image"], columns["mix_image"], manifest.num_images
    relabel, size = manifest.settings("relabel", RelabelConfig), manifest.pixels.size
    sizes = split_sizes(num_images, relabel.batch_size)
    is_crop = _crosses_tiles if relabel.shuffle_tiles == 2 else _lies_inside
    exists = (image >= 0) & (image < num_images)
    times = np.bincount(image[exists], minlength=num_images)
    unmixed = partner == -1
    is_right = {
        "epoch": columns["epoch"] == epoch,
        "step": columns["step"] == np.repeat(np.arange(len(sizes)), sizes),
        "image": exists & (times[image * exists] == 1),
        "crop": is_crop(columns["crop"], 1, size),
        "mix_image": unmixed | ((partner >= 0) & (partner < num_images)),
        "mix_crop": unmixed | is_crop(columns["mix_crop"], 1, size),
        "mix_box": unmixed | _lies_inside(columns["mix_box"], 0, size),
    }
    for column, right in is_right.items():
        for row in np.flatnonzero(~right):
            yield int(row), f"{column} is {columns[column][row].tolist()}, which does not fit this table"
    for row in np.flatnonzero(_has_no_label(columns, manifest)):
        yield int(row), "holds no label: a value is not finite, or its class does not exist"


def _has_no_label(columns: Columns, manifest: Manifest) -> Flags:
    """Return (n,) which rows hold columns of the codec that stand for no logits."""
    codec, num_classes = find_codec(manifest.label_codec), len(manifest.class_map)
    names = list(codec.features(num_classes))
    found = np.zeros(len(columns["image"]), dtype=bool)
    if not codec.has_logits or not columns.keys() >= set(names):
        return found
    for first in range(0, len(found), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        found[rows] = codec.unusable({name: columns[name][rows] for name in names}, num_classes)
    return found


def _lies_inside(boxes: npt.NDArray[Any], least: int, size: int) -> Flags:
    """Return (n,) which boxes (n, 4) are inside an image and have sides of at least `least`."""
    top, left, height, width = boxes.astype(np.int64).T
    inside: Flags = (np.minimum(top, left) >= 0) & (top + height <= size) & (left + width <= size)
    return inside & (np.minimum(height, width) >= least)


def _crosses_tiles(boxes: npt.NDArray[Any], least: int, size: int) -> Flags:
    """Return (n,) which boxes (n, 4) are crops of an image in which the halves of any axis changed places.

    They start in the stored image, and by the places of one of both orders they end in it (`fadrm_hf.data.views`).
    """
    corners, sides = boxes[:, :2].astype(np.int64), boxes[:, 2:].astype(np.int64)
    fits = [(corners + shift) % size + sides <= size for shift in (0, size // 2)]
    starts = (corners >= 0) & (corners < size)
    found = starts & (fits[0] | fits[1]) & (sides >= least)
    return found[:, 0] & found[:, 1]
