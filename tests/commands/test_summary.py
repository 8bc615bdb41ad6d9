"""What commands say at the end: paths, seconds, the next command; nothing with --quiet, a document with --json."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from fixtures.runs import LABELS, RECIPE, STUDENT, copy_artifact, copy_run, files_of
from rich.console import Console

from fadrm_hf.cli import main
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.summary import OutputMode, Summary, conclude
from fadrm_hf.runtime import terminal

RANDOM = ("--method=random_real", "--output=run")


@pytest.fixture
def begun(finished, place) -> Path:
    """A folder with a teacher that runs of these tests find trained; it is the current one."""
    shutil.copytree(finished.with_name("teachers"), place / "teachers")
    return place


def document_of(capsys) -> dict:
    """All that was printed on stdout, which is one document."""
    return json.loads(capsys.readouterr().out)


def run_next(command: str) -> int:
    """What a user gets who types it."""
    program, *words = shlex.split(command)
    assert program == "fadrm-hf"
    return main(words)


def test_distilling_ends_with_what_to_do_next_and_that_can_be_done(begun, capsys):
    assert main(["distill", *RECIPE, *RANDOM]) == 0
    printed, told = capsys.readouterr()
    assert printed == ""
    assert told.startswith("source     digits: bundled with scikit-learn\nsplits     train 1,297, test 500; ")
    assert "\nthe artifact will be run; unfinished work is kept in run.work\n" in told
    *_, finished, artifact, card, gallery, following = told.splitlines()
    assert re.fullmatch(r"finished in \d+\.\d s", finished)
    paths = dict(line.split() for line in (artifact, card, gallery))
    assert paths == {"artifact": "run", "card": "run/README.md", "gallery": "run/gallery/index.html"}
    assert all(Path(path).exists() for path in paths.values())
    assert following == "next: fadrm-hf train-student run"
    assert run_next(following.removeprefix("next: ")) == 0


def test_where_the_environment_is_not_active_the_next_command_is_told_by_its_path(tmp_path, monkeypatch, capsys):
    program = tmp_path / "environment/bin/fadrm-hf"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(program.with_name("python")))
    (tmp_path / "elsewhere").mkdir()
    for folder, typed in ((tmp_path, "environment/bin/fadrm-hf"), (tmp_path / "elsewhere", program)):
        monkeypatch.chdir(folder)
        conclude(Summary(following=["score", "a run"]), OutputMode(), "fadrm-hf baselines", 1.0)
        assert capsys.readouterr().err == f"next: {typed} score 'a run'\n"


def test_quiet_is_silence_and_json_one_document(begun, capfd):
    assert main(["distill", *RECIPE, *RANDOM, "--json", "--quiet"]) == 0
    printed, told = capfd.readouterr()
    document, manifest = json.loads(printed), json.loads(Path("run/fadrm.json").read_text())
    assert told == "" and set(document) == {"command", "exit_code", "seconds", "paths", "next", "result"}
    assert document["exit_code"] == 0 and document["seconds"] > 0
    assert document["command"] == shlex.join(["fadrm-hf", "distill", *RECIPE, *RANDOM])
    assert document["result"]["image_bytes"] == manifest["bytes"]["images"]
    assert document["result"]["stage_seconds"] == {name: cost["seconds"] for name, cost in manifest["stages"].items()}
    assert document["next"] == "fadrm-hf train-student run"
    assert main(["distill", *RECIPE, *RANDOM, "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    assert main(["distill", *RECIPE, *RANDOM, "--seed=2", "--json"]) == ExitCode.MISTAKE  # the folder has another run
    printed, told = capfd.readouterr()
    document = json.loads(printed)
    assert document["exit_code"] == 2 and document["paths"] == {} and f"error: {document['error']}\n" == told


BARS = "HF_DATASETS_DISABLE_PROGRESS_BARS"


@pytest.mark.parametrize(
    ("given", "is_terminal", "quiet", "inside"),
    [(None, True, False, None), (None, False, False, "1"), ("0", False, False, "0"), ("0", True, True, "1")],
    ids=["terminal", "log", "log where they are asked for", "quiet"],
)
def test_bars_of_libraries_are_for_terminals(monkeypatch, given, is_terminal, quiet, inside):
    monkeypatch.setattr(terminal, "progress", Console(stderr=True, force_terminal=is_terminal))
    monkeypatch.delenv(BARS, raising=False)
    if given is not None:
        monkeypatch.setenv(BARS, given)
    with terminal.speaking(quiet=quiet):
        assert os.environ.get(BARS) == inside
    assert os.environ.get(BARS) == given


def test_a_share_of_a_run_ends_with_what_finishes_it(begun, capsys):
    shares = ["--recover.batch_size=4", *RANDOM]
    assert main(["distill", *RECIPE, *shares, "--shards=1:2", "--json"]) == 0
    document = document_of(capsys)
    assert document["paths"] == {"work": "run.work"}
    assert document["next"] == shlex.join(["fadrm-hf", "package", *RECIPE, *shares])
    assert main(["distill", *RECIPE, *shares, "--shards", "2:2", "--quiet"]) == 0
    assert run_next(document["next"]) == 0


def test_students_are_told_with_their_file(finished, tmp_path, place, capsys):
    copy_run(finished, tmp_path)
    assert main(["train-student", "run", "--num_seeds=1", "--labels=hard", "--json"]) == 0
    printed, told = capsys.readouterr()
    document = json.loads(printed)
    assert json.loads(Path(document["paths"]["result"]).read_text()) == document["result"]
    assert f"{STUDENT}, hard labels" in told and "student hard" in told  # what people see is on the other stream
    assert document["next"] == "fadrm-hf baselines run"
    assert main([*shlex.split(document["next"])[1:], "--rows=[distilled]", "--json"]) == 0
    document = document_of(capsys)
    assert [(row["images"], row["labels"]) for row in document["result"]["rows"]] == [
        ("distilled", "hard"),
        ("distilled", "soft"),
    ]
    assert document["next"] == "fadrm-hf score run"


def test_problems_are_told_to_machines_too(finished, tmp_path, capsys):
    artifact = copy_artifact(finished, tmp_path)
    (artifact / "README.md").write_text("another card")
    assert main(["verify", str(artifact), "--leakage=false", "--num_steps=0", "--json"]) == ExitCode.DIFFERS
    document = document_of(capsys)
    (problem,) = document["result"]["problems"]
    assert document["exit_code"] == 1 and problem["file"] == "README.md" and problem["message"]


def test_publishing_ends_with_the_page_and_the_version(hub, finished, tmp_path, monkeypatch, capsys):
    artifact = str(copy_run(finished, tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    words = ["publish", artifact, "alice/summed", "--num_steps=0"]
    assert main([*words, "--dry_run", "--json"]) == 0
    dry = document_of(capsys)
    assert dry["result"]["commit"] is None and dry["paths"] == {} and not hub.exists("alice/summed")
    assert shlex.split(dry["next"]) == ["fadrm-hf", *words]
    assert run_next(f"{dry['next']} --json") == 0
    document = document_of(capsys)
    assert document["paths"] == {"artifact": artifact, "page": f"{hub.url}/datasets/alice/summed/tree/v1.0"}
    assert document["result"]["commit"] == hub.tags("alice/summed")["v1.0"]
    assert document["next"] == "fadrm-hf train-student alice/summed@v1.0"


def test_smaller_labels_are_told_with_their_size(finished, tmp_path, capsys):
    small = tmp_path / "small"
    assert main(["recode", str(finished), str(small), "--codec=int8", "--json"]) == 0
    document = document_of(capsys)
    labels = sum(path.stat().st_size for path in small.glob("soft_labels/*"))
    before = (finished / LABELS).stat().st_size
    assert document["result"] == {"codec": "int8", "soft_label_bytes": labels, "soft_label_bytes_before": before}
    assert document["paths"]["artifact"] == str(small) and document["next"] == f"fadrm-hf train-student {small}"


def test_of_a_launch_one_process_speaks(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main(["methods", "--json"]) == 0
    assert main(["methods", "more", "--json"]) == 2
    printed, told = capsys.readouterr()
    assert printed == "" and "error: 'more' is not understood" in told  # a mistake is told by whoever meets it


@pytest.mark.parametrize("word", ["--json=estimate.json", "--quiet=yes"])
def test_the_two_options_take_no_value(finished, place, capsys, word):
    assert main(["verify", str(finished), word]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert word in message and f"expected {word.partition('=')[0]} alone" in message and "> FILE" in message
    assert files_of(place) == {}
