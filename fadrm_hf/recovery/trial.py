"""A trial of a run's recovery: the method's own program over all its sizes and teachers, a few steps for each.

It tells what a whole recovery will take, whatever the method does between steps: seconds are in proportion to its
steps, and it holds as much memory at once as a long one does.
"""

from dataclasses import replace

import torch
from torch import Tensor

from fadrm_hf.config import RunConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.recovery.capture import WARM_UP, StepGraphs
from fadrm_hf.recovery.matcher import Matcher
from fadrm_hf.recovery.recover import Recovery, ShardContext
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.shards import Shard, recovery_shards


def cycle_of(run: RunConfig) -> int:
    """Return after how many iterations every teacher has seen every segment of the recovery once."""
    return len(run.method.sizes or (1,)) * len(run.teachers.names)


def graphs_of(run: RunConfig, device: torch.device) -> StepGraphs:
    """Return graphs for the steps of a run, nothing captured yet."""
    return StepGraphs.of(device, run.recover.form, run.method.iterations)


def captured_cycle_of(run: RunConfig, graphs: StepGraphs) -> int:
    """Return after how many iterations every kind of step has been captured; of one cycle where none is."""
    return cycle_of(run) * (WARM_UP + 1 if graphs.captures else 1)


def capture_largest(
    run: RunConfig, matchers: list[Matcher], source: Source, device: torch.device, shard: Shard, graphs: StepGraphs
) -> None:
    """Capture the steps of the largest size, where there are others: these then fit into the memory of the largest."""
    sizes = run.method.sizes or (source.size,)
    if graphs.captures and min(sizes) < max(sizes):
        method = replace(run.method, sizes=(max(sizes),) * len(sizes))
        steps = max(len(sizes), len(matchers) * (WARM_UP + 1))
        try_recovery(replace(run, method=method), matchers, source, device, shard, steps, graphs)


def largest_shard(run: RunConfig, num_classes: int, batch_size: int | None = None) -> Shard:
    """Return the largest shard of a run, or of the same run with another `recover.batch_size`."""
    config = run.recover if batch_size is None else replace(run.recover, batch_size=batch_size)
    return max(recovery_shards(num_classes, run.ipc, config), key=lambda shard: shard.num_images)


def try_recovery(
    run: RunConfig,
    matchers: list[Matcher],
    source: Source,
    device: torch.device,
    shard: Shard,
    iterations: int,
    graphs: StepGraphs | None = None,
) -> Tensor:
    """Recover one shard of a run from random pixels; no image is read, and the result is of no use.

    Where the method retrieves real patches, it gets the pixels that it starts from.

    Args:
        run: A resolved run whose method optimises pixels.
        matchers: Its teachers, made ready.
        source: Its source, for the range of pixels.
        device: Where it runs.
        shard: The images.
        iterations: In place of the run's; at least one for each of `method.sizes`.
        graphs: Where steps are captured, as `Recovery` has them.
    """
    method = replace(run.method, iterations=iterations)
    rng = generator(run.seed, "trial", shard.name)
    labels = torch.tensor(shard.classes).repeat_interleave(len(shard.ipc_indices))
    pixels = torch.randint(0, 256, (len(labels), 3, source.size, source.size), generator=rng, dtype=torch.uint8)
    start = source.normalise(pixels).to(device)
    recovery = Recovery(
        matchers,
        labels.to(device),
        source,
        run.recover,
        iterations,
        rng,
        lambda done, losses: None,
        ShardContext(
            ipc_indices=torch.tensor(shard.ipc_indices).repeat(len(shard.classes)),
            votes=[1.0] * len(matchers),
            retrieve=lambda images: start,
            graphs=graphs,
        ),
    )
    recovered: Tensor = method.recover(start, recovery)
    return recovered
