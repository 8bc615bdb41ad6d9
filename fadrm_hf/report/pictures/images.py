"""Images in the course of their distillation: before and after, their losses, their information."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fadrm_hf.report.pictures.style import BLUE, ORANGE, new_figure, plain, to_png

CURVES = {"ce": "cross-entropy", "bn": "distance of BatchNorm statistics"}
_ENTROPIES = {"pixel_entropy": "entropy of pixels (bits)", "feature_entropy": "entropy of features (bits)"}


def draw_grid(class_names: Sequence[str], patches: dict[int, Tensor], recovered: dict[int, Tensor]) -> bytes:
    """Draw one column per class: the starting image above, the distilled image below.

    Args:
        class_names: Names in label order.
        patches: Label -> (3, S, S) uint8.
        recovered: Label -> (3, S, S) uint8.
    """
    labels = sorted(patches.keys() & recovered.keys())
    with new_figure(1.1 * len(labels) + 0.4, 2.7) as figure:
        axes = figure.subplots(2, len(labels), squeeze=False)
        for column, label in enumerate(labels):
            for row, images in enumerate((patches, recovered)):
                axes[row, column].imshow(images[label].permute(1, 2, 0).numpy(), interpolation="nearest")
                axes[row, column].set(xticks=[], yticks=[])
                axes[row, column].spines[:].set_visible(False)
            axes[0, column].set_title(plain(class_names[label], 14), loc="center")
        axes[0, 0].set_ylabel("start")
        axes[1, 0].set_ylabel("distilled")
        return to_png(figure)


def draw_recovery(records: Sequence[dict[str, float]]) -> bytes:
    """Draw the mean losses of all shards over the iterations; a residual is visible as a jump.

    Args:
        records: Each with "iteration" and any of "ce" and "bn".
    """
    names = [name for name in CURVES if any(name in record for record in records)]
    with new_figure(3.6 * len(names), 2.4) as figure:
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            values = defaultdict(list)
            for record in records:
                if name in record:
                    values[record["iteration"]].append(record[name])
            iterations = sorted(values)
            axes.plot(iterations, [sum(values[i]) / len(values[i]) for i in iterations], color=BLUE, lw=1.1)
            axes.set(xlabel="iteration", title=CURVES[name])
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
    with new_figure(7.4, 2.8) as figure:
        for axes, (name, title) in zip(figure.subplots(1, 2), _ENTROPIES.items(), strict=True):
            for before, after in itertools.pairwise(trajectory):
                _draw_step(axes, before, after, name)
            values = [point[name] for point in trajectory]
            axes.plot([point["iteration"] for point in trajectory], values, "o", color=BLUE, ms=3.5)
            axes.set(xlabel="iteration", title=title, ylim=_limits(values, span))
            axes.margins(x=0.06)
        if any(before["iteration"] == after["iteration"] for before, after in itertools.pairwise(trajectory)):
            figure.legend(handles=_handles(), loc="outside lower center", ncols=2, frameon=False)
        return to_png(figure)


def _draw_step(axes: Any, before: Mapping[str, float], after: Mapping[str, float], name: str) -> None:
    is_residual = before["iteration"] == after["iteration"]
    axes.plot([before["iteration"], after["iteration"]], [before[name], after[name]],
              color=ORANGE if is_residual else BLUE, ls=(0, (3, 1.5)) if is_residual else "-")  # fmt: skip


def _limits(values: Sequence[float], span: float) -> tuple[float, float]:
    """Return an interval of a given length around the middle of some values."""
    middle = (max(values) + min(values)) / 2
    return middle - span / 2, middle + span / 2


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=BLUE, label="optimised"),
        Line2D([], [], color=ORANGE, ls=(0, (3, 1.5)), label="real patches mixed in"),
    ]
