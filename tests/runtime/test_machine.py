"""What a measurement was made on, and how much memory it took."""

import mmap
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from fadrm_hf.runtime import machine, shards
from fadrm_hf.runtime.machine import (
    busy_share,
    describe_machine,
    head_commit,
    library_versions,
    peak_memory_bytes,
    reset_peak_memory,
    waiting_threads,
)

BLOCK = 300 << 20


def test_the_machine_is_described_without_names():
    machine = describe_machine()
    assert set(machine) == {"cpu", "capability", "cores", "memory_bytes", "gpu"}
    assert machine["capability"].split(" with ")[0] == torch.backends.cpu.get_cpu_capability()
    assert machine["cores"] >= 1 and machine["memory_bytes"] > 1 << 28
    assert {"python", "torch", "datasets"} <= set(library_versions())


def test_threads_that_will_wait_for_each_other_are_told_with_the_number_that_would_not(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    cores = describe_machine()["cores"]
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    for busy, free in ((0.0, cores), (0.1 / cores, cores), (1 / cores, cores - 1), (1.0, 0)):
        line = waiting_threads(busy)
        if max(1, free) == cores:
            assert line is None, "nobody is in the way"
        else:
            assert f"OMP_NUM_THREADS={max(1, free)} " in line and f"{busy:.0%} of this machine's {cores} cores" in line
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert waiting_threads(0.5) is None, "one thread waits for none"
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    assert waiting_threads(1.0) is None, "who has chosen knows"


def test_a_command_beside_other_work_says_so_once(monkeypatch, capsys):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(machine, "busy_share", lambda: 1.0)  # its measuring has a test of its own
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    shards._say_waiting_threads.cache_clear()
    try:
        for _ in range(2):
            shards.join_world()
    finally:
        shards._say_waiting_threads.cache_clear()
    assert " ".join(capsys.readouterr().err.split()).count("OMP_NUM_THREADS=1 in front of the command") == 1


def test_a_checkout_knows_its_commit(tmp_path):
    """As git itself names it: on a branch, with packed references, detached, in a second work tree."""
    git = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True, text=True)
    author = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    git(["git", "init", "--quiet"])
    git(["git", *author, "commit", "--quiet", "--allow-empty", "--message=one"])
    git(["git", "worktree", "add", "--quiet", "-b", "other", "tree"])
    git(["git", *author, "commit", "--quiet", "--allow-empty", "--message=two"], cwd=tmp_path / "tree")
    for change in (["git", "pack-refs", "--all"], ["git", "checkout", "--quiet", "--detach"]):
        for folder in (tmp_path, tmp_path / "tree"):
            assert head_commit(folder / ".git") == git(["git", "rev-parse", "HEAD"], cwd=folder).stdout.strip()
            git(change, cwd=folder)
            assert head_commit(folder / ".git") == git(["git", "rev-parse", "HEAD"], cwd=folder).stdout.strip()


def test_the_commit_is_recorded_with_the_versions():
    """This checkout's, if it is one: where the sources were copied without git there is none."""
    root = Path(__file__).parents[2]
    recorded = library_versions().get("fadrm_hf_commit")
    if (root / ".git").exists():
        assert recorded == head_commit(root / ".git")
    else:
        assert recorded is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU its memory is counted")
def test_a_stage_has_a_peak_of_its_own():
    reset_peak_memory()
    block = mmap.mmap(-1, BLOCK)  # not of the heap, which may keep what it is given back
    block.write(bytes(BLOCK))
    before = peak_memory_bytes()
    block.close()
    reset_peak_memory()
    after = peak_memory_bytes()
    assert after < before - BLOCK // 2
    assert peak_memory_bytes() >= after


def test_other_work_counts_and_waiting_does_not():
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert 0.0 < busy_share(0.2) <= 1.0
    finally:
        hog.kill()
        hog.wait()
