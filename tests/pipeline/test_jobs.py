"""Jobs that no launcher binds together: shares of a run, and several launches on one folder at once."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from fixtures.runs import FADRM, RECIPE, ROOT, files_of, identities, lasting, work_of
from huggingface_hub import __version__ as hub_version
from huggingface_hub.cli.hf import app

from fadrm_hf.cli import main
from fadrm_hf.pipeline.arguments import parse_run

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
from fadrm_hf.pipeline import relabel_stage
from fadrm_hf.cli import main

def stop(*arguments):
    raise KeyboardInterrupt

relabel_stage.Labeller = stop
sys.exit(main(sys.argv[1:]))
"""


def array_task(number: int, *given: str, **environment: str) -> subprocess.Popen[str]:
    """Task `number` of the array of two that the committed script describes."""
    task = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "2"}
    places = {"PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"}
    command = ["bash", "recipes/launch/slurm_array.sh", *given]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | places | task | environment, text=True, **pipes)


def test_tasks_of_an_array_at_once_share_the_work(finished, tmp_path):
    run = tmp_path / "run"
    tasks = [array_task(number, *arguments(run)) for number in (1, 2)]
    for task in tasks:
        _, errors = task.communicate()
        assert task.returncode == 0, errors
    assert lasting(run) == lasting(finished)
    assert files_of(work_of(run)).keys() - {"costs.json"} >= set(identities(work_of(finished)))
    assert not list(tmp_path.rglob("*.tmp"))


def test_tasks_of_an_array_take_shares_if_asked_to(tmp_path):
    """What the script calls the program with, shown by a program of its name that shows it."""
    program = tmp_path / "fadrm-hf"
    program.write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    given = ["--source.name", "a name", "--ipc=2"]
    for number in (1, 2):
        asked, _ = array_task(number, *given, SHARES="yes", PATH=f"{tmp_path}:{os.environ['PATH']}").communicate()
        assert asked.splitlines() == ["distill", *given, "--shards", f"{number}:2"]
        asked, _ = array_task(number, *given, PATH=f"{tmp_path}:{os.environ['PATH']}").communicate()
        assert asked.splitlines() == ["distill", *given]


def test_shares_of_machines_without_a_common_disk_come_together(finished, tmp_path):
    """As the script for Jobs has it: what each has made is copied to one place, but for what each has of its own."""
    bucket = tmp_path / "bucket"
    shutil.copytree(finished.with_name("teachers"), bucket / "teachers")
    for share in ("1:2", "2:2"):
        disk = shutil.copytree(bucket, tmp_path / share[0])
        shutil.rmtree(disk / "run.work", ignore_errors=True)  # begun at the same time as the other
        assert main(["distill", *arguments(disk / "run", "--shards", share)]) == 0
        assert not (disk / "run").exists()
        kept = shutil.ignore_patterns("locks", "log.jsonl", "costs.json", "*.tmp")
        shutil.copytree(disk, bucket, ignore=kept, dirs_exist_ok=True)
    assert main(["package", *arguments(bucket / "run")]) == 0
    assert lasting(bucket / "run") == lasting(finished)


def test_the_jobs_that_the_script_starts_are_jobs(tmp_path):
    """By the dry run of the installed client; what runs inside is read by bash and by the programs' own parsers."""
    if hub_version.startswith("1."):
        pytest.skip("hf jobs run of huggingface_hub 1 has no --attempts")
    given = ["2", "org/bucket", "org/name", "--config", "recipes/configs/digits/fadrm_ipc1.yaml", "--seed", "3"]
    settings = {"DRY_RUN": "yes", "IMAGE": "org/image", "HF_TOKEN": "hf_none", "HF_ENDPOINT": "http://127.0.0.1:9"}
    path = {"PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"}
    script = ["bash", "recipes/launch/hf_jobs.sh", *given]
    shown = subprocess.run(
        script, cwd=ROOT, env=os.environ | settings | path, capture_output=True, text=True, check=True
    )
    jobs = shown.stdout.split("Job configuration:")[1:]
    assert len(jobs) == 3 and all("org/image" in job and "HF_TOKEN=***" in job for job in jobs)
    lines = [shlex.split(re.search(r"^ +command +(.*)$", job, re.MULTILINE)[1]) for job in jobs]
    assert all(line[:2] == ["bash", "-c"] and len(line) == 3 for line in lines)
    commands = [[shlex.split(part) for part in re.split(r"&&|;", line[2])] for line in lines]
    shares = [command for line in commands for command in line if command[:2] == ["fadrm-hf", "distill"]]
    assert [words[-2:] for words in shares] == [["--shards", "1:2"], ["--shards", "2:2"]]
    assert parse_run(shares[0][2:-2]) == parse_run(["--output", "runs/run", *given[3:]])
    assert ["fadrm-hf", "publish", "runs/run", "org/name"] in commands[-1]
    synced = [command for line in commands for command in line if command[:3] == ["hf", "buckets", "sync"]]
    assert len(synced) == 6 and all(sync_ends(command[3:]) for command in synced)
    assert sync_ends(synced[0][3:]) == ("hf://buckets/org/bucket", "runs")
    assert sync_ends(synced[1][3:]) == ("runs", "hf://buckets/org/bucket")


def sync_ends(words: list[str]) -> tuple[str, str]:
    """Source and destination of `hf buckets sync`, as the client's own parser reads its arguments."""
    buckets = app.get_command(click.Context(app), "buckets")
    sync = buckets.get_command(click.Context(buckets), "sync")
    read = sync.make_context("sync", list(words)).params
    return read["source"], read["dest"]


@pytest.mark.parametrize("text", ["0:8", "9:8", "3", "3:", "a:b", "-1:2", "3:8:1", ""])
def test_a_share_that_does_not_exist_is_refused(text, tmp_path, capsys):
    assert main(["distill", *arguments(tmp_path / "run", f"--shards={text}")]) == 2
    assert "expected K:N, the K-th of N jobs" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
