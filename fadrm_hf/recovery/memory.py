"""The memory of a recovery step, and the largest batch that fits: measured on small batches, not found by crashing.

Memory grows by the same bytes with every image, above what does not depend on the batch (weights in the order that
convolutions want them): two small batches give the line on which all others lie.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from accelerate import PartialState
from torch._C._profiler import _ExtraFields_Allocation, _ProfilerEvent
from torch.profiler import ProfilerActivity, profile

from fadrm_hf.config import RunConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ConfigError
from fadrm_hf.recovery.matcher import Matcher
from fadrm_hf.recovery.trial import capture_largest, captured_cycle_of, graphs_of, largest_shard, try_recovery

_MEMINFO, _CONTROL_GROUPS = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
# Limit and use of a container's memory: control groups of the second version, then of the first.
_LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
_SMALL_BATCHES = {"cpu": (2, 6), "cuda": (16, 48)}  # one image is computed in another way than many
_MOST_BYTES_PER_VALUE = 40_000  # of an image; DenseNet-121 with hooks, the hungriest measured, takes half of it
_QUIET = "99"  # the profiler's level of messages; otherwise it writes lines to stderr on its own


@dataclass(frozen=True)
class MemoryLaw:
    """Memory of a step by the number of its images: `fixed + per_image * batch` bytes."""

    fixed: float
    per_image: float

    @classmethod
    def measure(cls, step: Callable[[int], int], batch: int, device: torch.device) -> "MemoryLaw":
        """Measure the law of a step on batches that are small beside the one in question.

        Args:
            step: Takes a number of images, runs with about as many once or twice, and returns the most bytes it held
                (`peak_tensor_bytes`).
            batch: The number of images in question; no larger one is tried.
            device: Where it runs.
        """
        low, high = (min(small, batch) for small in _SMALL_BATCHES[device.type])
        below, above = step(low), step(high)
        if low == high:
            return cls(0.0, above / high)
        per_image = max(above - below, 1) / (high - low)
        return cls(max(below - per_image * low, 0.0), per_image)

    def bytes_of(self, batch: int) -> int:
        """Return the bytes of a batch."""
        return round(self.fixed + self.per_image * batch)

    def largest_batch(self, free_bytes: int) -> int:
        """Return how many images fit into so much memory; 0 if not one does."""
        return max(0, int((free_bytes - self.fixed) // self.per_image))


def peak_tensor_bytes(step: Callable[[], object], device: torch.device) -> int:
    """Measure the most bytes of tensors that a step holds at once, beyond those that were there when it began.

    Every allocation of torch is counted, those of compiled code and of convolutions' work spaces too, so the number
    does not depend on what else a process holds, nor on the machine beyond the kernels it chooses. The step takes
    longer meanwhile. Memory that it frees but did not allocate is not subtracted.

    Args:
        step: The step; call it once before, so that what is made once is there.
        device: Where its tensors are.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", _QUIET)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    return _largest_sum(profiled)


def _most_bytes(step: Callable[[], object], device: torch.device) -> int:
    """Return what a step takes of the machine: on a GPU, what is reserved for tensors, with the gaps between them."""
    if device.type != "cuda":
        return peak_tensor_bytes(step, device)
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return torch.cuda.max_memory_reserved(device) - before


def _largest_sum(profiled: profile) -> int:
    """Return the largest sum of allocated less freed bytes, in the order of time."""
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    changes = sorted(_allocations(profiled.profiler.kineto_results.experimental_event_tree()))
    return max(accumulate((size for _, size in changes), initial=0))


def _allocations(events: list[_ProfilerEvent]) -> Iterator[tuple[int, int]]:
    """Yield time and bytes of every allocation, negative where memory is freed."""
    for event in events:
        yield from _allocations(event.children)
        if isinstance(event.extra_fields, _ExtraFields_Allocation):
            yield event.start_time_ns, event.extra_fields.alloc_size


def free_memory_bytes(device: torch.device) -> int:
    """Return the memory that this process may still take: of a GPU, or of the machine and its container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min([_available(), *_left_in_container()])


def _available() -> int:
    with suppress(OSError, StopIteration):
        lines = _MEMINFO.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # all of it, where the system does not say


def _left_in_container() -> list[int]:
    """Return what the limits of a container leave; none where there is no limit."""
    left = []
    for limit, use in _LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            left.append(int((_CONTROL_GROUPS / limit).read_text()) - int((_CONTROL_GROUPS / use).read_text()))
    return left


def share_of_memory(device: torch.device, num_processes: int) -> int:
    """Return the bytes that each process of this machine may still take; each has a GPU to itself."""
    return free_memory_bytes(device) // (1 if device.type == "cuda" else num_processes)


def measure_recovery(run: RunConfig, matchers: list[Matcher], source: Source, device: torch.device) -> MemoryLaw:
    """Measure the recovery of one batch of a run whose method optimises pixels, over all sizes and teachers."""
    num_classes = len(source.class_map)

    def step(batch: int) -> int:
        shard = largest_shard(run, num_classes, batch)

        def recover() -> None:
            graphs = graphs_of(run, device)  # of this trial alone, so that what they keep is counted
            capture_largest(run, matchers, source, device, shard, graphs)
            try_recovery(run, matchers, source, device, shard, captured_cycle_of(run, graphs), graphs)

        recover()
        # Where the images of a class stay together there may be fewer than asked for.
        return round(_most_bytes(recover, device) * batch / shard.num_images)

    return MemoryLaw.measure(step, largest_shard(run, num_classes).num_images, device)


def require_memory(
    run: RunConfig, matchers: list[Matcher], source: Source, device: torch.device, state: PartialState
) -> None:
    """Refuse batches whose recovery cannot fit into memory, before it starts; cheap, and free where they surely do.

    Without matchers nothing is optimised, and nothing refused.

    Raises:
        ConfigError: If the largest batch needs more memory than there is.
    """
    if not matchers:
        return
    batch = largest_shard(run, len(source.class_map)).num_images
    free = share_of_memory(device, int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes)))
    if batch * 3 * source.size**2 * _MOST_BYTES_PER_VALUE <= free:
        return
    require_fit(measure_recovery(run, matchers, source, device), batch, free)


def require_fit(law: MemoryLaw, batch: int, free_bytes: int) -> None:
    """Refuse a recovery that needs more memory than a process may still take.

    Raises:
        ConfigError: It does not fit; the largest batch that does is named.
    """
    needed, fits = law.bytes_of(batch), law.largest_batch(free_bytes)
    if needed <= free_bytes:
        return
    remedy = f"set --recover.batch_size {fits} or less" if fits else "not even one image fits: free some memory"
    raise ConfigError(
        f"recovery of {batch} images together needs about {needed / 1e6:,.0f} MB of memory, {free_bytes / 1e6:,.0f} "
        f"MB are free for each process; {remedy}, launch fewer processes, or take a smaller teacher"
    )
