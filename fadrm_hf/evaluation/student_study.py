"""Students trained one after the other: what each reached, with the published numbers of the same cell next to it."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fadrm_hf.config import SourceConfig
from fadrm_hf.config.architectures import find_architecture
from fadrm_hf.config.datasets import preset_of
from fadrm_hf.config.protocols import SETTINGS
from fadrm_hf.evaluation.measured_tables import SCORES, StudyTable, accuracies, mean_and_std
from fadrm_hf.evaluation.published import Published
from fadrm_hf.evaluation.study import Session, Study
from fadrm_hf.methods import METHODS, title_of
from fadrm_hf.report.card.results import Result
from fadrm_hf.report.card.text import machine_line
from fadrm_hf.runtime.terminal import duration

WHOLE = "whole"  # the column of students that papers trained on the whole dataset
_COLUMNS = (*METHODS, WHOLE)


@dataclass(frozen=True)
class StudentRow:
    """One student's row.

    Attributes:
        result: What it reached, as `results/*.json` holds it.
        parameters: Of the network as it was trained.
        setting: Its learning rate and η, as the paper names them.
        published: What papers report of the same student, data and images per class, by method, or `WHOLE`.
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

    @property
    def sources(self) -> dict[str, str]:
        """Paper and table of each published number."""
        return {name: number.source for name, number in self.published.items()}

    def values(self) -> dict[str, Any]:
        """Return the numbers of the row by column: accuracies as fractions, seconds of one student."""
        return {
            "title": self.title,
            "parameters": self.parameters,
            "setting": self.setting,
            **accuracies(self.result),
            **{f"published_{name}": self.published[name].accuracy for name in _COLUMNS if name in self.published},
        }


class StudentStudy(Study[list[StudentRow]]):
    """A study of students, each with one result on file; the seeds of a student are divided over all processes."""

    students: Collection[str]  # full names, in the order of the table

    @property
    @abstractmethod
    def title(self) -> str:
        """What the students were trained on, and how."""

    @abstractmethod
    def on_file(self, student: str) -> Result | None:
        """Return the result of a student under the same settings, if there is one."""

    @abstractmethod
    def train(self, student: str, session: Session) -> Result:
        """Train a student and file its result."""

    @abstractmethod
    def row(self, student: str, result: Result) -> StudentRow:
        """Return a student's row."""

    def measure(self, session: Session) -> Iterator[list[StudentRow]]:
        """Train the students that have no result yet."""
        on_file = {student: self.on_file(student) for student in self.students}
        session.state.wait_for_everyone()  # nobody files a result before everybody has looked
        results = {student: result for student, result in on_file.items() if result is not None}
        for number, student in enumerate(self.students, start=1):
            remark = ": its result is there" if student in results else ""
            session.reporter.say(f"{number}/{len(self.students)} {student}{remark}")
            if student not in results:
                results[student] = self.train(student, session)
            yield [self.row(name, results[name]) for name in self.students if name in results]

    def table(self, rows: list[StudentRow]) -> StudyTable:
        """Describe the students."""
        return student_table(rows, self.title)


def tabled_dataset(source: SourceConfig, size: int) -> str | None:
    """Return the preset of a source, if images have the size that the preset's papers use."""
    preset = preset_of(source)
    return preset.name if preset and preset.size == size else None


def student_table(rows: Sequence[StudentRow], title: str) -> StudyTable:
    """Return the table of students that are finished, in its order."""
    methods = [name for name in _COLUMNS if any(name in row.published for row in rows)]
    return StudyTable(
        title=title,
        template="student_table.md",
        facts={},
        values={"students": [row.values() | {"sources": row.sources, "result": row.result} for row in rows]},
        texts={
            "published": ["whole dataset" if name == WHOLE else title_of(name) for name in methods],
            "sources": sorted({source for row in rows for source in row.sources.values()}),
            "machines": list(dict.fromkeys(machine_line(row.result["machine"]) for row in rows)),
            "has_named_settings": any(row.setting[:2] in SETTINGS for row in rows),
            "rows": [_cells(row, methods) for row in rows],
        },
        rows=[row.values() for row in rows],
    )


def _cells(row: StudentRow, methods: Sequence[str]) -> list[str]:
    """Return a row's cells: what was measured, then what is published."""
    values = row.values()
    return [
        row.title,
        f"{row.parameters / 1e6:.3g} M",
        row.setting,
        str(values["epochs"]),
        str(values["num_seeds"]),
        *(mean_and_std(values[f"{name}_mean"], values[f"{name}_std"], values["num_seeds"]) for name in SCORES),
        duration(values["student_seconds"]),
        *(f"{100 * row.published[name].accuracy:.1f}" if name in row.published else "–" for name in methods),
    ]
