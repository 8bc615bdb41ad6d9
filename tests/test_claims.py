"""Claims on units of work, by real processes: shared, killed, stopped."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager

import pytest

from fadrm_hf.claims import Claims, alone

# Does the units u0, u1, ... of a folder, each of which takes a given time, and writes one line for each into a log.
WORKER = """
import sys, time
from pathlib import Path
from fadrm_hf.claims import Claims

folder, name, num, seconds, touches, place, patience = Path(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:])
claims = Claims(folder / "claims", print, lambda line: print(line, flush=True), place, patience)
units = {f"u{index}": index for index in range(int(num))}
for unit in claims.share("stage", units, lambda name: (folder / name).exists()):
    with open(folder / "begun", "a") as file:
        file.write(f"{name} {unit}\\n")
    for _ in range(10):
        time.sleep(seconds / 10)
        if touches:
            claims._touched = 0.0  # as if the last time were long ago
            claims.touch()
    (folder / f"u{unit}").write_text(name)
"""


@contextmanager
def worker(folder, name, num=8, seconds=0.05, touches=0, place=0.0, patience=60.0):
    arguments = [str(folder), name, *map(str, (num, seconds, touches, place, patience))]
    process = subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def begun(folder):
    return (
        [line.split() for line in (folder / "begun").read_text().splitlines()] if (folder / "begun").exists() else []
    )


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("place", [0.0, 0.5])
def test_every_unit_is_done_once_and_the_faster_process_does_more(tmp_path, place):
    with worker(tmp_path, "slow", 12, 1.0) as slow:
        wait_until(lambda: begun(tmp_path))
        with worker(tmp_path, "fast", 12, 0.02, place=place) as fast:
            assert (slow.wait(60), fast.wait(60)) == (0, 0)
    done = begun(tmp_path)
    assert sorted(int(unit) for _, unit in done) == list(range(12))
    assert [name for name, _ in done].count("fast") > [name for name, _ in done].count("slow") >= 1
    assert not list(tmp_path.rglob("*.lock"))


def test_the_unit_of_a_killed_process_is_another_ones(tmp_path):
    with worker(tmp_path, "killed", 3, 60.0) as killed:
        wait_until(lambda: begun(tmp_path))
        with worker(tmp_path, "other", 3) as other:
            wait_until(lambda: len(begun(tmp_path)) == 3)
            assert other.poll() is None, "it waits for what is held"
            killed.send_signal(signal.SIGKILL)
            assert other.wait(60) == 0
    assert begun(tmp_path) == [["killed", "0"], ["other", "1"], ["other", "2"], ["other", "0"]]


def test_a_process_that_hangs_is_named_and_its_unit_taken_over_without_harm(tmp_path):
    with worker(tmp_path, "hung", 2, 1.0) as hung:
        wait_until(lambda: begun(tmp_path))
        hung.send_signal(signal.SIGSTOP)
        with worker(tmp_path, "other", 2, patience=0.5) as other:
            assert other.wait(60) == 0
            said = other.stdout.read()
        assert f"process {hung.pid} on" in said and "taken over" in said and "u0" in said
        assert (tmp_path / "u0").read_text() == "other"
        hung.send_signal(signal.SIGCONT)
        assert hung.wait(60) == 0
    assert begun(tmp_path) == [["hung", "0"], ["other", "1"], ["other", "0"]]


def test_who_works_visibly_is_not_taken_for_dead(tmp_path):
    with worker(tmp_path, "slow", 1, 3.0, touches=1) as slow:
        wait_until(lambda: begun(tmp_path))
        with worker(tmp_path, "other", 1, patience=1.0) as other:
            assert (slow.wait(60), other.wait(60)) == (0, 0)
    assert begun(tmp_path) == [["slow", "0"]]


def test_units_that_others_have_done_are_counted(tmp_path):
    claims = Claims(tmp_path, print, print)
    there, elsewhere = {"b"}, []
    for unit in claims.share("stage", {"a": 1, "b": 2, "c": 3}, there.__contains__, elsewhere.append):
        there |= {"a", "c"}  # another process has done c meanwhile
        assert unit == 1
    assert elsewhere == [3]


def test_an_error_gives_the_claim_up(tmp_path):
    claims = Claims(tmp_path, print, print)
    units = claims.share("stage", {"a": 1}, lambda name: False)
    with pytest.raises(ValueError, match="broken"), closing(units):
        for _ in units:
            assert list(tmp_path.rglob("*.lock"))
            raise ValueError("broken")
    assert not list(tmp_path.rglob("*.lock"))


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def lockf(file, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    done = set()
    for unit in Claims(tmp_path, print, print).share("stage", {"a": "a", "b": "b"}, done.__contains__):
        done.add(unit)
    assert done == {"a", "b"}


ALONE = """
import sys, time
from pathlib import Path
from fadrm_hf.claims import alone
with alone(Path(sys.argv[1]), print):
    print("in", flush=True)
    time.sleep(60)
"""


def test_what_one_does_alone_others_wait_for_and_say_so(tmp_path):
    said = []
    holder = subprocess.Popen(
        [sys.executable, "-c", ALONE, str(tmp_path / "x.lock")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "in\n"
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {holder.pid}"])
        with alone(tmp_path / "x.lock", said.append):
            assert holder.wait(10) == -9
        killer.wait()
    finally:
        holder.kill()
        holder.stdout.close()
    assert len(said) == 1 and f"waiting for process {holder.pid} on" in said[0]
