"""Images in the course of their distillation: before and after, their losses, their information."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fadrm_hf.report.pictures.style import BLUE, ORANGE, WIDTH, new_figure, plain, to_png

CURVES = {"ce": "cross-entropy", "bn": "distance of BatchNorm statistics"}
_IN_A_BAND = 5  # classes, whose names can be read on a phone
_MARGIN, _GAP = 0.25, 0.04  # inches: of what rows and columns are called, and between images
_RESIDUAL: Any = {"color": ORANGE, "ls": (0, (3, 1.5)), "lw": 1.2}
_ENTROPIES = {"pixel_entropy": "entropy of pixels (bits)", "feature_entropy": "entropy of features (bits)"}


def draw_grid(class_names: Sequence[str], patches: dict[int, Tensor], recovered: dict[int, Tensor]) -> bytes:
    """Draw a column per class, the starting image above and the distilled image below, in bands of five classes.

    Args:
        class_names: Names in label order.
        patches: Label -> (3, S, S) uint8.
        recovered: Label -> (3, S, S) uint8.
    """
    labels = sorted(patches.keys() & recovered.keys())
    bands = [labels[first : first + _IN_A_BAND] for first in range(0, len(labels), _IN_A_BAND)]
    side = (WIDTH - _MARGIN) / _IN_A_BAND  # of an image with the gap to the next
    height = len(bands) * (2 * side + _MARGIN)
    with new_figure(WIDTH, height, layout=None) as figure:
        # Every place is known, in inches from the upper left corner.
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
        axes.set_axis_off()
        for number, band in enumerate(bands):
            top = number * (2 * side + _MARGIN) + _MARGIN
            for row, (name, images) in enumerate((("start", patches), ("distilled", recovered))):
                y = top + row * side
                axes.text(_MARGIN / 2, y + side / 2, name, rotation=90, ha="center", va="center")
                for column, label in enumerate(band):
                    _place(axes, images[label], _MARGIN + column * side, y, side - _GAP)
            for column, label in enumerate(band):
                middle = _MARGIN + column * side + (side - _GAP) / 2
                axes.text(middle, top - 0.06, plain(class_names[label], 12), ha="center", va="baseline")
        return to_png(figure)


def _place(axes: Any, image: Tensor, x: float, y: float, side: float) -> None:
    """Draw an image, (3, S, S) uint8, with its upper left corner at a place of axes that are measured in inches."""
    pixels = image.permute(1, 2, 0).numpy()
    axes.imshow(pixels, extent=(x, x + side, y + side, y), interpolation="nearest", aspect="auto")


def draw_recovery(records: Sequence[dict[str, float]], residuals: Sequence[int] = ()) -> bytes:
    """Draw the mean losses of all shards over the iterations, one above the other.

    Args:
        records: Each with "iteration" and any of "ce" and "bn".
        residuals: Iterations after which real patches were mixed in.
    """
    names = [name for name in CURVES if any(name in record for record in records)]
    with new_figure(WIDTH, 1.6 * len(names) + 0.6) as figure:
        every_axes = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
        for axes, name in zip(every_axes, names, strict=True):
            values = defaultdict(list)
            for record in records:
                if name in record:
                    values[record["iteration"]].append(record[name])
            iterations = sorted(values)
            axes.plot(iterations, [sum(values[i]) / len(values[i]) for i in iterations], color=BLUE)
            for residual in residuals:
                axes.axvline(residual, **_RESIDUAL)
            axes.set(title=CURVES[name])
        every_axes[-1].set_xlabel("iteration")
        if residuals:
            _add_legend(figure)
        return to_png(figure)


def draw_information(trajectory: Sequence[Mapping[str, float]]) -> bytes:
    """Draw information density over the iterations (FADRM, Fig. 3): solid while optimised, dashed where mixed in.

    Both axes have the same scale, so that small changes look small.

    Args:
        trajectory: Points in order (`fadrm_hf.report.card.scores.Scores`); two points at one iteration are before and
            after real patches were mixed in.
    """
    ranges = [sorted(point[name] for point in trajectory) for name in _ENTROPIES]
    span = 1.25 * max(values[-1] - values[0] for values in ranges) or 1.0
    with new_figure(WIDTH, 3.8) as figure:
        every_axes = figure.subplots(2, 1, sharex=True)
        for axes, (name, title) in zip(every_axes, _ENTROPIES.items(), strict=True):
            for before, after in itertools.pairwise(trajectory):
                _draw_step(axes, before, after, name)
            values = [point[name] for point in trajectory]
            axes.plot([point["iteration"] for point in trajectory], values, "o", color=BLUE, ms=3.5)
            axes.set(title=title, ylim=_limits(values, span))
            axes.margins(x=0.06)
        every_axes[-1].set_xlabel("iteration")
        if any(before["iteration"] == after["iteration"] for before, after in itertools.pairwise(trajectory)):
            _add_legend(figure)
        return to_png(figure)


def _draw_step(axes: Any, before: Mapping[str, float], after: Mapping[str, float], name: str) -> None:
    is_residual = before["iteration"] == after["iteration"]
    axes.plot([before["iteration"], after["iteration"]], [before[name], after[name]],
              **(_RESIDUAL if is_residual else {"color": BLUE}))  # fmt: skip


def _limits(values: Sequence[float], span: float) -> tuple[float, float]:
    """Return an interval of a given length around the middle of some values."""
    middle = (max(values) + min(values)) / 2
    return middle - span / 2, middle + span / 2


def _add_legend(figure: Any) -> None:
    """Explain the two kinds of line, below the plots."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=BLUE, label="optimised"), Line2D([], [], label="real patches mixed in", **_RESIDUAL)]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False)
