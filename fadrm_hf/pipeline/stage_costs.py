"""Seconds and memory of each stage, which survive interruptions."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fadrm_hf.artifact.manifest import StageRecord
from fadrm_hf.pipeline.job import Job
from fadrm_hf.runtime import files
from fadrm_hf.runtime.locks import locked
from fadrm_hf.runtime.machine import peak_memory_bytes, reset_peak_memory

Cost = dict[str, Any]  # "seconds" and "peak_memory_bytes", as in `StageRecord`


class Costs:
    """Costs of a run's stages so far, in its work folder.

    Args:
        job: The run.
        is_part: Whether this run is part of another's stage, which measures the peak memory.
    """

    def __init__(self, job: Job, is_part: bool) -> None:
        self._job, self._is_part = job, is_part
        self._path = job.work.costs
        self._own: dict[str, Cost] = {}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Add the block's seconds and memory to the stage's; the main process's stand for all."""
        started = time.monotonic()
        if not self._is_part:
            reset_peak_memory()
        try:
            yield
        except BaseException:
            with suppress(OSError):  # what stopped the stage is what is told: a full disk has no room for this, either
                self._note(stage, started)
            raise
        self._note(stage, started)

    def _note(self, stage: str, started: float) -> None:
        seconds = round(time.monotonic() - started, 1)
        self._own[stage] = {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes()}
        if self._job.state.is_main_process and self._job.work.path.exists():
            with locked(self._job.work.locks / "costs.lock", self._job.reporter.say):
                self._add(stage)

    def records(self) -> dict[str, StageRecord]:
        """Return the manifest's costs by stage; of a stage that the main process has not left yet, the cost so far."""
        return {stage: StageRecord(**cost) for stage, cost in (self._own | self._read()).items()}

    def _add(self, stage: str) -> None:
        costs, own = self._read(), self._own[stage]
        before = costs.get(stage, {"seconds": 0.0, "peak_memory_bytes": 0})
        peak = max(before["peak_memory_bytes"], own["peak_memory_bytes"])
        costs[stage] = {"seconds": round(before["seconds"] + own["seconds"], 1), "peak_memory_bytes": peak}
        files.write_json(self._path, costs)

    def _read(self) -> dict[str, Cost]:
        return files.read_json(self._path) or {}
