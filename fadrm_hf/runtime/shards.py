"""Units of work: how a run is divided into them, and the fixed division that studies and votes use.

A recovery shard is one image index of a range of classes, or all images of some classes: the images whose batch
statistics are matched together, hence the smallest unit whose result depends on nothing else.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env

from fadrm_hf.config import RecoverConfig
from fadrm_hf.errors import ConfigError, RunFolderError
from fadrm_hf.runtime.gpu import take_gpu
from fadrm_hf.runtime.launcher import end_with_launcher
from fadrm_hf.runtime.machine import waiting_threads
from fadrm_hf.runtime.number_format import round_products
from fadrm_hf.runtime.terminal import progress

Unit = TypeVar("Unit")
Value = TypeVar("Value")

_LAUNCH = ("ACCELERATE_USE_CPU", "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(days=30)  # of a process that has finished its units while others still work


@dataclass(frozen=True)
class Shard:
    """The images ipc_indices x classes, whose batch statistics are matched together.

    Attributes:
        ipc_indices: Which images of each class.
        classes: The labels of its images.
    """

    ipc_indices: range
    classes: range

    @property
    def name(self) -> str:
        """The key of its random numbers."""
        first, last = self.ipc_indices[0], self.ipc_indices[-1]
        images = f"ipc{first:05d}" if first == last else f"ipc{first:05d}to{last:05d}"
        return f"{images}-{self.classes[0]:05d}-{self.classes[-1]:05d}"

    @property
    def num_images(self) -> int:
        """The number of its images."""
        return len(self.ipc_indices) * len(self.classes)

    @property
    def files(self) -> dict[int, str]:
        """By image index the file name of its result, so that the files of any layout make the table in order."""
        return {index: Shard(range(index, index + 1), self.classes).name for index in self.ipc_indices}


@dataclass(frozen=True)
class Share:
    """One of several equal shares of a run's images, for jobs that no launcher binds together.

    Attributes:
        index: Which, from 0.
        count: Of how many.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Parse `K:N`, the K-th of N.

        Raises:
            ConfigError: If it names none.
        """
        found = re.fullmatch(r"([0-9]{1,6}):([0-9]{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"shards is {text!r}, expected K:N, the K-th of N jobs, as in --shards 3:8")
        return cls(int(found[1]) - 1, int(found[2]))

    def part(self, units: Sequence[Unit]) -> list[Unit]:
        """Return the units of this share: every `count`-th."""
        return list(units[self.index :: self.count])


WHOLE = Share()


def class_ranges(num_classes: int, per_range: int) -> list[range]:
    """Return consecutive ranges of at most `per_range` labels."""
    return [range(first, min(first + per_range, num_classes)) for first in range(0, num_classes, per_range)]


def range_name(labels: range) -> str:
    """Return the file name of a range of labels."""
    return f"{labels[0]:05d}-{labels[-1]:05d}"


def classes_together(ipc: int, config: RecoverConfig) -> int:
    """Return how many classes share a shard: a batch's worth with one image of each, or with all images of each."""
    return config.batch_size if config.layout == "ipc_major" else max(1, config.batch_size // ipc)


def recovery_shards(num_classes: int, ipc: int, config: RecoverConfig) -> list[Shard]:
    """Return all shards of a run, those of the first image index first.

    Args:
        num_classes: Number of classes.
        ipc: Images per class.
        config: Layout and batch size. "class_major" keeps the images of a class together as far as a batch holds them.
    """
    ranges = class_ranges(num_classes, classes_together(ipc, config))
    num = 1 if config.layout == "ipc_major" else min(ipc, config.batch_size)
    indices = [range(first, min(first + num, ipc)) for first in range(0, ipc, num)]
    return [Shard(together, labels) for together in indices for labels in ranges]


def mine(units: Sequence[Unit], state: PartialState) -> list[Unit]:
    """Return the units of this process: every `num_processes`-th.

    Args:
        units: All units of a stage, done or not: what is missing changes while other processes work, so a share of
            that would leave units to nobody.
        state: The processes.
    """
    return list(units[state.process_index :: state.num_processes])


def from_all(own: Mapping[int, Value], state: PartialState) -> list[Value]:
    """Return the values of all processes, in the order of their numbers, to every process.

    Args:
        own: The values of this process, by number.
        state: The processes.
    """
    everyone: dict[int, Value] = dict(gather_object(list(own.items()))) if state.num_processes > 1 else dict(own)
    return [everyone[number] for number in sorted(everyone)]


def join_world() -> PartialState:
    """Return the processes of this launch; see `check_world`.

    A process alone takes a GPU that is free (`take_gpu`). Where no setting says otherwise, fp32 is fp32 from here on.
    """
    state = _join()
    round_products(False, False)
    if state.device.type == "cpu" and state.is_local_main_process:
        _say_waiting_threads()
    return state


@cache
def _say_waiting_threads() -> None:
    """Say once that this command's threads will wait for each other, if they will."""
    if line := waiting_threads():
        progress.print(line, highlight=False, markup=False, soft_wrap=True)


def own_device() -> torch.device:
    """Return the device of this process, for a program that is not ours and keeps its number formats."""
    return _join().device


def _join() -> PartialState:
    try:
        # On its own `PartialState` does not read the variable, and processes on CPUs would not find each other.
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_PATIENCE)
    except ValueError as error:
        given = ", ".join(f"{name}={os.environ[name]!r}" for name in _LAUNCH if name in os.environ)
        raise RunFolderError(
            f"the variables of the launch ({given}) are not understood: {error}; expected numbers, and true or false "
            "for ACCELERATE_USE_CPU; unset them, or start the command by accelerate launch, which sets them"
        ) from error
    check_world(state)
    end_with_launcher()
    if state.device == torch.device("cuda"):  # no launcher has said which
        state.device = take_gpu()
    return state


def check_world(state: PartialState) -> None:
    """Refuse a launch in which processes do not know of each other, so that each would do all the work.

    Raises:
        RunFolderError: If `WORLD_SIZE` promises more processes than have joined.
    """
    promised = os.environ.get("WORLD_SIZE", "1")
    if promised != str(state.num_processes):
        raise RunFolderError(
            f"WORLD_SIZE is {promised} but {state.num_processes} process joined, expected the same number; unset it, "
            "or on CPUs launch with ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N"
        )
