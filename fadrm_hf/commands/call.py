"""A command as it was typed: its parser, made from the dataclass of its options, and its settings."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, cached_property
from inspect import cleandoc
from typing import Any

import docstring_parser
from jsonargparse import ArgumentParser

from fadrm_hf.commands.catalogue import COMMANDS
from fadrm_hf.commands.options.base import Options
from fadrm_hf.commands.output import as_typed
from fadrm_hf.config import StudentConfig, build
from fadrm_hf.config.layers import DEFAULT, Layer, Settings, dotted, nested, section_values
from fadrm_hf.config.protocols import PROTOCOLS, protocol_section
from fadrm_hf.errors import ConfigError, unknown
from fadrm_hf.methods.method import Method
from fadrm_hf.pipeline.arguments import (
    OF_EVERY_COMMAND,
    OF_ONE_METHOD,
    add_alias,
    add_run_options,
    add_shared_options,
    method_named,
    method_of_sweep,
    methods_named,
    new_parser,
    read_file,
    read_layers,
)
from fadrm_hf.pipeline.settings import (
    SECTIONS,
    Request,
    comparison_as_yaml,
    has_setting,
    request_run,
    settings_as_yaml,
)

_NAMED_ARTIFACT = "named_artifact"
_OF_PROTOCOL = tuple(item.name for item in fields(StudentConfig))
OF_RUN = ("output", "ipc", "seed", "method", *SECTIONS)
# By what a command takes: the methods that its arguments name.
_METHODS_OF: dict[str | None, Callable[[Sequence[str]], list[type[Method]]]] = {
    "run": lambda arguments: [method_named(arguments)],
    "several": methods_named,
    "sweep": method_of_sweep,
}


@dataclass(frozen=True)
class Call:
    """A command and its arguments.

    Attributes:
        command: The command's name.
        arguments: The rest of the command line.
    """

    command: str
    arguments: tuple[str, ...]

    @property
    def typed(self) -> str:
        """Return the command line, without the folders of this machine."""
        return as_typed(self.command, self.words)

    @property
    def words(self) -> list[str]:
        """Return the command line, without the options that set how to print."""
        return [word for word in self.arguments if word not in ("--quiet", "--json")]

    @property
    def words_of_run(self) -> list[str]:
        """Return the command line without the command's own options: that of the run alone."""
        own = {f"--{item.name}": item.default is False for item in fields(self._options)}
        words, kept = iter(self.words), []
        for word in words:
            name, has_value, _ = word.partition("=")
            if name not in own:
                kept.append(word)
            elif not has_value and not own[name]:
                next(words, None)
        return kept

    @cached_property
    def parser(self) -> ArgumentParser:
        """Build the command's parser."""
        return parser_of(self.command, self.arguments)

    @cached_property
    def layers(self) -> list[Layer]:
        """Return the requested settings: each file, then the command line."""
        layers = []
        for layer in read_layers(self.parser, self.arguments):
            values = {k: v for k, v in layer.values.items() if v is not None or k not in _arguments_of(self._options)}
            if _NAMED_ARTIFACT in values:
                values["artifact"] = values.pop(_NAMED_ARTIFACT)
            layers.append(Layer(layer.origin, values))
        return layers

    @cached_property
    def options(self) -> Any:
        """Return the command's own options, as an instance of their dataclass."""
        kind, settings = self._options, Settings()
        settings.put(Layer(DEFAULT, dict(_default_sections(kind))))
        for layer in self.layers_of([item.name for item in fields(kind)]):
            settings.put(Layer(layer.origin, nested(layer.values)))
        for item in fields(kind):
            is_required = item.default is MISSING and item.default_factory is MISSING
            if is_required and not settings.values.get(item.name):
                raise ConfigError(
                    f"{item.name} is required and not given; {self.parser.prog} --help lists every option"
                )
        return build(kind, settings.values)

    def check(self) -> None:
        """Refuse unknown options, and values of another type or out of range.

        Raises:
            ConfigError: With the value, what was expected, and the nearest option.
        """
        options = self.options
        if self._options.takes == "run":
            assert self.request is not None
        if self._options.takes == "protocol":
            assert self.protocol_values() is not None
        is_named = any("source.name" in layer.values for layer in self.layers) or getattr(options, "place", None)
        if (self._options.needs_source or self._options.takes in ("run", "several")) and not is_named:
            raise ConfigError(
                "source.name is not given; set --source.name to a Hub dataset such as uoft-cs/cifar10, to a folder of "
                "images by class, or to digits, which comes with the library"
            )

    @property
    def wants_settings(self) -> bool:
        """Return whether to print the settings and do nothing else."""
        return "--print_config" in self.arguments

    @cached_property
    def request(self) -> Request:
        """Return the requested run."""
        return request_run(self.parser.get_default("method.name"), self.layers_of(("settings", *OF_RUN)))

    def request_of(self, method: str) -> Request:
        """Return the run of one of several methods: what is set for all that have it, then for this one alone."""
        shared = [
            Layer(layer.origin, {name: value for name, value in layer.values.items() if has_setting(method, name)})
            for layer in self.layers_of(("ipc", "seed", "source", "method", *OF_ONE_METHOD))
        ]
        own = [
            Layer(layer.origin, dotted(layer.values[f"settings.{method}"]))
            for layer in self.layers
            if f"settings.{method}" in layer.values
        ]
        return request_run(method, [*shared, *own])

    def layers_of(self, names: Sequence[str]) -> list[Layer]:
        """Return the layers, with some settings and sections alone."""
        return [
            Layer(
                layer.origin, {name: value for name, value in layer.values.items() if name.partition(".")[0] in names}
            )
            for layer in self.layers
        ]

    def protocol_values(self) -> dict[str, Any]:
        """Return the requested settings of a protocol: those of its file or its name, then the options."""
        settings, named = Settings(), self.options.protocol
        if named is not None:
            settings.put(read_file(self.parser, named, "--protocol") if is_file(named) else Layer("", {"name": named}))
        for layer in self.layers_of(_OF_PROTOCOL):
            settings.put(Layer(layer.origin, nested(layer.values)))
        if settings.values.get("labels") == "online":
            del settings.values["labels"]
        return settings.values

    def student_protocol(self, named: str | None, changed: Sequence[Layer]) -> StudentConfig:
        """Return the protocol of a command that makes runs and trains students on them.

        Args:
            named: Its name, or a YAML file; FADRM's if `None`.
            changed: Settings that differ.
        """
        return build(StudentConfig, self._student_settings(named, changed).section("student"))

    def _student_settings(self, named: str | None, changed: Sequence[Layer]) -> Settings:
        settings = Settings()
        settings.put(Layer(DEFAULT, section_values("student", StudentConfig())))
        if named is not None and is_file(named):
            settings.put(read_file(self.parser, named, "--protocol", section="student"))
        elif named is not None:
            values = {f"student.{key}": value for key, value in protocol_section(known_protocol(named)).items()}
            settings.put(Layer(f"protocol {named}", values))
        settings.put(*changed)
        return settings

    def settings_as_yaml(self) -> str:
        """Return every value as a file that runs, each with the place it comes from."""
        if self._options.takes == "run":
            return self.request.resolved().as_yaml()
        if self._options.takes == "several":
            return self._comparison_as_yaml()
        settings = Settings()
        defaults = dotted(self.parser.get_defaults().as_dict())
        settings.put(Layer(DEFAULT, defaults), *self.layers)
        for name in OF_EVERY_COMMAND:
            settings.values.pop(name, None)
        return settings_as_yaml(settings.values, settings.origins)

    def _comparison_as_yaml(self) -> str:
        own, settings = [item.name for item in fields(self._options)], Settings()
        settings.put(Layer(DEFAULT, {name: getattr(self.options, name) for name in own}), *self.layers_of(own))
        student = self._student_settings(self.options.protocol, self.layers_of(("student",)))
        settings.values |= student.values
        settings.origins |= student.origins
        requests = {name: self.request_of(name).resolved() for name in self.options.methods}
        return comparison_as_yaml(settings, requests, shared=("ipc", "seed", "source"), own=("method", *OF_ONE_METHOD))

    @property
    def _options(self) -> type[Options]:
        return COMMANDS[self.command].options


def is_file(protocol: str) -> bool:
    """Return whether a protocol is given as a file, not by its name."""
    return protocol.endswith((".yaml", ".yml")) or "/" in protocol


def known_protocol(name: str) -> str:
    """Return a protocol's name; refuse an unknown one.

    Raises:
        ConfigError: If there is none; the nearest names are given.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"{unknown('protocol', name, PROTOCOLS)}; set --protocol")
    return name


def parser_of(command: str, arguments: Sequence[str] = ()) -> ArgumentParser:
    """Return the parser of a command.

    Args:
        command: The command's name.
        arguments: What is typed after it: the settings of a method depend on which is named.
    """
    takes = COMMANDS[command].options.takes
    methods = _METHODS_OF[takes](arguments) if takes in _METHODS_OF else []
    return _parser_for(command, tuple(methods))


@cache  # a parser keeps nothing of what it reads, and takes a tenth of a second to build
def _parser_for(command: str, methods: tuple[type[Method], ...]) -> ArgumentParser:
    options = COMMANDS[command].options
    has_settings = bool(fields(options)) and options.takes != "sweep"
    parser = new_parser(f"fadrm-hf {command}", _description(options), has_settings)
    _add_arguments(parser, options)
    if options.takes == "run":
        add_run_options(parser, *methods)
    elif options.takes in ("several", "sweep"):
        add_shared_options(parser, methods)
    elif options.takes == "protocol":
        parser.add_class_arguments(StudentConfig, skip={"labels"})
        parser.set_defaults(name=None, student=None)
    for old, new in options.renamed.items():
        add_alias(parser, f"--{old}", new, is_renamed=True)
    return parser


def _add_arguments(parser: ArgumentParser, options: type[Options]) -> None:
    """Give a parser a command's own options: positional arguments, flags, and the rest by their types."""
    texts = _help_texts(options)
    apart = set()
    for item in fields(options):
        is_flag = item.default is False
        if item.name in _arguments_of(options):
            parser.add_argument(item.name, type=str, nargs=item.metadata.get("nargs", "?"), help=texts[item.name])
        elif is_flag:
            parser.add_argument(f"--{item.name}", action="store_true", help=texts[item.name])
        elif is_dataclass(item.type) and len(fields(item.type)) == 1:
            parser.add_class_arguments(item.type, item.name, as_group=False)
        else:
            continue
        apart.add(item.name)
    if "artifact" in apart:  # users of `accelerate launch` like their arguments named
        parser.add_argument("--artifact", dest=_NAMED_ARTIFACT, type=str, help=argparse.SUPPRESS)
    parser.add_class_arguments(options, skip=apart, as_group=False)


def _default_sections(options: type[Options]) -> Iterator[tuple[str, Any]]:
    """Yield the sections of settings among a command's options, with their defaults."""
    for item in fields(options):
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if is_dataclass(default) and not isinstance(default, type):
            yield item.name, default


def _arguments_of(options: type[Options]) -> list[str]:
    """Return the names of positional arguments."""
    required = {item.name for item in fields(options) if item.default is MISSING and item.default_factory is MISSING}
    return [item.name for item in fields(options) if item.name in required or "nargs" in item.metadata]


def _description(options: type[Options]) -> str:
    """Return what a command does, which is its docstring without the arguments."""
    return cleandoc(options.__doc__ or "").partition("\n\nArgs:")[0]


def _help_texts(options: type[Options]) -> dict[str, str]:
    """Return the line on each option, from the docstrings of its dataclass and of those below it."""
    texts = {}
    for kind in reversed(options.__mro__[:-1]):
        for item in docstring_parser.parse(kind.__doc__ or "").params:
            texts[item.arg_name] = " ".join((item.description or "").split())
    return texts
