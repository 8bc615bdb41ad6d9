"""A network slimmed by an artifact alone: `slim`."""

from dataclasses import replace

from fadrm_hf.artifact.location import LocalFolder, Location
from fadrm_hf.artifact.recorded_source import place_of_source, source_of
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.measuring import protocol_given, student_options, table_place, table_summary
from fadrm_hf.commands.options.training import SlimOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.baselines import random_real_artifact
from fadrm_hf.evaluation.network_slimming import NetworkSlimming, SlimmedStudent, prepare_slimming, usual_student
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.evaluation.study import Session, run_study
from fadrm_hf.hub import open_artifact
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.pipeline.settings import run_from_recipe
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.loader import load_distilled

_RANDOM_REAL = "random_real"


@student_options()
def slim_command(call: Call) -> Summary:
    """Run `fadrm-hf slim ARTIFACT --ratio 0.5`."""
    options: SlimOptions = call.options
    location = open_artifact(options.artifact, options.revision)
    place = result_folder(location, options.output)
    student = call.protocol_values().get("student") or usual_student(location.manifest.pixels.size)
    given = protocol_given(call, location.manifest, student)
    architecture = given.student.replace("/", "_")
    name = f"slim-{place.folder.name}-{given.name}-{given.labels}-{architecture}-{options.ratio:g}"
    output = table_place(options.table, place, name)
    state = join_world()
    reporter = Reporter(place.work.log, quiet=not state.is_main_process)

    def prepare(images: Location) -> SlimmedStudent:
        distilled = load_distilled(images, streaming=options.streaming, online=options.makes_labels)
        source = source_of(images, options.source.name)
        return prepare_slimming(distilled, source, given, options.ratio, options.scale_penalty, options.tuning_epochs)

    students = [prepare(location)]  # before the control is made, so that what cannot work is refused first
    if options.control is not None:
        control = _control(options.control, location, options.source.name, quiet=not state.is_main_process)
        students.append(prepare(control))
    run_study(NetworkSlimming(students, place.work.path), Session(output, call.typed, reporter, state))
    return table_summary(output) if state.is_main_process else Summary()


def _control(asked: str, location: Location, source: str | None, quiet: bool) -> Location:
    """Return the artifact to compare with.

    Raises:
        ConfigError: If random images are to be made for an artifact that is not in a local folder.
    """
    if asked != _RANDOM_REAL:
        return open_artifact(asked)
    if pinned_repository(location):
        raise ConfigError(
            f"--control {_RANDOM_REAL} makes its images next to the artifact, and {location.name} is on the Hub; give "
            "a run folder, or the name of an artifact of random real images to --control"
        )
    run = run_from_recipe(location.manifest.config, str(location.folder))
    where = replace(run.source, name=place_of_source(location, source))
    return LocalFolder(random_real_artifact(replace(run, source=where), quiet))
