"""The output of commands: lines as they are, and failures in red on the other stream."""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from fadrm_hf.runtime.terminal import Terminal, progress, results

# A path within a list or after a prefix; "hf://" is none.
_INSIDE = re.compile(r"""(?<=[\[,:"'\s])(?:/(?!/)|\.\.)[^,\]"']+""")
_UNBROKEN = 10_000  # characters, more than any line of a list


def say(line: str) -> None:
    """Print a line as it is: what is piped or copied must not be broken at the width of a terminal."""
    results.print(line, highlight=False, markup=False, soft_wrap=True)


def tell(line: str) -> None:
    """Print a line as it is where progress is shown."""
    progress.print(line, highlight=False, markup=False, soft_wrap=True)


def show(table: Table, remarks: Iterable[str], path: Path) -> None:
    """Print a table, remarks on it, and the path of its numbers."""
    results.print(table)
    for line in remarks:
        say(line)
    say(f"{path}")


def list_rows(rows: Sequence[Mapping[str, object]]) -> None:
    """Print a table with one entry per line; in a pipe or a file lines are as long as they need to be.

    Args:
        rows: Entries by column; an entry that lacks a column leaves it empty. The first entry's columns are printed.
    """
    columns = list(rows[0])
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    table.columns[0].style, table.columns[0].no_wrap = "cyan", True
    for column in table.columns:
        column.justify = "right" if type(rows[0][str(column.header)]) is int else "left"
    for row in rows:
        table.add_row(*(escape(_cell(column, row.get(column, ""))) for column in columns))
    if results.is_terminal:
        results.print(table)
        return
    printed = StringIO()
    Terminal(file=printed, width=_UNBROKEN).print(table)
    for line in printed.getvalue().splitlines():
        say(line.rstrip())


def _cell(column: str, value: object) -> str:
    """Format a value for people: numbers by thousands, lists by commas, true and false by the column's name."""
    if isinstance(value, bool):
        return column if value else ""
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def fail(message: str) -> None:
    """Print why a command ends."""
    Terminal(stderr=True).print(f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True)


def as_typed(command: str, arguments: Sequence[str]) -> str:
    """Return the command line as typed, without the folders of this machine."""
    return shlex.join(["fadrm-hf", command, *map(_without_folders, arguments)])


def _is_path_of_this_machine(word: str) -> bool:
    """Return whether a word is a path that no reader has; recipes are found by theirs."""
    if Path(word).is_absolute() or word.startswith(("..", "./", "~")):
        return True
    return "/" in word and not word.startswith("recipes/") and os.path.exists(word)


def _without_folders(word: str) -> str:
    """Reduce the paths in a word to their last part: `/a/b`, `--x=/a/b`, `[local-dir:/a/b]`, `a/b` if it is here."""
    option, is_joined, value = word.partition("=")
    if _is_path_of_this_machine(value or word):
        return f"{option}={Path(value).name}" if is_joined else Path(word).name
    return _INSIDE.sub(lambda found: Path(found[0]).name, word)
