"""What a long stage shows: one bar over its work units on a terminal, and one JSON line per unit in the run's log."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fadrm_hf.files import naming

console = Console(stderr=True)


class Task:
    """The bar of one stage.

    Args:
        stage: Name of the stage, written to every log line.
        bar: The live display, or `None` when nothing is shown.
        total: Number of work units.
        log: The run's log, or `None`.
        images: Images that all units together deal with; 0 if speed in images says nothing.
    """

    def __init__(self, stage: str, bar: Progress | None, total: int, log: Path | None, images: int = 0) -> None:
        self._stage, self._bar, self._log = stage, bar, log
        self._images_per_unit = images / total if total else 0.0
        self._started = time.monotonic()
        self._units = self._skipped = 0
        self._id = bar.add_task(stage, total=total, note="") if bar else None

    def skip(self, units: int) -> None:
        """Count units that an earlier start has finished."""
        self._units += units
        self._skipped += units
        if self._bar is not None and self._id is not None:
            self._bar.advance(self._id, units)

    def advance(self, units: int = 1, **metrics: float) -> None:
        """Count finished work units; `metrics` are shown beside the bar and logged, with the speed."""
        self._units += units
        if self._images_per_unit:
            seconds = max(time.monotonic() - self._started, 1e-9)
            metrics["images/s"] = (self._units - self._skipped) * self._images_per_unit / seconds
        self.note(**metrics)
        if self._bar is not None and self._id is not None:
            self._bar.advance(self._id, units)

    def note(self, **metrics: float) -> None:
        """Show and log `metrics` without counting a unit."""
        seconds = time.monotonic() - self._started
        if self._bar is not None and self._id is not None:
            self._bar.update(self._id, note=" ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
        if self._log is not None:
            line = {"stage": self._stage, "units": self._units, "seconds": round(seconds, 3), **metrics}
            with naming(self._log), open(self._log, "a") as file:
                file.write(json.dumps(line) + "\n")


class Reporter:
    """Opens the bar of each stage.

    Args:
        log: JSONL file that every unit is appended to, or `None`; its folder is made by the first stage.
        quiet: Show no bar (processes other than the main one, tests).
    """

    def __init__(self, log: Path | None = None, quiet: bool = False) -> None:
        self._log, self._quiet = log, quiet

    def say(self, message: str) -> None:
        """Print one line, unless quiet."""
        if not self._quiet:
            console.print(message, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int, images: int = 0) -> Iterator[Task]:
        """A bar over `total` work units, which deal with `images` images, that lives as long as the block."""
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._quiet:
            yield Task(name, None, total, self._log, images)
            return
        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bar:
            yield Task(name, bar, total, self._log, images)
