"""The cost of a run before it starts: seconds, memory and disk of every stage, and the largest batch that fits.

Each stage's own code is timed for a few steps, and the rest is multiplication: cost is in proportion to images and
iterations. Nothing is trained or fetched (`fadrm_hf.pipeline.untrained`). Photographs are read for patches and for
measured statistics; the training of teachers, which has workers for that, is timed on random images. Votes, retrieval
and packaging are not timed.
"""

import math
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch import Tensor, nn

from fadrm_hf.builders.soft_labels import label_features, row_bytes
from fadrm_hf.config import RelabelConfig, RunConfig
from fadrm_hf.data.pixels import normalise
from fadrm_hf.data.sources import Source
from fadrm_hf.data.views import render_views
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.labels.drawing import draw_epoch, micro_batches
from fadrm_hf.labels.relabel import Labeller, label_epoch
from fadrm_hf.networks.students import create_student
from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.networks.teachers.squeeze import new_network, new_optimizer
from fadrm_hf.networks.teachers.teacher import split_name
from fadrm_hf.pipeline.timing import Step, Timing, time_units
from fadrm_hf.pipeline.untrained import teachers_like, untrained_names
from fadrm_hf.recovery.capture import WARM_UP
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.matching.distance import needs_measuring
from fadrm_hf.recovery.matching.gathering import StatisticsPass, block_side
from fadrm_hf.recovery.matching.targets import Targets
from fadrm_hf.recovery.memory import MemoryLaw, measure_recovery, peak_tensor_bytes, share_of_memory
from fadrm_hf.recovery.patches.crops import CUT_TOGETHER, SCORE_BATCH
from fadrm_hf.recovery.patches.starting import images_needed, is_scored, num_candidates, starting_images
from fadrm_hf.recovery.trial import cycle_of, graphs_of, largest_shard, try_recovery
from fadrm_hf.runtime.machine import busy_share, peak_memory_bytes, reset_peak_memory
from fadrm_hf.runtime.out_of_memory import in_halves
from fadrm_hf.runtime.progress import QUIET
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.shards import recovery_shards
from fadrm_hf.training.one_student import checkpoint_epochs
from fadrm_hf.training.protocol import create_optimiser
from fadrm_hf.training.testing import epochs_to_test

Measured = list[dict[str, Targets]]

_PREDICTED = 500  # images that a student classifies to be timed


@dataclass(frozen=True)
class StageEstimate:
    """Estimate of one stage.

    Attributes:
        seconds: All its work, shared by the processes.
        memory_bytes: The most that its tensors take at once in one process, beyond what the process holds anyway.
        disk_bytes: What it leaves behind.
        timed: What was timed, in words.
    """

    seconds: float
    memory_bytes: int
    disk_bytes: int
    timed: str


@dataclass(frozen=True)
class Estimate:
    """Estimate of a run.

    Attributes:
        stages: By name, in order.
        num_processes: Processes that share the work.
        resident_bytes: What a process holds anyway: libraries and teachers; on a GPU, its tensors.
        free_bytes: What each process may still take, if all take as much.
        batch: Images that are optimised together; 0 if none are.
        largest_batch: The most that fit into each process; `None` if none are optimised.
        largest_batch_alone: The same for a single process.
        untrained: Teachers in whose place untrained networks were timed.
        busy: Share in [0, 1] of the usable processor cores that other work was using when it was timed.
    """

    stages: dict[str, StageEstimate]
    num_processes: int
    resident_bytes: int
    free_bytes: int
    batch: int
    largest_batch: int | None
    largest_batch_alone: int | None
    untrained: tuple[str, ...]
    busy: float

    @property
    def total(self) -> StageEstimate:
        """Return all stages as one: the sums of seconds and disk, and the peak memory with the process's own."""
        parts = self.stages.values()
        memory = self.resident_bytes + max(part.memory_bytes for part in parts)
        return StageEstimate(sum(p.seconds for p in parts), memory, sum(p.disk_bytes for p in parts), "")

    def as_plain(self) -> dict[str, Any]:
        """Return the estimate as JSON holds it."""
        return asdict(self) | {"total": asdict(self.total)}


@dataclass(frozen=True)
class _Case:
    """Input of an estimate.

    Attributes:
        run: The run, resolved.
        source: Its source.
        device: Where it runs.
        num_processes: How many share the work.
        budget: Seconds for the steps of a stage.
    """

    run: RunConfig
    source: Source
    device: torch.device
    num_processes: int
    budget: float

    @property
    def num_classes(self) -> int:
        return len(self.source.class_map)

    @property
    def num_images(self) -> int:
        return self.run.ipc * self.num_classes

    @property
    def image_bytes(self) -> int:
        """Return the size of all distilled images as pixels."""
        return self.num_images * 3 * self.source.size**2

    @property
    def label_bytes(self) -> int:
        config = self.run.relabel
        return self.num_images * config.num_stored * row_bytes(label_features(config.codec, self.num_classes))

    def time(self, step: Step, units: int, warm_up: int = 0) -> Timing:
        return time_units(step, units, self.device, self.budget, warm_up)

    def peak(self, step: Step, units: int) -> int:
        return peak_tensor_bytes(lambda: step(units), self.device)

    def shared(self, seconds: float, units: int) -> float:
        """Return the seconds that units of equal work take when the processes share them."""
        return seconds * math.ceil(units / self.num_processes) / units

    def random_images(self, num: int) -> Tensor:
        """Draw random images (num, 3, S, S) uint8."""
        shape, rng = (num, 3, self.source.size, self.source.size), generator(self.run.seed, "estimate")
        return torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)


def estimate(
    run: RunConfig,
    source: Source,
    device: torch.device,
    num_processes: int = 1,
    budget: float = 2.0,
    with_students: bool = True,
) -> Estimate:
    """Time a few steps of every stage of a run.

    Args:
        run: A run that `fadrm_hf.pipeline.distill.check_run` has checked and resolved.
        source: Its source.
        device: Where it will run.
        num_processes: How many will share the work, and this machine's memory or GPUs.
        budget: Seconds for the steps of a stage; a few times as many are spent.
        with_students: Whether the protocol's students are counted.

    Raises:
        FadrmError: If a teacher or student cannot be built.
    """
    case = _Case(run, source, device, num_processes, budget)
    busy = busy_share()
    reset_peak_memory()
    teachers, untrained = teachers_like(run, source, device)
    resident = torch.cuda.memory_allocated(device) if device.type == "cuda" else peak_memory_bytes()
    stages = {"teachers": _train_teachers(case)}
    measured: Measured = [{} for _ in teachers]
    if _is_measured(case, teachers):
        stages["statistics"], measured = _gather(case, teachers)
    stages["patches"] = _select(case, teachers[0])
    law, batch = None, 0
    if run.method.iterations:
        stages["recover"], law = _recover(case, teachers, measured)
        batch = largest_shard(run, case.num_classes).num_images
    stages["relabel"] = _relabel(case, teachers)
    stages["package"] = StageEstimate(0.0, 0, case.image_bytes + case.label_bytes, "nothing")
    if with_students:
        stages["students"] = _train_students(case)
    free, alone = (share_of_memory(device, num) for num in (num_processes, 1))
    most = [None if law is None else law.largest_batch(bytes_) for bytes_ in (free, alone)]
    return Estimate(stages, num_processes, resident, free, batch, most[0], most[1], tuple(untrained), busy)


def _train_teachers(case: _Case) -> StageEstimate:
    """Estimate the training of the teachers that are missing, one after the other."""
    run, num_train = case.run, len(case.source.train)
    batch = min(run.squeeze.batch_size, num_train)
    seconds, memory, disk, timed = 0.0, 0, 0, "nothing: all are there"
    for name in untrained_names(run, case.source):
        network = new_network(case.source, split_name(name)[1], run.squeeze, run.seed).to(case.device)
        step = partial(_train, case, network, new_optimizer(network, run.squeeze))
        timing = case.time(step, batch)
        seconds += timing.seconds * num_train * run.squeeze.epochs
        memory = max(memory, MemoryLaw.measure(partial(case.peak, step), batch, case.device).bytes_of(batch))
        disk += sum(tensor.nbytes for tensor in network.state_dict().values())
        timed = f"steps of {timing.units} images"
    return StageEstimate(seconds, memory, disk, timed)


def _train(case: _Case, network: nn.Module, optimiser: torch.optim.Optimizer, batch: int) -> int:
    """Train a step on random images, at least two: BatchNorm has no variance of one."""
    images = case.source.normalise(case.random_images(max(2, batch))).to(case.device)
    labels = torch.arange(len(images), device=case.device) % case.num_classes
    network.train().to(memory_format=torch.channels_last)
    optimiser.zero_grad()
    F.cross_entropy(network(images.to(memory_format=torch.channels_last)), labels).backward()
    optimiser.step()
    return len(images)


def _is_measured(case: _Case, teachers: list[Teacher]) -> bool:
    """Return whether recovery needs statistics that teachers do not keep themselves."""
    run = case.run
    matches = run.method.iterations > 0 and run.recover.statistics_weight > 0
    return matches and any(needs_measuring(run.method.matching, teacher.module) for teacher in teachers)


def _gather(case: _Case, teachers: list[Teacher]) -> tuple[StageEstimate, Measured]:
    """Estimate the pass for statistics from one image of each class; return these statistics, too."""
    run, wanted, measured = case.run, case.run.method.matching, []
    few, started = replace(run.statistics, images_per_class=1), time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        for place, teacher in enumerate(teachers):
            named = replace(teacher, sha256=f"{place}")
            statistics = StatisticsPass(named, case.source, few, run.squeeze, wanted, run.seed)
            measured.append(statistics.gather(Path(name), PartialState(), QUIET))
        disk = sum(file.stat().st_size for file in Path(name).rglob("*") if file.is_file())
    each = run.statistics.images_per_class
    num = len(case.source.train) if each is None else min(len(case.source.train), each * case.num_classes)
    seconds = (time.perf_counter() - started) * num / case.num_classes
    return StageEstimate(case.shared(seconds, case.num_classes), 0, disk, "one image of each class"), measured


def _select(case: _Case, scorer: Teacher) -> StageEstimate:
    """Estimate the choice of starting images from those of one class, with as many candidates as time allows."""
    run, kind = case.run, case.run.method.init
    rows, least = case.source.rows_by_class[0], images_needed(kind, 1, run.patches)
    candidates = num_candidates(kind, run.ipc, run.patches, len(rows))

    def step(num: int) -> int:
        num = max(num, least)
        few = replace(case.source, train=case.source.train.select(rows[:num]))
        ipc, patches = min(run.ipc, num // max(1, least)), replace(run.patches, pool=num)
        starting_images(kind, few, scorer, range(1), ipc, patches, run.seed, case.device)
        return num

    timing = case.time(step, max(1, candidates))
    seconds = case.shared(timing.seconds * candidates * case.num_classes, case.num_classes)
    memory = _scoring_bytes(case, scorer, candidates) if is_scored(kind) else case.peak(step, timing.units)
    return StageEstimate(seconds, memory, case.image_bytes, f"{timing.units} candidates of one class")


def _scoring_bytes(case: _Case, scorer: Teacher, candidates: int) -> int:
    """Return the memory in which a class is scored: a batch in the network, the crops it is cut from, and the best."""
    crops = candidates * (case.run.patches.crops_per_image if case.run.method.init == "patches" else 1)

    images = case.random_images(min(crops, SCORE_BATCH))

    @torch.inference_mode()
    def score() -> None:
        in_halves(scorer.module, case.source.normalise(images).to(case.device))

    score()  # once before, so that what is made once is there
    kept = (min(crops, CUT_TOGETHER) + candidates) * 3 * case.source.size**2
    return peak_tensor_bytes(score, case.device) + kept


def _recover(case: _Case, teachers: list[Teacher], measured: Measured) -> tuple[StageEstimate, MemoryLaw]:
    """Estimate recovery at every size with every teacher, in as large a batch as time and memory allow."""
    run, source, device = case.run, case.source, case.device
    whole, cycle = largest_shard(run, case.num_classes).num_images, cycle_of(run)
    side = block_side(run.statistics, source.size)
    graphs = {0: graphs_of(run, device)}  # by batch, of the last one that was timed
    captures = graphs[0].captures
    with open_matchers(teachers, run.recover, device, run.method.matching, measured, side) as matchers:

        def step(batch: int) -> int:
            shard = largest_shard(run, case.num_classes, batch)
            if batch not in graphs:
                graphs.clear()
                graphs[batch] = graphs_of(run, device)
            try_recovery(run, matchers, source, device, shard, cycle, graphs[batch])
            return shard.num_images

        law = measure_recovery(run, matchers, source, device)
        fits = law.largest_batch(share_of_memory(device, case.num_processes))
        timing = case.time(step, max(1, min(whole, fits)), WARM_UP + 1 if captures else 0)
    num_shards = len(recovery_shards(case.num_classes, run.ipc, run.recover))
    seconds = case.shared(timing.seconds / cycle * run.method.iterations * case.num_images, num_shards)
    timed = f"{cycle} iterations of {timing.units} images" + (", replayed from graphs" if captures else "")
    return StageEstimate(seconds, law.bytes_of(whole), case.image_bytes, timed), law


def _relabel(case: _Case, teachers: list[Teacher]) -> StageEstimate:
    """Estimate the labels from a part of an epoch."""
    run, config = case.run, case.run.relabel
    mean, std, epochs = case.source.config.mean, case.source.config.std, config.num_stored
    codec = find_codec(config.codec)
    labeller = Labeller(teachers, config, mean, std, case.device) if codec.has_logits else None

    def step(num: int) -> int:
        images = case.random_images(max(2, num))
        label_epoch(images, labeller, config, run.seed, 0, codec.encode)
        return len(images)

    timing = case.time(step, case.num_images)
    memory = case.peak(step, timing.units)
    seconds = case.shared(timing.seconds * case.num_images * epochs, epochs)
    return StageEstimate(seconds, memory, case.label_bytes, f"{timing.units} views")


def _train_students(case: _Case) -> StageEstimate:
    """Estimate the training and the evaluations of every seed."""
    run, config = case.run, case.run.student
    labels = replace(run.relabel, batch_size=config.batch_size or run.relabel.batch_size)
    batch = micro_batches(min(labels.batch_size, case.num_images), labels)[0]
    shape = (case.num_classes, case.source.size)
    student = create_student(config.student, *shape, config.implementation).to(case.device)
    step = partial(_train, case, student, create_optimiser(config, student))
    training = case.time(step, batch)
    rendering = case.time(partial(_render, case, labels), case.num_images)
    num_test = 0 if case.source.test is None else len(case.source.test)
    predicting = case.time(partial(_predict, case, student), _PREDICTED)
    seen = config.epochs * case.num_images * (training.seconds + rendering.seconds)
    tested = epochs_to_test(checkpoint_epochs(config.epochs), config.epochs * case.num_images, num_test)
    seen += len(tested) * num_test * predicting.seconds
    timed = f"steps of {training.units} images; {config.num_seeds} seeds"
    return StageEstimate(config.num_seeds * seen, case.peak(step, batch), 0, timed)


def _render(case: _Case, labels: RelabelConfig, num: int) -> int:
    """Draw and render a view of each of some random images, at least two."""
    images, config = case.random_images(max(2, num)).to(case.device), case.source.config
    _, views = draw_epoch(len(images), case.source.size, labels, case.run.seed, 0)
    normalise(render_views(images, views.to(case.device)), config.mean, config.std)
    return len(images)


@torch.inference_mode()
def _predict(case: _Case, student: nn.Module, num: int) -> int:
    images = case.source.normalise(case.random_images(num)).to(case.device, memory_format=torch.channels_last)
    student.eval()(images)
    return num
