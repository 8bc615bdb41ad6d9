"""The table of a sweep: a section for each axis, the paper's numbers beside ours where it varies the same setting."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml

from fadrm_hf.config.datasets import preset_of
from fadrm_hf.evaluation.ablation import BASE, RANDOM_REAL, Axis, Cell, Sweep
from fadrm_hf.evaluation.compare import Row, everything, machines_of
from fadrm_hf.evaluation.measured_tables import SCORES, mean_and_std, with_suffix, write_table
from fadrm_hf.evaluation.published import Ablation, find_ablation
from fadrm_hf.methods import title_of
from fadrm_hf.report.card.text import render, size
from fadrm_hf.report.pictures.curves import draw_axis
from fadrm_hf.runtime.files import write_bytes
from fadrm_hf.runtime.terminal import duration

_TITLES = {"cifar100": "CIFAR-100", "imagenet1k": "ImageNet-1k"}


def write_sweep(sweep: Sweep, rows: Mapping[str, Row], command: str) -> None:
    """Write the table as Markdown and CSV, every value as JSON, and a picture of each axis that stands alone.

    Args:
        sweep: Its places.
        rows: What is finished or has failed, by the name of the run folder.
        command: What was typed.
    """
    output, contender = sweep.output, sweep.cells[0].contender
    run, done = contender.run, {name: row for name, row in rows.items() if row.result is not None}
    shown = [cell for cell in sweep.cells if cell.name in done]
    source = run.source.title
    shared: dict[str, Any] = {
        "title": f"{title_of(contender.method)} on {source}, {run.ipc} image{'s' if run.ipc > 1 else ''} per class",
        "command": command,
        "base": sweep.base,
        "source": source,
        "mode": sweep.mode,
        "protocol": asdict(contender.protocol),
        "machines": machines_of(list(done.values())),
    }
    values = [_values(cell, rows[cell.name]) for cell in sweep.cells if cell.name in rows]
    cells = [each | everything(rows[each["cell"]]) for each in values]
    pictures = _write_pictures(sweep, shown, done)
    text = render(
        "ablation.md",
        **shared,
        name=output.name,
        sections=_sections(sweep, shown, done, pictures),
        settings=yaml.safe_dump(_plain(shared["protocol"]), sort_keys=False, allow_unicode=True).strip(),
        failed=[(name, row.failure) for name, row in rows.items() if row.result is None],
        num_left=len(sweep.contenders.keys() - rows.keys()),
    )
    write_table(output, shared | {"cells": cells}, values, text)


def _values(cell: Cell, row: Row) -> dict[str, Any]:
    """The numbers of a place by column; see `Row.values`."""
    published = _published(cell)
    beside = {} if published is None else {"published_top1": published.accuracy, "published": _where(published)}
    return {"cell": cell.name, "axes": ", ".join(cell.place), "place": _label(cell), **row.values(), **beside}


def _published(cell: Cell) -> Ablation | None:
    run = cell.contender.run
    preset = preset_of(run.source)
    return find_ablation(run.method.name, preset.name if preset else None, run.ipc, cell.settings)


def _where(published: Ablation) -> str:
    return f"{_TITLES[published.dataset]}, IPC {published.ipc}, {published.table}"


def _label(cell: Cell) -> str:
    label = " / ".join(cell.place.values())
    return f"{label} (base)" if label and cell.name == BASE else label or cell.name.replace("_", " ")


def _sections(
    sweep: Sweep, shown: Sequence[Cell], rows: Mapping[str, Row], pictures: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What is on no axis, then each axis; of a grid one section for all."""
    groups = {" × ".join(cell.place): [each for each in shown if each.place.keys() == cell.place.keys()]
              for cell in sorted(shown, key=lambda cell: bool(cell.place))}  # fmt: skip
    return [
        {
            "title": title or "Held against",
            "head": title or "run",
            "rows": [_line(cell, rows[cell.name]) for cell in cells],
            "picture": pictures.get(title),
        }
        for title, cells in groups.items()
    ]


def _line(cell: Cell, row: Row) -> list[str]:
    values, published = row.values(), _published(cell)
    beside = "–" if published is None or published.accuracy is None else f"{100 * published.accuracy:.1f}"
    return [
        _label(cell),
        str(values["num_seeds"]),
        *(_accuracy(values, name) for name in SCORES),
        duration(values["distillation_seconds"]),
        duration(values["student_seconds"]),
        size(values["peak_memory_bytes"]),
        beside if published is None else f"{beside} ({_where(published)})",
    ]


def _accuracy(values: dict[str, Any], name: str) -> str:
    """Of one seed no spread is known."""
    mean, std = values[f"{name}_mean"], values[f"{name}_std"]
    return mean_and_std(mean, std) if values["num_seeds"] > 1 or mean is None else f"{100 * mean:.1f}"


def _write_pictures(sweep: Sweep, shown: Sequence[Cell], rows: Mapping[str, Row]) -> dict[str, str]:
    """A picture of each axis that places stand on alone; by axis the name of its file."""
    lines = _lines(shown, rows)
    written = {}
    for axis in sweep.axes:
        points = [_point(axis, cell, rows[cell.name]) for cell in shown if list(cell.place) == [axis.name]]
        if points:
            file = with_suffix(sweep.output.with_name(f"{sweep.output.name}-{axis.name.rpartition('.')[2]}"), "png")
            write_bytes(file, draw_axis(axis.name, points, lines))
            written[axis.name] = file.name
    return written


def _point(axis: Axis, cell: Cell, row: Row) -> tuple[Any, float, float]:
    """A place's value, or its label where it stands for more than a number; mean and standard deviation."""
    value = cell.settings.get(axis.name)
    values = row.values()
    is_number = type(value) in (int, float)
    return value if is_number else cell.place[axis.name], values["top1_mean"], values["top1_std"]


def _lines(shown: Sequence[Cell], rows: Mapping[str, Row]) -> list[tuple[str, float, float]]:
    """What an axis is held against: random real images, and images without residuals, where they were measured."""
    found = {}
    for cell in shown:
        method, values = cell.contender.run.method, rows[cell.name].values()
        if method.name == RANDOM_REAL:
            found["random real images"] = values
        elif getattr(method, "num_residuals", None) == 0 and set(cell.settings) <= {"method.num_residuals"}:
            found["no residual (k = 0)"] = values
    return [(text, values["top1_mean"], values["top1_std"]) for text, values in found.items()]


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
