"""Parsers: options from dataclasses, files of settings by `--config`, and errors that say what was meant.

    parse_run(["--config", "run.yaml", "--method.alpha", "0.4"])

Settings arrive as layers (`fadrm_hf.config.layers`): a file for each `--config`, then the command line.
"""

import argparse
import difflib
import json
import re
from argparse import ArgumentError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace

from fadrm_hf.config import RunConfig, read_settings, values_before
from fadrm_hf.config.file import read_texts
from fadrm_hf.config.layers import COMMAND_LINE, Layer, dotted
from fadrm_hf.config.renamed import current_name, earlier_names, with_current_names
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods import find_method, import_methods
from fadrm_hf.methods.method import Method, setting_names
from fadrm_hf.pipeline.settings import DEFAULT_METHOD, SECTIONS, request_run
from fadrm_hf.runtime.run_folder import RECIPE
from fadrm_hf.runtime.terminal import progress

IMPORTS = "imports"
OF_EVERY_COMMAND = ("config", "print_config", "quiet", "json", IMPORTS)
# Of the sections, those that one method of several may have settings of its own in: else rows of a comparison would
# differ in more than the method.
OF_ONE_METHOD = ("teachers", "squeeze", "patches", "statistics", "recover", "relabel")
_UNRECOGNIZED = "unrecognized arguments: "
_NAMES_CLASSES = ("--source.classes", "--drop_classes", "--rename_classes")
_KEY = re.compile(r'Parser key "([^"]+)"')
_EXPECTED = re.compile(r"Expected (?:an? )?(?:<class ')?(.+?)(?:'>)?(?=\.? Got value| - Expected| Given value|$)")
_NO_VALUE = re.compile(r"argument (--\S+): ignored explicit argument '(.*?)'")
_NOT_ACCEPTED = re.compile(r"(?:Group '(?P<group>[\w.]+)' does not accept option|Option) '(?P<key>[\w.]+)'")


def parse_run(arguments: Sequence[str], program: str = "fadrm-hf distill") -> RunConfig:
    """Return the run that a command line describes; `distill` fills in its open values.

    Args:
        arguments: E.g. `["--config", "run.yaml", "--method.alpha", "0.4"]`; `--method NAME` is short for
            `--method.name NAME`, and `--labels online` for labels that students' teachers make on the fly.
        program: Name shown in messages.

    Raises:
        ConfigError: For an unknown key, a value of the wrong type or outside its range, or an unreadable file.
    """
    method = method_named(arguments)
    return request_run(method.name, read_layers(_run_parser(program, (method,)), arguments)).run


@cache  # a parser keeps nothing of what it reads, and takes a tenth of a second to build
def _run_parser(program: str, methods: tuple[type[Method], ...]) -> ArgumentParser:
    parser = new_parser(program, "Distil an image-classification dataset into an artifact.")
    add_run_options(parser, *methods)
    return parser


def new_parser(program: str, description: str, has_settings: bool = True) -> ArgumentParser:
    """Return a parser with the options that every command has.

    Args:
        program: What is typed, for messages.
        description: What it does.
        has_settings: Whether there is anything to set, by `--config FILE` and then on the command line.
    """
    parser = ArgumentParser(
        prog=program, description=description, exit_on_error=False, allow_abbrev=False, print_config=None
    )
    if has_settings:
        about = "YAML file with any of the values below, or the name of a recipe; may be given more than once."
        parser.add_argument("--config", action="append", type=str, metavar="FILE", help=about)
        about = "Print every value and the place it comes from, as a file that runs."
        parser.add_argument("--print_config", action="store_true", help=about)
    parser.add_argument("--quiet", action="store_true", help="Print errors only.")
    about = "End with one JSON document on stdout; everything else goes to stderr."
    parser.add_argument("--json", action="store_true", help=about)
    return parser


def add_run_options(parser: ArgumentParser, method: type[Method]) -> None:
    """Give a parser the options of a run by some method."""
    parser.add_argument("--output", type=str, help="Run folder; runs/METHOD-SOURCE-ipcK if not given.")
    parser.add_argument("--method.name", type=str, default=method.name, help="fadrm-hf methods lists them.")
    add_alias(parser, "--method", "method.name", metavar="NAME", help="Short for --method.name.")
    about = "Defaults: those of the papers' tables, or those of the released scripts where they differ."
    parser.add_argument("--settings", type=Literal["paper", "released"], default="paper", help=about)
    parser.add_class_arguments(method, "method", as_group=False)
    _add_settings(parser)
    _add_earlier_names(parser)


def add_shared_options(parser: ArgumentParser, methods: Sequence[type[Method]]) -> None:
    """Give a parser the options of several runs: those that all share, and `--settings.METHOD.OPTION` for one."""
    shared: set[str] = set()
    for method in methods:
        parser.add_class_arguments(method, "method", as_group=False, skip=shared & setting_names(method))
        shared |= setting_names(method)
        parser.add_class_arguments(method, f"settings.{method.name}.method", as_group=False)
        for name in OF_ONE_METHOD:
            parser.add_class_arguments(SECTIONS[name], f"settings.{method.name}.{name}", as_group=False)
    _add_settings(parser)
    _add_earlier_names(parser)


def _add_settings(parser: ArgumentParser) -> None:
    """Give a parser what runs of every method share."""
    parser.add_argument("--ipc", type=int, default=10, help="Images per class.")
    parser.add_argument("--seed", type=int, default=0, help="Every random choice derives from it.")
    parser.add_argument(
        "--import",
        dest=IMPORTS,
        action="append",
        type=str,
        metavar="FILE",
        help="Python file, or module, with a method of your own; it is executed.",
    )
    add_alias(parser, "--plain", "recover.form", "plain", help="Short for --recover.form plain.")
    online = "With online, short for --relabel.codec none: students' teachers make the labels."
    add_alias(parser, "--labels", "relabel.codec", {"online": "none"}, help=online)
    for name, section in SECTIONS.items():
        parser.add_class_arguments(section, name)


def _add_earlier_names(parser: ArgumentParser) -> None:
    """Let a parser understand the names that its settings had before."""
    for option in list(_options(parser)):
        for old in earlier_names(option):
            add_alias(parser, f"--{old}", option, is_renamed=True)


def add_alias(
    parser: ArgumentParser, option: str, stands_for: str, value: Any = None, is_renamed: bool = False, **shown: Any
) -> None:
    """Give a parser an option that is short for another one.

    Args:
        parser: The parser.
        option: E.g. `--method`.
        stands_for: The other option's name, such as "method.name".
        value: What the other option is set to; a mapping from words to such values; or `None`, for what is typed.
        is_renamed: Whether it is an earlier name, which is understood but not shown, and answered with today's.
        shown: Help and metavar.
    """
    shown = {"help": argparse.SUPPRESS} if is_renamed else shown
    parser.add_argument(option, action=_Alias, stands_for=stands_for, value=value, is_renamed=is_renamed, **shown)


class _Alias(argparse.Action):
    """An option that sets another one."""

    def __init__(self, option_strings: Sequence[str], dest: str, **given: Any) -> None:
        self._stands_for, self._value, self._is_renamed = (given.pop(k) for k in ("stands_for", "value", "is_renamed"))
        nargs = None if self._value is None or isinstance(self._value, Mapping) else 0
        super().__init__(option_strings, dest, nargs=nargs, default=argparse.SUPPRESS, **given)
        self.choices = list(self._value) if isinstance(self._value, Mapping) else None

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Set the option that is meant."""
        option = f"--{self._stands_for}"
        if self._is_renamed:
            progress.print(f"{option_string} is now {option}", highlight=False, markup=False, soft_wrap=True)
        given = values if self._value is None else self._value
        value = given[values] if isinstance(given, Mapping) else given
        parser._option_string_actions[option](parser, namespace, value, option)


def read_layers(parser: ArgumentParser, arguments: Sequence[str]) -> list[Layer]:
    """Read the layers of settings: each file in its order, then the command line.

    Raises:
        ConfigError: For an option that the parser does not have, with the nearest; for a value of another type; for a
            file that cannot be read.
    """
    _refuse_section_files(parser, arguments)
    words = (word.removeprefix("--").partition("=")[0] for word in arguments if word.startswith("--method."))
    _require_known(parser, words)
    parsed = _parsed(parser, parser.parse_args, list(_with_names_of_classes(arguments)), "")
    typed = named_as_today(parsed, "--")  # `--recover '{NAME: VALUE}'`, whose names are no options
    is_read = isinstance(typed.get("config"), list)  # a sweep's is a file of its own
    files = [read_file(parser, file) for file in typed.pop("config")] if is_read else []
    return [*files, Layer(COMMAND_LINE, dotted(typed))]


def _require_known(parser: ArgumentParser, names: Iterable[str], where: str = "") -> None:
    """Refuse settings of a method that the parser lets pass, for it takes them for parts of the option `--method`."""
    known = list(_options(parser))
    for name in names:
        if name not in known:
            raise ConfigError(where + _unknown_option(parser, name, known))


def _refuse_section_files(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuse a file for one section, which would be read without our limits; `--recover '{lr: 0.1}'` is none."""
    for section in parser.groups or ():
        for value in values_of(f"--{section}", arguments):
            if not value.startswith("{"):
                raise ConfigError(
                    f"--{section} is {value!r}, expected settings such as '{{NAME: VALUE}}'; in a file, settings go "
                    f"under {section}: and the file to --config"
                )


def read_file(parser: ArgumentParser, file: str, option: str = "--config", section: str = "") -> Layer:
    """Read a file of settings that a parser has, a recipe by its name, or the recipe of an artifact on the Hub.

    Args:
        parser: The parser.
        file: A path, a recipe's name, or `hf://datasets/ORG/NAME/recipe.yaml`.
        option: The option that names it, for messages.
        section: The section whose settings the file holds, if not those of the parser itself.
    """
    where = f"{option} {file}: "
    document = named_as_today(_document(file, option), where)
    if "edit" in document:
        raise ConfigError(
            f"{where}it belongs to an edited artifact, which no run makes; take that of an artifact in edit.made_from"
        )
    document = {section: document} if section else _for_method(parser, document, file)
    values = _parsed(parser, parser.parse_object, document, where)
    _require_known(parser, [f"method.{name}" for name in values.get("method") or ()], where)
    return Layer(Path(file).name, dotted(values))


def named_as_today(document: dict[str, Any], where: str) -> dict[str, Any]:
    """Return settings with today's names, and say which of them have earlier ones there."""

    def say(old: str, new: str) -> None:
        progress.print(f"{where}{old} is now {new}", highlight=False, markup=False, soft_wrap=True)

    return with_current_names(document, say)


def _for_method(parser: ArgumentParser, document: dict[str, Any], file: str) -> dict[str, Any]:
    """Return a file's settings without those of another method than the parser's, which the command line names."""
    wanted = parser.get_defaults().get("method.name")
    given = document.get("method")
    other = given.get("name") if isinstance(given, dict) else None
    if wanted is None or other in (None, wanted):
        return document
    said = f"--method {wanted}: settings of method {other} in {file} are not used"
    progress.print(said, highlight=False, markup=False, soft_wrap=True)
    return {name: value for name, value in document.items() if name != "method"}


def _with_names_of_classes(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the command line with names of classes as the text that they are: `[0, 1]`, `[yes, no]`, `[007, none]`."""
    previous = ""
    for argument in arguments:
        name, is_joined, value = argument.partition("=")
        if previous in _NAMES_CLASSES:
            yield _as_texts(argument)
        else:
            yield f"{name}={_as_texts(value)}" if name in _NAMES_CLASSES and is_joined else argument
        previous = argument


def _as_texts(value: str) -> str:
    """Return a list of YAML with every scalar in quotation marks; anything else as it is."""
    try:
        names = read_texts(value)
    except yaml.YAMLError:
        return value
    return json.dumps(names, ensure_ascii=False) if isinstance(names, list) else value


def _document(file: str, option: str = "--config") -> dict[str, Any]:
    """Return what a file of settings holds.

    A recipe of an artifact names its run folder without the place where it was, and may leave the source's revision
    open, which the manifest knows: they become `runs/FOLDER` and that revision.
    """
    if not file.startswith("hf://"):
        return read_settings(Path(file), option)
    from fadrm_hf.hub import open_artifact  # it imports torch

    location = open_artifact(file.removesuffix("/recipe.yaml"))
    document, manifest = with_current_names(read_settings(location.local(RECIPE), option)), location.manifest
    document["output"] = f"runs/{Path(str(manifest.config.get('output'))).name}"
    for name in ("squeeze", "student"):
        document[name] = values_before(SECTIONS[name]) | document.get(name, {})
    if manifest.source.revision:
        document["source"] = document.get("source", {}) | {"revision": manifest.source.revision}
    return document


def _parsed(parser: ArgumentParser, parse: Any, given: Any, where: str) -> dict[str, Any]:
    """Return the given values alone, typed; jsonargparse's errors become a `ConfigError`."""
    try:
        found: Namespace = parse(given, defaults=False)
    except ArgumentError as error:
        raise ConfigError(where + _explained(parser, " ".join(str(error).split()))) from error
    values: dict[str, Any] = found.as_dict()
    for name, value in values.items():
        if name in ("method", *(parser.groups or ())) and not isinstance(value, dict):
            raise ConfigError(f"{where}{name} is {value!r}, expected a section of settings; leave it out")
    return values


def _explained(parser: ArgumentParser, reason: str) -> str:
    """Return why arguments cannot be parsed, with the nearest option for one that there is not."""
    known = list(_options(parser))
    if reason.startswith(_UNRECOGNIZED):
        word = reason.removeprefix(_UNRECOGNIZED).split()[0]
        if not word.startswith("--"):
            expected = "--OPTION VALUE" if "config" in known else "none: this command prints a list"
            return f"{word!r} is not understood, expected {expected}; {parser.prog} --help lists every option"
        return _unknown_option(parser, word.partition("=")[0].removeprefix("--"), known)
    if found := _NOT_ACCEPTED.match(reason):
        name = f"{found['group']}.{found['key']}" if found["group"] else found["key"]
        return _unknown_option(parser, name, known)
    if found := _NO_VALUE.search(reason):
        remedy = "; write the output to a file with > FILE" if found[1] in ("--json", "--quiet") else ""
        return f"{found[1]}={found[2]} has a value, expected {found[1]} alone{remedy}"
    lists = "a list is written '[A, B]'; " if "tuple" in reason or "list[" in reason else ""
    return f"{_of_another_type(reason) or reason}; {lists}{parser.prog} --help lists every option"


def _of_another_type(reason: str) -> str | None:
    """Return jsonargparse's message on a value of another type, in one clause."""
    key, value = _KEY.search(reason), re.split(r"(?:Given|Got) value: ", reason)[-1]
    if key is None or value == reason:
        return None
    words = (name.replace("NoneType", "null").replace("typing.", "") for name in _EXPECTED.findall(reason))
    return f"{key[1]} is {value!r}, expected {' or '.join(dict.fromkeys(words))}"


def _unknown_option(parser: ArgumentParser, name: str, known: Sequence[str]) -> str:
    near = list(dict.fromkeys(map(current_name, difflib.get_close_matches(name, known, n=3, cutoff=0.6))))
    near = near or [option for option in known if option.rpartition(".")[2] == name.rpartition(".")[2]][:3]
    if (
        name.startswith("settings.")
        and name.count(".") > 1
        and name.split(".")[2] in ("ipc", "seed", "source", "student")
    ):
        return f"unknown option --{name}; methods that are compared all share ipc, seed, source and student"
    meant = f"did you mean {' or '.join(f'--{option}' for option in near)}? " if near else ""
    return f"unknown option --{name}; {meant}{parser.prog} --help lists every option"


def _options(parser: ArgumentParser) -> Iterator[str]:
    """Yield the names of a parser's options, without dashes."""
    for action in parser._actions:
        yield from (option.removeprefix("--") for option in action.option_strings if option.startswith("--"))


def method_named(arguments: Sequence[str]) -> type[Method]:
    """Return the method that a command line names, or else the last that a configuration file does."""
    import_methods(values_of("--import", arguments))
    in_files = [_method_in(file) for file in values_of("--config", arguments)]
    on_line = [*values_of("--method", arguments), *values_of("--method.name", arguments)]
    named = [name for name in [*in_files, *on_line] if name is not None]
    return find_method(named[-1] if named else DEFAULT_METHOD)


def methods_named(arguments: Sequence[str]) -> list[type[Method]]:
    """Return the methods that a command line for several of them names, and those whose settings it gives."""
    import_methods(values_of("--import", arguments))
    documents = [_document(file) for file in values_of("--config", arguments)]
    listed = [*(document.get("methods") for document in documents)]
    listed += [yaml.safe_load(text) for text in values_of("--methods", arguments)]
    methods = [(str(name), "--methods") for names in listed if isinstance(names, list) for name in names]
    given = [
        argument.removeprefix("--").partition("=")[0] for argument in arguments if argument.startswith("--settings.")
    ]
    given += [f"settings.{name}." for document in documents for name in document.get("settings") or {}]
    methods += [(f"{name}..".split(".")[1], f"--{name}") for name in given]
    return list(dict.fromkeys(find_method(name, option) for name, option in methods))


def method_of_sweep(arguments: Sequence[str]) -> list[type[Method]]:
    """Return the method of the run that a sweep changes."""
    bases = [_document(file).get("base") for file in values_of("--config", arguments)]
    return [method_named(["--config", str(base)]) for base in bases[-1:] if base is not None]


def values_of(option: str, arguments: Sequence[str]) -> list[str]:
    """Return the values given to `option`, as `--option value` or `--option=value`."""
    values: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == option:
            values += arguments[place + 1 : place + 2]
        elif argument.startswith(f"{option}="):
            values.append(argument.partition("=")[2])
    return values


def _method_in(file: str) -> str | None:
    document = _document(file)
    method = document.get("method")
    name = method.get("name") if isinstance(method, dict) else document.get("method.name")
    return str(name) if name is not None else None
