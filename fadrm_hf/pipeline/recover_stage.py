"""The images: each shard from its patches, by the method, under the statistics of the teachers."""

from collections.abc import Callable
from dataclasses import replace

import torch

from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.pipeline.job import Job
from fadrm_hf.pipeline.patch_stage import patches_of, retriever
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.matching.gathering import block_side
from fadrm_hf.recovery.matching.targets import Targets
from fadrm_hf.recovery.memory import require_memory
from fadrm_hf.recovery.patches.noise import noise_start
from fadrm_hf.recovery.patches.patches import Patches
from fadrm_hf.recovery.recover import Recovery, ShardContext
from fadrm_hf.recovery.snapshots import Snapshots
from fadrm_hf.recovery.trial import capture_largest, graphs_of, largest_shard
from fadrm_hf.runtime.progress import Task
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.shards import Shard

Measured = list[dict[str, Targets]]  # of each teacher, what its layers have seen


def recover_images(job: Job, teachers: list[Teacher], measured: Measured) -> None:
    """Recover all images of the job's share."""
    run = job.run
    shards = {shard.name: shard for shard in job.own_shards}

    def is_done(name: str) -> bool:
        return not job.missing_files(shards[name])

    if all(map(is_done, shards)):
        return
    matched, known = (teachers, measured) if run.method.iterations else ([], [])
    side = block_side(run.statistics, job.source.size)
    with open_matchers(matched, run.recover, job.device, run.method.matching, known, side) as matchers:
        require_memory(run, matchers, job.source, job.device, job.state)
        graphs = graphs_of(run, job.device)
        if matchers:
            shard = largest_shard(run, len(job.source.class_map))
            capture_largest(run, matchers, job.source, job.device, shard, graphs)
        units = job.units("recover", shards, is_done, lambda _: run.method.iterations, lambda s: s.num_images)
        for shard, task in units:
            task.name_unit(shard.name)
            patches = patches_of(job, shard)
            recovery = Recovery(
                matchers,
                patches.label.to(job.device),
                job.source,
                run.recover,
                run.method.iterations,
                generator(run.seed, "recover", shard.name),
                _report_to(job, task),
                ShardContext(
                    ipc_indices=patches.ipc_index,
                    votes=[teacher.vote for teacher in teachers],
                    retrieve=retriever(job, teachers[0], patches.label),
                    turn=_turns_before(job, shard),
                    callback=Snapshots(job.work, job.source) if job.snapshots and shard == job.shards[0] else None,
                    graphs=graphs,
                ),
            )
            images = run.method.recover(_start_of(job, patches), recovery)
            _save_images(job, shard, replace(patches, images=job.source.to_pixels(images.cpu())))


def _report_to(job: Job, task: Task) -> Callable[[int, dict[str, float]], None]:
    """Return a function that shows recovery's progress to people and to the processes that wait for this one."""

    def report(iterations: int, losses: dict[str, float]) -> None:
        task.advance(iterations, **losses)
        job.locks.touch()

    return report


def _turns_before(job: Job, shard: Shard) -> int:
    run = job.run
    return 0 if run.recover.teacher_order == "shard" else job.shards.index(shard) * run.method.iterations


def _start_of(job: Job, patches: Patches) -> torch.Tensor:
    """Return the images to optimise, (B, 3, S, S) float32, normalised."""
    if job.run.method.init != "noise":
        return job.source.normalise(patches.images).to(job.device)
    places = zip(patches.label.tolist(), patches.ipc_index.tolist(), strict=True)
    size, seed = job.source.size, job.run.seed
    return torch.stack([noise_start(label, index, size, seed) for label, index in places]).to(job.device)


def _save_images(job: Job, shard: Shard, recovered: Patches) -> None:
    """Save one file for each image index of the shard, so that files in order make the table, whatever the layout."""
    missing = job.missing_files(shard)
    for index, name in shard.files.items():
        if name not in missing:
            continue
        rows = recovered.ipc_index == index
        job.work.save("recovered", name, {column: values[rows] for column, values in vars(recovered).items()})
