"""Processes that train one student together, when there are more of them than students.

Each holds some rows of every pass through the network. Sums over all rows are exchanged between them: gradients once
per step, BatchNorm's moments once per layer and pass in either direction (`fadrm_hf.training.shared_norm`), correct
predictions once per evaluation. Weights, optimiser, averaged weights and learning rate are the same on every process.
So the student equals that of one process up to the order in which numbers are added, and any number of processes can
resume from its checkpoints.

Every process renders whole batches, and labels them if labels are made online: only training is divided.

Dropout and stochastic depth draw for the rows that a process holds, so networks with them see other draws of the same
distribution on another number of processes.
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

_TIMEOUT = timedelta(minutes=30)  # without a message from a process; processes of a group work in step


@dataclass(frozen=True)
class StudentGroup:
    """The processes that train one student at a time, seen from one of them.

    Attributes:
        index: Index of the group.
        count: Number of groups; group k trains every `count`-th student from the k-th on.
        rank: Index of this process in the group; process 0 leads: it alone reports and writes.
        size: Number of processes in the group.
        device: Where this process trains; `None`: the CPU.
        channel: Their means of communication; `None` for a single process.
    """

    index: int = 0
    count: int = 1
    rank: int = 0
    size: int = 1
    device: torch.device | None = None
    channel: dist.ProcessGroup | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def rows(self, num: int) -> range:
        """Return which of `num` rows this process holds; shares differ by one row at most."""
        return self._rows_of(self.rank, num)

    def portions(self, sizes: Sequence[int]) -> list[list[int]]:
        """Count the rows of each micro-batch that each process holds.

        Args:
            sizes: Rows of the micro-batches that go through the network together, one after the other.

        Returns:
            By process, by micro-batch.
        """
        ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        by_process = (self._rows_of(rank, sum(sizes)) for rank in range(self.size))
        return [
            [max(0, min(rows.stop, end) - max(rows.start, end - size)) for size, end in zip(sizes, ends, strict=True)]
            for rows in by_process
        ]

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Return (size, ...) the tensors of all processes, which must have the same shape.

        Raises:
            StudentError: If a process has ended.
        """
        if self.channel is None:
            return tensor[None]
        gathered = tensor.new_empty(self.size * tensor.numel())
        with _explaining_lost_processes():
            dist.all_gather_into_tensor(gathered, tensor.reshape(-1), group=self.channel)
        return gathered.view(self.size, *tensor.shape)

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message; every process gets the same bits.

        Raises:
            StudentError: If a process has ended.
        """
        if self.channel is None:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _explaining_lost_processes():
            dist.all_reduce(flat, group=self.channel)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))

    def sum_counts(self, counts: Sequence[int]) -> list[int]:
        """Return the sum of each count over all processes."""
        gathered = self.all_gather(torch.tensor(list(counts), device=self.device))
        return [int(total) for total in gathered.sum(0).tolist()]

    def require_same_start(self, epoch: int) -> None:
        """Refuse to resume from different epochs.

        Args:
            epoch: Finished epochs in the checkpoint that this process has read.

        Raises:
            RunFolderError: If another process has read another number.
        """
        epochs = self.all_gather(torch.tensor([epoch], device=self.device)).flatten().tolist()
        if len(set(epochs)) > 1:
            raise RunFolderError(
                f"the processes of one student found {epochs} finished epochs in its checkpoint, expected the same; "
                "give them one run folder on a file system where all of them see what each has written"
            )

    def _rows_of(self, rank: int, num: int) -> range:
        return range(rank * num // self.size, (rank + 1) * num // self.size)


ALONE = StudentGroup()


@dataclass(frozen=True)
class Launch:
    """The processes of a launch that share the students of a training.

    Attributes:
        state: The processes; `None`: this one trains all students, whatever other processes there are.
        processes_per_student: How many train one student at least; the student does not depend on it.
    """

    state: PartialState | None = None
    processes_per_student: int = 1


@contextmanager
def _explaining_lost_processes() -> Iterator[None]:
    """Say what it means that a message was not answered."""
    try:
        yield
    except RuntimeError as error:
        raise StudentError(
            f"lost another process that trains this student; its own message gives the reason ({error}); start the "
            "same command again to resume from the last checkpoint"
        ) from error


@contextmanager
def student_group(
    state: PartialState | None, num_students: int, processes_per_student: int = 1
) -> Iterator[StudentGroup]:
    """Divide the processes of a launch over students; neighbours, which share a machine, share a student.

    Args:
        state: The processes; see `Launch`.
        num_students: How many there are to train.
        processes_per_student: Least size of a group. Groups are larger if there would be more groups than students.

    Raises:
        ConfigError: If `processes_per_student` is not between 1 and the number of processes.
    """
    world = 1 if state is None else state.num_processes
    if not 1 <= processes_per_student <= world:
        raise ConfigError(
            f"processes_per_student is {processes_per_student}, expected 1 to {world}, the number of processes of this"
            " launch; launch more with accelerate launch --num_processes N, or lower it"
        )
    count = min(num_students, world // processes_per_student)
    if state is None or count == world:
        yield ALONE if state is None else StudentGroup(state.process_index, count, device=state.device)
        return
    members = [[rank for rank in range(world) if rank * count // world == index] for index in range(count)]
    channels = [dist.new_group(ranks, timeout=_TIMEOUT) for ranks in members]  # every process creates all, in order
    index = state.process_index * count // world
    ranks = members[index]
    channel = channels[index] if len(ranks) > 1 else None
    try:
        yield StudentGroup(index, count, ranks.index(state.process_index), len(ranks), state.device, channel)
    finally:
        for ranks, channel in zip(members, channels, strict=True):
            if state.process_index in ranks:
                dist.destroy_process_group(channel)
