"""Ablations: a sweep measured cell by cell, the paper's numbers next to ours where it varies the same setting.

Every cell is a run of its own in a folder of its own, and commands with the same sweep share the cells
(`fadrm_hf.evaluation.shared_runs`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fadrm_hf.config.datasets import preset_of
from fadrm_hf.evaluation.measured_tables import SCORES, StudyTable, as_yaml, images_per_class, mean_and_std
from fadrm_hf.evaluation.published import PublishedAblation, find_ablation
from fadrm_hf.evaluation.shared_runs import MethodRow, machines_of, measure_shared
from fadrm_hf.evaluation.study import Session, Study
from fadrm_hf.evaluation.sweep import BASE, RANDOM_REAL, Cell, Sweep
from fadrm_hf.methods import title_of
from fadrm_hf.report.card.text import size
from fadrm_hf.report.pictures.curves import draw_axis
from fadrm_hf.runtime.terminal import duration

_TITLES = {"cifar100": "CIFAR-100", "imagenet1k": "ImageNet-1k"}


@dataclass(frozen=True)
class Ablation(Study[dict[str, MethodRow]]):
    """A sweep to be measured."""

    sweep: Sweep

    def measure(self, session: Session) -> Iterator[dict[str, MethodRow]]:
        """Distil and measure the cells that nobody has finished or is measuring, until all are finished."""
        yield from measure_shared(self.sweep.methods, session)

    def table(self, rows: dict[str, MethodRow]) -> StudyTable:
        """Describe the cells, a section and a picture for each axis."""
        sweep, method = self.sweep, self.sweep.cells[0].method
        done = {name: row for name, row in rows.items() if row.result is not None}
        shown = [cell for cell in sweep.cells if cell.name in done]
        values = [_values(cell, rows[cell.name]) for cell in sweep.cells if cell.name in rows]
        source, protocol = method.run.source.title, asdict(method.protocol)
        pictures = _pictures(sweep, shown, done)
        return StudyTable(
            title=f"{title_of(method.method)} on {source}, {images_per_class(method.run.ipc)}",
            template="ablation.md",
            facts={
                "base": sweep.base,
                "source": source,
                "mode": sweep.mode,
                "protocol": protocol,
                "machines": machines_of(list(done.values())),
            },
            values={"cells": [each | rows[each["cell"]].record() for each in values]},
            texts={
                "sections": _sections(shown, done, pictures),
                "settings": as_yaml(protocol),
                "failed": [(name, row.failure) for name, row in rows.items() if row.result is None],
                "num_left": len(sweep.methods.keys() - rows.keys()),
            },
            rows=values,
            pictures=pictures,
        )


def _values(cell: Cell, row: MethodRow) -> dict[str, Any]:
    """Return the numbers of a cell by column; see `MethodRow.values`."""
    published = _published(cell)
    paper = {} if published is None else {"published_top1": published.accuracy, "published": _where(published)}
    return {"cell": cell.name, "axes": ", ".join(cell.labels), "place": _label(cell), **row.values(), **paper}


def _published(cell: Cell) -> PublishedAblation | None:
    run = cell.method.run
    preset = preset_of(run.source)
    return find_ablation(run.method.name, preset.name if preset else None, run.ipc, cell.settings)


def _where(published: PublishedAblation) -> str:
    return f"{_TITLES[published.dataset]}, IPC {published.ipc}, {published.table}"


def _label(cell: Cell) -> str:
    label = " / ".join(cell.labels.values())
    return f"{label} (base)" if label and cell.name == BASE else label or cell.name.replace("_", " ")


def _sections(
    shown: Sequence[Cell], rows: Mapping[str, MethodRow], pictures: Mapping[str, bytes]
) -> list[dict[str, Any]]:
    """Return what is on no axis, then each axis; of a grid one section for all."""
    groups: dict[str, list[Cell]] = {}
    for cell in sorted(shown, key=lambda cell: bool(cell.labels)):
        groups.setdefault(" × ".join(cell.labels), []).append(cell)
    return [
        {
            "title": title or "Held against",
            "head": title or "run",
            "rows": [_cells(cell, rows[cell.name]) for cell in cells],
            "picture": name if (name := _picture_name(title)) in pictures else None,
        }
        for title, cells in groups.items()
    ]


def _cells(cell: Cell, row: MethodRow) -> list[str]:
    values, published = row.values(), _published(cell)
    paper = "–" if published is None or published.accuracy is None else f"{100 * published.accuracy:.1f}"
    return [
        _label(cell),
        str(values["num_seeds"]),
        *(mean_and_std(values[f"{name}_mean"], values[f"{name}_std"], values["num_seeds"]) for name in SCORES),
        duration(values["distillation_seconds"]),
        duration(values["student_seconds"]),
        size(values["peak_memory_bytes"]),
        paper if published is None else f"{paper} ({_where(published)})",
    ]


def _picture_name(axis: str) -> str:
    return f"-{axis.rpartition('.')[2]}"


def _pictures(sweep: Sweep, shown: Sequence[Cell], rows: Mapping[str, MethodRow]) -> dict[str, bytes]:
    """Draw each axis that cells are on alone."""
    lines = _lines(shown, rows)
    pictures = {}
    for axis in sweep.axes:
        points = [_point(axis, cell, rows[cell.name]) for cell in shown if list(cell.labels) == [axis]]
        if points:
            pictures[_picture_name(axis)] = draw_axis(axis, points, lines)
    return pictures


def _point(axis: str, cell: Cell, row: MethodRow) -> tuple[Any, float, float]:
    """Return a cell's value, or its label where it stands for more than a number; mean and standard deviation."""
    value = cell.settings.get(axis)
    values = row.values()
    is_number = type(value) in (int, float)
    return value if is_number else cell.labels[axis], values["top1_mean"], values["top1_std"]


def _lines(shown: Sequence[Cell], rows: Mapping[str, MethodRow]) -> list[tuple[str, float, float]]:
    """Return what every axis is compared with where it was measured: random real images, no residuals."""
    baselines = {}
    for cell in shown:
        method, values = cell.method.run.method, rows[cell.name].values()
        if method.name == RANDOM_REAL:
            baselines["random real images"] = values
        elif getattr(method, "num_residuals", None) == 0 and set(cell.settings) <= {"method.num_residuals"}:
            baselines["no residual (k = 0)"] = values
    return [(text, values["top1_mean"], values["top1_std"]) for text, values in baselines.items()]
