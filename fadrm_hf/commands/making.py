"""Making an artifact: `distill`, and `train-teacher` for a teacher of one's own."""

from collections.abc import Sequence
from pathlib import Path

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.commands.info import described
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import SourceConfig, SqueezeConfig
from fadrm_hf.config.datasets import resolve_source, resolve_squeeze
from fadrm_hf.data.sources import load_source
from fadrm_hf.hub import open_artifact
from fadrm_hf.networks.teachers.squeeze import squeeze
from fadrm_hf.pipeline.arguments import new_parser, parse, parse_run
from fadrm_hf.pipeline.distill import distill, package
from fadrm_hf.report.gallery import pages_of
from fadrm_hf.runtime.files import read_json
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import MANIFEST, RECIPE, WorkFolder
from fadrm_hf.runtime.shards import Share, join_world
from fadrm_hf.runtime.tracking import Curves, curves_of


def distill_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf distill`."""
    shards, rest = _taken("--shards", arguments)
    tracker, rest = _taken("--tracker", rest)
    words = [word for word in rest if word != "--snapshots"]  # none of the three is a part of a run
    share = Share() if shards is None else Share.parse(shards)
    run = parse_run(with_recipe_from_hub(list(words)))
    folder = Path(run.output)
    curves = curves_of(tracker, WorkFolder(folder).path)
    distill(run, share=share, snapshots=words != rest, curves=curves)
    return _summary(folder, words, curves)


def package_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf package`, with the arguments of distill."""
    _, words = _taken("--shards", arguments)
    run = parse_run(with_recipe_from_hub(list(words)), "fadrm-hf package")
    package(run)
    return _summary(Path(run.output), words)


def _summary(folder: Path, words: Sequence[str], curves: Curves | None = None) -> Summary:
    """What was made and what uses it; of a run whose images others still recover, what finishes it."""
    recorded: dict[str, Path | str] = {} if curves is None else {"curves": curves.place}
    if not (folder / MANIFEST).exists():
        return Summary({"work": WorkFolder(folder).path, **recorded}, following=["package", *words])
    made = {"artifact": folder, **pages_of(folder), **recorded}
    return Summary(made, described(read_manifest(folder)), ["train-student", str(folder)])


def _taken(option: str, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of an option that is no part of a run, if it is given, and the rest of the command line."""
    given, rest, words = None, [], iter(arguments)
    for word in words:
        name, is_joined, value = word.partition("=")
        if name == option:
            given = value if is_joined else next(words, "")
        else:
            rest.append(word)
    return given, rest


def with_recipe_from_hub(arguments: list[str]) -> list[str]:
    """`--config hf://datasets/ORG/NAME/recipe.yaml` becomes that file, in a folder and of a source that are certain.

    A recipe names its run folder without the place where it was, and may leave the source's revision open, which the
    manifest knows: what is not on the command line is set to `runs/FOLDER` and to that revision.
    """
    for index, argument in enumerate(arguments):
        uri = argument.removeprefix("--config=")
        if not uri.startswith("hf://"):
            continue
        location = open_artifact(uri.removesuffix("/recipe.yaml"))
        arguments[index] = argument.replace(uri, str(location.local(RECIPE)))
        manifest = location.manifest
        known = {"--output": f"runs/{Path(str(manifest.config.get('output'))).name}"}
        known |= {"--source.revision": manifest.source.revision} if manifest.source.revision else {}
        given = {argument.partition("=")[0] for argument in arguments}
        arguments = arguments + [f"{name}={value}" for name, value in known.items() if name not in given]
    return arguments


def train_teacher_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf train-teacher`."""
    parser = new_parser("fadrm-hf train-teacher", "Train a teacher on a source and save it as a timm model directory.")
    parser.add_argument(
        "--architecture", type=str, default="resnet18", help="timm's name; <= 64 px: small-image stem."
    )
    parser.add_argument(
        "--output", type=str, default=None, help="Folder; runs/teachers/ARCHITECTURE-SOURCE if not given."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of weights, order and augmentation.")
    parser.add_class_arguments(SourceConfig, "source")
    parser.add_class_arguments(SqueezeConfig, "squeeze")
    parsed = parse(parser, arguments)
    source_config = resolve_source(SourceConfig(**parsed.source.as_dict()))
    recipe = resolve_squeeze(SqueezeConfig(**parsed.squeeze.as_dict()), source_config)
    name = f"{parsed.architecture}-{Path(source_config.name).name}"
    folder = Path(parsed.output or f"runs/teachers/{name}")
    source = load_source(source_config)
    reporter = Reporter(WorkFolder(folder).log)
    squeeze(source, parsed.architecture, recipe, folder, parsed.seed, reporter, join_world().device)
    record = read_json(folder / "config.json")["fadrm"]
    result = {name: record[name] for name in ("accuracy", "epochs", "source")}
    teacher = [f"--teachers.names=[timm/local-dir:{folder}]", f"--source.name={source_config.name}"]
    return Summary({"teacher": folder}, result, ["distill", *teacher])
