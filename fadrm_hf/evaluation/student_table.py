"""A table of students: what each reached, with the published numbers of the same cell beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fadrm_hf.config.protocols import SETTINGS
from fadrm_hf.config.students import find_architecture
from fadrm_hf.evaluation.measured_tables import SCORES, accuracies, mean_and_std, write_table
from fadrm_hf.evaluation.published import Published
from fadrm_hf.methods import METHODS, title_of
from fadrm_hf.report.card.results import Result
from fadrm_hf.report.card.text import machine_line, render
from fadrm_hf.runtime.terminal import duration

BOUND = "whole"  # the column of students that papers trained on the whole dataset
_COLUMNS = (*METHODS, BOUND)


@dataclass(frozen=True)
class StudentRow:
    """One student's line.

    Attributes:
        result: What it reached, as `results/*.json` holds it.
        parameters: Of the network as it was trained.
        setting: Its learning rate and η, as the paper names them.
        published: What papers report of the same student, data and images per class, by method, or `BOUND`.
    """

    result: Result
    parameters: int
    setting: str
    published: Mapping[str, Published]

    @property
    def title(self) -> str:
        """The student as papers print it; its full name if they do not."""
        architecture = find_architecture(self.result["student"])
        return architecture.title if architecture else str(self.result["student"])

    def values(self) -> dict[str, Any]:
        """The numbers of the line by column: accuracies as fractions, seconds of one student."""
        return {
            "title": self.title,
            "parameters": self.parameters,
            "setting": self.setting,
            **accuracies(self.result),
            **{f"published_{name}": self.published[name].accuracy for name in _COLUMNS if name in self.published},
        }


def write_student_table(rows: Sequence[StudentRow], title: str, command: str, output: Path) -> None:
    """Write the table as Markdown and CSV, and every value as JSON.

    Args:
        rows: The students that are finished, in the order of the table.
        title: What they were trained on, and how.
        command: What was typed.
        output: The table's name without suffix.
    """
    methods = [name for name in _COLUMNS if any(name in row.published for row in rows)]
    shared = {"title": title, "command": command}
    students = [row.values() | {"sources": _sources(row), "result": row.result} for row in rows]
    text = render(
        "student_table.md",
        **shared,
        name=output.name,
        published=["whole dataset" if name == BOUND else title_of(name) for name in methods],
        sources=sorted({source for row in rows for source in _sources(row).values()}),
        machines=list(dict.fromkeys(machine_line(row.result["machine"]) for row in rows)),
        has_named_settings=any(row.setting[:2] in SETTINGS for row in rows),
        rows=[_line(row, methods) for row in rows],
    )
    write_table(output, shared | {"students": students}, [row.values() for row in rows], text)


def _sources(row: StudentRow) -> dict[str, str]:
    return {name: each.source for name, each in row.published.items()}


def _line(row: StudentRow, methods: Sequence[str]) -> list[str]:
    """A row's cells: what was measured, then what is published."""
    values = row.values()
    return [
        row.title,
        f"{row.parameters / 1e6:.3g} M",
        row.setting,
        str(values["epochs"]),
        str(values["num_seeds"]),
        *(mean_and_std(values[f"{name}_mean"], values[f"{name}_std"]) for name in SCORES),
        duration(values["student_seconds"]),
        *(f"{100 * row.published[name].accuracy:.1f}" if name in row.published else "–" for name in methods),
    ]
