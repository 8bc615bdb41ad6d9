"""Completion for shells: `fadrm-hf --print_completion bash`; shtab writes the script.

    source <(fadrm-hf --print_completion bash)

The script holds every command, option and name, so that completing a word starts no Python.
"""

from argparse import Action, ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Literal, get_args, get_origin

from fadrm_hf.commands.call import parser_of
from fadrm_hf.commands.catalogue import COMMANDS
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config.architectures import ARCHITECTURES
from fadrm_hf.config.datasets import PRESETS
from fadrm_hf.config.protocols import PROTOCOLS
from fadrm_hf.errors import ConfigError, unknown
from fadrm_hf.methods import METHODS

SHELLS = ("bash", "zsh", "tcsh")
_NAMES: dict[str, Iterable[str]] = {
    "method.name": METHODS,
    "method": METHODS,
    "student": ARCHITECTURES,
    "student.student": ARCHITECTURES,
    "name": PROTOCOLS,
    "student.name": PROTOCOLS,
    "protocol": PROTOCOLS,
    "source.preset": PRESETS,
}
_FOLDERS = ("artifact", "folder", "output", "runs", "images", "labels", "save_student")
_NOT_OFFERED = ("help", "print_shtab")


def print_completion(arguments: Sequence[str]) -> Summary:
    """Run `fadrm-hf --print_completion SHELL`."""
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
    """Return one parser of all commands; `files` and `folders` are what shtab completes these by."""
    root = ArgumentParser("fadrm-hf")
    root.add_argument("--print_completion", choices=SHELLS, help="Completion for a shell.")
    root.add_argument("--version", action="store_true", help="The version.")
    commands = root.add_subparsers()
    for name, command in COMMANDS.items():
        parser = commands.add_parser(name, help=command.line)
        for action in parser_of(name)._actions:
            if action.dest in _NOT_OFFERED or action.help == "==SUPPRESS==":
                continue
            completed = _copied(parser, action)
            if action.dest == "config":
                completed.complete = files  # type: ignore[attr-defined]  # where shtab looks
            elif action.dest in _FOLDERS and completed.choices is None:
                completed.complete = folders  # type: ignore[attr-defined]
    return root


def _copied(parser: ArgumentParser, action: Action) -> Action:
    """Add an option or argument of the same name, with the values that it may have where these are few."""
    text = str(action.help or "").replace("%", "%%")
    if not action.option_strings:
        return parser.add_argument(action.dest, help=text)
    given: dict[str, Any] = {"action": "store_true"} if action.nargs == 0 else {"choices": _choices(action)}
    return parser.add_argument(*action.option_strings, help=text, **given)


def _choices(action: Action) -> list[str] | None:
    """Return the names that an option may have, if they are known."""
    if action.choices or action.dest in _NAMES:
        return list(map(str, action.choices or _NAMES[action.dest]))
    return list(_literals(getattr(action, "_typehint", None))) or None


def _literals(kind: Any) -> Iterator[str]:
    """Yield the words of a type such as `Literal["bf16", "fp32"] | None`."""
    if kind is bool:
        yield from ("true", "false")
    for part in get_args(kind):
        if get_origin(kind) is Literal:
            yield str(part)
        else:
            yield from _literals(part)
