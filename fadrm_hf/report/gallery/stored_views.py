"""A sample of the stored views: each image as the teachers saw it, with their predictions."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.reading import Array, Arrays, read_label_columns
from fadrm_hf.labels.codecs import find_codec

_VIEWS_PER_IMAGE = 4  # at most: the first epochs
_MOST_VIEWS = 4000  # about 120 bytes each
_TOP = 5  # classes that are named; the page shows the rest as one number


def sample_views(tables: Iterable[tuple[Path, pq.ParquetFile]], manifest: Manifest) -> dict[int, list[dict[str, Any]]]:
    """Return stored views of all images if they are few, else of the first of every class, from the first epochs.

    Args:
        tables: The files of soft labels, in row order; only those needed are opened.
        manifest: The artifact's.

    Returns:
        The views by row of the images table, each with its "epoch", "crop" (top, left, height, width), "flip", "mix"
        (row, crop, flip and box of the image mixed in, or `None`) and "top": the most probable classes with their
        probabilities, by softmax at temperature 1, as the codec stores them; empty if no labels are stored.

    Raises:
        ArtifactError: If a file is damaged.
    """
    num_epochs = max(1, min(_VIEWS_PER_IMAGE, _MOST_VIEWS // len(manifest.classes.ids), manifest.label_epochs))
    num_images = min(manifest.num_images, _MOST_VIEWS // num_epochs)
    views: dict[int, list[dict[str, Any]]] = {}
    epoch = 0
    for file, table in tables:
        for group in range(min(table.num_row_groups, num_epochs - epoch)):
            columns = read_label_columns(file, table, group, manifest)
            rows = np.flatnonzero((columns["image"] >= 0) & (columns["image"] < num_images))
            part = {name: column[rows] for name, column in columns.items()}
            tops = _top_classes(part, manifest)
            for index, image in enumerate(part["image"].tolist()):
                views.setdefault(image, []).append(_view(part, index, epoch, tops[index]))
            epoch += 1
        if epoch == num_epochs:
            break
    return dict(sorted(views.items()))


def _view(rows: Arrays, index: int, epoch: int, top: list[list[float]]) -> dict[str, Any]:
    partner = int(rows["mix_image"][index])
    mixed = {
        "row": partner,
        "crop": rows["mix_crop"][index].tolist(),
        "flip": bool(rows["mix_flip"][index]),
        "box": rows["mix_box"][index].tolist(),
    }
    return {
        "epoch": epoch,
        "crop": rows["crop"][index].tolist(),
        "flip": bool(rows["flip"][index]),
        "mix": mixed if partner >= 0 else None,
        "top": top,
    }


def _top_classes(rows: Arrays, manifest: Manifest) -> list[list[list[float]]]:
    """Return the most probable classes of each row with their probabilities, equal ones in class order."""
    codec, num_classes = find_codec(manifest.label_codec), len(manifest.classes.ids)
    if not codec.has_logits:
        return [[] for _ in rows["image"]]
    probabilities = _softmax(codec.decode(rows, num_classes))
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :_TOP]
    shares = np.take_along_axis(probabilities, best, axis=1)
    return [
        [[label, round(share, 4)] for label, share in zip(labels, row, strict=True)]
        for labels, row in zip(best.tolist(), shares.tolist(), strict=True)
    ]


def _softmax(logits: Array) -> Array:
    """Return (n, C) probabilities."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares
