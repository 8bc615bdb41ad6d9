"""Progress of long stages: one bar over the work units, and one JSON line per unit in the run's log.

Where there is no terminal, a line now and then takes the place of the bar. The same numbers are the curves of a
tracker (`fadrm_hf.runtime.tracking`), if there is one.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from fadrm_hf.runtime.files import naming
from fadrm_hf.runtime.terminal import duration
from fadrm_hf.runtime.terminal import progress as console
from fadrm_hf.runtime.tracking import Curves

Item = TypeVar("Item")

_SAY_EVERY = 60.0  # seconds between two lines where there is no terminal
_PLACES = ("epoch", "iteration")  # metrics that say where on a curve a point is
_ACCURACIES = ("top1", "top5")  # metrics that are fractions


@dataclass(frozen=True)
class Reporter:
    """Opens the bar of each stage.

    Attributes:
        log: JSONL file that every unit is appended to, or `None`; its folder is made by the first stage.
        quiet: Show no bar (processes other than the main one, tests).
        curves: Tracker that is given the same numbers, or `None`.
        heard: Called whenever units are counted, e.g. to show other processes that this one is at work.
    """

    log: Path | None = None
    quiet: bool = False
    curves: Curves | None = None
    heard: Callable[[], None] | None = None

    def heard_by(self, heard: Callable[[], None]) -> "Reporter":
        """Return the same, which calls `heard` whenever units are counted."""
        return replace(self, heard=heard)

    def say(self, message: str) -> None:
        """Print one line, unless quiet."""
        if not self.quiet:
            console.print(message, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int, images: int = 0) -> Iterator["Task"]:
        """Show a bar over `total` work units, which deal with `images` images, for the length of the block."""
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
        columns = (
            TextColumn("{task.description:<12}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        )
        with Progress(*columns, console=console, expand=True, disable=self.quiet) as bar:
            yield Task(name, total, images, self, bar)


QUIET = Reporter(quiet=True)  # shows nothing, writes nothing


class Task:
    """The bar of one stage.

    Args:
        stage: Name of the stage, written to every log line.
        total: Number of work units.
        images: Images that all units together deal with; 0 if speed in images says nothing.
        reporter: Log, tracker and who hears of units.
        bar: The live display.
    """

    def __init__(
        self, stage: str, total: int, images: int = 0, reporter: Reporter = QUIET, bar: Progress | None = None
    ) -> None:
        self._stage, self._total, self._reporter = stage, total, reporter
        self._bar = bar or Progress(disable=True)
        self._curve, self._curve_start, self._name = stage, 0, ""
        self._images_per_unit = images / total if total else 0.0
        self._started = self._said = time.monotonic()
        self._units = self._skipped = 0
        self._id = self._bar.add_task(stage, total=total, note="")

    def begin(self, name: str) -> None:
        """Let the units from here on be a curve of their own, `STAGE/name`, whose first is 1."""
        self._curve, self._curve_start = f"{self._stage}/{name}", self._units

    def name_unit(self, unit: str) -> None:
        """Name the unit that is made from here on in every log line; after a kill one is made twice."""
        self._name = unit

    def skip(self, units: int) -> None:
        """Count units that an earlier start has finished."""
        self._units += units
        self._skipped += units
        self._bar.advance(self._id, units)

    def advance(self, units: int = 1, **metrics: float) -> None:
        """Count finished work units; `metrics` are shown beside the bar and logged, with the speed."""
        self._units += units
        if self._reporter.heard is not None:
            self._reporter.heard()
        if self._images_per_unit:
            seconds = max(time.monotonic() - self._started, 1e-9)
            metrics["images/s"] = (self._units - self._skipped) * self._images_per_unit / seconds
        self.note(**metrics)
        self._bar.advance(self._id, units)
        self._say_now_and_then(metrics)

    def counting(self, items: Iterable[Item], per_unit: int = 1) -> Iterator[Item]:
        """Yield the same items; so many are a unit, which is done when the next is asked for."""
        for number, item in enumerate(items, 1):
            yield item
            if number % per_unit == 0:
                self.advance()

    def note(self, **metrics: float) -> None:
        """Show and log `metrics` without counting a unit."""
        seconds = time.monotonic() - self._started
        self._bar.update(self._id, note=_in_words(metrics))
        points = {name: value for name, value in metrics.items() if name not in _PLACES}
        if points and self._reporter.curves is not None:
            self._reporter.curves.log(self._curve, self._units - self._curve_start, points)
        if (log := self._reporter.log) is not None:
            named = {"unit": self._name} if self._name else {}
            line = {"stage": self._stage, **named, "units": self._units, "seconds": round(seconds, 3), **metrics}
            with naming(log), open(log, "a") as file:
                file.write(json.dumps(line) + "\n")

    def _say_now_and_then(self, metrics: dict[str, float]) -> None:
        """Print the same in a line, at most once a minute, where no bar can be drawn."""
        now = time.monotonic()
        if self._reporter.quiet or console.is_terminal or now - self._said < _SAY_EVERY:
            return
        self._said, done = now, self._units - self._skipped
        left = duration((self._total - self._units) * (now - self._started) / max(done, 1))
        line = f"{self._stage} {self._units:,}/{self._total:,}, {left} left {_in_words(metrics)}"
        console.print(line.rstrip(), highlight=False, markup=False, soft_wrap=True)


def _in_words(metrics: dict[str, float]) -> str:
    """Return metrics as a line: accuracies in percent, as in results, and first, as a terminal may cut it."""
    accuracies = [f"{name} {100 * metrics[name]:.1f}%" for name in _ACCURACIES if name in metrics]
    rest = [f"{name} {value:.4g}" for name, value in metrics.items() if name not in _ACCURACIES]
    return " ".join([*accuracies, *rest])
