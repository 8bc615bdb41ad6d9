"""Accuracies side by side: an artifact and its baselines, methods and their cost, architectures."""

from collections.abc import Sequence
from typing import Any

from fadrm_hf.report.pictures.style import (
    BLUE,
    ERRORS,
    GREY,
    INK,
    TOP1,
    WIDTH,
    label_points,
    new_figure,
    percent,
    plain,
    scale_by_logarithm,
    to_png,
)

_RANKED = ("whole_mean", "whole_std", "distilled_mean", "distilled_std")
_BASELINES = ("random_real",)
_TALL_WIDTH = 6.0  # of plots one above the other, in inches
_BAR: dict[str, Any] = {"error_kw": {"capsize": 2.5, "lw": 1, "ecolor": INK}}


def draw_accuracy(bars: Sequence[tuple[str, float, float]]) -> bytes:
    """Draw horizontal bars with error bars from (text, mean, standard deviation), as fractions.

    Each text is above its bar, so that bars are long and texts legible however narrow the page is.
    """
    with new_figure(WIDTH, 0.44 * len(bars) + 0.6) as figure:
        axes = figure.subplots()
        colours = [BLUE if text.startswith("distilled") else GREY for text, _, _ in bars]
        means, errors = percent([mean for _, mean, _ in bars]), percent([error for _, _, error in bars])
        _draw_bars(axes, [""] * len(bars), means, errors, colours)
        for position, (text, _, _) in enumerate(bars):
            axes.annotate(plain(text, 60), (0, position - 0.21), (0, 2.5), textcoords="offset points", va="bottom")
        axes.grid(False)
        axes.set(xlim=(0, 108), xticks=range(0, 101, 20), ylim=(len(bars) - 0.65, -0.75), xlabel=TOP1)
        return to_png(figure)


def draw_comparison(rows: Sequence[dict[str, Any]]) -> bytes:
    """Draw the accuracy of methods with its standard deviation, by itself and against the time of distillation.

    Args:
        rows: Each with "method", "title", "top1_mean" and "top1_std" as fractions, and "distillation_seconds".
    """
    titles = [plain(row["title"], 30) for row in rows]
    means, errors = (percent([row[f"top1_{kind}"] for row in rows]) for kind in ("mean", "std"))
    colours = [GREY if row["method"] in _BASELINES else BLUE for row in rows]
    heights = (0.27 * len(rows) + 0.6, 3.4)
    with new_figure(_TALL_WIDTH, sum(heights)) as figure:
        above, below = figure.subplots(2, 1, height_ratios=heights)
        _draw_bars(above, titles, means, errors, colours)
        above.set(xlim=(0, 1.16 * max(mean + error for mean, error in zip(means, errors, strict=True))), xlabel=TOP1)
        _draw_costs(below, rows, means, errors, colours)
        return to_png(figure)


def draw_ranking(rows: Sequence[dict[str, Any]]) -> bytes:
    """Draw the accuracy of architectures trained on the whole dataset against that on a distilled one.

    Args:
        rows: Each with "title", and "whole_mean", "whole_std", "distilled_mean" and "distilled_std" as fractions.
    """
    x, x_errors, y, y_errors = (percent([row[name] for row in rows]) for name in _RANKED)
    with new_figure(5.5, 4.4) as figure:
        axes = figure.subplots()
        axes.errorbar(x, y, xerr=x_errors, yerr=y_errors, fmt="o", color=BLUE, ecolor=GREY, **ERRORS)
        axes.set(xlabel="top-1, trained on the whole dataset (%)", ylabel="top-1, trained on the distilled one (%)")
        axes.margins(x=0.2, y=0.12)
        titles = [plain(row["title"], 30) for row in rows]
        label_points(axes, list(zip(x, y, y_errors, titles, strict=True)))
        return to_png(figure)


def _draw_bars(
    axes: Any, texts: Sequence[str], means: Sequence[float], errors: Sequence[float], colours: Sequence[str]
) -> None:
    """Draw bars from top to bottom, each with its value at its end."""
    positions = range(len(texts))
    axes.barh(positions, means, xerr=errors, color=colours, height=0.62 if any(texts) else 0.36, **_BAR)
    axes.set_yticks(positions, texts)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.invert_yaxis()
    for position, mean, error in zip(positions, means, errors, strict=True):
        axes.annotate(f"{mean:.1f}", (mean + error, position), (5, 0), textcoords="offset points", va="center")


def _draw_costs(
    axes: Any,
    rows: Sequence[dict[str, Any]],
    means: Sequence[float],
    errors: Sequence[float],
    colours: Sequence[str],
) -> None:
    """Draw the accuracy of each method against its time of distillation."""
    seconds = [row["distillation_seconds"] for row in rows]
    for x, y, error, colour in zip(seconds, means, errors, colours, strict=True):
        axes.errorbar([x], [y], yerr=[error], fmt="o", color=colour, **ERRORS)
    if min(seconds) > 0:
        scale_by_logarithm(axes.xaxis)
    axes.set(xlabel="seconds of distillation, without the teachers", ylabel="top-1 (%)")
    axes.margins(x=0.2, y=0.1)
    titles = [plain(row["title"], 30) for row in rows]
    label_points(axes, list(zip(seconds, means, errors, titles, strict=True)))
