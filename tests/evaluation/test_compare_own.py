"""A method of one's own in a comparison: from a script, from a command line and for another student than it has."""

import subprocess
import sys

import pytest
from fixtures.runs import RECIPE, STUDENT

from fadrm_hf.cli import main
from fadrm_hf.commands.compare import parse_comparison
from fadrm_hf.evaluation import shared_runs
from fadrm_hf.evaluation.shared_runs import measure
from fadrm_hf.methods import METHODS

METHOD = """
from dataclasses import dataclass

from fadrm_hf import Method


@dataclass(frozen=True)
class Halfway(Method):
    name = "halfway"
    title = "Halfway"
    init = "patches"

    iterations: int = 2

    def recover(self, start, recovery):
        return 0.5 * (recovery.optimise(start, self.iterations) + start)
"""
SMALL = ["--ipc=1", "--relabel.epochs=1", "--student.epochs=1"]
SETTINGS = [word for word in RECIPE if not word.startswith(("--ipc", "--relabel.epochs", "--student."))] + SMALL
COMPARE = ["compare", "--methods=[random_real,halfway]", "--output=tables/own", f"--student.student={STUDENT}"]
# As people write them: nothing says that this is the main program. It distils for a student of its own first.
SCRIPT = f"""
import sys

import own_method

from fadrm_hf.cli import main
from fadrm_hf.commands.compare import parse_comparison
from fadrm_hf.evaluation import shared_runs
from fadrm_hf.evaluation.shared_runs import measure
from fadrm_hf.methods import METHODS

print("executed")
METHODS["halfway"] = own_method.Halfway
assert main(["distill", "--method=halfway", "--student.student=timm/resnet18_small_stem", *{SETTINGS}]) == 0
sys.exit(main([*{COMPARE}, "--num_seeds=1", *{SETTINGS}]))
"""


@pytest.fixture(scope="module")
def compared_once(tmp_path_factory):
    """The folder in which a script has compared the method."""
    place = tmp_path_factory.mktemp("own")
    (place / "own_method.py").write_text(METHOD)
    (place / "script.py").write_text(SCRIPT)
    ended = subprocess.run([sys.executable, "script.py"], cwd=place, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("executed") == 1, "the processes of the runs executed the script again"
    return place


@pytest.fixture
def compared(compared_once, monkeypatch):
    """That folder to work in; the method is forgotten afterwards."""
    monkeypatch.chdir(compared_once)
    yield compared_once
    METHODS.pop("halfway", None)
    sys.modules.pop("own_method", None)


def test_a_script_and_a_command_line_compare_the_same(compared):
    table = (compared / "tables/own.md").read_text()
    assert "| Halfway |" in table and "| random real" in table.lower() and "Not finished" not in table
    assert "`--import` names the file of `halfway`" in table
    finished = {path: path.read_bytes() for path in (compared / "runs").glob("*/fadrm.json")}
    assert main([*COMPARE, "--import=own_method.py", "--num_seeds=1", *SETTINGS]) == 0
    assert main([*COMPARE, "--import=own_method.py", "--num_seeds=1", *SETTINGS, "--runs=elsewhere"]) == 0
    again = (compared / "tables/own.md").read_text()
    assert "--import=own_method.py" in again and "names the file of" not in again
    assert all(path.read_bytes() == content for path, content in finished.items()), "what was measured is reused"
    accuracy = [line.split(" | ")[5:8] for text in (table, again) for line in text.splitlines() if "| Halfway" in line]
    assert accuracy[0] == accuracy[1], "an artifact that was made for another student is trained as any other"


def test_a_folder_of_another_run_is_refused_with_the_option_that_mends_it(compared, capsys):
    assert main([*COMPARE, "--import=own_method.py", "--num_seeds=1", *SETTINGS, "--seed=1"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "holds another run: seed is 0 there, 1 here." in message and "--runs" in message


def test_students_that_were_interrupted_are_in_nobodys_way(compared, monkeypatch):
    """A comparison of two epochs ends before its result is on file; one epoch is then a training of its own."""
    words = [
        *COMPARE[2:],
        "--methods=[random_real]",
        "--num_seeds=1",
        *SETTINGS,
        "--relabel.epochs=2",
        "--runs=longer",
    ]
    (longer,), _ = parse_comparison([*words, "--student.epochs=2"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shared_runs, "record_result", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        measure(longer, "")
    assert list(longer.students.iterdir())
    (shorter,), _ = parse_comparison(words)
    assert measure(shorter, "").is_file()
    assert list(longer.students.iterdir()) and not list(shorter.students.iterdir())


def test_a_process_that_gives_no_answer_says_how_it_ended():
    assert shared_runs._reason_of(-9).startswith("SIGKILL: mostly a lack of memory")
    assert shared_runs._reason_of(-11) == "SIGSEGV"
    assert "printed before" in shared_runs._reason_of(1)
