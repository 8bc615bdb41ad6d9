"""Checking an artifact: `verify`."""

from collections.abc import Sequence
from dataclasses import asdict

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.reading import read_images
from fadrm_hf.artifact.recorded_source import load_recorded_source
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import require
from fadrm_hf.errors import FadrmError
from fadrm_hf.evaluation.leakage import copies_of_test_images
from fadrm_hf.hub import open_artifact
from fadrm_hf.pipeline.arguments import new_parser, parse
from fadrm_hf.publishing.verify import Problem, verify_location
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, MANIFEST


def verify_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf verify ARTIFACT`."""
    parser = new_parser("fadrm-hf verify", "Recompute every hash, relabel sampled views, look for test images.")
    parser.add_argument("artifact", type=str, help="Run folder, or ORG/NAME on the Hub.")
    parser.add_argument("--revision", type=str, default=None, help="Tag, branch or commit on the Hub.")
    parser.add_argument("--num_steps", type=int, default=4, help="Labelled batches to replay.")
    parser.add_argument("--leakage", type=bool, default=True, help="Compare with the source's test images.")
    parser.add_argument("--source.name", type=str, default=None, help="Where the source is, if not where it was.")
    parsed = parse(parser, arguments)
    require(parsed.num_steps >= 0, "num_steps", parsed.num_steps, "0 or more")
    location = open_artifact(parsed.artifact, parsed.revision)
    problems = verify_location(location, parsed.num_steps, Reporter())
    if not location.manifest.teachers:
        say(f"labels: not made again, {MANIFEST} names no teachers")
    if parsed.leakage and not any(problem.file.startswith(f"{IMAGES_FOLDER}/") for problem in problems):
        problems += _leakage(location, parsed.source.name)
    for problem in problems:
        say(str(problem))
    say(f"{parsed.artifact}: {len(problems)} problems" if problems else f"{parsed.artifact}: sound")
    found = {"artifact": parsed.artifact, "problems": [asdict(problem) for problem in problems]}
    return Summary(result=found, code=ExitCode.DIFFERS if problems else ExitCode.DONE)


def _leakage(location: Location, source_name: str | None) -> list[Problem]:
    """Images that are nearly test images; a source that cannot be read is said, and is no fault of the artifact."""
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
