"""Votes on teachers: how good a student becomes on what each of them distils alone (CV-DD, arXiv 2501.07575).

Every teacher distils some of the training images by SRe2L++, a student is trained on the outcome, and its accuracy on
the training images that were held out is the teacher's vote. In the released code (Jiacheng8/CV-DD @ 24097e9) votes
are constants that were measured on test images, so that its images and soft labels depend on these; here no test image
is looked at.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fadrm_hf.config import RelabelConfig, RunConfig, StudentConfig, VoteConfig
from fadrm_hf.config.datasets import resolve
from fadrm_hf.data.sources import Source, num_held_out
from fadrm_hf.errors import ConfigError, SourceError
from fadrm_hf.methods.sre2l_pp import SRe2LPlusPlus
from fadrm_hf.networks.students import check_student
from fadrm_hf.networks.teachers import Teacher, public_name
from fadrm_hf.pipeline.job import Job
from fadrm_hf.pipeline.run import Pipeline, VoteContext, recipe_of
from fadrm_hf.recovery.patches.starting import images_needed
from fadrm_hf.runtime import files
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import WorkFolder
from fadrm_hf.runtime.shards import mine
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.train_student import remove_checkpoints, train_students


def needs_votes(run: RunConfig) -> bool:
    """Return whether a run needs to know what its teachers are worth: for its method, or for its labels alone."""
    return bool(run.method.needs_votes) or run.relabel.ensemble == "votes"


def check_votes(run: RunConfig, source: Source) -> None:
    """Refuse what votes cannot be had for, before long work starts.

    Args:
        run: A resolved run. The settings of voting are its method's, or the defaults if that has none.
        source: Its real images.

    Raises:
        ConfigError: If the number of given votes is not that of the teachers.
        SourceError: If a class has too few images to distil from once some are held out.
        StudentError: If the voting student does not exist.
    """
    config, names = _settings_of(run), run.teachers.names
    if config.votes is not None:
        _require_one_each(config.votes, names)
        return
    check_student(config.vote_student, len(source.class_map), source.size)
    counts = source.images_per_class
    least = int(counts.argmin())
    left = counts[least] - num_held_out(int(counts[least]), config.held_out)
    needed = images_needed("patches", config.vote_ipc, run.patches)
    if counts[least] < 2 or left < needed:
        remedy = "lower --method.vote_ipc or --method.held_out, or give --method.votes"
        raise SourceError(
            f"class {source.class_map.names[least]!r} has {counts[least]} training images; with a fraction of "
            f"{config.held_out} held out to vote on teachers, {max(left, 0)} are left to distil from, expected at "
            f"least {needed} for {config.vote_ipc} images per class; "
            + (remedy if isinstance(run.method, VoteConfig) else "set --relabel.ensemble mean")
        )


def measure_votes(context: VoteContext) -> list[Teacher]:
    """Return the teachers with their votes: given ones, else measured once and read from the work folder after that.

    All processes must call this together; they distil together, and each trains the students of some teachers.

    Args:
        context: The run and its teachers. In its work folder every measured vote leaves one small file, named by all
            that decides it; the rest is removed.

    Raises:
        ConfigError: If the number of given votes is not that of the teachers.
    """
    config, state = _settings_of(context.run), context.state
    if config.votes is not None:
        return with_votes(context.teachers, [vote / 100.0 for vote in config.votes])
    held_out = context.source.hold_out(config.held_out, context.run.seed)
    trials = [_Trial.of(teacher, context, config, held_out) for teacher in context.teachers]
    missing = list({trial.folder: trial for trial in trials if files.read_json(trial.record) is None}.values())
    own = mine(missing, state)
    state.wait_for_everyone()  # nobody measures before everybody has looked
    with context.reporter.stage("votes", len(missing) + len(own)) as task:
        for trial in missing:
            trial.distil()
            task.advance(1)
        for trial in own:
            task.advance(1, vote=trial.measure(state.device))
    state.wait_for_everyone()
    if state.is_main_process:
        for trial in trials:
            shutil.rmtree(trial.folder, ignore_errors=True)
    votes = [float(files.read_json(trial.record)["vote"]) for trial in trials]
    num_images = len(held_out.rows("test"))
    for teacher, vote in zip(context.teachers, votes, strict=True):
        context.reporter.say(f"teacher {teacher.name}: vote {vote:.1%} of {num_images} held-out training images")
    return with_votes(context.teachers, votes)


def with_votes(teachers: Sequence[Teacher], votes: Sequence[float]) -> list[Teacher]:
    """Return the teachers with these votes, as fractions.

    Raises:
        ConfigError: If there are not as many votes as teachers.
    """
    _require_one_each(votes, [teacher.name for teacher in teachers])
    return [replace(teacher, vote=vote) for teacher, vote in zip(teachers, votes, strict=True)]


@dataclass(frozen=True, eq=False)
class _Trial:
    """One teacher on its own.

    Attributes:
        teacher: The teacher.
        context: Who else is voted on, and where.
        run: What it distils.
        source: The source with images held out.
        folder: All that the trial takes.
    """

    teacher: Teacher
    context: VoteContext
    run: RunConfig
    source: Source
    folder: Path

    @classmethod
    def of(cls, teacher: Teacher, context: VoteContext, config: VoteConfig, source: Source) -> "_Trial":
        run = _trial_run(context.run, teacher, config)
        decisive = json.dumps([recipe_of(run), source.fingerprint, teacher.sha256], sort_keys=True)
        name = re.sub(r"[^\w.-]+", "-", public_name(teacher.name))
        folder = context.work / f"{name}-{hashlib.sha256(decisive.encode()).hexdigest()[:12]}"
        return cls(teacher, context, replace(run, output=str(folder / run.output)), source, folder)

    @property
    def record(self) -> Path:
        """Return the file of the vote."""
        return self.folder.with_name(f"{self.folder.name}.json")

    def distil(self) -> None:
        """Make its artifact, or what is left of it; all processes together."""
        job = Job.in_folder(self.run, self.source, self.context.state, quiet=True)
        Pipeline(job, teachers=[self.teacher]).run()

    def measure(self, device: torch.device) -> float:
        """Train the student and keep its accuracy, as a fraction."""
        work = WorkFolder(Path(self.run.output))
        distilled, reporter = load_distilled(self.run.output), Reporter(work.log, quiet=True)
        result = train_students(distilled, self.source, self.run.student, work.path, reporter, device)
        vote: float = result["top1"]["mean"]
        teacher = {"teacher": public_name(self.teacher.name), "sha256": self.teacher.sha256}
        files.write_json(self.record, teacher | {"vote": vote, "num_images": result["num_test_images"]})
        remove_checkpoints(work.path, result)
        return vote


def _trial_run(run: RunConfig, teacher: Teacher, config: VoteConfig) -> RunConfig:
    """Build a run of SRe2L++ with one teacher: patches and optimiser of the run, labels and student of SRe2L++."""
    student = StudentConfig(
        "cv_dd", config.vote_student, epochs=config.vote_epochs, num_seeds=1, num_workers=run.student.num_workers
    )
    return resolve(
        replace(
            run,
            output="run",
            ipc=config.vote_ipc,
            method=SRe2LPlusPlus(config.vote_iterations).resolve(run.source.size),
            teachers=replace(run.teachers, names=(teacher.name,)),
            relabel=RelabelConfig(epochs=config.vote_epochs, flip_probability=run.relabel.flip_probability),
            student=student,
        )
    )


def _settings_of(run: RunConfig) -> VoteConfig:
    return run.method if isinstance(run.method, VoteConfig) else VoteConfig()


def _require_one_each(votes: Sequence[float], names: Sequence[str]) -> None:
    if len(votes) != len(names):
        raise ConfigError(
            f"method.votes has {len(votes)} votes, expected one for each of the {len(names)} teachers {list(names)}; "
            "set --method.votes"
        )
