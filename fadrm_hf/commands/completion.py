"""Completion for shells: `fadrm-hf --print_completion bash`; shtab writes the script.

    source <(fadrm-hf --print_completion bash)

The parsers of the commands need torch, so the script is made once and holds every command, option and name.
"""

import importlib
from argparse import Action, ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Literal, get_args, get_origin

from fadrm_hf.commands.catalogue import COMMANDS
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config.datasets import PRESETS
from fadrm_hf.config.protocols import PROTOCOLS
from fadrm_hf.config.students import ARCHITECTURES
from fadrm_hf.errors import ConfigError, unknown
from fadrm_hf.methods import METHODS
from fadrm_hf.pipeline.arguments import HAND_OVER, HandedOver

SHELLS = ("bash", "zsh", "tcsh")
_NAMES: dict[str, Iterable[str]] = {
    "method.name": METHODS,
    "student": ARCHITECTURES,
    "student.student": ARCHITECTURES,
    "name": PROTOCOLS,
    "student.name": PROTOCOLS,
    "protocol": PROTOCOLS,
    "source.preset": PRESETS,
}
# What commands take before their parser sees the rest.
_SHORT = ("--method", "--plain")
_BESIDE = {
    "distill": (*_SHORT, "--shards", "--snapshots", "--tracker"),
    "package": _SHORT,
    "estimate": (*_SHORT, "--processes", "--budget", "--no_students"),
}
_OF_EVERY_PARSER = ("help", "print_shtab", "method")  # `--method FILE` is not how a method is named
_FLAGS = ("--plain", "--snapshots", "--no_students", "--quiet", "--json")
_FOLDERS = ("artifact", "folder", "output", "runs", "images", "labels", "save_student")


def print_completion(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf --print_completion SHELL`."""
    shell = " ".join(arguments)
    if shell not in SHELLS:
        raise ConfigError(f"{unknown('shell', shell, SHELLS)}; set --print_completion to one of {', '.join(SHELLS)}")
    if find_spec("shtab") is None:
        raise ConfigError("--print_completion needs the package shtab, which is not installed: pip install shtab")
    import shtab

    script = shtab.complete(_all_commands(files=shtab.FILE, folders=shtab.DIRECTORY), shell)
    say(script.replace("$zsh_eval_context[-1] == eval", "$zsh_eval_context[-1] == (eval|file)"))  # `source` is "file"
    return Summary()


def _all_commands(files: Any, folders: Any) -> ArgumentParser:
    """One parser of all commands, with the options' names alone; `files` and `folders` are how these are completed."""
    root = ArgumentParser("fadrm-hf")
    root.add_argument("--print_completion", choices=SHELLS, help="Completion for a shell.")
    root.add_argument("--version", action="store_true", help="The version.")
    commands = root.add_subparsers()
    for name, command in COMMANDS.items():
        parser = commands.add_parser(name, help=command.line)
        for option in (*_BESIDE.get(name, ()), "--quiet", "--json"):
            names = list(METHODS) if option == "--method" else None
            given: dict[str, Any] = {"action": "store_true"} if option in _FLAGS else {"choices": names}
            parser.add_argument(option, **given)
        for action in _options_of(name):
            completed = _copied(parser, action)
            if action.dest == "config":
                completed.complete = files  # type: ignore[attr-defined]  # where shtab looks
            elif action.dest in _FOLDERS:
                completed.complete = folders  # type: ignore[attr-defined]
    return root


def _options_of(name: str) -> Iterator[Action]:
    """What a command's own parser takes, but for what every parser has."""
    module, function = COMMANDS[name].place.split(":")
    if module == "listing":
        return  # lists take nothing
    command = getattr(importlib.import_module(f"fadrm_hf.commands.{module}"), function)
    try:
        command([HAND_OVER])
    except HandedOver as handed:
        yield from (action for action in handed.parser._actions if action.dest not in _OF_EVERY_PARSER)


def _copied(parser: ArgumentParser, action: Action) -> Action:
    """An option or argument of the same name, with the values that it may have where these are few."""
    text = str(action.help or "").replace("%", "%%")
    if not action.option_strings:
        return parser.add_argument(action.dest, help=text)
    takes_none = action.nargs == 0
    values = None if takes_none else _choices(action)
    given: dict[str, Any] = {"action": "store_true"} if takes_none else {"choices": values}
    return parser.add_argument(*action.option_strings, help=text, **given)


def _choices(action: Action) -> list[str] | None:
    """The names that an option may have, if they are known."""
    if action.dest in _NAMES:
        return list(_NAMES[action.dest])
    names = list(_literals(getattr(action, "_typehint", None)))
    return names or None


def _literals(kind: Any) -> Iterator[str]:
    """The words of a type such as `Literal["bf16", "fp32"] | None`."""
    if kind is bool:
        yield from ("true", "false")
    for part in get_args(kind):
        if get_origin(kind) is Literal:
            yield str(part)
        else:
            yield from _literals(part)
