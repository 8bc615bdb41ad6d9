"""The style of all pictures: colours, figures, labels next to what they name, bytes of a PNG file.

A picture has no ground of its own, since the page around it may be white or dark: every colour, text included, has
contrast enough on both. Colour-blind people can tell them apart; blue, orange and green are those of Okabe and Ito.
Distilled data is blue, baselines are grey. Error bars are one standard deviation.
"""

import io
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

Line = tuple[str, float, float]  # text, mean, standard deviation as fractions

BLUE, ORANGE, GREEN, VIOLET = "#0072B2", "#D55E00", "#009E73", "#991DED"
SERIES = (BLUE, ORANGE, GREEN, VIOLET, "#C4203C", "#7C8BFB", "#546886")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
GREY = "#868F99"
INK = "#707A84"  # of text
WIDTH = 4.8  # inches of a picture on a card: 9 points are 15 pixels on a desk and 9 on a phone
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelpad": 6,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.dpi": 220,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",  # part of matplotlib, so every machine has it
    "font.size": 9,
    "grid.alpha": 0.3,
    "grid.color": GREY,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "text.color": INK,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "xtick.minor.pad": 5,  # so that 2 and 5 of a decade are in line with 1 and 10
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}
ERRORS: Mapping[str, Any] = {"capsize": 2.5, "elinewidth": 1, "capthick": 1}
TOP1 = "top-1 accuracy at the last epoch (%)"
_LINE = 11.0  # points from one line of text to the next
_AWAY = (7, 11, 16, 22, 30, 40)  # points from a mark to its name; the nearest free distance is taken
_LEADER_FROM = 16  # points from which a thin line joins the two
_DIRECTIONS = ((1, 0), (1, 1), (1, -1), (-1, 0), (0, 1), (0, -1), (-1, 1), (-1, -1))


@contextmanager
def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator["Figure"]:
    """Yield an empty figure of a size in inches, with the style of all pictures while it is drawn.

    Its parts find their places by themselves; with `layout=None` they are where they are put.
    """
    import matplotlib  # takes a third of a second, which an error in the input need not wait for
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout=layout)


def to_png(figure: "Figure") -> bytes:
    """Return the figure as a file, the same bytes each time."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing from font"
        )  # a class name in another script: boxes will do
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def plain(text: str, length: int) -> str:
    """Shorten text and escape dollar signs, which matplotlib reads as mathematics."""
    short = text if len(text) <= length else text[: length - 1] + "…"
    return short.replace("$", r"\$")


def percent(fractions: Sequence[float]) -> list[float]:
    """Convert fractions to percent."""
    return [100 * fraction for fraction in fractions]


def scale_by_logarithm(axis: Any) -> None:
    """Make an axis (`axes.xaxis`) logarithmic, with plain numbers at 1, 2 and 5 of every decade."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_minor_formatter(lambda value, _: f"{value:,g}" if f"{value:e}"[0] in "25" else "")


def draw_lines(axes: "Axes", lines: Sequence[Line]) -> list[tuple[float, str, str]]:
    """Draw baselines across the whole width; return their names for `label_ends`."""
    for style, (_, mean, error) in zip(itertools.cycle(("--", ":", "-.")), lines, strict=False):
        axes.axhline(100 * mean, color=GREY, ls=style, lw=1.2, zorder=1)
        axes.axhspan(100 * (mean - error), 100 * (mean + error), color=GREY, alpha=0.13, lw=0, zorder=0)
    return [(100 * mean, text, INK) for text, mean, _ in lines]


def label_ends(axes: Any, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names, (y, text, colour), to the right of a finished frame, moved apart where they would overlap."""
    axes.figure.draw_without_rendering()  # decides where everything will be
    heights = [axes.transData.transform((1, y))[1] * 72 / axes.figure.dpi for y, _, _ in ends]
    order = sorted(range(len(ends)), key=lambda index: heights[index])
    moved = _move_apart([heights[index] for index in order])
    for index, height in zip(order, moved, strict=True):
        y, text, colour = ends[index]
        axes.annotate(plain(text, 30), (1, y), (5, height - heights[index]), axes.get_yaxis_transform(),
                      "offset points", va="center", color=colour, annotation_clip=False)  # fmt: skip


def _move_apart(heights: Sequence[float]) -> list[float]:
    """Move ascending heights that are closer than a line of text apart, around their middle."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _spread(groups[-1])[0] - _spread(groups[-2])[-1] < _LINE:
            last = groups.pop()
            groups[-1] += last
    return [height for group in groups for height in _spread(group)]


def _spread(group: Sequence[float]) -> list[float]:
    """Return heights a line apart, around the middle of a group."""
    first = sum(group) / len(group) - _LINE * (len(group) - 1) / 2
    return [first + _LINE * number for number in range(len(group))]


def label_points(axes: Any, points: Sequence[tuple[float, float, float, str]]) -> None:
    """Write names next to points, (x, y, error, text), each at the nearest position free of marks, bars and names.

    The limits and labels of the axes must be set before.
    """
    axes.figure.draw_without_rendering()  # decides where everything will be
    taken = [_mark(axes, x, y, error) for x, y, error, _ in points]
    for x, y, _, text in points:
        for away, direction in itertools.product(_AWAY, _DIRECTIONS):
            note = _beside(axes, (x, y), away, direction, text)
            box = note.get_window_extent()
            if _is_free(box, taken, axes.bbox):
                break
            note.remove()
        else:  # no free position: next to its mark, over whatever is there
            away, box = _AWAY[0], _beside(axes, (x, y), _AWAY[0], _DIRECTIONS[0], text).get_window_extent()
        if away >= _LEADER_FROM:
            _join(axes, (x, y), box)
        taken.append(box)


def _mark(axes: "Axes", x: float, y: float, error: float) -> "Bbox":
    """Return the box of a point with its error bar, in pixels."""
    from matplotlib.transforms import Bbox

    (left, bottom), (right, top) = (axes.transData.transform((x, y + sign * error)) for sign in (-1, 1))
    return Bbox.from_extents(left, bottom, right, top).padded(3.5 * axes.figure.dpi / 72)


def _beside(
    axes: "Axes", point: tuple[float, float], away: float, direction: tuple[int, int], text: str
) -> "Annotation":
    right, up = direction
    note = axes.annotate(text, point, (away * right, away * up * 0.8), textcoords="offset points",
                         ha=("center", "left", "right")[right], va=("center", "bottom", "top")[up])  # fmt: skip
    note.set_in_layout(False)
    return note


def _join(axes: "Axes", point: tuple[float, float], box: "Bbox") -> None:
    """Draw a thin line from a mark to a distant name."""
    x, y = axes.transData.transform(point)
    nearest = (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))
    axes.annotate("", point, nearest, textcoords="figure pixels",
                  arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.7, "shrinkA": 1, "shrinkB": 3})  # fmt: skip


def _is_free(box: "Bbox", taken: Sequence["Bbox"], frame: "Bbox") -> bool:
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    return inside and not any(box.overlaps(other) for other in taken)
