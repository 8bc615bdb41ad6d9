"""A change of an artifact, killed at any operation on its files, is finished by whoever opens the artifact next."""

import json
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fixtures.operations import count_operations, kill_at, run_command
from fixtures.runs import STUDENT, copy_artifact

from fadrm_hf.artifact.manifest import artifact_files
from fadrm_hf.cli import main
from fadrm_hf.evaluation.results import record_result
from fadrm_hf.hub import open_artifact
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.report.renewal import changing
from fadrm_hf.runtime.files import sha256
from fadrm_hf.runtime.run_folder import CHANGING, RunFolder

EVERYTHING = os.environ.get("FAULTS") == "all"


@pytest.fixture(scope="module")
def measured(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact with one evaluation on file."""
    artifact = copy_artifact(finished, tmp_path_factory.mktemp("measured"))
    assert main(["train-student", str(artifact), "--student", STUDENT, "--num_seeds=1", "--quiet"]) == 0
    return artifact


def result_of(artifact: Path, student: str) -> dict[str, Any]:
    """An evaluation as it is on file, of another student, so that it is a new file."""
    file, *_ = RunFolder(artifact).results()
    return json.loads(file.read_text()) | {"student": student}


def bytes_of(artifact: Path) -> dict[str, str]:
    return {name: sha256(artifact / name) for name in [*artifact_files(artifact), "fadrm.json"]}


def changes_of(artifact: Path) -> dict[str, tuple[Callable[..., object], tuple[Any, ...]]]:
    return {
        "result": (record_result, (artifact, result_of(artifact, "timm/resnet18_narrow"))),
        "gallery": (run_command, ("gallery", str(artifact), "--quiet")),
    }


@pytest.mark.parametrize("name", ["result", "gallery"])
def test_a_change_that_is_killed_at_any_operation_is_finished_by_the_next_command(measured, tmp_path, name):
    whole = copy_artifact(measured, tmp_path / "whole")
    count = count_operations(*changes_of(whole)[name], whole)
    assert count > 10
    for moment in moments_of(count, 4):
        artifact = copy_artifact(measured, tmp_path / str(moment))
        change, arguments = changes_of(artifact)[name]
        assert kill_at(change, arguments, artifact, moment) == -signal.SIGKILL
        open_artifact(artifact)
        assert not (artifact / CHANGING).exists()
        assert main(["verify", str(artifact), "--quiet"]) == 0, f"operation {moment} of {count}"
        change(*arguments)
        assert bytes_of(artifact) == bytes_of(whole)


def moments_of(count: int, num: int) -> range:
    """Some of the moments from 1 to `count`, the last among them; all of them where everything is tried."""
    return range(count, 0, -(1 if EVERYTHING else max(1, count // num)))


def test_a_recoding_that_is_killed_leaves_nothing_that_is_in_its_way(finished, tmp_path):
    whole = tmp_path / "whole"
    count = count_operations(recode, (finished, whole / "run8", "int8"), whole)
    for moment in moments_of(count, 3):
        folder = tmp_path / str(moment)
        given = (finished, folder / "run8", "int8")
        assert kill_at(recode, given, folder, moment) == -signal.SIGKILL
        assert not (folder / "run8").exists() or main(["verify", str(folder / "run8"), "--quiet"]) == 0
        if not (folder / "run8").exists():
            recode(*given)
        assert bytes_of(folder / "run8") == bytes_of(whole / "run8")
        assert [path.name for path in folder.iterdir()] == ["run8"]


def test_a_training_that_is_killed_while_its_result_is_filed_is_not_done_again(finished, tmp_path):
    """From the moment that all epochs are trained no epoch is trained again, whenever the command is killed."""
    words = ("--student", STUDENT, "--num_seeds=1", "--quiet")
    whole = copy_artifact(finished, tmp_path / "whole")
    count = count_operations(run_command, ("train-student", str(whole), *words), tmp_path / "whole")
    (file,) = RunFolder(whole).results()
    expected = json.loads(file.read_text())
    epochs = lines_of_training(whole)
    tried = 0
    for moment in moments_of(count, 16)[1:8:2]:
        artifact = copy_artifact(finished, tmp_path / str(moment))
        given = ("train-student", str(artifact), *words)
        assert kill_at(run_command, given, tmp_path / str(moment), moment) == -signal.SIGKILL
        if (artifact / "results" / file.name).exists():
            assert main(["verify", str(artifact), "--quiet"]) == 0
            continue  # the command was over but for what it removes
        before = lines_of_training(artifact)
        assert main(list(given)) == 0
        assert lines_of_training(artifact) <= epochs, (moment, before)
        assert json.loads((artifact / "results" / file.name).read_text())["top1"] == expected["top1"]
        tried += before >= epochs - 1
    assert tried, "no moment was between the end of the training and the result"


def lines_of_training(artifact: Path) -> int:
    """How many epochs of students the log has."""
    log = artifact.with_name(f"{artifact.name}.work") / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return sum("loss" in line for line in lines)


def test_two_changes_wait_for_each_other(measured, tmp_path):
    artifact = copy_artifact(measured, tmp_path)
    names = [f"timm/resnet{depth}" for depth in (18, 34, 50)]
    threads = [threading.Thread(target=partial(record_result, artifact, result_of(artifact, name))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert main(["verify", str(artifact), "--quiet"]) == 0
    text = (artifact / "README.md").read_text()
    assert all(name.removeprefix("timm/") in text for name in names)


def test_who_may_only_read_reads_an_artifact_whose_change_was_interrupted(measured, tmp_path, monkeypatch):
    artifact = copy_artifact(measured, tmp_path)
    (artifact / CHANGING).write_text("{}")

    def refused(*given: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("fadrm_hf.report.renewal.locked", refused)
        assert open_artifact(artifact).manifest.classes.ids
    open_artifact(artifact)
    assert not (artifact / CHANGING).exists()


def test_a_change_that_fails_leaves_its_mark(measured, tmp_path):
    artifact = copy_artifact(measured, tmp_path)
    with pytest.raises(ZeroDivisionError), changing(artifact, print):
        RunFolder(artifact).card.write_text("half a card")
        1 / 0  # noqa: B018
    assert (artifact / CHANGING).exists()
    assert main(["verify", str(artifact), "--quiet"]) == 0
    assert not (artifact / CHANGING).exists()
