"""From YAML and command line to a typed run: `--config run.yaml --method.alpha 0.4`, `--print_config`.

Each section of a run has its dataclass; the `method` section has that of the method it names, so the name is found
before anything else is parsed. The method's published settings for the source are defaults of every section.
"""

from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
    find_settings,
    read_settings,
    require,
)
from fadrm_hf.config.datasets import resolve_source
from fadrm_hf.config.protocols import protocol_section
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods import find_method
from fadrm_hf.methods.method import Method

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
HAND_OVER = "--hand_over_parser"  # no option for people: a command gives its parser away, for completion
_DESCRIPTION = (
    "Distil an image-classification dataset into an artifact. With --shards K:N, the K-th of N equal shares of its "
    "images is recovered, for jobs without a launcher: the last of them, or fadrm-hf package, makes the artifact. "
    "--snapshots keeps what the first images look like along their optimisation, for fadrm-hf score. --tracker NAME "
    "shows losses as they fall in tensorboard, wandb, trackio or another tracker of accelerate."
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
    parser.set_defaults(_protocol(str(_given(parse(parser, asked), "student")["name"])))
    parsed = parse(parser, arguments)
    settings = {name: value for name, value in _given(parsed, "method").items() if name != "name"}
    sections: dict[str, Any] = {name: build(section, _given(parsed, name), name) for name, section in SECTIONS.items()}
    default = f"runs/{method_name.replace('_', '-')}-{Path(sections['source'].name).name}-ipc{parsed.ipc}"
    output = default if parsed.output is None else parsed.output
    numbers = {"ipc": parsed.ipc, "seed": parsed.seed}
    return build(RunConfig, {"output": output, "method": build(method, settings, "method"), **numbers, **sections})


def _given(parsed: Namespace, section: str) -> dict[str, Any]:
    """The settings of a section; one that a file sets to nothing is refused."""
    if not isinstance(parsed[section], Namespace):
        raise ConfigError(f"{section} is {parsed[section]!r}, expected a section of settings; leave it out")
    given: dict[str, Any] = parsed[section].as_dict()
    return given


def _published(method: type[Method], parsed: Namespace) -> dict[str, Any]:
    """The method's own settings for the source that is asked for, by option; what is given wins over them."""
    source = resolve_source(build(SourceConfig, _given(parsed, "source"), "source"))
    assert source.size is not None
    require(isinstance(parsed.ipc, int), "ipc", parsed.ipc, "a number of images per class")
    settings = method.published(source.preset, source.size, parsed.ipc)
    if tuple(_given(parsed, "teachers")["names"] or ()) not in (
        TeacherConfig().names,
        settings.get("teachers", {}).get("names"),
    ):
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
        ConfigError: If its method is unknown here.
    """
    given = recipe.get("method")
    method = find_method(str(given.get("name")) if isinstance(given, dict) else "")
    sections: dict[str, Any] = {
        name: parse_settings(recipe.get(name, _ADDED.get(name)), section, name) for name, section in SECTIONS.items()
    }
    run_method: Any = parse_settings(given, method, "method")
    numbers = {name: recipe.get(name) for name in ("ipc", "seed")}
    whole = {"output": output, "method": run_method, **numbers, **sections}
    return parse_settings(whole, RunConfig, "the recipe")


def new_parser(program: str, description: str) -> ArgumentParser:
    """A parser whose values may come from `--config FILE` and then from the command line."""
    parser = ArgumentParser(prog=program, description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the values below, or a recipe.")
    return parser


class HandedOver(Exception):  # noqa: N818  # no error: it carries a parser to who asked for it
    """The parser of a command that was given `HAND_OVER`, for completion.

    Args:
        parser: The parser, with every option.
    """

    def __init__(self, parser: ArgumentParser) -> None:
        super().__init__(parser.prog)
        self.parser = parser


def show_if_asked(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Print the help, or hand the parser over, if that is among the arguments of a command that reads them itself."""
    for word in ("-h", "--help", HAND_OVER):
        if word in arguments:
            parse(parser, [word])


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse, turning what jsonargparse says of a mistake into a `ConfigError`.

    It reads the files that are named once more; they are looked at here first, by what `read_settings` allows. A
    `--config` that names a recipe becomes the recipe's file.
    """
    for option in ("--config", *(f"--{name}" for name in parser.groups or ())):
        for file in _values_of(option, arguments):
            if option == "--config" or Path(file).exists():
                read_settings(Path(file), option)
    if HAND_OVER in arguments:
        raise HandedOver(parser)
    try:
        return parser.parse_args(list(_with_files(arguments)))
    except ArgumentError as error:
        lists = "a list is written '[A, B]'; " if "tuple" in str(error) or "list[" in str(error) else ""
        reason = " ".join(str(error).split())
        raise ConfigError(f"{reason}; {lists}{parser.prog} --help lists every setting") from error


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


def _with_files(arguments: Sequence[str]) -> Iterator[str]:
    """The command line with every `--config` as the file that it means."""
    previous = ""
    for argument in arguments:
        if argument.startswith("--config="):
            yield f"--config={find_settings(argument.partition('=')[2])}"
        else:
            yield str(find_settings(argument)) if previous == "--config" else argument
        previous = argument


def _method_name(arguments: Sequence[str]) -> str:
    """The last name that the command line gives, or else the last that a configuration file does."""
    in_files = [_method_in(Path(config)) for config in _values_of("--config", arguments)]
    named = [name for name in [*in_files, *_values_of("--method.name", arguments)] if name is not None]
    return named[-1] if named else DEFAULT_METHOD


def _values_of(option: str, arguments: Sequence[str]) -> list[str]:
    """The values given to `option`, as `--option value` or `--option=value`."""
    values: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == option:
            values += arguments[place + 1 : place + 2]
        elif argument.startswith(f"{option}="):
            values.append(argument.partition("=")[2])
    return values


def _method_in(config: Path) -> str | None:
    method = read_settings(config).get("method")
    name = method.get("name") if isinstance(method, dict) else None
    return str(name) if name is not None else None
