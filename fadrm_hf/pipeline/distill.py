"""The whole pipeline, once: source -> teachers -> patches -> recover -> relabel -> package -> card.

Everything that can be refused is refused here, before long work starts; `fadrm_hf.pipeline` has the stages.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.config import OPEN, RunConfig, SourceConfig, filled
from fadrm_hf.config.datasets import resolve
from fadrm_hf.data.sources import Source, check_source, load_source, with_own_preset
from fadrm_hf.errors import ConfigError, RunFolderError
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.labels.relabel import check_labelling
from fadrm_hf.methods.own import code_of
from fadrm_hf.networks.students import check_student
from fadrm_hf.networks.teachers import check_names
from fadrm_hf.pipeline.job import Job
from fadrm_hf.pipeline.run import Pipeline, Vote, recipe_of
from fadrm_hf.pipeline.votes import check_votes, measure_votes, needs_votes, with_votes
from fadrm_hf.recovery.patches.starting import images_needed
from fadrm_hf.recovery.plain import require_plain
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RunFolder, WorkFolder, refuse_other_run, require_place
from fadrm_hf.runtime.shards import WHOLE, Share, join_world
from fadrm_hf.runtime.tracking import Curves, recording


def distill(
    run: RunConfig,
    quiet: bool = False,
    votes: Sequence[float] | None = None,
    share: Share = WHOLE,
    snapshots: bool = False,
    curves: Curves | None = None,
) -> Path:
    """Run the pipeline, or what is left of it.

    Args:
        run: What to distil and how; open values come from the source's preset.
        quiet: Show no progress.
        votes: The vote of each teacher, as a fraction, where the run needs votes and they are known already.
        share: Which images are recovered here; the artifact is made by the job that finds all there, or by `package`.
        snapshots: Keep what the images of the first shard look like along their optimisation
            (`fadrm_hf.recovery.snapshots`).
        curves: Tracker that the run's losses go to, or `None`.

    Returns:
        The artifact's folder.

    Raises:
        FadrmError: For every mistake that can be mended, before long work starts.
    """
    state = join_world()
    run, source = check_run(run, votes)
    say_source(source, Reporter(quiet=quiet or not state.is_main_process))
    job = Job.in_folder(run, source, state, quiet, share, snapshots, curves)
    with recording(curves, recipe_of(run)):
        return Pipeline(job, _vote_of(run, votes)).run()


def say_source(source: Source, reporter: Reporter) -> None:
    """Say what was read of a source, so that a wrong guess is seen before anything is trained."""
    for heading, text in source.report.lines() if source.report else ():
        reporter.say(f"{heading:<9}  {text}")


def package(run: RunConfig, quiet: bool = False) -> Path:
    """Label and package what jobs with shares of their own have recovered; see `distill`.

    Raises:
        RunFolderError: If images are missing.
        FadrmError: As `distill`.
    """
    state = join_world()
    run, source = check_run(run)
    pipeline = Pipeline(Job.in_folder(run, source, state, quiet), _vote_of(run, None))
    if missing := pipeline.missing_shards():
        named = ", ".join(shard.name for shard in missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise RunFolderError(
            f"{run.output} lacks {len(missing)} shards of images ({named}); run fadrm-hf distill with the same "
            "arguments, or the jobs with the --shards that did not end, then package again"
        )
    return pipeline.run()


def check_run(
    run: RunConfig, votes: Sequence[float] | None = None, load: Callable[[SourceConfig], Source] = load_source
) -> tuple[RunConfig, Source]:
    """Resolve a run and load its source, refusing what cannot work; see `distill`.

    Args:
        run: The run.
        votes: One for each teacher, if they are not to be measured.
        load: Reads the source; for runs of one source, `functools.cache(load_source)` reads it once.
    """
    run = resolve(replace(run, source=with_own_preset(run.source)))
    size = run.source.size
    run = replace(run, method=run.method.resolve(size))
    run.method.check(run)
    if run.recover.form == "plain" and run.method.iterations > 0 and run.recover.statistics_weight > 0:
        require_plain(run.method.matching)
    check_names(run.teachers.names, size)
    _check_protocol(run)
    check_labelling(run.relabel, len(run.teachers.names), needs_votes(run), size)
    codec = find_codec(run.relabel.codec)
    if run.recover.batch_size is not OPEN:  # else it takes the number of classes to know the run
        _check_folder(run)
    source = load(run.source)
    run = replace(run, recover=filled(run.recover, batch_size=run.method.batch_size(len(source.class_map))))
    _check_folder(run)
    check_source(source, run.ipc, images_needed(run.method.init, run.ipc, run.patches))
    if needs_votes(run) and votes is None:
        check_votes(run, source)
    codec.features(len(source.class_map))  # refuses a number of classes that it cannot store
    check_student(run.student.student, len(source.class_map), size)
    return run, source


def _vote_of(run: RunConfig, votes: Sequence[float] | None) -> Vote | None:
    """Return how the run's teachers get the votes that it needs; `None` if it needs none."""
    if not needs_votes(run):
        return None
    return measure_votes if votes is None else lambda context: with_votes(context.teachers, votes)


def _check_protocol(run: RunConfig) -> None:
    """Refuse a protocol that trains for longer than the labels are meant for, stored or read again."""
    wanted, labelled = run.student.epochs, run.relabel.epochs
    if wanted > labelled:
        raise ConfigError(
            f"student.epochs is {wanted}, but relabel.epochs gives labels for {labelled}; set --student.epochs "
            f"{labelled} or less, or --relabel.epochs {wanted}"
        )


def _check_folder(run: RunConfig) -> None:
    """Refuse a run folder that holds anything but this run, finished or not."""
    folder, recipe = Path(run.output), recipe_of(run)
    require_place(folder)
    work = WorkFolder(folder)
    require_place(work.path)
    if code := code_of(type(run.method)):
        work.check_code(run.method.name, code)
    if RunFolder(folder).is_finished:
        refuse_other_run(read_manifest(folder).config, recipe, vars(run), folder)
        return
    work.check(recipe, vars(run))
    held = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if held and not work.has_begun:
        raise RunFolderError(
            f"{folder} holds other files ({', '.join(held[:5])}{', ...' if len(held) > 5 else ''}), expected a new or "
            "an empty folder; set --output to another one"
        )
