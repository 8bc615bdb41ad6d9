"""What commands print: lines as they are, and failures in red on the other stream."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

console = Console()


def say(line: str) -> None:
    """Print a line as it is: what is piped or copied must not be broken at the width of a terminal."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def fail(message: str) -> None:
    """Print why a command ends."""
    Console(stderr=True).print(f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True)


def as_typed(command: str, arguments: Sequence[str]) -> str:
    """What was typed, without the folders of this machine."""
    words = [Path(word).name if Path(word).is_absolute() or word.startswith("..") else word for word in arguments]
    return shlex.join(["fadrm-hf", command, *words])
