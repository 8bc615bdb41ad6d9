"""Checking an artifact: `verify`."""

from dataclasses import asdict

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.reading import read_images
from fadrm_hf.artifact.recorded_source import load_recorded_source
from fadrm_hf.artifact.recorded_teachers import withheld_teachers
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.options.checking import VerifyOptions
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.errors import FadrmError
from fadrm_hf.evaluation.leakage import copies_of_test_images
from fadrm_hf.hub import open_artifact
from fadrm_hf.publishing.verify import Problem, verify_location
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, MANIFEST


def verify_command(call: Call) -> Summary:
    """Run `fadrm-hf verify ARTIFACT`."""
    options: VerifyOptions = call.options
    location = open_artifact(options.artifact, options.revision)
    problems = verify_location(location, options.num_steps, Reporter())
    if not location.manifest.teachers:
        say(f"labels: not replayed, {MANIFEST} names no teachers")
    elif withheld := withheld_teachers(location.manifest):
        say(f"labels: not replayed, the artifact has no weights of {', '.join(withheld)}")
    if options.leakage and not any(problem.file.startswith(f"{IMAGES_FOLDER}/") for problem in problems):
        problems += _leakage(location, options.source.name)
    for problem in problems:
        say(str(problem))
    say(f"{options.artifact}: {len(problems)} problems" if problems else f"{options.artifact}: sound")
    found = {"artifact": options.artifact, "problems": [asdict(problem) for problem in problems]}
    return Summary(result=found, code=ExitCode.DIFFERS if problems else ExitCode.DONE)


def _leakage(location: Location, source_name: str | None) -> list[Problem]:
    """Find images that are nearly test images; a source that cannot be read is only reported, as no problem."""
    try:
        source = load_recorded_source(location, source_name)
    except FadrmError as error:
        if source_name:
            raise
        say(f"leakage: not checked, the test images cannot be read ({error})")
        return []
    if source.test is None:
        say("leakage: not checked, the source has no test images")
        return []
    found = copies_of_test_images(read_images(location.folder)[0], source, Reporter())
    what = "is test image {0.test_index} of the source to within {0.distance:.1f} grey levels"
    return [Problem(f"{IMAGES_FOLDER}/", f"row {near.row}", what.format(near)) for near in found]
