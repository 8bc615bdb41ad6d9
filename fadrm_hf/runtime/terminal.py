"""The two streams of a command: results on stdout, what happens meanwhile and how it ends on stderr.

A pipe or a file thus gets results alone. `speaking` says once for all commands which of it is shown.
"""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from rich.console import Console
from rich.text import Text

# Characters that move the cursor, colour a terminal or turn the direction of writing, but for line breaks and tabs;
# and halves of characters, which cannot be written at all.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Terminal(Console):
    """A console on which foreign text, such as names in a manifest, is shown and never obeyed."""

    def render_str(self, text: str, **style: Any) -> Text:
        """Return text to print, with control characters escaped."""
        return super().render_str(printable(text), **style)


def printable(text: str) -> str:
    """Return text in which control characters are shown as Python writes them."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


results = Terminal()
progress = Terminal(stderr=True)

# What libraries show of downloads and tables, read when they are imported.
_BARS_OF_LIBRARIES = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
# What torch tells its developers: of its profiler's first block, of a CUDA toolkit on a machine without a GPU.
_LEVEL_OF_TORCH, _LOGGER_OF_TORCH = "TORCH_CPP_LOG_LEVEL", "torch.utils.cpp_extension"


@contextmanager
def speaking(*, quiet: bool = False, document: bool = False) -> Iterator[None]:
    """Choose what is shown while the block runs.

    Args:
        quiet: Show neither progress nor results; errors are shown all the same.
        document: Leave stdout to the one document at the end; results are shown where progress is.
    """
    before = results.quiet, results.stderr, progress.quiet
    environment = {name: os.environ.pop(name) for name in _BARS_OF_LIBRARIES if name in os.environ}
    none = dict.fromkeys(_BARS_OF_LIBRARIES, "1")
    # In a log every step of a bar stays; who wants them there sets these variables to 0.
    os.environ.update(none if quiet else environment if progress.is_terminal else none | environment)
    results.quiet, results.stderr, progress.quiet = quiet, document, quiet
    os.environ.setdefault(_LEVEL_OF_TORCH, "ERROR")  # read when torch is imported
    logging.getLogger(_LOGGER_OF_TORCH).setLevel(logging.ERROR)
    try:
        yield
    finally:
        results.quiet, results.stderr, progress.quiet = before
        for name in _BARS_OF_LIBRARIES:
            os.environ.pop(name, None)
        os.environ.update(environment)


@contextmanager
def letting_others_speak() -> Iterator[None]:
    """Show what a library prints in the block where progress is shown, if at all; stdout is for results alone."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        place = nowhere if progress.quiet else sys.stderr
        with redirect_stdout(place), redirect_stderr(place):
            yield


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
