"""What the number means that a command ends with; `fadrm-hf --help` and docs/operations.md list the same."""

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """How a command has ended, as shells and schedulers see it."""

    DONE = 0
    DIFFERS = 1
    MISTAKE = 2
    UNFORESEEN = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 128 + signal.SIGINT  # as shells report a process that a signal has ended
    TERMINATED = 128 + signal.SIGTERM

    @property
    def meaning(self) -> str:
        """In words."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.DIFFERS: "verify or reproduce found a difference, or a part of compare or ablate failed; it is named",
    ExitCode.MISTAKE: "a mistake in the input, or a lack of memory or disk, with the remedy",
    ExitCode.UNFORESEEN: "an error that nobody foresaw, with its traceback; please report it",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C); the same command goes on",
    ExitCode.TERMINATED: "ended by SIGTERM; the same command goes on",
}
