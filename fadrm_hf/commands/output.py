"""What commands print: lines as they are, and failures in red on the other stream."""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

console = Console()

# A path within a list or after a prefix; "hf://" is none.
_INSIDE = re.compile(r"""(?<=[\[,:"'\s])(?:/(?!/)|\.\.)[^,\]"']+""")


def say(line: str) -> None:
    """Print a line as it is: what is piped or copied must not be broken at the width of a terminal."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def show(table: Table, remarks: Iterable[str], path: Path) -> None:
    """Print a table, what it does not say, and where its numbers lie."""
    console.print(table)
    for line in remarks:
        say(line)
    say(f"{path}")


def fail(message: str) -> None:
    """Print why a command ends."""
    Console(stderr=True).print(f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True)


def as_typed(command: str, arguments: Sequence[str]) -> str:
    """What was typed, without the folders of this machine."""
    return shlex.join(["fadrm-hf", command, *map(_without_folders, arguments)])


def _without_folders(word: str) -> str:
    """A word in which paths are reduced to their last part: `/a/b`, `--x=/a/b`, `[local-dir:/a/b]`."""
    option, is_joined, value = word.partition("=")
    if Path(value or word).is_absolute() or (value or word).startswith(".."):
        return f"{option}={Path(value).name}" if is_joined else Path(word).name
    return _INSIDE.sub(lambda found: Path(found[0]).name, word)
