"""How processes claim units of work while they run: locks on files, which the system releases when a process ends.

Any number of processes may work on one run: those of a launch, launches beside one another, jobs on other machines
that see the same folder. Each takes the next unit that is neither done nor locked, so that a fast one takes more and
nobody has to know of anybody. A process that still lives and does nothing is found by its lock's file, whose time it
renews while it works.

Two processes that work on one unit all the same, because a file system has no locks or one of them was taken for
dead, do no harm: both write an equally good result, on CPUs the same bits, each completely or not at all.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from fadrm_hf.errors import ConfigError
from fadrm_hf.runtime.files import naming

Unit = TypeVar("Unit")
Say = Callable[[str], None]

_RETRY_EVERY = 0.2  # seconds, while others have locked all that is left
_RENEW_EVERY = 5.0  # seconds
_SILENCE = 10.0  # seconds of waiting before it is said who is waited for
PATIENCE = 1800.0  # seconds; the longest unit that shows no progress is far shorter
_PATIENCE_VARIABLE = "FADRM_HF_PATIENCE"


class Locks:
    """The locks of one process on the units of a run.

    Args:
        folder: Where the locks are; all processes of a run see the same.
        say: Prints who is waited for; of the processes of a launch one need do that.
        warn: Prints whose work is taken over.
        start: Where among the units this process begins, a fraction: processes of a launch rarely meet if they differ.
        patience: Seconds without progress after which a unit is taken over; if not given, those of the environment
            variable FADRM_HF_PATIENCE, or half an hour.

    Raises:
        ConfigError: If the variable is no positive number.
    """

    def __init__(self, folder: Path, say: Say, warn: Say, start: float = 0.0, patience: float | None = None) -> None:
        self._folder, self._say, self._warn = folder, say, warn
        self._start, self._patience = start, patience_of_environment() if patience is None else patience
        self._own: Path | None = None
        self._renewed = 0.0
        self._seen: dict[Path, tuple[int, float]] = {}

    def take(
        self,
        stage: str,
        units: Mapping[str, Unit],
        is_done: Callable[[str], bool],
        elsewhere: Callable[[Unit], object] = lambda unit: None,
    ) -> Iterator[Unit]:
        """Yield units for this process, each locked until the next is asked for, until all are done, by whomever.

        Args:
            stage: Name of the stage.
            units: What there is to do, by name.
            is_done: Whether the result of a unit is there.
            elsewhere: Called with each unit that another process has done meanwhile.
        """
        first = int(len(units) * self._start)
        names = list(units)
        left = [name for name in names[first:] + names[:first] if not is_done(name)]
        waiting_since: float | None = None
        while left:
            own = set()
            for name in left:
                with self._lock(stage, name) as is_mine:
                    if is_mine and not is_done(name):
                        own.add(name)
                        yield units[name]
            before, left = left, [name for name in left if not is_done(name)]
            for name in before:
                if name not in own | set(left):
                    elsewhere(units[name])
            waiting_since = None if own or not left else self._wait(stage, left, waiting_since)

    def touch(self) -> None:
        """Show that this process is working; cheap enough to be called after every step."""
        now = time.monotonic()
        if self._own is not None and now - self._renewed > _RENEW_EVERY:
            self._renewed = now
            with suppress(OSError):
                os.utime(self._own)

    @contextmanager
    def _lock(self, stage: str, name: str) -> Iterator[bool]:
        """Lock a unit for the length of the block, if it is free."""
        path = self._folder / stage / f"{name}.lock"
        lock = _acquire(path, blocking=False)
        if lock is None:
            yield self._is_silent(path)
            return
        with lock:
            self._own = path
            try:
                _write_owner(path)
                yield True
            finally:
                self._own = None
                with suppress(PermissionError):  # Windows removes no file that is open
                    path.unlink(missing_ok=True)

    def _is_silent(self, path: Path) -> bool:
        """Return whether nobody has renewed a lock for longer than patience lasts, by this process's own clock."""
        try:
            renewed = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        before, since = self._seen.setdefault(path, (renewed, now))
        if before != renewed:
            self._seen[path] = (renewed, now)
            return False
        if now - since < self._patience:
            return False
        del self._seen[path]
        self._warn(
            f"{_owner(path)}: no progress on {path.stem} for {_in_words(self._patience)}; taking it over. If that "
            "process hangs, end it; if it is only slow, no harm is done"
        )
        return True

    def _wait(self, stage: str, left: list[str], since: float | None) -> float:
        """Sleep for a moment; after some seconds say once who is waited for."""
        now = time.monotonic()
        since = now if since is None else since
        if now - since >= _SILENCE:
            owners = sorted({_owner(self._folder / stage / f"{name}.lock") for name in left})
            self._say(f"waiting for {', '.join(owners)}: {len(left)} of {stage} left")
            since = float("inf")  # said once
        time.sleep(_RETRY_EVERY)
        return since


def patience_of_environment() -> float:
    """Return the seconds without progress after which this process takes over the work of others.

    Raises:
        ConfigError: If FADRM_HF_PATIENCE is no positive number.
    """
    text = os.environ.get(_PATIENCE_VARIABLE, "")
    with suppress(ValueError):
        if (seconds := float(text or PATIENCE)) > 0:
            return seconds
    raise ConfigError(f"{_PATIENCE_VARIABLE} is {text!r}, expected a number of seconds above 0; set it, or unset it")


@contextmanager
def locked(path: Path, say: Say) -> Iterator[None]:
    """Let one process at a time into the block; others wait, and say for whom.

    Args:
        path: The lock; its folder is made, and it stays.
        say: Prints a line.
    """
    lock = _acquire(path, blocking=False)
    if lock is None:
        say(f"waiting for {_owner(path)}, which has locked {path.name}")
        lock = _acquire(path, blocking=True)
    assert lock is not None
    with lock:
        _write_owner(path)
        yield


def _acquire(path: Path, blocking: bool) -> AbstractContextManager[object] | None:
    """Return a lock that was acquired, to be released by leaving it; `None` if another process has it."""
    lock = FileLock(path, thread_local=False)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return lock.acquire(blocking=blocking)
        except FileNotFoundError:  # a process that has finished removed the folder at this very moment
            continue
        except Timeout:
            return None
        except (OSError, NotImplementedError):  # a file system that has no locks; one that is full is named below
            return nullcontext()


def _write_owner(path: Path) -> None:
    """Say in a lock's file who has it; where others have finished all units and removed the folder, there is none."""
    owner = json.dumps({"process": os.getpid(), "machine": platform.node()}).encode()
    with suppress(FileNotFoundError), naming(path), open(path, "wb", buffering=0) as file:
        file.write(owner)


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:g} seconds"


def _owner(path: Path) -> str:
    """Return who has a lock, in words."""
    try:
        owner = json.loads(path.read_text())
        return f"process {int(owner['process'])} on {str(owner['machine'])[:100]}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
