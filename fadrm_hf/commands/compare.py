"""Methods beside one another: `compare`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.measuring import only_process, table_summary
from fadrm_hf.commands.output import as_typed, say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import StudentConfig, build, read_settings, require
from fadrm_hf.errors import ConfigError, FadrmError, unknown
from fadrm_hf.evaluation.compare import Contender, check_contender, compare
from fadrm_hf.evaluation.measured_tables import with_suffix
from fadrm_hf.methods import METHODS, find_method
from fadrm_hf.pipeline.arguments import new_parser, parse, parse_run, show_if_asked
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import require_place

Setting = tuple[str, str]  # name, and value as it is typed
_COMMON = ("source", "ipc", "seed", "student", "output")  # else rows would differ in more than the method
_OWN = ("methods", "protocol", "num_seeds", "output", "runs")
_DESCRIPTION = """Distil by several methods, train students on each by one protocol, and write one table.

Any other option of fadrm-hf distill holds for all methods (--method.X for those that have X), and
--settings.METHOD.OPTION for one. --student.X changes the protocol of the students, never the artifacts: comparisons
under several protocols share them. What is finished is used again. The same command, started as often as you like,
here or on other machines that see the folder of the runs, shares the methods."""


def compare_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf compare`; 0: every method is measured, 1: some failed, which are named."""
    contenders, output = parse_comparison(arguments)
    require_place(output.parent)
    only_process()
    rows = compare(contenders, output, as_typed("compare", arguments), Reporter())
    say(f"{with_suffix(output, 'md')}")
    failed = any(row.failure is not None for row in rows)
    return table_summary(output, ExitCode.DIFFERS if failed else ExitCode.DONE)


def parse_comparison(arguments: Sequence[str]) -> tuple[list[Contender], Path]:
    """The methods that a command line asks for, checked, and the table's name without suffix.

    Args:
        arguments: E.g. `["--methods", "[random_real,fadrm]", "--ipc=1", "--settings.fadrm.method.alpha=0.4"]`.

    Raises:
        FadrmError: For whatever cannot work, of all methods at once, before anything is made.
    """
    parser = _parser()
    show_if_asked(parser, arguments)
    settings = list(_settings(arguments))
    own = parse(parser, [f"--{name}={value}" for name, value in settings if name in _OWN])
    settings = [(name, value) for name, value in settings if name not in _OWN]
    require(bool(own.methods), "methods", own.methods, "a list of methods, such as '[random_real,fadrm]'")
    require(len(set(own.methods)) == len(own.methods), "methods", own.methods, "a list without repetitions")
    protocol = protocol_from(own.protocol, settings, own.num_seeds)
    contenders = _contenders(own.methods, settings, protocol, Path(own.runs))
    return contenders, Path(own.output or f"results/compare-{_folder_name(contenders[0])}-{protocol.name}")


def _parser() -> ArgumentParser:
    parser = new_parser("fadrm-hf compare", _DESCRIPTION)
    parser.add_argument("--methods", type=list[str], default=[], help="fadrm-hf methods lists them.")
    parser.add_argument("--protocol", type=str, default=None, help="YAML file, as for train-student; FADRM's if none.")
    parser.add_argument("--num_seeds", type=int, default=None, help="Students per method; the protocol's if none.")
    parser.add_argument(
        "--output", type=str, default=None, help="Table's name without suffix; results/compare-... if not given."
    )
    parser.add_argument("--runs", type=str, default="runs", help="Where the run folders are, one for each method.")
    return parser


def _settings(arguments: Sequence[str]) -> Iterator[Setting]:
    """What is asked for, in order: options as typed, and what the files after `--config` hold, each in its place."""
    words = iter(arguments)
    for word in words:
        name, given, value = word.removeprefix("--").partition("=")
        value = value if given else next(words, "")
        if not word.startswith("--") or not (given or value):
            raise ConfigError(f"{word!r} is not understood, expected --OPTION VALUE; fadrm-hf compare --help")
        if name != "config":
            yield _allowed(name), value
            continue
        for inner, content in _flatten(read_settings(Path(value))):
            yield _allowed(inner), content


def _allowed(name: str) -> str:
    if name in ("config", "method", "method.name", "print_config"):
        raise ConfigError(
            f"--{name} has no meaning here: --methods names the methods, --settings.METHOD.OPTION sets one's options"
        )
    return name


def _flatten(document: dict[str, Any], prefix: str = "") -> Iterator[Setting]:
    """Nested sections as dotted names; text stands for itself, everything else is JSON."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def protocol_from(file: str | None, settings: Sequence[Setting], num_seeds: int | None) -> StudentConfig:
    """The protocol of a file with what `--student.X` and `--num_seeds` say."""
    parser = new_parser("fadrm-hf train-student", "How students are trained.")
    parser.add_class_arguments(StudentConfig)
    given = [f"--{name.removeprefix('student.')}={value}" for name, value in settings if name.startswith("student.")]
    parsed = parse(parser, [*([f"--config={file}"] if file else []), *given]).as_dict()
    protocol = build(StudentConfig, {field.name: parsed[field.name] for field in fields(StudentConfig)})
    return protocol if num_seeds is None else replace(protocol, num_seeds=num_seeds)


def _contenders(
    methods: Sequence[str], settings: Sequence[Setting], protocol: StudentConfig, runs: Path
) -> list[Contender]:
    """Every method's run, checked; all that is wrong is said at once, before anything is made."""
    _check_addressed(methods, settings)
    contenders, wrong = [], []
    for method in methods:
        try:
            run = parse_run(["--method", method, *_words(method, settings)])
            run = replace(run, output=str(runs / Path(run.output).name))
            contenders.append(check_contender(run, protocol))
        except FadrmError as error:
            wrong.append(f"{method}: {error}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    return contenders


def _check_addressed(methods: Sequence[str], settings: Sequence[Setting]) -> None:
    """Refuse names that are no method's, settings that none of the methods has, and those that all must share."""
    for method in methods:
        _require_method(method, "--methods")
    for name, _ in settings:
        if name.startswith("settings."):
            _, method, option = f"{name}..".split(".", 2)
            _require_method(method, f"--{name}")
            if option.strip(".").partition(".")[0] in ("", *_COMMON):
                raise ConfigError(f"--{name} is no setting of one method: all share {', '.join(_COMMON)}")
        elif name.startswith("method.") and not any(_has(method, name) for method in methods):
            raise ConfigError(f"--{name} is a setting of none of {', '.join(methods)}; fadrm-hf distill --help")


def _require_method(name: str, option: str) -> None:
    if name not in METHODS:
        raise ConfigError(f"{unknown('method', name, METHODS)}; set {option}")


def _words(method: str, settings: Sequence[Setting]) -> list[str]:
    """The command line of one method's run: what holds for all, then what holds for it alone."""
    own = f"settings.{method}."
    others = ("settings.", "student.")
    shared = [(name, value) for name, value in settings if not name.startswith(others) and _has(method, name)]
    single = [(name.removeprefix(own), value) for name, value in settings if name.startswith(own)]
    return [f"--{name}={value}" for name, value in [*shared, *single]]


def _has(method: str, name: str) -> bool:
    """Whether a setting is the method's; every other section is that of all methods."""
    section, _, key = name.partition(".")
    settings: Any = find_method(method)
    return section != "method" or key.partition(".")[0] in {field.name for field in fields(settings)}


def _folder_name(contender: Contender) -> str:
    """Source and images per class, as the run folders are named."""
    return Path(contender.run.output).name.removeprefix(f"{contender.method.replace('_', '-')}-")
