"""From YAML and command line to a typed run: `--config run.yaml --method.alpha 0.4`, `--print_config`.

Each section of a run has its dataclass; the `method` section has that of the method it names, so the name is found
before anything else is parsed. The method's published settings for the source are defaults of every section.
"""

from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from fadrm_hf.artifact.manifest import parse_settings
from fadrm_hf.config import (
    PatchConfig,
    RecoverConfig,
    RelabelConfig,
    RunConfig,
    SourceConfig,
    SqueezeConfig,
    StatisticsConfig,
    StudentConfig,
    TeacherConfig,
    build,
)
from fadrm_hf.errors import ConfigError
from fadrm_hf.method import Method
from fadrm_hf.methods import find_method
from fadrm_hf.presets import resolve_source
from fadrm_hf.student_settings import protocol_section

SECTIONS: dict[str, type] = {
    "source": SourceConfig,
    "teachers": TeacherConfig,
    "squeeze": SqueezeConfig,
    "patches": PatchConfig,
    "statistics": StatisticsConfig,
    "recover": RecoverConfig,
    "relabel": RelabelConfig,
    "student": StudentConfig,
}
DEFAULT_METHOD = "fadrm"
_DESCRIPTION = (
    "Distil an image-classification dataset into an artifact. With --shards K:N, the K-th of N equal shares of its "
    "images is recovered, for jobs without a launcher: the last of them, or fadrm-hf package, makes the artifact. "
    "--snapshots keeps what the first images look like along their optimisation, for fadrm-hf score."
)
_ADDED: dict[str, dict[str, Any]] = {"statistics": {}}  # sections that recipes of version 0.1 do not have


def parse_run(arguments: Sequence[str], program: str = "fadrm-hf distill") -> RunConfig:
    """The run that a command line asks for.

    Args:
        arguments: E.g. `["--config", "run.yaml", "--method.alpha", "0.4"]`; `--method NAME` is short for
            `--method.name NAME`, and `--labels online` for labels that students' teachers make on the fly.
        program: Name shown in the usage.

    Raises:
        ConfigError: For an unknown key, a value of the wrong type or outside its range, or an unreadable file.
    """
    arguments = _spell_out(arguments)
    method_name = _method_name(arguments)
    method = find_method(method_name)
    parser = new_parser(program, _DESCRIPTION)
    parser.add_argument("--output", type=str, default=None, help="Run folder; runs/METHOD-SOURCE-ipcK if not given.")
    parser.add_argument("--ipc", type=int, default=10, help="Images per class.")
    parser.add_argument("--seed", type=int, default=0, help="Every random choice derives from it.")
    parser.add_argument("--method.name", type=str, default=method_name, help="fadrm-hf methods lists them.")
    parser.add_class_arguments(method, "method")
    for name, section in SECTIONS.items():
        parser.add_class_arguments(section, name)
    asked = [argument for argument in arguments if not argument.startswith("--print_config")]
    parser.set_defaults(_published(method, parse(parser, asked)))
    parser.set_defaults(_protocol(parse(parser, asked).student.name))
    parsed = parse(parser, arguments)
    settings = parsed.method.as_dict()
    settings.pop("name")
    sections: dict[str, Any] = {name: build(section, parsed[name].as_dict()) for name, section in SECTIONS.items()}
    default = f"runs/{method_name.replace('_', '-')}-{Path(sections['source'].name).name}-ipc{parsed.ipc}"
    output = default if parsed.output is None else parsed.output
    return RunConfig(output=output, ipc=parsed.ipc, seed=parsed.seed, method=method(**settings), **sections)


def _published(method: type[Method], parsed: Namespace) -> dict[str, Any]:
    """The method's own settings for the source that is asked for, by option; what is given wins over them."""
    source = resolve_source(build(SourceConfig, parsed.source.as_dict()))
    assert source.size is not None
    settings = method.published(source.preset, source.size, parsed.ipc)
    if tuple(parsed.teachers.names) not in (TeacherConfig().names, settings.get("teachers", {}).get("names")):
        settings.get("relabel", {}).pop("num_teachers", None)  # of the published teachers, and these are others
    return {f"{section}.{name}": value for section, values in settings.items() for name, value in values.items()}


def _protocol(name: str) -> dict[str, Any]:
    """What a protocol's name stands for, by option; it trains for as long as there are labels."""
    return {f"student.{key}": value for key, value in protocol_section(name).items() if key != "epochs"}


def run_from_recipe(recipe: dict[str, Any], output: str) -> RunConfig:
    """A run from the plain data of a recipe, as a manifest or `recipe.yaml` holds it.

    Args:
        recipe: A resolved recipe.
        output: The run folder, which a recipe does not know.

    Raises:
        ArtifactError: If it is no resolved recipe.
    """
    given = recipe.get("method")
    method = find_method(str(given.get("name")) if isinstance(given, dict) else "")
    sections: dict[str, Any] = {
        name: parse_settings(recipe.get(name, _ADDED.get(name)), section, name) for name, section in SECTIONS.items()
    }
    run_method: Any = parse_settings(given, method, "method")
    return RunConfig(output=output, ipc=recipe["ipc"], seed=recipe["seed"], method=run_method, **sections)


def new_parser(program: str, description: str) -> ArgumentParser:
    """A parser whose values may come from `--config FILE` and then from the command line."""
    parser = ArgumentParser(prog=program, description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the values below.")
    return parser


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse, turning what jsonargparse says of a mistake into a `ConfigError`."""
    try:
        return parser.parse_args(list(arguments))
    except ArgumentError as error:
        lists = "a list is written '[A, B]'; " if "tuple" in str(error) or "list[" in str(error) else ""
        raise ConfigError(f"{error}; {lists}{parser.prog} --help lists every setting") from error


def _spell_out(arguments: Sequence[str]) -> list[str]:
    """`--method NAME` as `--method.name NAME`, `--labels online` as the codec without any, `--plain` as a form."""
    spelled: list[str] = []
    for argument in arguments:
        if argument == "online" and spelled[-1:] == ["--labels"]:
            spelled[-1] = "--relabel.codec=none"
        elif argument == "--labels=online":
            spelled.append("--relabel.codec=none")
        elif argument == "--plain":
            spelled.append("--recover.form=plain")
        elif argument.partition("=")[0] == "--method":
            spelled.append(argument.replace("--method", "--method.name", 1))
        else:
            spelled.append(argument)
    return spelled


def _method_name(arguments: Sequence[str]) -> str:
    """The last name that the command line gives, or else the last that a configuration file does."""
    in_files = [_method_in(Path(config)) for config in _values_of("--config", arguments)]
    named = [name for name in [*in_files, *_values_of("--method.name", arguments)] if name is not None]
    return named[-1] if named else DEFAULT_METHOD


def _values_of(option: str, arguments: Sequence[str]) -> list[str]:
    """The values given to `option`, as `--option value` or `--option=value`."""
    values = []
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        if argument == option and following is not None:
            values.append(following)
        elif argument.startswith(f"{option}="):
            values.append(argument.partition("=")[2])
    return values


def _method_in(config: Path) -> str | None:
    try:
        document = yaml.safe_load(config.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"--config {config} does not exist; recipes/configs/ holds complete ones") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {config} is not readable YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"--config {config} holds {type(document).__name__}, expected sections of settings")
    method = document.get("method")
    name = method.get("name") if isinstance(method, dict) else None
    return str(name) if name is not None else None
