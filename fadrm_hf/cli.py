"""`fadrm-hf COMMAND`: the same programs as `accelerate launch recipes/COMMAND.py`.

`fadrm_hf.commands.catalogue` lists the commands; a command's module is imported when it is called, since torch and
datasets take seconds. What every command has in common is here: `--quiet` and `--json`, how mistakes are reported,
and the exit codes (`fadrm_hf.commands.exit_code`).
"""

import errno
import gc
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from types import ModuleType

from fadrm_hf import __version__
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.catalogue import COMMANDS, help_text
from fadrm_hf.commands.completion import print_completion
from fadrm_hf.commands.ending import Ended, ended_by_the_system, explain_signal, interruptible
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import OutputMode, Summary, conclude
from fadrm_hf.errors import ConfigError, FadrmError, is_out_of_memory, unknown
from fadrm_hf.runtime.terminal import results, speaking

# What a disk may refuse, and what to do about it.
_SPACE, _RIGHTS = "free some space", "make that folder writable, or set --output to another one"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: f"{_SPACE}, or have your quota raised",
    errno.EFBIG: "allow larger files (ulimit -f), or set --output to a file system that takes them",
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EIO: "check the disk",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    command, *words = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if command in _ALONE:
        return _ALONE[command]()
    mode, started = OutputMode.of(words), time.monotonic()
    try:
        with speaking(quiet=mode.quiet, document=mode.document), interruptible():
            summary = _run(command, words)
    except (Exception, KeyboardInterrupt) as error:
        explained = _explain(error)
        if explained is None and arguments is not None:
            raise
        summary = explained or _unforeseen(error)
    # Not above: while the error is handled, bars are still shown and would be drawn again, below the message.
    mode = mode if _speaks() else OutputMode(quiet=True)
    conclude(summary, mode, Call(command, tuple(words)).typed, time.monotonic() - started)
    if summary.error and arguments is None:  # nothing else is to be done, and Python would take a second to end torch
        sys.stdout.flush()
        os._exit(summary.code)
    return int(summary.code)


def _speaks() -> bool:
    """Return whether this process reports how the command has ended; in a launch only the first does."""
    return os.environ.get("RANK", "0") == "0"


def _show_help() -> int:
    results.print(help_text(), highlight=False, soft_wrap=True)
    return ExitCode.DONE


def _show_version() -> int:
    say(f"fadrm-hf {__version__}")
    return ExitCode.DONE


_ALONE = {"-h": _show_help, "--help": _show_help, "--version": _show_version}


def _explain(error: BaseException) -> Summary | None:
    """Return why a command ends, with the remedy and exit code; `None` for an unforeseen error."""
    if isinstance(error, FadrmError):
        return Summary(code=ExitCode.MISTAKE, error=str(error))
    if isinstance(error, KeyboardInterrupt):
        message, code = explain_signal(error.number if isinstance(error, Ended) else signal.SIGINT)
        return Summary(code=code, error=message)
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        where = f" at {error.filename}" if error.filename else ""
        message = (
            f"{os.strerror(error.errno)}{where}; what is finished is kept: {_REMEDIES[error.errno]}, then run the "
            "same command again to resume"
        )
        return Summary(code=ExitCode.MISTAKE, error=message)
    if is_out_of_memory(error):
        message = (
            f"out of memory ({(str(error).splitlines() or ['no details'])[0][:200]}); what is finished is kept: "
            "fadrm-hf estimate names the largest recover.batch_size that fits; else launch fewer processes, end other "
            "programs or take smaller images or teachers, then run the same command again to resume"
        )
        return Summary(code=ExitCode.MISTAKE, error=message)
    return None


def _unforeseen(error: BaseException) -> Summary:
    """Print the traceback, and return the error with an exit code that no other ending has."""
    traceback.print_exception(error)
    return Summary(code=ExitCode.UNFORESEEN, error=f"{type(error).__name__}: {error}; please report this")


def _run(command: str, words: Sequence[str]) -> Summary:
    """Parse a command line and run its command; what cannot be parsed is refused before torch is imported."""
    option, has_value, value = command.partition("=")
    if option == "--print_completion":
        return print_completion([value, *words] if has_value else words)
    if command not in COMMANDS:
        raise ConfigError(f"{unknown('command', command, COMMANDS)}; fadrm-hf --help")
    call = Call(command, tuple(words))
    if call.wants_settings:
        results.print(call.settings_as_yaml(), end="", highlight=False, markup=False, soft_wrap=True)
        return Summary()
    call.check()
    module = _load(f"fadrm_hf.commands.{COMMANDS[command].module}")
    ending: Summary = getattr(module, f"{command.replace('-', '_')}_command")(call)
    return ending


def _load(name: str) -> ModuleType:
    """Import a module, a third sooner: the collector would look through all that is loaded, again and again."""
    gc.disable()
    try:
        with ended_by_the_system():
            return importlib.import_module(name)
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
