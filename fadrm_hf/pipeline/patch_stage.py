"""The patches that recovery starts from, and the pools of real patches that it may retrieve."""

from dataclasses import fields

import torch

from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.pipeline.job import Job
from fadrm_hf.recovery.patches.patches import Patches
from fadrm_hf.recovery.patches.starting import starting_images
from fadrm_hf.recovery.retrieval import Retriever, build_pool
from fadrm_hf.runtime import tensor_files
from fadrm_hf.runtime.shards import Shard, range_name


def build_pools(job: Job, teacher: Teacher) -> None:
    """Build the pools of real patches, by class, if the method retrieves from them."""
    run = job.run
    if run.method.retrieval is None:
        return
    labels = {_pool_name(label): label for label in range(job.num_classes)}
    for label, task in job.units("pools", labels, job.is_there("pools")):
        pool = build_pool(job.source, teacher, label, run.ipc, run.patches, run.seed, job.device)
        job.work.save("pools", _pool_name(label), pool)
        task.advance(1)


def retriever(job: Job, teacher: Teacher, labels: torch.Tensor) -> Retriever | None:
    """Return the retriever of patches for images of these classes, if the method has one."""
    weight = job.run.method.retrieval
    if weight is None:
        return None
    pools = [job.work.shard("pools", _pool_name(label)) for label in labels.tolist()]
    return Retriever(teacher, job.source, pools, weight)


def select_patches(job: Job, scorer: Teacher) -> None:
    """Select the starting images of all classes that the job's share has images of."""
    wanted = {shard.classes for shard in job.own_shards}
    ranges = {range_name(labels): labels for labels in job.ranges if labels in wanted}
    run, kind = job.run, job.run.method.init
    there = job.is_there("patches")
    for labels, task in job.units("patches", ranges, there, len, lambda labels: len(labels) * run.ipc):
        patches = starting_images(kind, job.source, scorer, labels, run.ipc, run.patches, run.seed, job.device)
        job.work.save("patches", range_name(labels), vars(patches))
        task.advance(len(labels))


def patches_of(job: Job, shard: Shard) -> Patches:
    """Read the starting images of one shard and no others."""
    columns = tensor_files.load_tensors(job.work.shard("patches", range_name(shard.classes)))
    rows = torch.isin(columns["ipc_index"], torch.tensor(shard.ipc_indices))
    return Patches(**{field.name: columns[field.name][rows] for field in fields(Patches)})


def _pool_name(label: int) -> str:
    return f"{label:05d}"
