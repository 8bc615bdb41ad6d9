"""The summary at a command's end: what is where, how long it took, what to type next; or all of it as JSON."""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.output import fail, tell
from fadrm_hf.runtime.terminal import CONTROL, duration


@dataclass(frozen=True)
class Summary:
    """Outcome of a command.

    Attributes:
        paths: Results by their kind: folders, files or addresses.
        result: Every number, as JSON holds it.
        following: The words of the command that makes sense next, if there is one.
        code: How the command has ended.
        error: Why it failed, and the remedy.
    """

    paths: Mapping[str, Path | str] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    following: Sequence[str] = ()
    code: ExitCode = ExitCode.DONE
    error: str = ""


@dataclass(frozen=True)
class OutputMode:
    """Style in which a command prints.

    Attributes:
        quiet: Errors only.
        document: One JSON document on stdout.
    """

    quiet: bool = False
    document: bool = False

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "OutputMode":
        """Return the mode that `--quiet` and `--json` set, which every command has."""
        return cls("--quiet" in arguments, "--json" in arguments)


def conclude(summary: Summary, mode: OutputMode, command: str, seconds: float) -> None:
    """Print the end of a command: why it failed, or what is where and what to type next; then the document.

    Args:
        summary: What there is to say.
        mode: How.
        command: What was typed.
        seconds: How long it took.
    """
    if summary.error:
        fail(summary.error)
    elif not mode.quiet:
        _tell(summary, seconds)
    if mode.document:
        sys.stdout.write(_document(summary, command, seconds))


def _tell(summary: Summary, seconds: float) -> None:
    """Print the summary on stderr, for people; a command that made nothing prints nothing."""
    if summary.paths:
        width = max(map(len, summary.paths))
        tell(f"finished in {duration(seconds)}")
        for name, path in summary.paths.items():
            tell(f"  {name:<{width}}  {path}")
    if summary.following:
        tell(f"next: {shlex.join([_program(), *summary.following])}")


def _document(summary: Summary, command: str, seconds: float) -> str:
    """Return the summary as JSON, with every number."""
    document: dict[str, Any] = {
        "command": command,
        "exit_code": int(summary.code),
        "seconds": round(seconds, 3),
        "paths": {name: str(path) for name, path in summary.paths.items()},
        "next": shlex.join(["fadrm-hf", *summary.following]) if summary.following else None,
        "result": dict(summary.result),
    }
    document |= {"error": summary.error} if summary.error else {}
    text = json.dumps(document, ensure_ascii=False, indent=2)
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _program() -> str:
    """Return the program as it can be typed here: by its path where its environment is not active."""
    installed = Path(sys.executable).with_name("fadrm-hf")
    if shutil.which("fadrm-hf") or not installed.exists():
        return "fadrm-hf"
    return str(installed.relative_to(Path.cwd()) if installed.is_relative_to(Path.cwd()) else installed)
