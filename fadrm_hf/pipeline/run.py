"""A run's stages in order, and what must be there before each."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from fadrm_hf.builders.soft_labels import label_features, row_bytes
from fadrm_hf.config import RunConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.methods.own import code_of
from fadrm_hf.networks.teachers import Teacher, prepare_teachers, public_name
from fadrm_hf.pipeline.job import Job
from fadrm_hf.pipeline.package import write_artifact
from fadrm_hf.pipeline.patch_stage import build_pools, select_patches
from fadrm_hf.pipeline.recover_stage import Measured, recover_images
from fadrm_hf.pipeline.relabel_stage import label_images
from fadrm_hf.pipeline.stage_costs import Costs
from fadrm_hf.recovery.matcher import MatchableCheck
from fadrm_hf.recovery.matching.distance import needs_measuring
from fadrm_hf.recovery.matching.gathering import StatisticsPass
from fadrm_hf.runtime.compilation import eager_instead
from fadrm_hf.runtime.number_format import slow_format
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RunFolder, require_space
from fadrm_hf.runtime.shards import Shard


@dataclass(frozen=True, eq=False)
class VoteContext:
    """Input of a vote on teachers.

    Attributes:
        run: The resolved run.
        source: Its real images.
        teachers: The teachers to vote on.
        work: Folder for the vote's files.
        state: The processes that share the work.
        reporter: Prints the votes.
    """

    run: RunConfig
    source: Source
    teachers: list[Teacher]
    work: Path
    state: PartialState
    reporter: Reporter


Vote = Callable[[VoteContext], list[Teacher]]  # the teachers with their votes


def recipe_of(run: RunConfig) -> dict[str, Any]:
    """Return the run as plain data for `recipe.yaml` and the manifest; local paths are reduced to their last part."""
    recipe = asdict(run)
    recipe["method"] = {"name": run.method.name} | recipe["method"]
    recipe["output"] = Path(run.output).name
    recipe["source"]["name"] = run.source.public_name
    recipe["teachers"]["names"] = [public_name(name) for name in run.teachers.names]
    plain: dict[str, Any] = json.loads(json.dumps(recipe))
    return plain


class Pipeline:
    """All stages of one run, from source to artifact.

    Args:
        job: This process's part in the run.
        vote: How teachers are voted on, for methods whose teachers have votes.
        teachers: The run's teachers, where they are known already.
    """

    def __init__(self, job: Job, vote: Vote | None = None, teachers: list[Teacher] | None = None) -> None:
        self._job, self._folder = job, Path(job.run.output)
        self._costs = Costs(job, is_part=teachers is not None)
        self._vote, self._given_teachers = vote, teachers

    def run(self) -> Path:
        """Run all stages in order; those after recovery as soon as all shares are recovered."""
        job, cost = self._job, self._costs.of
        if self._is_finished:
            job.reporter.say(f"{self._folder} is finished already")
            return self._folder
        job.reporter.say(f"the artifact will be {self._folder}; unfinished work is kept in {job.work.path}")
        self._name_slow_form()
        with job.state.main_process_first():
            if job.state.is_main_process:
                job.work.remove_damaged(job.reporter.say)
            require_space(self._folder, self._expected_bytes() - job.work.num_bytes())
        with cost("teachers"), job.state.main_process_first():
            teachers = self._given_teachers or self._prepare_teachers()
            # Not before: a run whose teachers are refused leaves nothing behind, and may be given other settings.
            job.work.begin(recipe_of(job.run), vars(job.run))
            job.work.remember_source(job.run.source.name)
            if code := code_of(type(job.run.method)):
                job.work.remember_code(job.run.method.name, code)
        measured = self._gather_statistics(teachers)
        if self._vote is not None:
            with cost("votes"):
                work = RunFolder(self._folder).votes
                teachers = self._vote(VoteContext(job.run, job.source, teachers, work, job.state, job.reporter))
        with cost("patches"):
            build_pools(job, teachers[0])
            select_patches(job, teachers[0])
        with cost("recover"):
            recover_images(job, teachers, measured)
        if missing := self.missing_shards():
            done = f"{len(job.shards) - len(missing)} of {len(job.shards)} shards of images are recovered"
            job.reporter.say(f"{done}; when the other jobs have ended: fadrm-hf package, with the same arguments")
            return self._folder
        with cost("relabel"):
            label_images(job, teachers)
        for package in job.locks.take("package", {"artifact": self._package}, lambda _: self._is_finished):
            try:
                package(teachers)
            except FileNotFoundError:  # this process was taken for dead; another finished and tidied up
                if not self._is_finished:
                    raise
        job.reporter.say(f"{self._folder} is finished")
        return self._folder

    def missing_shards(self) -> list[Shard]:
        """Return the shards, of all shares, whose images are not recovered yet."""
        return self._job.missing_shards()

    @property
    def _is_finished(self) -> bool:
        return RunFolder(self._folder).is_finished

    def _name_slow_form(self) -> None:
        """Name what is missing to compile, or a format that is emulated, as none is in fast forms and for labels."""
        config, device = self._job.run.recover, self._job.device.type
        if config.form == "compiled" and (eager := eager_instead(device)):
            self._job.reporter.say(eager)
        if config.form == "plain" and (slow := slow_format("recover.precision", config.precision, device)):
            self._job.reporter.say(slow)

    def _prepare_teachers(self) -> list[Teacher]:
        run = self._job.run
        return prepare_teachers(
            run.teachers,
            run.squeeze,
            self._job.source,
            RunFolder(self._folder).trained_teachers,
            run.seed,
            self._job.reporter,
            self._job.device,
            self._matchable_check(),
        )

    def _matchable_check(self) -> MatchableCheck | None:
        run = self._job.run
        if run.method.iterations == 0:
            return None
        return MatchableCheck(len(set(run.teachers.names)), run.recover, run.method.sizes or ())

    def _gather_statistics(self, teachers: list[Teacher]) -> Measured:
        """Gather the statistics that are matched of each teacher's layers and that it does not keep itself."""
        job, run, wanted = self._job, self._job.run, self._job.run.method.matching
        matches = run.method.iterations > 0 and run.recover.statistics_weight > 0
        if not matches or not any(needs_measuring(wanted, teacher.module) for teacher in teachers):
            return [{} for _ in teachers]
        passes = [
            StatisticsPass(teacher, job.source, run.statistics, run.squeeze, wanted, run.seed) for teacher in teachers
        ]
        require_space(self._folder, 2 * sum(statistics.num_bytes for statistics in passes))
        folder = RunFolder(self._folder).statistics
        with self._costs.of("statistics"):
            return [statistics.gather(folder, job.state, job.reporter) for statistics in passes]

    def _package(self, teachers: list[Teacher]) -> None:
        job = self._job
        with self._costs.of("package"):
            recipe, costs = recipe_of(job.run), self._costs.records()
            reporter = job.reporter.heard_by(job.locks.touch)
            write_artifact(self._folder, job.work.path, recipe, job.source, teachers, costs, reporter)

    def _expected_bytes(self) -> int:
        """Return the bytes of shards and artifact: pixels 3 times, labels twice, pools, and room for the rest."""
        run, num_classes = self._job.run, self._job.num_classes
        num_images = run.ipc * num_classes
        pixels = num_images * 3 * run.source.size**2
        labels = num_images * run.relabel.num_stored * row_bytes(label_features(run.relabel.codec, num_classes))
        pools = 0 if run.method.retrieval is None else num_classes * run.patches.pool * 3 * run.source.size**2
        return 3 * pixels + 2 * labels + pools + (64 << 20)
