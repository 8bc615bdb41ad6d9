"""Accuracy along something: an axis of an ablation, images per class, bytes of labels."""

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
    """What one method reaches at several numbers of images per class.

    Attributes:
        title: What it is called.
        points: (images per class, mean, standard deviation) as fractions, ascending.
        is_baseline: Whether the others are held against it.
    """

    title: str
    points: Sequence[tuple[int, float, float]]
    is_baseline: bool = False


@dataclass(frozen=True)
class StoredLabels:
    """Labels stored in one way, and what students reach with them.

    Attributes:
        title: Of the codec.
        num_bytes: Of the label table.
        mean: Top-1 accuracy as a fraction.
        std: Its deviation over seeds; `None` of one seed.
        is_whole: Whether every epoch is stored.
    """

    title: str
    num_bytes: int
    mean: float
    std: float | None
    is_whole: bool


def draw_axis(name: str, points: Sequence[tuple[Any, float, float]], lines: Sequence[Line]) -> bytes:
    """Accuracy along an axis with its standard deviation; what it is held against as lines with theirs.

    Args:
        name: Of the axis.
        points: (value, mean, standard deviation) as fractions; values that are all numbers are drawn to scale.
        lines: (text, mean, standard deviation) likewise.
    """
    values = [value for value, _, _ in points]
    is_scale = len(values) > 1 and all(type(value) in (int, float) for value in values)
    ordered = sorted(points, key=lambda point: point[0]) if is_scale else points
    places = [value for value, _, _ in ordered] if is_scale else list(range(len(ordered)))
    means, errors = (percent([point[part] for point in ordered]) for part in (1, 2))
    with new_figure(5.2, 3.2) as figure:
        axes = figure.subplots()
        ends = draw_lines(axes, lines)
        axes.errorbar(places, means, yerr=errors, fmt="o-" if is_scale else "o", color=BLUE, **ERRORS)
        axes.set_xticks(places, [plain(str(value), 24) for value, _, _ in ordered])
        axes.tick_params(axis="x", rotation=0 if is_scale else 20)
        axes.grid(False, axis="x")
        axes.set(xlabel=plain(name, 60), ylabel=TOP1)
        axes.margins(x=0.1, y=0.15)
        label_ends(axes, ends)
        return to_png(figure)


def draw_images_per_class(series: Sequence[Series], lines: Sequence[Line]) -> bytes:
    """Accuracy of several methods against images per class, which are drawn by their logarithm.

    Args:
        series: The methods; baselines are grey.
        lines: What does not depend on the images per class, such as the whole dataset.
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
    """Accuracy against the bytes of the soft labels, drawn by their logarithm; of one seed no error bar is known."""
    with new_figure(6.5, 4) as figure:
        axes = figure.subplots()
        for is_whole, colour, marker, text in (
            (True, BLUE, "o", "every epoch stored"),
            (False, ORANGE, "s", "some epochs stored, read again"),
        ):
            shown = [each for each in stored if each.is_whole == is_whole]
            for number, each in enumerate(shown):
                error = None if each.std is None else [100 * each.std]
                axes.errorbar([each.num_bytes / 1e6], [100 * each.mean], yerr=error, fmt=marker, color=colour,
                              mfc="white" if error is None else colour,
                              label=text if number == 0 else None, **ERRORS)  # fmt: skip
        scale_by_logarithm(axes.xaxis)
        axes.set(xlabel="soft labels (MB)", ylabel=TOP1)
        axes.margins(x=0.14, y=0.12)
        axes.legend(frameon=False, loc="lower right")
        label_points(
            axes,
            [
                (each.num_bytes / 1e6, 100 * each.mean, 100 * (each.std or 0.0), plain(each.title, 30))
                for each in stored
            ],
        )
        return to_png(figure)
