"""Accuracy as a function of an ablated setting, of images per class, or of label bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fadrm_hf.report.pictures.style import (
    BLUE,
    ERRORS,
    GREY,
    MARKERS,
    ORANGE,
    SERIES,
    TOP1,
    Line,
    draw_lines,
    label_ends,
    label_points,
    new_figure,
    percent,
    plain,
    scale_by_logarithm,
    to_png,
)


@dataclass(frozen=True)
class Series:
    """The accuracy of one method at several numbers of images per class.

    Attributes:
        title: The method's name.
        points: (images per class, mean, standard deviation) as fractions, ascending.
        is_baseline: Whether the others are compared with it.
    """

    title: str
    points: Sequence[tuple[int, float, float]]
    is_baseline: bool = False


@dataclass(frozen=True)
class StoredLabels:
    """Labels stored by one codec, and the accuracy of students trained with them.

    Attributes:
        title: Title of the codec.
        num_bytes: Bytes of the label table.
        mean: Top-1 accuracy as a fraction.
        std: Its deviation over seeds; `None` for a single seed.
        is_whole: Whether every epoch is stored.
    """

    title: str
    num_bytes: int
    mean: float
    std: float | None
    is_whole: bool


def draw_axis(name: str, points: Sequence[tuple[Any, float, float]], lines: Sequence[Line]) -> bytes:
    """Draw accuracy along an axis with its standard deviation, and baselines as horizontal lines.

    Args:
        name: Name of the axis.
        points: (value, mean, standard deviation) as fractions; values that are all numbers are drawn to scale.
        lines: (text, mean, standard deviation) of the baselines.
    """
    values = [value for value, _, _ in points]
    is_scale = len(values) > 1 and all(type(value) in (int, float) for value in values)
    ordered = sorted(points, key=lambda point: point[0]) if is_scale else points
    positions = [value for value, _, _ in ordered] if is_scale else list(range(len(ordered)))
    means, errors = (percent([point[part] for point in ordered]) for part in (1, 2))
    with new_figure(5.2, 3.2) as figure:
        axes = figure.subplots()
        ends = draw_lines(axes, lines)
        axes.errorbar(positions, means, yerr=errors, fmt="o-" if is_scale else "o", color=BLUE, **ERRORS)
        axes.set_xticks(positions, [plain(str(value), 24) for value, _, _ in ordered])
        axes.tick_params(axis="x", rotation=0 if is_scale else 20)
        axes.grid(False, axis="x")
        axes.set(xlabel=plain(name, 60), ylabel=TOP1)
        axes.margins(x=0.1, y=0.15)
        label_ends(axes, ends)
        return to_png(figure)


def draw_images_per_class(series: Sequence[Series], lines: Sequence[Line]) -> bytes:
    """Draw the accuracy of several methods against images per class, on a logarithmic axis.

    Args:
        series: The methods; baselines are grey.
        lines: Accuracies that do not depend on images per class, such as that of the whole dataset.
    """
    counts = sorted({ipc for each in series for ipc, _, _ in each.points})
    with new_figure(6.5, 4.2) as figure:
        axes = figure.subplots()
        ends, colours = draw_lines(axes, lines), iter(SERIES * len(series))
        for each, marker in zip(series, MARKERS * len(series), strict=False):
            colour = GREY if each.is_baseline else next(colours)
            x = [ipc for ipc, _, _ in each.points]
            y, errors = (percent([point[part] for point in each.points]) for part in (1, 2))
            axes.errorbar(x, y, yerr=errors, fmt=f"{marker}-", color=colour, **ERRORS)
            ends.append((y[-1], each.title, colour))
        axes.set(xscale="log", xlabel="images per class", ylabel=TOP1)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.grid(False, axis="x")
        label_ends(axes, ends)
        return to_png(figure)


def draw_label_bytes(stored: Sequence[StoredLabels]) -> bytes:
    """Draw accuracy against the bytes of the soft labels, on a logarithmic axis; a single seed has no error bar."""
    with new_figure(6.5, 4) as figure:
        axes = figure.subplots()
        for is_whole, colour, marker, text in (
            (True, BLUE, "o", "every epoch stored"),
            (False, ORANGE, "s", "some epochs stored and reused"),
        ):
            for number, labels in enumerate(labels for labels in stored if labels.is_whole == is_whole):
                error = None if labels.std is None else [100 * labels.std]
                axes.errorbar([labels.num_bytes / 1e6], [100 * labels.mean], yerr=error, fmt=marker, color=colour,
                              mfc="none" if error is None else colour,
                              label=text if number == 0 else None, **ERRORS)  # fmt: skip
        scale_by_logarithm(axes.xaxis)
        axes.set(xlabel="soft labels (MB)", ylabel=TOP1)
        axes.margins(x=0.14, y=0.12)
        axes.legend(frameon=False, loc="lower right")
        points = ((each.num_bytes / 1e6, 100 * each.mean, 100 * (each.std or 0.0), each.title) for each in stored)
        label_points(axes, [(x, y, error, plain(title, 30)) for x, y, error, title in points])
        return to_png(figure)
