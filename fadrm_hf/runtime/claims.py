"""Who works on which unit of work: claims that end with the process that made them, however it ends.

Any number of processes may work on one run: those of a launch, launches beside one another, jobs on other machines
that see the same folder. Each takes the next unit that is neither done nor claimed, so that a fast one takes more and
nobody has to know of anybody. A claim is a lock on a file (POSIX record locks, which network file systems have too);
the system gives it up when its process dies. A process that still lives and does nothing is found by its file, which
it touches while it works.

Two processes that work on one unit all the same, because a file system knows no locks or one of them was taken for
dead, do no harm: both write the same bits, each completely or not at all.
"""

import errno
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from fadrm_hf.errors import ConfigError
from fadrm_hf.runtime.files import naming

Unit = TypeVar("Unit")
Say = Callable[[str], None]

_HELD = (errno.EACCES, errno.EAGAIN)
_LOOK_EVERY = 0.2  # seconds, while others hold all that is left
_TOUCH_EVERY = 5.0  # seconds
_SILENCE = 10.0  # seconds of waiting before it is said who is waited for
PATIENCE = 1800.0  # seconds; the longest unit that tells nothing meanwhile is far shorter
_PATIENCE_VARIABLE = "FADRM_HF_PATIENCE"


class Claims:
    """The claims of one process on the units of a run.

    Args:
        folder: Where the locks are; all processes of a run see the same.
        say: Prints who is waited for; of the processes of a launch one need do that.
        warn: Prints whose work is taken over.
        place: Where among the units this process begins, a fraction: processes of a launch rarely meet if they differ.
        patience: Seconds after which a unit whose claim nobody has touched is worked on again; if not given, those
            of the environment variable FADRM_HF_PATIENCE, or half an hour.

    Raises:
        ConfigError: If the variable is no positive number.
    """

    def __init__(self, folder: Path, say: Say, warn: Say, place: float = 0.0, patience: float | None = None) -> None:
        self._folder, self._say, self._warn = folder, say, warn
        self._place, self._patience = place, patience_of_environment() if patience is None else patience
        self._held: Path | None = None
        self._touched = 0.0
        self._seen: dict[Path, tuple[int, float]] = {}

    def share(
        self,
        stage: str,
        units: Mapping[str, Unit],
        is_done: Callable[[str], bool],
        elsewhere: Callable[[Unit], object] = lambda unit: None,
    ) -> Iterator[Unit]:
        """Units for this process, each claimed until the next is asked for; ends when all are done, by whomever.

        Args:
            stage: Name of the stage.
            units: What there is to do, by name.
            is_done: Whether the result of a unit is there.
            elsewhere: Called with each unit that another process has done meanwhile.
        """
        first = int(len(units) * self._place)
        names = list(units)
        left = [name for name in names[first:] + names[:first] if not is_done(name)]
        waiting_since: float | None = None
        while left:
            own = set()
            for name in left:
                with self._claim(stage, name) as is_mine:
                    if is_mine and not is_done(name):
                        own.add(name)
                        yield units[name]
            before, left = left, [name for name in left if not is_done(name)]
            here = own | set(left)
            for name in before:
                if name not in here:
                    elsewhere(units[name])
            if own or not left:
                waiting_since = None
                continue
            waiting_since = self._wait(stage, left, waiting_since)

    def touch(self) -> None:
        """Show that this process is working; cheap enough to be called after every step."""
        now = time.monotonic()
        if self._held is not None and now - self._touched > _TOUCH_EVERY:
            self._touched = now
            with suppress(OSError):
                os.utime(self._held)

    @contextmanager
    def _claim(self, stage: str, name: str) -> Iterator[bool]:
        """Whether the unit is this process's for the length of the block."""
        path = self._folder / stage / f"{name}.lock"
        with _open(path) as file:
            if not _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield self._is_silent(path)
                return
            self._held = path
            try:
                yield True
            finally:
                self._held = None
                path.unlink(missing_ok=True)

    def _is_silent(self, path: Path) -> bool:
        """Whether nobody has touched a claim for longer than patience lasts, by this process's own clock."""
        try:
            touched = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        before, since = self._seen.setdefault(path, (touched, now))
        if before != touched:
            self._seen[path] = (touched, now)
            return False
        if now - since < self._patience:
            return False
        del self._seen[path]
        self._warn(
            f"{_owner(path)} has told nothing of {path.stem} for {_in_words(self._patience)}; its work is taken "
            "over. If it hangs, end it; if it is only slow, no harm is done"
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
        time.sleep(_LOOK_EVERY)
        return since


def patience_of_environment() -> float:
    """Seconds of silence after which work is taken over, as this process was told.

    Raises:
        ConfigError: If FADRM_HF_PATIENCE is no positive number.
    """
    text = os.environ.get(_PATIENCE_VARIABLE, "")
    with suppress(ValueError):
        if (seconds := float(text or PATIENCE)) > 0:
            return seconds
    raise ConfigError(f"{_PATIENCE_VARIABLE} is {text!r}, expected a number of seconds above 0; set it, or unset it")


@contextmanager
def alone(path: Path, say: Say) -> Iterator[None]:
    """What one process at a time may do; others wait, and say for whom.

    Args:
        path: The lock; its folder is made, and it stays.
        say: Prints a line.
    """
    with _open(path) as file:
        if not _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            say(f"waiting for {_owner(path)}, which holds {path.name}")
            _lock(file, fcntl.LOCK_EX)
        yield


def _open(path: Path) -> IO[str]:
    """The file of a lock; a process that has finished may be removing its folder at this very moment."""
    for _ in range(100):
        with suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return open(path, "a+")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _lock(file: IO[str], kind: int) -> bool:
    """Whether the file is this process's now; where a file system knows no locks it is everybody's."""
    try:
        fcntl.lockf(file, kind)
    except OSError as error:
        if error.errno in _HELD:
            return False
    with naming(Path(file.name)):
        file.truncate(0)
        # Not through the file's buffer, which would fail once more when it is closed, on a disk that is full.
        os.write(file.fileno(), json.dumps({"process": os.getpid(), "machine": platform.node()}).encode())
    return True


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:g} seconds"


def _owner(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        owner = json.loads(path.read_text())
        return f"process {int(owner['process'])} on {str(owner['machine'])[:100]}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
