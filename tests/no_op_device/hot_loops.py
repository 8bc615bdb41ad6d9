"""The loops that take a GPU's time, as small programs: each returns how much of everything an iteration causes."""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from accelerate import PartialState
from fixtures.plain_matching import measured
from fixtures.small import digits

import fadrm_hf.networks.small_images  # noqa: F401 - registers the small-image architectures
from fadrm_hf.config import Matching, RecoverConfig, RunConfig, SqueezeConfig, StatisticsConfig, TeacherConfig
from fadrm_hf.config.datasets import resolve_squeeze
from fadrm_hf.data.sources import Source
from fadrm_hf.methods.edc import EDC
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.methods.g_vbsm import GVBSM
from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.recovery.capture import StepGraphs
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.matching.gathering import StatisticsPass
from fadrm_hf.recovery.memory import measure_recovery
from fadrm_hf.recovery.recover import Recovery, ShardContext
from fadrm_hf.recovery.trial import capture_largest, graphs_of, try_recovery
from fadrm_hf.runtime.progress import QUIET
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.shards import recovery_shards
from no_op_device.watching import watch

CUDA = torch.device("cuda")


def teacher_of(architecture: str, source: Source) -> Teacher:
    """Build a teacher that has learned nothing; on this device nobody sees that."""
    torch.manual_seed(0)
    module = timm.create_model(architecture, num_classes=10).eval().requires_grad_(False)
    mean, std = source.config.mean, source.config.std
    assert mean is not None and std is not None
    return Teacher(architecture, module, None, mean, std, sha256="")


def recovery_loop(
    architectures: Sequence[str], form: str, precision: str = "fp16", size: int = 32, batch: int = 10
) -> dict[str, Any]:
    """Count what an iteration of recovery causes, over 100 of them, after those in which graphs are captured."""
    source = digits(size)
    teachers = [teacher_of(architecture, source) for architecture in architectures]
    config = RecoverConfig(flip_probability=0.5, max_roll=2, form=form, precision=precision)  # type: ignore[arg-type]
    images, labels = torch.zeros((batch, 3, size, size), device=CUDA), (torch.arange(batch) % 10).to(CUDA)
    with open_matchers(teachers, config, CUDA) as matchers:
        rng = generator(0, "test")
        recovery = Recovery(matchers, labels, source, config, 1000, rng, lambda done, losses: None)
        with watch() as first:
            recovery.optimise(images, 20)
        with watch() as seen:
            recovery.optimise(images, 100)
    found = seen.per(100) | {"waits of": seen.of("wait"), "first captures": first.counts["captures"]}
    return found | {"copies by convolutions": number_at(first.of("copy"), "geometry.py")}


def pool_loop(method: EDC | GVBSM) -> dict[str, Any]:
    """Count what an iteration of a method of many teachers causes in its second shard, and all captures."""
    source = digits()
    labels = torch.as_tensor(source.labels("train")[:200])
    real = source.normalise(source.pixels("train", range(200)))
    teachers = [teacher_of("resnet10_narrow", source), teacher_of("convnet3_narrow", source)]
    known = [measured(teacher.module, real, labels, 4) for teacher in teachers]
    config = RecoverConfig(flip_probability=0.5, max_roll=2, form="compiled", layout="class_major")
    graphs, start = StepGraphs.of(CUDA, "compiled", method.iterations), torch.zeros((10, 3, 16, 16), device=CUDA)
    with open_matchers(teachers, config, CUDA, method.matching, known) as matchers, watch() as both:
        for first in (0, 5):
            of_shard = torch.arange(first, first + 5).repeat_interleave(2).to(CUDA)
            rest = (source, config, method.iterations, generator(0, "test"), lambda done, losses: None)
            recovery = Recovery(matchers, of_shard, *rest, ShardContext(graphs=graphs))
            with watch() as seen:
                method.recover(start, recovery)
    found = seen.per(method.iterations) | {"waits of": seen.of("wait")}
    return found | {"all captures": both.counts["captures"]}


def statistics_loop() -> dict[str, float]:
    """Count what a further batch of real images causes while statistics of ten classes are gathered."""
    source, seen = digits(), {}
    teacher = teacher_of("resnet10_narrow", source)
    squeeze = resolve_squeeze(SqueezeConfig(flip_probability=0.5), source.config)
    teacher.module.to(CUDA)
    for batches in (2, 4):
        config = StatisticsConfig(images_per_class=8, batch_size=8 // batches)  # of one class, each
        statistics = StatisticsPass(teacher, source, config, squeeze, Matching(convolutions=True, category=0.5), 0)
        with TemporaryDirectory() as folder, watch() as found:
            statistics.gather(Path(folder), PartialState(), QUIET)
        seen[batches] = found.counts
    return {name: (seen[4][name] - seen[2][name]) / 20 for name in seen[2]}


def benchmark_loop() -> dict[str, float]:
    """Count what the timed steps of the benchmark of recovery cause, after those that prepare them."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from recovery_step import Stepper

    source, config = digits(), RecoverConfig(flip_probability=0.5, max_roll=2, form="compiled")
    with open_matchers([teacher_of("resnet10_narrow", source)], config, CUDA) as matchers:
        stepper = Stepper(matchers, torch.zeros((10, 3, 16, 16), device=CUDA), config, source)
        stepper.prepare()
        with watch() as seen:
            stepper.run(1)
    return seen.per(1)


def number_at(events: dict[str, int], place: str) -> int:
    """Return how many of some events come from a file."""
    return sum(number for event, number in events.items() if place in event)


def whole_recovery(
    architectures: Sequence[str], sizes: Sequence[int], batch: int, precision: str = "fp16"
) -> dict[str, Any]:
    """Recover two shards by FADRM; count captures, and compare reserved memory with what was foretold."""
    source = digits(sizes[-1])
    teachers = [teacher_of(architecture, source) for architecture in architectures]
    config = RecoverConfig(
        flip_probability=0.0,
        max_roll=2,
        form="compiled",
        precision=precision,  # type: ignore[arg-type]
        layout="class_major",
        batch_size=batch,
    )
    method = FADRM(iterations=100, num_residuals=len(sizes) - 1, sizes=tuple(sizes))
    run = RunConfig("test", batch // 5, method, recover=config, teachers=TeacherConfig(tuple(architectures)))
    shards = recovery_shards(10, run.ipc, config)
    with open_matchers(teachers, config, CUDA) as matchers:
        law = measure_recovery(run, matchers, source, CUDA)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_reserved()
        with watch() as seen:
            graphs = graphs_of(run, CUDA)
            capture_largest(run, matchers, source, CUDA, shards[0], graphs)
            for shard in shards:
                try_recovery(run, matchers, source, CUDA, shard, method.iterations, graphs)
        reserved = torch.cuda.max_memory_reserved() - before
        tensors = torch.cuda.max_memory_allocated() - before
    sizes_of_shards = [shard.num_images for shard in shards]
    memory = {"reserved": reserved, "foretold": law.bytes_of(batch), "tensors": tensors}
    return memory | {"captures": seen.counts["captures"], "shards": sizes_of_shards}


def pools() -> dict[str, Any]:
    """Measure both methods that match many statistics."""
    return {"g_vbsm": pool_loop(GVBSM(iterations=100, drop=0.4)), "edc": pool_loop(EDC(iterations=100))}
