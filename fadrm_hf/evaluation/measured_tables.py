"""Tables of measured numbers: every value as JSON, rows as CSV, the text as Markdown, and pictures next to them."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fadrm_hf.report.card.results import Result
from fadrm_hf.report.card.text import machine_line, render
from fadrm_hf.runtime.files import write_bytes, write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions

SCORES = ("top1", "top5", "best_epoch_top1")


@dataclass(frozen=True)
class StudyTable:
    """The table of a study.

    Attributes:
        title: What was measured.
        template: Its template in `cards/`.
        facts: What both the Markdown and the JSON state.
        values: What only the JSON holds.
        texts: What only the Markdown shows.
        rows: Its rows by column, for the CSV.
        measured_here: Whether this machine measured all rows; else each row says which one did.
        pictures: PNG files by what follows the table's name in theirs.
    """

    title: str
    template: str
    facts: Mapping[str, Any]
    values: Mapping[str, Any]
    texts: Mapping[str, Any]
    rows: Sequence[dict[str, Any]]
    measured_here: bool = False
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    def write(self, output: Path, command: str) -> None:
        """Write all files; `output` is their name without suffix, `command` what was typed."""
        for name, picture in self.pictures.items():
            write_bytes(with_suffix(output.with_name(f"{output.name}{name}"), "png"), picture)
        facts = {"title": self.title, "command": command, **self.facts}
        machine = describe_machine() if self.measured_here else {}
        here = {"machine": machine, "versions": library_versions()} if self.measured_here else {}
        text = render(self.template, **facts, name=output.name, machine=machine_line(machine), **self.texts)
        write_json(with_suffix(output, "json"), facts | dict(self.values) | here)
        write_bytes(with_suffix(output, "csv"), as_csv(self.rows).encode())
        write_bytes(with_suffix(output, "md"), text.encode())


def accuracies(result: Result) -> dict[str, Any]:
    """Return the numbers of an evaluation by column: accuracies as fractions, seconds of one student."""
    scores = {f"{name}_{kind}": (result[name] or {}).get(kind) for name in SCORES for kind in ("mean", "std")}
    return {
        "labels": ", ".join([result["labels"], *([result["label_codec"]] if "label_codec" in result else [])]),
        "student": result["student"],
        "epochs": result["epochs"],
        "num_seeds": result["num_seeds"],
        **{name: None if score is None else round(score, 6) for name, score in scores.items()},
        "student_seconds": round(result["seconds"] / result["num_seeds"], 1),
    }


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV, lists joined by semicolons; a row need not have every column."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "; ".join(value) if isinstance(value, list) else value for name, value in row.items()})
    return text.getvalue()


def as_yaml(settings: Mapping[str, Any]) -> str:
    """Return settings as a Markdown page quotes them."""
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).strip()


def mean_and_std(mean: float | None, std: float | None, num_seeds: int) -> str:
    """Return fractions as `mean ± standard deviation` in percent; of one seed no deviation is known."""
    if mean is None or std is None:
        return "–"
    return f"{100 * mean:.1f} ± {100 * std:.1f}" if num_seeds > 1 else f"{100 * mean:.1f}"


def counted(number: int, noun: str) -> str:
    """Return `1 seed`, `3 seeds`."""
    return f"{number} {noun}{'s' if number > 1 else ''}"


def images_per_class(ipc: int) -> str:
    """Return `1 image per class`, `10 images per class`."""
    return f"{counted(ipc, 'image')} per class"


def with_suffix(output: Path, suffix: str) -> Path:
    """Return `output.suffix`, whatever dots the name has."""
    return output.with_name(f"{output.name}.{suffix}")
