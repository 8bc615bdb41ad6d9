"""Jobs that no launcher binds together: shares of a run, and several launches on one folder at once."""

import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.runs import FADRM, RECIPE, ROOT, files_of, identities, lasting, work_of

from fadrm_hf.cli import main

PROGRAM = str(Path(sys.executable).with_name("fadrm-hf"))


def arguments(folder, *more):
    return [*RECIPE, *FADRM, "--output", str(folder), *more]


def recovered(folder):
    return sorted(path.name for path in (work_of(folder) / "recovered").glob("*"))


def test_jobs_recover_their_shares_and_the_last_one_makes_the_artifact(finished, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["distill", *arguments(run, "--shards", "2:3")]) == 0
    assert "2 of 6 shards" in capsys.readouterr().err
    first = recovered(run)
    assert len(first) == 2 and not run.exists()
    assert main(["package", *arguments(run)]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "lacks 4 shards of images (ipc00000-00000-00003" in message and "--shards" in message
    before = files_of(work_of(run))
    assert main(["distill", *arguments(run, "--shards=1:3")]) == 0
    assert len(recovered(run)) == 4 and set(first) < set(recovered(run)) and not run.exists()
    assert main(["distill", *arguments(run, "--shards=3:3")]) == 0
    assert lasting(run) == lasting(finished)
    after = files_of(work_of(run))
    assert {name: after[name] for name in identities(work_of(finished)) if name in before} == {
        name: content for name, content in before.items() if name in identities(work_of(finished))
    }


def test_package_ends_what_jobs_have_recovered(finished, tmp_path):
    run = tmp_path / "run"
    for share in ("1:2", "2:2"):
        if share == "2:2":  # all images are there, and nothing else: as if the last job had been ended then
            stop = [sys.executable, "-c", STOP_AFTER_RECOVERY, "distill", *arguments(run, "--shards", share)]
            assert subprocess.run(stop, cwd=ROOT, capture_output=True).returncode == 130
        else:
            assert main(["distill", *arguments(run, "--shards", share)]) == 0
    assert not run.exists()
    assert main(["package", *arguments(run)]) == 0
    assert lasting(run) == lasting(finished)


STOP_AFTER_RECOVERY = """
import sys
from fadrm_hf.line import labels
from fadrm_hf.cli import main

def stop(*arguments):
    raise KeyboardInterrupt

labels.Labeller = stop
sys.exit(main(sys.argv[1:]))
"""


def test_two_launches_at_once_share_the_work(finished, tmp_path):
    run = tmp_path / "run"
    launches = [
        subprocess.Popen(
            [PROGRAM, "distill", *arguments(run)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for launch in launches:
        _, errors = launch.communicate(timeout=300)
        assert launch.returncode == 0, errors.decode()
    assert lasting(run) == lasting(finished)
    assert files_of(work_of(run)).keys() - {"costs.json"} >= set(identities(work_of(finished)))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("text", ["0:8", "9:8", "3", "3:", "a:b", "-1:2", "3:8:1", ""])
def test_a_share_that_does_not_exist_is_refused(text, tmp_path, capsys):
    assert main(["distill", *arguments(tmp_path / "run", "--shards", text)]) == 2
    assert "expected K:N, the K-th of N jobs" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
