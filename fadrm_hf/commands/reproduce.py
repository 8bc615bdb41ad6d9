"""Measuring an artifact's number again: `reproduce`."""

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.recorded_source import source_of
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.measuring import only_process
from fadrm_hf.commands.options.checking import ReproduceOptions
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.results import ResultFolder, result_folder
from fadrm_hf.hub import open_artifact
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.publishing.reproduce import (
    Reproduction,
    check_files,
    choose_result,
    is_online,
    parse_tolerance,
    settings_of,
)
from fadrm_hf.report.card.results import Result
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.train_student import remove_checkpoints, train_students


def reproduce_command(call: Call) -> Summary:
    """Run `fadrm-hf reproduce ARTIFACT`; 0: within the tolerance, 1: beyond."""
    options: ReproduceOptions = call.options
    tolerance = parse_tolerance(options.tolerance)
    location = open_artifact(options.artifact, options.revision)
    place = _place(location, options.output)
    file, expected = choose_result(location, options.student, options.result)
    config = settings_of(expected, file, options.num_seeds)
    device = only_process().device
    check_files(location)
    source = source_of(location, options.source.name)
    _require_same_test(source, expected, file)
    say(f"{location.name}: {file}")
    reporter = Reporter(place.work.log)
    distilled = load_distilled(location, online=is_online(expected))
    obtained = train_students(distilled, source, config, place.work.path, reporter, device)
    comparison = Reproduction(expected, obtained, tolerance)
    filed = obtained | {"command": call.typed, "reproduction": {"of": file} | comparison.verdict()}
    path = place.add(filed)
    remove_checkpoints(place.work.path, obtained)
    for line in [*comparison.lines(), f"{path}"]:
        say(line)
    return Summary({"result": path}, filed, code=ExitCode.DONE if comparison.holds else ExitCode.DIFFERS)


def _place(location: Location, output: str | None) -> ResultFolder:
    """Return a folder other than the artifact's: the result must not replace the one that it is compared with."""
    is_local = pinned_repository(location) is None
    place = result_folder(location, output or (f"{location.folder}.reproduced" if is_local else None))
    if place.folder == location.folder:
        raise ConfigError(
            f"--output {output} is the artifact, whose own result would be replaced; choose another folder"
        )
    return place


def _require_same_test(source: Source, expected: Result, file: str) -> None:
    found = len(source.labels("test"))
    if found != expected["num_test_images"]:
        raise ConfigError(
            f"{file} was measured on {expected['num_test_images']} test images, {source.config.name} has {found}; give"
            " the source it was distilled from to --source.name"
        )
