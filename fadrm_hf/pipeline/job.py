"""The input of every stage: the run, its source, its folder, the processes, and the units to do."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState

from fadrm_hf.config import RunConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.runtime import tensor_files
from fadrm_hf.runtime.locks import Locks
from fadrm_hf.runtime.progress import Reporter, Task
from fadrm_hf.runtime.run_folder import WorkFolder
from fadrm_hf.runtime.shards import WHOLE, Shard, Share, class_ranges, classes_together, recovery_shards
from fadrm_hf.runtime.tracking import Curves

Unit = TypeVar("Unit")


@dataclass(frozen=True, eq=False)
class Job:
    """One process's part in a run.

    Attributes:
        run: The resolved run.
        source: Its real images.
        state: The processes that share the work.
        work: Where finished units are.
        locks: Locks of the units, so that each is done by one process.
        reporter: Shows and logs progress.
        share: Which images are recovered here; other jobs recover the rest.
        snapshots: Whether to keep what the images of the first shard look like along their optimisation.
    """

    run: RunConfig
    source: Source
    state: PartialState
    work: WorkFolder
    locks: Locks
    reporter: Reporter
    share: Share
    snapshots: bool = False

    @classmethod
    def in_folder(
        cls,
        run: RunConfig,
        source: Source,
        state: PartialState,
        quiet: bool = False,
        share: Share = WHOLE,
        snapshots: bool = False,
        curves: Curves | None = None,
    ) -> "Job":
        """Return this process's part in a run, with its files beside the run's folder.

        Args:
            run: The resolved run.
            source: Its real images.
            state: The processes that share the work.
            quiet: Show no progress.
            share: Which images are recovered here.
            snapshots: Keep what the images of the first shard look like along their optimisation.
            curves: Tracker of the run, or `None`; the main process's.
        """
        work, is_main = WorkFolder(Path(run.output)), state.is_main_process
        reporter = Reporter(work.log, quiet or not is_main, curves if is_main else None)
        place = state.process_index / state.num_processes
        locks = Locks(work.locks, reporter.say, Reporter(quiet=quiet).say, place)
        return cls(run, source, state, work, locks, reporter, share, snapshots)

    @property
    def device(self) -> torch.device:
        """Return the device on which networks run."""
        device: torch.device = self.state.device
        return device

    @property
    def num_classes(self) -> int:
        """Return the number of classes of the source."""
        return len(self.source.class_map)

    @cached_property
    def ranges(self) -> list[range]:
        """Return the ranges of classes whose patches are chosen together."""
        return class_ranges(self.num_classes, classes_together(self.run.ipc, self.run.recover))

    @cached_property
    def shards(self) -> list[Shard]:
        """Return all units of recovery."""
        return recovery_shards(self.num_classes, self.run.ipc, self.run.recover)

    @cached_property
    def own_shards(self) -> list[Shard]:
        """Return the units of recovery of this share."""
        return self.share.part(self.shards)

    def missing_shards(self) -> list[Shard]:
        """Return the shards, of all shares, whose images are not recovered yet."""
        return [shard for shard in self.shards if self.missing_files(shard)]

    def missing_files(self, shard: Shard) -> list[str]:
        """Return the files of a shard's images that are missing."""
        return self.work.missing("recovered", list(shard.files.values()))

    def is_there(self, stage: str) -> Callable[[str], bool]:
        """Return a check of whether a unit of a stage is on disk, by its name."""
        return lambda name: tensor_files.is_complete(self.work.shard(stage, name))

    def units(
        self,
        stage: str,
        units: Mapping[str, Unit],
        is_done: Callable[[str], bool],
        weigh: Callable[[Unit], int] = lambda unit: 1,
        images_of: Callable[[Unit], int] = lambda unit: 0,
    ) -> Iterator[tuple[Unit, Task]]:
        """Yield the units of a stage that this process gets, each with the bar on which it counts `weigh` of them."""
        todo = {name: unit for name, unit in units.items() if not is_done(name)}
        parts, images = (sum(map(count, todo.values())) for count in (weigh, images_of))
        with self.reporter.stage(stage, parts, images) as task:
            for unit in self.locks.take(stage, todo, is_done, lambda unit: task.skip(weigh(unit))):
                yield unit, task
