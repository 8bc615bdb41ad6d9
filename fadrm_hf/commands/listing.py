"""What there is, by name: `methods`, `students`, `sources`."""

import shlex
from collections.abc import Sequence

from fadrm_hf.commands.output import say
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods import METHODS
from fadrm_hf.presets import PRESETS
from fadrm_hf.students import list_students


def methods_command(arguments: Sequence[str]) -> int:
    """`fadrm-hf methods`."""
    described = {
        name: f"{method.title}: {(method.__doc__ or '').strip().splitlines()[0]}" for name, method in METHODS.items()
    }
    return _print(described, arguments)


def students_command(arguments: Sequence[str]) -> int:
    """`fadrm-hf students`."""
    return _print(list_students(), arguments)


def sources_command(arguments: Sequence[str]) -> int:
    """`fadrm-hf sources`."""
    described = {
        name: f"{preset.num_classes:,} classes, {preset.size} px, {', '.join(preset.hub_ids) or 'bundled'}"
        for name, preset in PRESETS.items()
    }
    return _print(described, arguments)


def _print(catalogue: dict[str, str], arguments: Sequence[str]) -> int:
    if arguments and arguments[0] not in ("-h", "--help"):
        raise ConfigError(f"unrecognized arguments: {shlex.join(arguments)}; expected none: this prints a list")
    for name, description in catalogue.items():
        say(f"{name:<28} {description}")
    return 0
