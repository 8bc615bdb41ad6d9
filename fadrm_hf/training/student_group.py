"""Processes that train one student together, where there are more of them than students.

Each holds some rows of every pass through the network. What depends on all rows is added up between them: gradients
once per step, BatchNorm's moments once per layer and pass in either direction (`fadrm_hf.training.shared_norm`), right
answers once per evaluation. All else is the same on every process: weights, optimiser, averaged weights, learning
rate. So the student is that of one process up to the order in which numbers are added, and its checkpoints are
anybody's.

Every process renders whole batches, and labels them where labels are made on the fly: only training is divided.

Dropout and stochastic depth draw for the rows that a process holds, so networks with them are other draws of the same
law on another number of processes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor

from fadrm_hf.errors import ConfigError, RunFolderError, StudentError

_SILENCE = timedelta(minutes=30)  # of a process of the group before the others give up: they work in step


@dataclass(frozen=True)
class StudentGroup:
    """The processes that train one student at a time, seen from one of them.

    Attributes:
        index: Which of the groups, from 0.
        count: How many groups there are; group k trains every `count`-th student from the k-th on.
        rank: Which of its processes this is, from 0; the first one leads: it alone reports and writes.
        size: How many processes it has.
        device: Where this one trains; `None`: the CPU.
        channel: By which they add up; `None` for one process, where nothing has to be.
    """

    index: int = 0
    count: int = 1
    rank: int = 0
    size: int = 1
    device: torch.device | None = None
    channel: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def rows(self, num: int) -> range:
        """Which of `num` rows are this process's; no process has more than one more than another."""
        return self._rows_of(self.rank, num)

    def portions(self, sizes: Sequence[int]) -> list[list[int]]:
        """How many rows of each micro-batch each process holds.

        Args:
            sizes: Rows of the micro-batches that go through the network together, one after the other.

        Returns:
            By process, by micro-batch.
        """
        ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        held = (self._rows_of(rank, sum(sizes)) for rank in range(self.size))
        return [
            [max(0, min(rows.stop, end) - max(rows.start, end - size)) for size, end in zip(sizes, ends, strict=True)]
            for rows in held
        ]

    def gather(self, own: Tensor) -> Tensor:
        """(size, ...) the tensors of all processes, which have one shape.

        Raises:
            StudentError: If one of them has ended.
        """
        if self.channel is None:
            return own[None]
        everyone = own.new_empty(self.size * own.numel())
        with _company():
            dist.all_gather_into_tensor(everyone, own.reshape(-1), group=self.channel)
        return everyone.view(self.size, *own.shape)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message; every process gets the same bits.

        Raises:
            StudentError: If one of them has ended.
        """
        if self.channel is None:
            return
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _company():
            dist.all_reduce(together, group=self.channel)
        for tensor, total in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))

    def totals(self, counts: Sequence[int]) -> list[int]:
        """The sum of each number over all processes."""
        everyone = self.gather(torch.tensor(list(counts), device=self.device))
        return [int(total) for total in everyone.sum(0).tolist()]

    def require_same_start(self, epoch: int) -> None:
        """Refuse to go on from different epochs.

        Args:
            epoch: How many epochs this process has read to be finished.

        Raises:
            RunFolderError: If another process has read another number.
        """
        epochs = self.gather(torch.tensor([epoch], device=self.device)).flatten().tolist()
        if len(set(epochs)) > 1:
            raise RunFolderError(
                f"processes of one student found {epochs} finished epochs in its checkpoint, expected the same; let "
                "them see one run folder, on a file system that shows each what another has written"
            )

    def _rows_of(self, rank: int, num: int) -> range:
        return range(rank * num // self.size, (rank + 1) * num // self.size)


ALONE = StudentGroup()


@contextmanager
def _company() -> Iterator[None]:
    """Say what it means that a message was not answered."""
    try:
        yield
    except RuntimeError as error:
        raise StudentError(
            f"lost a process that trains this student too, whose own message says why ({error}); start the same "
            "command again, which goes on from the last checkpoint"
        ) from error


@contextmanager
def student_group(state: PartialState | None, num_students: int, least: int = 1) -> Iterator[StudentGroup]:
    """Divide the processes of a launch over students; neighbours, which share a machine, share a student.

    Args:
        state: The processes; if not given, this one trains all students, whoever else there is.
        num_students: How many there are to train.
        least: How many processes a group has at least. Groups have more where there would be more groups than
            students.

    Raises:
        ConfigError: If `least` is not between 1 and the number of processes.
    """
    world = 1 if state is None else state.num_processes
    if not 1 <= least <= world:
        raise ConfigError(
            f"processes_per_student is {least}, expected 1 to {world}, the processes of this launch; launch more with "
            "accelerate launch --num_processes N, or lower it"
        )
    count = min(num_students, world // least)
    if state is None or count == world:
        yield ALONE if state is None else StudentGroup(state.process_index, count, device=state.device)
        return
    members = [[rank for rank in range(world) if rank * count // world == index] for index in range(count)]
    channels = [dist.new_group(ranks, timeout=_SILENCE) for ranks in members]  # everybody makes all, in one order
    index = state.process_index * count // world
    own = members[index]
    channel = channels[index] if len(own) > 1 else None
    try:
        yield StudentGroup(index, count, own.index(state.process_index), len(own), state.device, channel)
    finally:
        for ranks, made in zip(members, channels, strict=True):
            if state.process_index in ranks:
                dist.destroy_process_group(made)
