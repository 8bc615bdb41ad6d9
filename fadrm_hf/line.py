"""The stages of a run: teachers, statistics, votes, patches, recover, relabel, package.

Every stage writes finished shards beside the run folder and skips those that are there, so the same command goes on
where it was interrupted; the artifact appears at the end, its manifest last.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState

from fadrm_hf import files
from fadrm_hf.artifact.manifest import MANIFEST_NAME, StageRecord
from fadrm_hf.builders.soft_labels import label_features, row_bytes
from fadrm_hf.claims import Claims, alone
from fadrm_hf.config import RunConfig
from fadrm_hf.label_codec import find_codec
from fadrm_hf.machine import peak_memory_bytes, reset_peak_memory
from fadrm_hf.matcher import MatchableCheck, matching
from fadrm_hf.memory import require_memory
from fadrm_hf.package import write_artifact
from fadrm_hf.patches import Patches, noise_start, starting_images
from fadrm_hf.progress import Reporter, Task
from fadrm_hf.randomness import generator
from fadrm_hf.recover import Recovery
from fadrm_hf.relabel import Labeller, label_epoch
from fadrm_hf.retrieval import Retriever, build_pool
from fadrm_hf.shards import (
    WHOLE,
    Shard,
    Share,
    WorkFolder,
    class_ranges,
    classes_together,
    range_name,
    recovery_shards,
    require_space,
)
from fadrm_hf.snapshots import Snapshots
from fadrm_hf.sources import Source
from fadrm_hf.statistics import Targets
from fadrm_hf.statistics.gathering import block_side, gather_statistics, statistics_bytes
from fadrm_hf.teachers import Teacher, prepare_teachers, public_name

Measured = list[dict[str, Targets]]
Unit = TypeVar("Unit")


@dataclass(frozen=True, eq=False)
class Ballot:
    """What a vote on teachers needs to know.

    Attributes:
        run: The resolved run.
        source: Its real images.
        teachers: Who is voted on.
        work: Folder for what voting takes.
        state: The processes that share the work.
        reporter: Says what comes out.
    """

    run: RunConfig
    source: Source
    teachers: list[Teacher]
    work: Path
    state: PartialState
    reporter: Reporter


Vote = Callable[[Ballot], list[Teacher]]  # the teachers with their votes


def recipe_of(run: RunConfig) -> dict[str, Any]:
    """The run as plain data, as `recipe.yaml` and the manifest hold it; local paths are reduced to their last part."""
    recipe = asdict(run)
    recipe["method"] = {"name": run.method.name} | recipe["method"]
    recipe["output"] = Path(run.output).name
    if Path(run.source.name).exists():
        recipe["source"]["name"] = Path(run.source.name).resolve().name
    recipe["teachers"]["names"] = [public_name(name) for name in run.teachers.names]
    plain: dict[str, Any] = json.loads(json.dumps(recipe))
    return plain


class Line:
    """One run on its way from source to artifact.

    Args:
        run: A resolved run.
        source: Its source.
        state: The processes that share the work.
        quiet: Show no progress.
        vote: How teachers are voted on, for methods whose teachers have votes.
        teachers: The run's teachers, where they are known already.
        share: Which images this process and those of its launch recover; the others are somebody else's.
        snapshots: Keep what the images of the first shard look like along their optimisation.
    """

    def __init__(
        self,
        run: RunConfig,
        source: Source,
        state: PartialState,
        quiet: bool = False,
        vote: Vote | None = None,
        teachers: list[Teacher] | None = None,
        share: Share = WHOLE,
        snapshots: bool = False,
    ) -> None:
        self._run, self._source, self._state = run, source, state
        self._vote, self._given_teachers, self._snapshots = vote, teachers, snapshots
        self._folder = Path(run.output)
        self._work = WorkFolder(self._folder)
        self._reporter = Reporter(self._work.log, quiet or not state.is_main_process)
        place = state.process_index / state.num_processes
        self._claims = Claims(self._work.path / "claims", self._reporter.say, Reporter(quiet=quiet).say, place)
        self._device: torch.device = state.device
        self._num_classes = len(source.class_map)
        self._ranges = class_ranges(self._num_classes, classes_together(run.ipc, run.recover))
        self._shards = recovery_shards(self._num_classes, run.ipc, run.recover)
        self._own = share.part(self._shards)

    def run(self) -> Path:
        """All stages, in order; those after recovery as soon as everybody's images are there."""
        if self._is_finished:
            self._reporter.say(f"{self._folder} is finished already")
            return self._folder
        with self._state.main_process_first():
            if self._state.is_main_process:
                self._work.remove_damaged(self._reporter.say)
            require_space(self._folder, self._expected_bytes() - self._work.num_bytes())
        with self._cost("teachers"), self._state.main_process_first():
            teachers = self._given_teachers or self._prepare_teachers()
            # Not before: a run whose teachers are refused leaves nothing behind, and may be given other settings.
            self._work.claim(recipe_of(self._run))
        measured = self._gather_statistics(teachers)
        if self._vote is not None:
            with self._cost("votes"):
                work = self._folder.parent / "votes"
                teachers = self._vote(Ballot(self._run, self._source, teachers, work, self._state, self._reporter))
        with self._cost("patches"):
            self._build_pools(teachers[0])
            self._select_patches(teachers[0])
        with self._cost("recover"):
            self._recover(teachers, measured)
        if missing := self.missing_shards():
            done = f"{len(self._shards) - len(missing)} of {len(self._shards)} shards of images are recovered"
            self._reporter.say(f"{done}; when the other jobs have ended: fadrm-hf package, with the same arguments")
            return self._folder
        with self._cost("relabel"):
            self._relabel(teachers)
        for package in self._claims.share("package", {"artifact": self._package}, lambda _: self._is_finished):
            package(teachers)
        return self._folder

    def missing_shards(self) -> list[Shard]:
        """Shards, of all shares, whose images are not recovered yet."""
        return [shard for shard in self._shards if self._missing_files(shard)]

    @property
    def _is_finished(self) -> bool:
        return (self._folder / MANIFEST_NAME).exists()

    def _units(
        self,
        stage: str,
        units: Mapping[str, Unit],
        is_done: Callable[[str], bool],
        weigh: Callable[[Unit], int] = lambda unit: 1,
        images_of: Callable[[Unit], int] = lambda unit: 0,
    ) -> Iterator[tuple[Unit, Task]]:
        """The units of a stage that this process gets, each with the bar on which it counts `weigh` of them."""
        todo = {name: unit for name, unit in units.items() if not is_done(name)}
        parts, images = (sum(map(count, todo.values())) for count in (weigh, images_of))
        with self._reporter.stage(stage, parts, images) as task:
            for unit in self._claims.share(stage, todo, is_done, lambda unit: task.skip(weigh(unit))):
                yield unit, task

    def _is_there(self, stage: str) -> Callable[[str], bool]:
        """Whether a shard of a stage is on disk, by its name."""
        return lambda name: files.is_complete(self._work.shard(stage, name))

    def _prepare_teachers(self) -> list[Teacher]:
        run = self._run
        return prepare_teachers(
            run.teachers,
            run.squeeze,
            self._source,
            self._folder.parent / "teachers",
            run.seed,
            self._reporter,
            self._device,
            self._matchable_check(),
        )

    def _matchable_check(self) -> MatchableCheck | None:
        run = self._run
        if run.method.iterations == 0:
            return None
        return MatchableCheck(len(set(run.teachers.names)), run.recover, run.method.sizes or ())

    def _gather_statistics(self, teachers: list[Teacher]) -> Measured:
        """What each teacher's layers have seen, where it does not keep that itself, and it is matched at all."""
        run, wanted = self._run, self._run.method.matching
        matches = run.method.iterations > 0 and run.recover.bn_weight > 0
        if not matches or not any(wanted.measures(teacher.module) for teacher in teachers):
            return [{} for _ in teachers]
        convolutions, classes, source = wanted.convolutions, wanted.category > 0, self._source
        sizes = [statistics_bytes(t, source, run.statistics, convolutions, classes) for t in teachers]
        require_space(self._folder, 2 * sum(sizes))
        gather = partial(
            gather_statistics,
            source=source,
            config=run.statistics,
            squeeze=run.squeeze,
            convolutions=convolutions,
            classes=classes,
            folder=self._folder.parent / "statistics",
            seed=run.seed,
            state=self._state,
            reporter=self._reporter,
        )
        with self._cost("statistics"):
            return [gather(teacher) for teacher in teachers]

    def _build_pools(self, teacher: Teacher) -> None:
        """The real patches of each class that recovery may retrieve, if it does."""
        run = self._run
        if run.method.retrieval is None:
            return
        labels = {_pool_name(label): label for label in range(self._num_classes)}
        for label, task in self._units("pools", labels, self._is_there("pools")):
            pool = build_pool(self._source, teacher, label, run.ipc, run.patches, run.seed, self._device)
            self._work.save("pools", _pool_name(label), pool)
            task.advance(1)

    def _retriever(self, teacher: Teacher, labels: torch.Tensor) -> Retriever | None:
        weight = self._run.method.retrieval
        if weight is None:
            return None
        pools = [self._work.shard("pools", _pool_name(label)) for label in labels.tolist()]
        return Retriever(teacher, self._source, pools, weight)

    def _select_patches(self, scorer: Teacher) -> None:
        wanted = {shard.classes for shard in self._own}
        ranges = {range_name(labels): labels for labels in self._ranges if labels in wanted}
        run, kind = self._run, self._run.method.starts_from
        there = self._is_there("patches")
        for labels, task in self._units("patches", ranges, there, len, lambda labels: len(labels) * run.ipc):
            patches = starting_images(kind, self._source, scorer, labels, run.ipc, run.patches, run.seed, self._device)
            self._work.save("patches", range_name(labels), vars(patches))
            task.advance(len(labels))

    def _recover(self, teachers: list[Teacher], measured: Measured) -> None:
        run = self._run
        shards = {shard.name: shard for shard in self._own}

        def is_done(name: str) -> bool:
            return not self._missing_files(shards[name])

        if all(map(is_done, shards)):
            return
        matched, known = (teachers, measured) if run.method.iterations else ([], [])
        side = block_side(run.statistics, self._source.size)
        with matching(matched, run.recover, self._device, run.method.matching, known, side) as matchers:
            require_memory(run, matchers, self._source, self._device, self._state)
            units = self._units("recover", shards, is_done, lambda _: run.method.iterations, lambda s: s.num_images)
            for shard, task in units:
                patches = self._patches_of(shard)
                recovery = Recovery(
                    matchers,
                    patches.label.to(self._device),
                    self._source,
                    run.recover,
                    run.method.iterations,
                    generator(run.seed, "recover", shard.name),
                    self._report_to(task),
                    self._turns_before(shard),
                    patches.ipc_index,
                    [teacher.vote for teacher in teachers],
                    self._retriever(teachers[0], patches.label),
                    Snapshots(self._work, self._source) if self._snapshots and shard == self._shards[0] else None,
                )
                images = run.method.recover(self._start_of(patches), recovery)
                self._save_images(shard, replace(patches, images=self._source.to_pixels(images.cpu())))

    def _report_to(self, task: Task) -> Callable[[int, dict[str, float]], None]:
        """What recovery tells, shown to people and to the processes that wait for this one."""

        def report(iterations: int, losses: dict[str, float]) -> None:
            task.advance(iterations, **losses)
            self._claims.touch()

        return report

    def _missing_files(self, shard: Shard) -> list[str]:
        return self._work.missing("recovered", list(shard.files.values()))

    def _turns_before(self, shard: Shard) -> int:
        run = self._run
        return 0 if run.recover.turns == "shard" else self._shards.index(shard) * run.method.iterations

    def _start_of(self, patches: Patches) -> torch.Tensor:
        """(B, 3, S, S) float32, normalised: what is optimised."""
        if self._run.method.starts_from != "noise":
            return self._source.normalise(patches.images).to(self._device)
        places = zip(patches.label.tolist(), patches.ipc_index.tolist(), strict=True)
        size, seed = self._source.size, self._run.seed
        return torch.stack([noise_start(label, index, size, seed) for label, index in places]).to(self._device)

    def _save_images(self, shard: Shard, recovered: Patches) -> None:
        """One file for each image index of the shard, so that files in order make the table, whatever the layout."""
        missing = self._missing_files(shard)
        for index, name in shard.files.items():
            if name not in missing:
                continue
            rows = recovered.ipc_index == index
            columns = {column: values[rows] for column, values in vars(recovered).items()}
            self._work.save("recovered", name, columns)

    def _relabel(self, teachers: list[Teacher]) -> None:
        run = self._run
        epochs, mean, std = run.relabel.num_stored, run.source.mean, run.source.std
        assert epochs is not None and mean is not None and std is not None
        codec = find_codec(run.relabel.codec)
        numbers = {_epoch_name(epoch): epoch for epoch in range(epochs)}
        images, there = self._recovered_images(), self._is_there("soft_labels")
        labeller = Labeller(teachers, run.relabel, mean, std, self._device) if codec.has_logits else None
        for epoch, task in self._units("relabel", numbers, there, images_of=lambda _: len(images)):
            table = label_epoch(images, labeller, run.relabel, run.seed, epoch)
            if labeller is not None:
                table |= codec.encode(table.pop("logits"))
            self._work.save("soft_labels", _epoch_name(epoch), table)
            task.advance(1)

    def _package(self, teachers: list[Teacher]) -> None:
        with self._cost("package"):
            costs = {name: StageRecord(**cost) for name, cost in self._costs().items()}
            write_artifact(self._folder, self._work.path, recipe_of(self._run), self._source, teachers, costs)
        self._reporter.say(f"{self._folder} is finished; next: fadrm-hf train-student {self._folder}")

    def _patches_of(self, shard: Shard) -> Patches:
        columns = files.load_tensors(self._work.shard("patches", range_name(shard.classes)))
        rows = torch.isin(columns["ipc_index"], torch.tensor(shard.ipc_indices))
        return Patches(**{name: column[rows] for name, column in columns.items()})

    def _recovered_images(self) -> torch.Tensor:
        """(N, 3, S, S) uint8, in the order of the image table."""
        names = [s.files[index] for index in range(self._run.ipc) for s in self._shards if index in s.files]
        return torch.cat([files.load_tensors(self._work.shard("recovered", name))["images"] for name in names])

    def _expected_bytes(self) -> int:
        """Shards and artifact together: pixels three times, soft labels twice, pools, room for tables and pictures."""
        run = self._run
        assert run.source.size is not None and run.relabel.num_stored is not None
        num_classes = len(self._source.class_map)
        num_images = run.ipc * num_classes
        pixels = num_images * 3 * run.source.size**2
        labels = num_images * run.relabel.num_stored * row_bytes(label_features(run.relabel.codec, num_classes))
        pools = 0 if run.method.retrieval is None else num_classes * run.patches.pool * 3 * run.source.size**2
        return 3 * pixels + 2 * labels + pools + (64 << 20)

    @contextmanager
    def _cost(self, stage: str) -> Iterator[None]:
        """Add the block's seconds to the stage's cost, which survives interruptions once anything is written."""
        started = time.monotonic()
        if self._given_teachers is None:  # else this line is part of a stage of another, which counts
            reset_peak_memory()
        try:
            yield
        finally:
            if self._state.is_main_process and self._work.path.exists():
                with alone(self._work.path / "claims" / "costs.lock", self._reporter.say):
                    self._add_cost(stage, time.monotonic() - started)

    def _add_cost(self, stage: str, seconds: float) -> None:
        costs = self._costs()
        before = costs.get(stage, {"seconds": 0.0, "peak_memory_bytes": 0})
        peak = max(before["peak_memory_bytes"], peak_memory_bytes())
        costs[stage] = {"seconds": round(before["seconds"] + seconds, 1), "peak_memory_bytes": peak}
        files.write_json(self._work.path / "costs.json", costs)

    def _costs(self) -> dict[str, Any]:
        path = self._work.path / "costs.json"
        return json.loads(path.read_text()) if path.exists() else {}


def _pool_name(label: int) -> str:
    return f"{label:05d}"


def _epoch_name(epoch: int) -> str:
    return f"epoch{epoch:05d}"
