"""What commands print: lines as they are, and failures in red on the other stream."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fadrm_hf.runtime.terminal import progress, results

# A path within a list or after a prefix; "hf://" is none.
_INSIDE = re.compile(r"""(?<=[\[,:"'\s])(?:/(?!/)|\.\.)[^,\]"']+""")


def say(line: str) -> None:
    """Print a line as it is: what is piped or copied must not be broken at the width of a terminal."""
    results.print(line, highlight=False, markup=False, soft_wrap=True)


def tell(line: str) -> None:
    """Print a line as it is where progress is shown."""
    progress.print(line, highlight=False, markup=False, soft_wrap=True)


def show(table: Table, remarks: Iterable[str], path: Path) -> None:
    """Print a table, what it does not say, and where its numbers lie."""
    results.print(table)
    for line in remarks:
        say(line)
    say(f"{path}")


def list_rows(rows: Sequence[Mapping[str, object]]) -> None:
    """Print a list, one entry a line: a table on a terminal; aligned columns without a head in a pipe or a file.

    Args:
        rows: Entries by column; an entry that lacks a column leaves it empty. The first entry's are shown.
    """
    columns = list(rows[0])
    cells = [[_cell(column, row.get(column, "")) for column in columns] for row in rows]
    numbers = {place for place, column in enumerate(columns) if type(rows[0][column]) is int}
    if results.is_terminal:
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        table.columns[0].style, table.columns[0].no_wrap = "cyan", True
        for place in numbers:
            table.columns[place].justify = "right"
        for row in cells:
            table.add_row(*map(escape, row))
        results.print(table)
        return
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = [set_cell_size(text, width) for text, width in zip(row, widths, strict=True)]
        for place in numbers:
            padded[place] = row[place].rjust(widths[place])
        say("  ".join(padded).rstrip())


def _cell(column: str, value: object) -> str:
    """A value for people: numbers by thousands, lists by commas, and what is so or not by the column's name."""
    if isinstance(value, bool):
        return column if value else ""
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


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
