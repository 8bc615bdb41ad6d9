"""The shape of a study: what is wrong is named at once, finished rows are written, nothing is measured twice."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate import PartialState

from fadrm_hf.errors import ConfigError, StudentError
from fadrm_hf.evaluation.measured_tables import StudyTable
from fadrm_hf.evaluation.study import Session, Study, UnitOfWork, check_each, fingerprint, measure_units, run_study
from fadrm_hf.runtime.progress import QUIET


def session(folder: Path) -> Session:
    return Session(folder / "a.table", "fadrm-hf compare", QUIET, PartialState(cpu=True))


class Squares(Study[list[int]]):
    """A study of the first squares, interrupted before the last where it says so."""

    def __init__(self, is_interrupted: bool = False) -> None:
        self.is_interrupted = is_interrupted

    def measure(self, session: Session) -> Iterator[list[int]]:
        yield [0]
        yield [0, 1]
        if self.is_interrupted:
            raise KeyboardInterrupt
        yield [0, 1, 4]

    def table(self, rows: list[int]) -> StudyTable:
        return StudyTable(
            title="Squares",
            template="student_table.md",
            facts={},
            values={"squares": rows},
            texts={"published": [], "sources": [], "machines": [], "has_named_settings": False, "rows": []},
            rows=[{"square": row} for row in rows],
            pictures={"": b"one", "-curve": b"two"},
        )


def test_the_table_holds_what_is_finished_when_a_study_is_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_study(Squares(is_interrupted=True), session(tmp_path))
    document = json.loads((tmp_path / "a.table.json").read_text())
    assert document == {"title": "Squares", "command": "fadrm-hf compare", "squares": [0, 1]}
    assert run_study(Squares(), session(tmp_path)) == [0, 1, 4]
    with open(tmp_path / "a.table.csv", newline="") as file:
        assert [row["square"] for row in csv.DictReader(file)] == ["0", "1", "4"]
    text = (tmp_path / "a.table.md").read_text()
    assert text.startswith("# Squares\n") and "fadrm-hf compare" in text and "a.table.json" in text
    pictures = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    assert pictures == {"a.table.png": b"one", "a.table-curve.png": b"two"}


def test_all_that_is_wrong_is_named_at_once():
    def refuse() -> int:
        raise StudentError("it does not fit")

    assert check_each({"one": lambda: 1, "two": lambda: 2}) == {"one": 1, "two": 2}
    with pytest.raises(ConfigError, match=r"^two: it does not fit\nthree: it does not fit$"):
        check_each({"one": lambda: 1, "two": refuse, "three": refuse})


def test_a_unit_is_measured_once_and_leaves_no_checkpoint(tmp_path):
    calls = []

    def measure(checkpoints, task):
        for checkpoint in checkpoints:
            checkpoint.write_text("half way")
        calls.append([checkpoint.name for checkpoint in checkpoints])
        task.advance(2)
        return {"top1": 0.5}

    units = [UnitOfWork(tmp_path / f"slim-{number}.json", ["training", "tuning"], measure) for number in range(2)]
    for _ in range(2):
        assert measure_units("slim", units, 2, session(tmp_path)) == [{"top1": 0.5}] * 2
    assert calls == [[f"slim-{number}-{name}.safetensors" for name in ("training", "tuning")] for number in range(2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slim-0.json", "slim-1.json"]


def test_a_fingerprint_is_of_everything_that_it_is_given():
    keys = [("a", 1), ("a", 2), ("b", 1), ("a", "1"), ("a",)]
    assert len({fingerprint(*key) for key in keys}) == len(keys) and len(fingerprint("a")) == 16
    assert fingerprint("a", 1) == fingerprint("a", 1)
