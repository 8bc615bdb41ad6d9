"""Locks on units of work, by real processes: shared, killed, stopped."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pytest
from filelock import FileLock

from fadrm_hf.runtime.locks import Locks, locked

# Does the units u0, u1, ... of a folder, of which each writes one line into a log when it begins. It ends at once; or
# when there is a file `go`, and shows until then that it is worked on; or when others have begun three times as many.
WORKER = """
import sys, time
from pathlib import Path
from fadrm_hf.runtime.locks import Locks

folder, name, until, num, place, patience = Path(sys.argv[1]), *sys.argv[2:4], *map(float, sys.argv[4:])
locks = Locks(folder / "locks", print, lambda line: print(line, flush=True), place, patience)
units = {f"u{index}": index for index in range(int(num))}

def is_over(own):
    begun = len((folder / "begun").read_text().splitlines())
    return {"begun": True, "told": (folder / "go").exists(), "behind": begun >= min(4 * own, num)}[until]

for own, unit in enumerate(locks.take("stage", units, lambda name: (folder / name).exists()), 1):
    with open(folder / "begun", "a") as file:
        file.write(f"{name} {unit}\\n")
    while not is_over(own):
        time.sleep(0.01)
        locks._renewed = 0.0  # as if the last time were long ago
        locks.touch()
    (folder / f"u{unit}").write_text(name)
"""


@contextmanager
def worker(folder, name, num, until="begun", place=0.0, patience=float("inf")):
    arguments = [str(folder), name, until, *map(str, (num, place, patience))]
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


def wait_until(condition, process):
    """Until it holds, or a process that is to bring it about has ended."""
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize("place", [0.0, 0.5])
def test_every_unit_is_done_once_and_the_faster_process_does_more(tmp_path, place):
    with worker(tmp_path, "slow", 12, until="behind") as slow:
        wait_until(lambda: begun(tmp_path), slow)
        with worker(tmp_path, "fast", 12, place=place) as fast:
            assert (slow.wait(), fast.wait()) == (0, 0)
    done = begun(tmp_path)
    assert sorted(int(unit) for _, unit in done) == list(range(12))
    assert [name for name, _ in done].count("fast") > [name for name, _ in done].count("slow") >= 1
    assert not list(tmp_path.rglob("*.lock"))


def test_the_unit_of_a_killed_process_is_another_ones(tmp_path):
    with worker(tmp_path, "killed", 3, until="told") as killed:
        wait_until(lambda: begun(tmp_path), killed)
        with worker(tmp_path, "other", 3) as other:
            wait_until(lambda: len(begun(tmp_path)) == 3, other)
            assert other.poll() is None, "it waits for what is held"
            killed.send_signal(signal.SIGKILL)
            assert other.wait() == 0
    assert begun(tmp_path) == [["killed", "0"], ["other", "1"], ["other", "2"], ["other", "0"]]


def test_a_process_that_hangs_is_named_and_its_unit_taken_over_without_harm(tmp_path):
    with worker(tmp_path, "hung", 2, until="told") as hung:
        wait_until(lambda: begun(tmp_path), hung)
        hung.send_signal(signal.SIGSTOP)
        with worker(tmp_path, "other", 2, patience=0.5) as other:
            assert other.wait() == 0
            said = other.stdout.read()
        assert f"process {hung.pid} on" in said and "taking it over" in said and "u0" in said
        assert (tmp_path / "u0").read_text() == "other"
        (tmp_path / "go").touch()
        hung.send_signal(signal.SIGCONT)
        assert hung.wait() == 0
    assert begun(tmp_path) == [["hung", "0"], ["other", "1"], ["other", "0"]]


def test_who_works_visibly_is_not_taken_for_dead(tmp_path, monkeypatch):
    """While another process works, this one's clock goes on whenever that has shown so, to five times its patience."""
    lock, now, warned = tmp_path / "locks/stage/u0.lock", 0.0, []

    def sleep(seconds):
        nonlocal now
        now += seconds
        if now < 5.0:
            before = lock.stat().st_mtime_ns
            wait_until(lambda: lock.stat().st_mtime_ns != before, slow)
        else:
            (tmp_path / "go").touch()
            assert slow.wait() == 0

    monkeypatch.setattr("fadrm_hf.runtime.locks.time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    with worker(tmp_path, "slow", 1, until="told") as slow:
        wait_until(lambda: begun(tmp_path), slow)
        other = Locks(tmp_path / "locks", print, warned.append, patience=1.0)
        assert list(other.take("stage", {"u0": 0}, lambda name: (tmp_path / name).exists())) == []
    assert warned == [] and now >= 5.0
    assert begun(tmp_path) == [["slow", "0"]]


def test_units_that_others_have_done_are_counted(tmp_path):
    locks = Locks(tmp_path, print, print)
    there, elsewhere = {"b"}, []
    for unit in locks.take("stage", {"a": 1, "b": 2, "c": 3}, there.__contains__, elsewhere.append):
        there |= {"a", "c"}  # another process has done c meanwhile
        assert unit == 1
    assert elsewhere == [3]


def test_an_error_gives_the_lock_up(tmp_path):
    locks = Locks(tmp_path, print, print)
    units = locks.take("stage", {"a": 1}, lambda name: False)
    with pytest.raises(ValueError, match="broken"), closing(units):
        for _ in units:
            assert list(tmp_path.rglob("*.lock"))
            raise ValueError("broken")
    assert not list(tmp_path.rglob("*.lock"))


def test_a_folder_that_is_removed_between_lock_and_owner_is_no_obstacle(tmp_path, monkeypatch):
    """The others finish all units, and remove the folder, just when this process has locked one of them."""
    results, folder = tmp_path / "results", tmp_path / "locks"
    results.mkdir()

    class Overtaken(FileLock):
        def acquire(self, *arguments, **options):
            lock = super().acquire(*arguments, **options)
            (results / "u0").touch()
            shutil.rmtree(folder)
            return lock

    monkeypatch.setattr("fadrm_hf.runtime.locks.FileLock", Overtaken)
    skipped = []
    locks = Locks(folder, print, print)
    assert list(locks.take("stage", {"u0": 0}, lambda name: (results / name).exists(), skipped.append)) == []
    assert skipped == [0]
    with locked(folder / "merge.lock", print):
        pass


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def flock(file, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    done = set()
    for unit in Locks(tmp_path, print, print).take("stage", {"a": "a", "b": "b"}, done.__contains__):
        done.add(unit)
    assert done == {"a", "b"}


LOCKED = """
import sys
from pathlib import Path
from fadrm_hf.runtime.locks import locked
with locked(Path(sys.argv[1]), print):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_what_one_does_alone_others_wait_for_and_say_so(tmp_path):
    said = []

    def say(line):
        said.append(line)
        holder.kill()

    command = [sys.executable, "-c", LOCKED, str(tmp_path / "x.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "in\n"
        with locked(tmp_path / "x.lock", say):
            assert holder.wait() == -9
    assert len(said) == 1 and f"waiting for process {holder.pid} on" in said[0]
