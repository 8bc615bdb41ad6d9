"""Several methods on one source, under one protocol and with n seeds each; what is missing of each run is made."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fadrm_hf.evaluation.measured_tables import SCORES, StudyTable, as_yaml, images_per_class, mean_and_std
from fadrm_hf.evaluation.shared_runs import ComparedMethod, MethodRow, machines_of, measure_shared
from fadrm_hf.evaluation.study import Session, Study
from fadrm_hf.report.card.text import size
from fadrm_hf.report.pictures.accuracy import draw_comparison
from fadrm_hf.runtime.terminal import duration


@dataclass(frozen=True)
class MethodComparison(Study[dict[str, MethodRow]]):
    """A comparison of methods.

    Attributes:
        methods: The methods, each from `check_compared_method`, in the order of the table.
    """

    methods: Sequence[ComparedMethod]

    def measure(self, session: Session) -> Iterator[dict[str, MethodRow]]:
        """Distil and measure what is missing; commands with the same methods share them and write the same table."""
        yield from measure_shared({method.name: method for method in self.methods}, session)

    def table(self, rows: dict[str, MethodRow]) -> StudyTable:
        """Describe the methods by their costs and accuracies, with a picture of both."""
        ordered = [rows[method.name] for method in self.methods if method.name in rows]
        done = [row for row in ordered if row.result is not None]
        first = self.methods[0]  # of what all methods share
        source, ipc = first.run.source.title, first.run.ipc
        protocol = _protocol_settings(done) or asdict(first.protocol)
        return StudyTable(
            title=f"{source}, {images_per_class(ipc)}, under `{first.protocol.name}`",
            template="comparison.md",
            facts={
                "source": source,
                "ipc": ipc,
                "seed": first.run.seed,
                "protocol": protocol,
                "machines": machines_of(done),
                "own": [method.method for method in self.methods if _is_own(method)],
            },
            values={"methods": [row.record() for row in ordered]},
            texts={
                "settings": as_yaml(protocol),
                "rows": [_cells(row.values()) for row in done],
                "failed": [row for row in ordered if row.failure is not None],
            },
            rows=[row.values() for row in ordered],
            pictures={"": draw_comparison([row.values() for row in done])} if done else {},
        )


def _is_own(method: ComparedMethod) -> bool:
    """Return whether a method is no part of the library, so that a command line must import it."""
    return not type(method.run.method).__module__.startswith("fadrm_hf.")


def _protocol_settings(rows: Sequence[MethodRow]) -> dict[str, Any]:
    """Return the settings that students were trained with; those that the artifacts decided differently, by method."""
    settings = {row.method: row.result["settings"] for row in rows if row.result is not None}
    first: dict[str, Any] = next(iter(settings.values()), {})
    same = {name for name in first if all(each.get(name) == first[name] for each in settings.values())}
    return {
        name: first[name] if name in same else {method: each.get(name) for method, each in settings.items()}
        for name in first
    }


def _cells(values: dict[str, Any]) -> list[str]:
    return [
        values["title"],
        ", ".join(name.rpartition("/")[2] for name in values["teachers"]),
        values["labels"],
        str(values["epochs"]),
        str(values["num_seeds"]),
        *(mean_and_std(values[f"{name}_mean"], values[f"{name}_std"], values["num_seeds"]) for name in SCORES),
        duration(values["distillation_seconds"]),
        duration(values["student_seconds"]),
        size(values["peak_memory_bytes"]),
        size(values["image_bytes"]),
        size(values["label_bytes"]),
    ]
