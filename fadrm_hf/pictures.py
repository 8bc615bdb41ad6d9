"""The pictures of a card: starting images beside distilled images, accuracies, the course of the recovery.

All are PNG files whose bytes depend on what they show and on the version of matplotlib, not on when they were drawn.
"""

import io
import itertools
import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fadrm_hf.files import load_tensors, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE: Any = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.dpi": 120,
    "figure.facecolor": "white",
    "font.size": 8,
    "xtick.labelsize": 8,
}
_BLUE, _GREY = "#2b6cb0", "#a0aec0"
_GRID_CLASSES = 10
_RANKED = ("whole_mean", "whole_std", "distilled_mean", "distilled_std")
_CURVES = {"ce": "cross-entropy", "bn": "distance of BatchNorm statistics"}


def write_pictures(
    folder: Path, class_names: Sequence[str], bars: Sequence[tuple[str, float, float]], work: Path | None = None
) -> None:
    """Draw what there is to show into `assets/`; pictures of the recovery need its shards and log.

    Args:
        folder: The artifact.
        class_names: Names in label order.
        bars: (text, mean, standard deviation) of each accuracy, as fractions.
        work: The run's folder of shards; without it, the pictures of the recovery stay as they are.
    """
    if work is not None:
        patches, recovered = (_first_images(work / stage) for stage in ("patches", "recovered"))
        if patches and recovered:
            write_bytes(folder / "assets/grid.png", draw_grid(class_names, patches, recovered))
        records = _recovery_records(work / "log.jsonl")
        if records:
            write_bytes(folder / "assets/recovery.png", draw_recovery(records))
    if bars:
        write_bytes(folder / "assets/accuracy.png", draw_accuracy(bars))


def draw_grid(class_names: Sequence[str], patches: dict[int, Tensor], recovered: dict[int, Tensor]) -> bytes:
    """One column per class: the starting image above, what became of it below.

    Args:
        class_names: Names in label order.
        patches: Label -> (3, S, S) uint8.
        recovered: Label -> (3, S, S) uint8.
    """
    labels = sorted(patches.keys() & recovered.keys())
    with _figure(1.1 * len(labels) + 0.4, 2.7) as figure:
        axes = figure.subplots(2, len(labels), squeeze=False)
        for column, label in enumerate(labels):
            for row, images in enumerate((patches, recovered)):
                axes[row, column].imshow(images[label].permute(1, 2, 0).numpy(), interpolation="nearest")
                axes[row, column].set(xticks=[], yticks=[])
                axes[row, column].spines[:].set_visible(False)
            axes[0, column].set_title(_plain(class_names[label], 14))
        axes[0, 0].set_ylabel("start")
        axes[1, 0].set_ylabel("distilled")
        return _to_png(figure)


def draw_accuracy(bars: Sequence[tuple[str, float, float]]) -> bytes:
    """Horizontal bars with error bars; (text, mean, standard deviation), as fractions."""
    with _figure(6.5, 0.38 * len(bars) + 0.7) as figure:
        axes = figure.subplots()
        texts = [_plain(text, 60) for text, _, _ in bars]
        means, errors = [100 * mean for _, mean, _ in bars], [100 * error for _, _, error in bars]
        colours = [_BLUE if text.startswith("distilled") else _GREY for text in texts]
        places = range(len(bars))
        axes.barh(places, means, xerr=errors, color=colours, height=0.65, error_kw={"capsize": 2, "lw": 1})
        axes.set_yticks(places, texts)
        axes.invert_yaxis()
        axes.set(xlim=(0, 110), xticks=range(0, 101, 20), xlabel="top-1 accuracy at the last epoch (%)")
        for place, mean, error in zip(places, means, errors, strict=True):
            axes.text(mean + error + 1, place, f"{mean:.1f}", va="center")
        return _to_png(figure)


def draw_comparison(rows: Sequence[dict[str, Any]]) -> bytes:
    """Methods beside one another: accuracy with its standard deviation; the same against the time of distillation.

    Args:
        rows: Each with "title", "top1_mean" and "top1_std" as fractions, and "distillation_seconds".
    """
    titles = [_plain(row["title"], 30) for row in rows]
    means, errors = ([100 * row[f"top1_{kind}"] for row in rows] for kind in ("mean", "std"))
    seconds, places = [row["distillation_seconds"] for row in rows], range(len(rows))
    with _figure(8, 0.3 * len(rows) + 1.6) as figure:
        bars, points = figure.subplots(1, 2)
        bars.barh(places, means, xerr=errors, color=_BLUE, height=0.65, error_kw={"capsize": 2, "lw": 1})
        bars.set_yticks(places, titles)
        bars.invert_yaxis()
        bars.set(xlim=(0, None), xlabel="top-1 accuracy at the last epoch (%)")
        points.errorbar(seconds, means, yerr=errors, fmt="o", color=_BLUE, ms=4, capsize=2, lw=1)
        for title, x, y in zip(titles, seconds, means, strict=True):
            points.annotate(title, (x, y), xytext=(5, 4), textcoords="offset points")
        points.set(
            xscale="log" if min(seconds) > 0 else "linear", xlabel="seconds of distillation", ylabel="top-1 (%)"
        )
        points.margins(x=0.3, y=0.2)
        return _to_png(figure)


def draw_axis(
    name: str, points: Sequence[tuple[Any, float, float]], lines: Sequence[tuple[str, float, float]]
) -> bytes:
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
    means, errors = ([100 * point[part] for point in ordered] for part in (1, 2))
    with _figure(4.5, 2.8) as figure:
        axes = figure.subplots()
        axes.errorbar(places, means, yerr=errors, fmt="o-" if is_scale else "o", color=_BLUE, ms=4, capsize=2, lw=1)
        for style, (text, mean, error) in zip(itertools.cycle(("--", ":")), lines, strict=False):
            axes.axhline(100 * mean, color=_GREY, ls=style, lw=1, label=_plain(text, 40))
            axes.axhspan(100 * (mean - error), 100 * (mean + error), color=_GREY, alpha=0.15, lw=0)
        axes.set_xticks(places, [_plain(str(value), 24) for value, _, _ in ordered])
        axes.tick_params(axis="x", rotation=0 if is_scale else 20)
        axes.set(xlabel=_plain(name, 60), ylabel="top-1 accuracy at the last epoch (%)")
        axes.margins(x=0.1, y=0.15)
        if lines:
            axes.legend(frameon=False)
        return _to_png(figure)


def draw_ranking(rows: Sequence[dict[str, Any]]) -> bytes:
    """Architectures by their accuracy after training on everything, and after training on a distilled dataset.

    Args:
        rows: Each with "title", and "whole_mean", "whole_std", "distilled_mean" and "distilled_std" as fractions.
    """
    columns = {name: [100 * row[name] for row in rows] for name in _RANKED}
    with _figure(5, 4) as figure:
        axes = figure.subplots()
        x, x_errors, y, y_errors = (columns[name] for name in _RANKED)
        axes.errorbar(x, y, xerr=x_errors, yerr=y_errors, fmt="o", color=_BLUE, ecolor=_GREY, ms=4, capsize=2, lw=1)
        for row, right, up in zip(rows, x, y, strict=True):
            axes.annotate(_plain(row["title"], 30), (right, up), xytext=(5, 4), textcoords="offset points")
        axes.set(xlabel="top-1, trained on the whole dataset (%)", ylabel="top-1, trained on the distilled one (%)")
        axes.margins(x=0.3, y=0.1)
        return _to_png(figure)


def draw_recovery(records: Sequence[dict[str, float]]) -> bytes:
    """The losses over the iterations, each the mean over shards; a residual shows as a jump.

    Args:
        records: Each with "iteration" and any of "ce" and "bn".
    """
    names = [name for name in _CURVES if any(name in record for record in records)]
    with _figure(3.4 * len(names), 2.2) as figure:
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            values = defaultdict(list)
            for record in records:
                if name in record:
                    values[record["iteration"]].append(record[name])
            iterations = sorted(values)
            axes.plot(iterations, [sum(values[i]) / len(values[i]) for i in iterations], color=_BLUE, lw=1)
            axes.set(xlabel="iteration", title=_CURVES[name])
        return _to_png(figure)


def _first_images(shards: Path) -> dict[int, Tensor]:
    """Label -> the image of ipc index 0, of the first classes."""
    found: dict[int, Tensor] = {}
    for file in sorted(shards.glob("*.safetensors")):
        if len(found) >= _GRID_CLASSES:
            break
        columns = load_tensors(file)
        for row in torch.nonzero(columns["ipc_index"] == 0).flatten().tolist():
            found.setdefault(int(columns["label"][row]), columns["images"][row])
    return {label: found[label] for label in sorted(found)[:_GRID_CLASSES]}


def _recovery_records(log: Path) -> list[dict[str, float]]:
    if not log.exists():
        return []
    # A machine that lost power leaves a line half written.
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return [line for line in lines if line.get("stage") == "recover" and "iteration" in line and _CURVES.keys() & line]


def _plain(text: str, length: int) -> str:
    """`text`, shortened; matplotlib would take dollar signs for mathematics."""
    short = text if len(text) <= length else text[: length - 1] + "…"
    return short.replace("$", r"\$")


@contextmanager
def _figure(width: float, height: float) -> Iterator["Figure"]:
    """An empty figure of a size in inches, and the style of all pictures while it is drawn."""
    import matplotlib  # takes a third of a second, which a mistake in the input need not wait for
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _to_png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing from font"
        )  # a class name in another script: boxes will do
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
