"""Seconds and memory of each stage, which survive interruptions."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fadrm_hf import files
from fadrm_hf.artifact.manifest import StageRecord
from fadrm_hf.claims import alone
from fadrm_hf.line.job import Job
from fadrm_hf.machine import peak_memory_bytes, reset_peak_memory


class Costs:
    """What the stages of a run have cost so far, in its work folder.

    Args:
        job: The run.
        is_part: Whether this line is part of a stage of another, which counts.
    """

    def __init__(self, job: Job, is_part: bool) -> None:
        self._job, self._is_part = job, is_part
        self._path = job.work.path / "costs.json"

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Add the block's seconds and memory to the stage's; the main process's stand for all."""
        started = time.monotonic()
        if not self._is_part:
            reset_peak_memory()
        try:
            yield
        finally:
            if self._job.state.is_main_process and self._job.work.path.exists():
                with alone(self._job.work.path / "claims" / "costs.lock", self._job.reporter.say):
                    self._add(stage, time.monotonic() - started)

    def records(self) -> dict[str, StageRecord]:
        """By stage, as the manifest holds them."""
        return {stage: StageRecord(**cost) for stage, cost in self._read().items()}

    def _add(self, stage: str, seconds: float) -> None:
        costs = self._read()
        before = costs.get(stage, {"seconds": 0.0, "peak_memory_bytes": 0})
        peak = max(before["peak_memory_bytes"], peak_memory_bytes())
        costs[stage] = {"seconds": round(before["seconds"] + seconds, 1), "peak_memory_bytes": peak}
        files.write_json(self._path, costs)

    def _read(self) -> dict[str, Any]:
        return files.read_json(self._path) or {}
