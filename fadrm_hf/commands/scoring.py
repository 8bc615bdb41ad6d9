"""An artifact's scores in one table: `score`."""

import shlex

from rich.table import Table

from fadrm_hf.artifact.location import Location
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.measuring import only_process
from fadrm_hf.commands.options.checking import ScoreOptions
from fadrm_hf.commands.output import show
from fadrm_hf.commands.summary import Summary
from fadrm_hf.evaluation.results import ResultFolder, result_folder
from fadrm_hf.evaluation.scoring import ScoreRequest, measure_scores
from fadrm_hf.hub import open_artifact
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.report.card.results import Result, read_results
from fadrm_hf.report.card.scores import KINDS, Scores, score_rows, trajectory_rows
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RESULTS, WorkFolder


def score_command(call: Call) -> Summary:
    """Run `fadrm-hf score ARTIFACT`."""
    options: ScoreOptions = call.options
    request = ScoreRequest(
        options.student,
        options.network,
        options.label_weight,
        options.augmentation_weight,
        options.bins,
        options.source.name,
    )
    location = open_artifact(options.artifact, options.revision)
    place = result_folder(location, options.output)
    work = WorkFolder(location.folder).path
    device, reporter = only_process().device, Reporter()
    scores = measure_scores(location, request, _results(place), device, reporter, work, call.typed)
    path = place.add_scores(scores)
    show(_table(scores, location), _remarks(scores, options.artifact), path)
    return Summary({"scores": path}, scores.as_plain())


def _results(place: ResultFolder) -> list[Result]:
    """Return the artifact's own evaluations, and those filed elsewhere for an artifact that is in a cache."""
    location = place.location
    for name in location.manifest.files:
        if name.startswith(RESULTS):
            location.local(name)
    elsewhere = read_results(place.folder) if place.folder != location.folder else []
    return read_results(location.folder) + elsewhere


def _table(scores: Scores, location: Location) -> Table:
    repository = pinned_repository(location)
    table = Table(title=f"{repository.id if repository else location.folder.name}: scores")
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column("better")
    for row in score_rows(scores):
        table.add_row(*row)
    if scores.course:
        table.add_section()
    for iteration, _, pixels, features in trajectory_rows(scores):
        table.add_row(f"entropy of pixels, features at iteration {iteration}", f"{pixels}, {features} bits", "")
    return table


def _remarks(scores: Scores, artifact: str) -> list[str]:
    """Return remarks on what the table leaves out."""
    remedies: dict[str, list[str]] = {}
    for name, remedy in scores.missing.items():
        remedies.setdefault(remedy, []).append(KINDS[name].title)
    named = {remedy.replace("ARTIFACT", shlex.quote(artifact)): titles for remedy, titles in remedies.items()}
    lines = [f"not scored: {'; '.join(titles)}. What gives it: {remedy}" for remedy, titles in named.items()]
    if scores.settings["has_taught"]:
        lines.append(
            f"features are those of {scores.settings['network']}, which these images were made for; --network NAME "
            "looks through another"
        )
    return lines
