"""An artifact as an interpreter shows it: one line, and in a notebook its images and its numbers."""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import escape

import torch
from torch import Tensor

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.builders.images import encode_png
from fadrm_hf.report.card.metadata import card_title
from fadrm_hf.report.card.results import accuracy_bars, read_results
from fadrm_hf.report.card.text import percent, size
from fadrm_hf.report.class_names import shown_names
from fadrm_hf.runtime.terminal import duration

SHOWN_CLASSES, SHOWN_IMAGES = 10, 5  # columns and rows that a reader takes in at a glance
_SIDE = 64  # of a shown image, in CSS pixels


def summary_line(location: Location) -> str:
    """Return one line about a loaded artifact, for an interpreter."""
    manifest = location.manifest
    return (
        f"<Distilled {location.name}: {card_title(manifest)}; {manifest.num_images} images of "
        f"{manifest.pixels.size} px, {manifest.label_epochs} epochs of {manifest.label_codec} labels>"
    )


def notebook_html(location: Location, images: Tensor, labels: Tensor) -> str:
    """Return a grid of images, a column per class, and two tables; all text is escaped, nothing is fetched.

    Args:
        location: The artifact; its evaluations are read now.
        images: (N, 3, S, S) uint8.
        labels: (N,) int64.
    """
    manifest = location.manifest
    classes = labels.unique().tolist()[:SHOWN_CLASSES]
    class_names = shown_names(manifest)
    names = ", ".join(class_names[label] for label in classes)
    picture = b64encode(encode_png(image_grid(images, labels, classes))).decode()
    return (
        f"<h4>{escape(card_title(manifest))}</h4>"
        f'<img src="data:image/png;base64,{picture}" alt="{escape(names)}" width="{_SIDE * len(classes)}"'
        ' style="image-rendering: pixelated">'
        f"<p>{escape(names)}</p>"
        f"{_table(_facts(location.name, manifest))}"
        f"{_table(_accuracies(location))}"
    )


def image_grid(images: Tensor, labels: Tensor, classes: Iterable[int]) -> Tensor:
    """Return the first images of some classes side by side, a column per class.

    Args:
        images: (N, 3, S, S) uint8.
        labels: (N,) int64.
        classes: Which classes.

    Returns:
        (3, K * S, C * S) uint8 for C classes, each of which has at least K images.
    """
    by_class = [images[labels == label][:SHOWN_IMAGES] for label in classes]
    num_rows = min(map(len, by_class))
    return torch.cat([torch.cat([*column[:num_rows]], dim=1) for column in by_class], dim=2)


def _facts(name: str, manifest: Manifest) -> Iterator[tuple[str, str]]:
    labels = f"{manifest.label_epochs} epochs, {manifest.label_codec}, {size(manifest.bytes.soft_labels)}"
    yield "artifact", name
    yield "images", f"{manifest.num_images} of {manifest.pixels.size} px, {size(manifest.bytes.images)}"
    yield "soft labels", labels
    for teacher in manifest.teachers:
        yield "teacher", f"{teacher.name}, top-1 {percent(teacher.accuracy)}"
    yield "made in", duration(sum(stage.seconds for stage in manifest.stages.values()))


def _accuracies(location: Location) -> Iterator[tuple[str, str]]:
    """Yield the top-1 accuracy of each evaluation in the artifact, at the last epoch."""
    for text, mean, std in accuracy_bars(read_results(location.folder)):
        yield text, f"{100 * mean:.1f}{f' ± {100 * std:.1f}' if std else ''} %"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>" if cells else ""
