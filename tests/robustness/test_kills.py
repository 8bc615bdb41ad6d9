"""Every command, killed or refused by the disk at any operation on its files; the same command then ends as if nothing
had been, and so do two that are started at once.

Each run of the suite takes a few of the operations, `make soak` all of them; with FAULTS=7 it is each seventh.
"""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures.cases import COUNTED, PAGE, with_table
from fixtures.contents import contents
from fixtures.hub import TestHub
from fixtures.operations import Fault, count_operations, happen_at, run_as, run_command, run_to_its_end
from fixtures.runs import FADRM, PROCESSES, RECIPE, STUDENT

from fadrm_hf.cli import main
from fadrm_hf.runtime.run_folder import WORK

FAULTS = os.environ.get("FAULTS", "")
EVERYTHING, STRIDE = bool(FAULTS), int(FAULTS) if FAULTS.isdecimal() else 1
SMALL = (
    *(word for word in RECIPE if not word.startswith(("--ipc", "--relabel.", "--student."))),
    "--ipc=1",
    "--relabel.epochs=2",
    "--relabel.batch_size=5",
    f"--student.student={STUDENT}",
    "--student.epochs=2",
)
ONE_SEED = ("--student.num_seeds=1",)
REPO = "org/digits"


@dataclass(frozen=True)
class Command:
    """A command, and what is there before it.

    Attributes:
        words: The command, in a folder.
        prepare: Fills the folder.
        num_sampled: How many of its operations the suite tries, where no other test does.
        artifacts: What must be sound after it.
        makes: The folder that it makes; it is refused where there is one, because it was done already.
        apart: Beginnings of paths of what two undisturbed runs leave that differs: pictures that show time.
    """

    words: Callable[[Path], list[str]]
    prepare: Callable[[Path, Path], None]
    num_sampled: int
    artifacts: tuple[str, ...] = ()
    makes: str | None = None
    apart: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def begun(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small finished run, its teacher and one evaluation on file."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(finished.with_name("teachers"), folder / "teachers")
    assert main(["distill", *SMALL, *ONE_SEED, *FADRM, "--output", str(folder / "run"), "--quiet"]) == 0
    words = ["--student", STUDENT, "--num_seeds=1", "--quiet"]
    assert main(["train-student", str(folder / "run"), *words]) == 0
    return folder


def teachers(begun: Path, folder: Path) -> None:
    shutil.copytree(begun / "teachers", folder / "teachers")


def everything(begun: Path, folder: Path) -> None:
    shutil.copytree(begun, folder, dirs_exist_ok=True)


def artifact(begun: Path, folder: Path) -> None:
    shutil.copytree(begun / "run", folder / "run")


def unmeasured(begun: Path, folder: Path) -> None:
    """The artifact as it was before its student."""
    everything(begun, folder)
    shutil.rmtree(folder / "run")
    assert main([*distilling("package")(folder), "--quiet"]) == 0


def recovered(begun: Path, folder: Path) -> None:
    """What jobs with --shards leave."""
    teachers(begun, folder)
    shutil.copytree(begun / f"run{WORK}", folder / f"run{WORK}")
    shutil.rmtree(folder / f"run{WORK}/soft_labels")


def distilling(command: str) -> Callable[[Path], list[str]]:
    return lambda folder: [command, *SMALL, *ONE_SEED, *FADRM, "--output", str(folder / "run")]


def comparing(folder: Path) -> list[str]:
    methods = ("--methods=[random_real]", "--num_seeds=1", "--output", str(folder / "table"))
    return ["compare", *SMALL, *methods, "--runs", str(folder)]


def sweep(begun: Path, folder: Path) -> None:
    teachers(begun, folder)
    base = {name: yaml.safe_load(value) for name, _, value in (word[2:].partition("=") for word in SMALL)}
    (folder / "base.yaml").write_text(yaml.safe_dump(base | {"method.name": "fadrm"}, sort_keys=False))
    small = {"method.iterations": 4, "method.sizes": None, "recover.batch_size": 10}
    settings = {"base": str(folder / "base.yaml"), "num_seeds": 1, "settings": small, "axes": {"method.alpha": [1.0]}}
    settings |= {"runs": str(folder), "output": str(folder / "table")}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def of_artifact(command: str, *more: str) -> Callable[[Path], list[str]]:
    """A command on the artifact; where it makes another one, that is `made`."""
    return lambda folder: [command, *(word.replace("IN", str(folder)) for word in ("IN/run", *more))]


COMMANDS = {
    "distill": Command(distilling("distill"), teachers, 2, ("run",)),
    "package": Command(distilling("package"), recovered, 2, ("run",)),
    "train-student": Command(
        of_artifact("train-student", "--student", STUDENT, "--num_seeds=1"), unmeasured, 0, ("run",)
    ),
    "baselines": Command(
        of_artifact("baselines", "--rows=[random_real]", "--num_seeds=1"), everything, 1, ("run", "run.random_real")
    ),
    "score": Command(of_artifact("score"), everything, 0, ("run",)),
    "gallery": Command(of_artifact("gallery"), everything, 0, ("run",)),
    "reproduce": Command(of_artifact("reproduce"), everything, 1, ("run",)),
    "compare": Command(comparing, teachers, 1, ("random-real-digits-ipc1",), apart=("table.png",)),
    "ablate": Command(
        lambda folder: ["ablate", "--config", str(folder / "sweep.yaml")],
        sweep,
        0,
        ("base",),
        apart=("sweep.yaml", "table-"),
    ),
    "recode": Command(of_artifact("recode", "IN/made", "--codec=int8"), artifact, 0, ("run", "made"), "made"),
    "edit": Command(of_artifact("edit", "IN/made", "--drop_classes=[3]"), artifact, 3, ("run", "made"), "made"),
    "export": Command(of_artifact("export", "IN/made"), artifact, 2, ("run",), "made"),
}
# The suite takes some operations of these, and the other faults of a few; tests/robustness/test_changes.py has others.
SAMPLED = [name for name in COMMANDS if EVERYTHING or COMMANDS[name].num_sampled]
QUICK = list(COMMANDS) if EVERYTHING else ["gallery", "edit", "export"]


@pytest.fixture(scope="module")
def undisturbed(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[int, dict[str, Any]]]:
    """How many operations a command takes, and what it leaves; each is run once."""
    known: dict[str, tuple[int, dict[str, Any]]] = {}

    def of(name: str) -> tuple[int, dict[str, Any]]:
        if name not in known:
            folder = tmp_path_factory.mktemp(name) / "x"
            folder.mkdir()
            COMMANDS[name].prepare(begun, folder)
            count = count_operations(run_command, (*COMMANDS[name].words(folder), "--quiet"), folder)
            known[name] = count, contents(folder, *COMMANDS[name].apart)
        return known[name]

    return of


def finish(command: Command, folder: Path, expected: dict[str, Any], when: str) -> None:
    """Run the command again; what it leaves is that of an undisturbed run."""
    if command.makes is None or not (folder / command.makes).exists():
        assert main([*command.words(folder), "--quiet"]) == 0, when
    found = contents(folder, *command.apart)
    assert sorted(found) == sorted(expected), when
    assert [file for file in expected if expected[file] != found[file]] == [], when
    for made in command.artifacts:
        assert main(["verify", str(folder / made), "--quiet", "--leakage=false", "--num_steps=1"]) == 0, when
    shutil.rmtree(folder)


def moments_of(count: int, num: int) -> list[int]:
    """Some of the operations from 1 to `count`, the last among them; all of them where everything is tried."""
    return list(range(count, 0, -STRIDE)) if EVERYTHING else [count - place * count // num for place in range(num)]


@pytest.mark.timeout(7200)
@pytest.mark.fault("{name}", "killed")
@pytest.mark.parametrize("name", SAMPLED)
def test_a_command_that_is_killed_at_any_operation_finishes_when_it_is_started_again(
    name, begun, undisturbed, tmp_path, record_property
):
    count, expected = undisturbed(name)
    command, moments = COMMANDS[name], moments_of(count, COMMANDS[name].num_sampled)
    for moment in moments:
        folder = tmp_path / "x"
        folder.mkdir()
        command.prepare(begun, folder)
        words = (*command.words(folder), "--quiet")
        assert happen_at(run_command, words, folder, moment) == -signal.SIGKILL, moment
        finish(command, folder, expected, f"killed at operation {moment} of {count}")
    record_property("cases", len(moments))


@pytest.mark.timeout(7200)
@pytest.mark.fault("{name}", "{fault}")
@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("fault", ["full disk", "read-only"])
def test_a_disk_that_takes_nothing_from_any_operation_on_is_named_and_nothing_is_lost(
    name, fault: Fault, begun, undisturbed, tmp_path, record_property
):
    count, expected = undisturbed(name)
    command, moments = COMMANDS[name], disk_moments(count, fault)
    for moment in moments:
        folder = tmp_path / "x"
        folder.mkdir()
        command.prepare(begun, folder)
        words = (*command.words(folder), "--quiet")
        assert happen_at(run_to_its_end, words, folder, moment, fault) in (0, 1, 2), moment  # 1: a part has failed
        finish(command, folder, expected, f"{fault} from operation {moment} of {count}")
    record_property("cases", len(moments))


def test_the_page_has_the_cases_that_were_counted():
    text = PAGE.read_text("utf-8")
    assert with_table(text, json.loads(COUNTED.read_text())) == text, "run .venv/bin/python tests/fixtures/cases.py"


def disk_moments(count: int, fault: Fault) -> list[int]:
    """From which operations on a disk takes nothing: it may be read-only from the beginning, and be full at any."""
    if fault == "read-only":
        return [1]
    return list(range(count, 0, -max(1, count // 20) * STRIDE)) if EVERYTHING else [count // 2]


@pytest.mark.fault("{name}", "two at once")
@pytest.mark.parametrize("name", QUICK)
def test_two_that_are_started_at_once_leave_what_one_leaves(name, begun, undisturbed, tmp_path):
    command, folder = COMMANDS[name], tmp_path / "x"
    folder.mkdir()
    command.prepare(begun, folder)
    words = (*command.words(folder), "--quiet")
    both = [PROCESSES.Process(target=run_to_its_end, args=words) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    codes = sorted(process.exitcode for process in both)
    assert codes in ([0, 0], [0, 2]), codes
    finish(command, folder, undisturbed(name)[1], f"two at once ended with {codes}")


@pytest.mark.timeout(7200)
@pytest.mark.fault("publish", "killed")
def test_a_publication_that_is_killed_at_any_operation_is_finished_by_the_next(
    begun, tmp_path, hub: TestHub, monkeypatch, record_property
):
    """One commit with one version, whose files are those of the folder."""
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    words = ("--public", "--num_steps=1", "--quiet")
    whole = tmp_path / "whole"
    whole.mkdir()
    artifact(begun, whole)
    count = count_operations(run_as, ("alice", "publish", str(whole / "run"), REPO, *words), whole)
    expected = contents(whole)
    moments = moments_of(count, 3)
    for moment in moments:
        if hub.exists(REPO):
            hub.remove(REPO)
        folder = tmp_path / str(moment)
        folder.mkdir()
        artifact(begun, folder)
        given = ("publish", str(folder / "run"), REPO, *words)
        assert happen_at(run_as, ("alice", *given), folder, moment) == -signal.SIGKILL
        assert main(list(given)) == 0, f"operation {moment} of {count}"
        assert main(["verify", str(folder / "run"), "--quiet", "--leakage=false"]) == 0
        found = contents(folder)
        assert sorted(found) == sorted(expected)
        assert [file for file in expected if found[file] != expected[file]] == [], f"operation {moment} of {count}"
        held = {path.relative_to(folder / "run").as_posix(): path.read_bytes()
                for path in (folder / "run").rglob("*") if path.is_file()}  # fmt: skip
        assert hub.files(REPO) == held and list(hub.tags(REPO)) == ["v1.0"]
        assert len(hub.commits(REPO)) == 2  # the Hub's own, empty one is the first
    record_property("cases", len(moments))
