"""What becomes of images while they are distilled: to the eye, to the losses, to their information."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fadrm_hf.report.pictures.style import BLUE, ORANGE, new_figure, plain, to_png

CURVES = {"ce": "cross-entropy", "bn": "distance of BatchNorm statistics"}
_ENTROPIES = {"pixel_entropy": "entropy of pixels (bits)", "feature_entropy": "entropy of features (bits)"}


def draw_grid(class_names: Sequence[str], patches: dict[int, Tensor], recovered: dict[int, Tensor]) -> bytes:
    """One column per class: the starting image above, what became of it below.

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
    """The losses over the iterations, each the mean over shards; a residual shows as a jump.

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


def draw_information(course: Sequence[Mapping[str, float]]) -> bytes:
    """Information density over the iterations (FADRM, Fig. 3): optimising is drawn through, mixing in is dashed.

    A bit is as long on both axes, so that what hardly moves looks so.

    Args:
        course: Looks in order, as `fadrm_hf.report.card.scores.Scores` holds them; two at one iteration are before
            and after real patches were mixed in.
    """
    span = 1.25 * max(_range([look[name] for look in course]) for name in _ENTROPIES) or 1.0
    with new_figure(7.4, 2.8) as figure:
        for axes, (name, title) in zip(figure.subplots(1, 2), _ENTROPIES.items(), strict=True):
            for before, after in itertools.pairwise(course):
                _draw_step(axes, before, after, name)
            axes.plot([look["iteration"] for look in course], [look[name] for look in course], "o", color=BLUE, ms=3.5)
            axes.set(xlabel="iteration", title=title)
            axes.set_ylim(*_limits([look[name] for look in course], span))
            axes.margins(x=0.06)
        if _num_residuals(course):
            figure.legend(handles=_handles(), loc="outside lower center", ncols=2, frameon=False)
        return to_png(figure)


def _draw_step(axes: Any, before: Mapping[str, float], after: Mapping[str, float], name: str) -> None:
    is_residual = before["iteration"] == after["iteration"]
    axes.plot([before["iteration"], after["iteration"]], [before[name], after[name]],
              color=ORANGE if is_residual else BLUE, ls=(0, (3, 1.5)) if is_residual else "-")  # fmt: skip


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _limits(values: Sequence[float], span: float) -> tuple[float, float]:
    """An interval of a length around values."""
    middle = (max(values) + min(values)) / 2
    return middle - span / 2, middle + span / 2


def _num_residuals(course: Sequence[Mapping[str, float]]) -> int:
    return sum(a["iteration"] == b["iteration"] for a, b in itertools.pairwise(course))


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=BLUE, label="optimised"),
        Line2D([], [], color=ORANGE, ls=(0, (3, 1.5)), label="real patches mixed in"),
    ]
