"""The exit codes of commands and their meanings; `fadrm-hf --help` and docs/operations.md list the same."""

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit code of a command, as shells and schedulers see it."""

    DONE = 0
    DIFFERS = 1
    MISTAKE = 2
    UNFORESEEN = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 128 + signal.SIGINT  # as shells report a process that a signal has ended
    TERMINATED = 128 + signal.SIGTERM

    @property
    def meaning(self) -> str:
        """Return the meaning in words."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.DIFFERS: "verify or reproduce found a difference, or a part of compare or ablate failed; it is named",
    ExitCode.MISTAKE: "a mistake in the input, or a lack of memory or disk, with the remedy",
    ExitCode.UNFORESEEN: "an unforeseen error, with its traceback; please report it",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C); the same command resumes",
    ExitCode.TERMINATED: "ended by SIGTERM; the same command resumes",
}
