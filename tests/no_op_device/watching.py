"""What happens on the no-op device, as a process on it sees it: counts, and the lines of ours they come from."""

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_DEPTH = 3  # how many lines of ours an event names, the innermost first
_FOLDERS = ("fadrm_hf", "benchmarks")
_TRACE = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_NO_TRACE = _TRACE()


@dataclass
class Seen:
    """What happened while the device was watched.

    Attributes:
        counts: How many kernels, waits, ... (`counter` in device.h).
        events: How often what happened where: (event, lines of ours). Those of a capture are seen while it records,
            and not when its graph is replayed.
    """

    counts: dict[str, int] = field(default_factory=dict)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)

    def per(self, number: int) -> dict[str, float]:
        """Return the counts of one of so many repetitions; those that are not zero."""
        return {name: count / number for name, count in self.counts.items() if count}

    def of(self, text: str) -> dict[str, int]:
        """Return the events whose name holds a text, as JSON holds them."""
        return {f"{event} @ {place}": number for (event, place), number in self.events.items() if text in event}

    def number_of(self, *texts: str) -> int:
        """Return how many events have one of these texts in their names."""
        return sum(number for (event, _), number in self.events.items() if any(text in event for text in texts))


@contextmanager
def watch() -> Iterator[Seen]:
    """Count and trace what happens inside the block, in any thread; complete when the block has ended."""
    device, seen = _device(), Seen()

    def note(event: bytes) -> None:
        seen.events[event.decode(), _place()] += 1

    trace, before = _TRACE(note), counts()
    device.no_op_trace(trace)
    try:
        yield seen
    finally:
        device.no_op_trace(_NO_TRACE)
        seen.counts = {name: count - before[name] for name, count in counts().items()}


def counts() -> dict[str, int]:
    """Return how much of everything there was since the process began."""
    device, found = _device(), {}
    while (name := device.no_op_name(len(found))) is not None:
        found[name.decode()] = device.no_op_count(len(found))
    return found


def _place() -> str:
    """Return the innermost lines of this project that led to here, as "file:line < file:line"."""
    frame, lines = sys._getframe(1), []
    while frame is not None and len(lines) < _DEPTH:
        parts = frame.f_code.co_filename.split(os.sep)
        if any(folder in parts for folder in _FOLDERS):
            lines.append(f"{parts[-1]}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(lines)


def _device() -> Any:
    device = ctypes.CDLL(os.environ["LD_PRELOAD"])
    device.no_op_name.restype = ctypes.c_char_p
    device.no_op_count.restype = ctypes.c_longlong
    return device
