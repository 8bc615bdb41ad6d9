"""Earlier names of settings: artifacts of format 1 have them, and files and command lines may have them as well."""

from collections.abc import Callable, Mapping
from typing import Any

from fadrm_hf.errors import ConfigError

RENAMED = {
    "recover.bn_weight": "recover.statistics_weight",
    "recover.first_bn_weight": "recover.first_bn_multiplier",
    "recover.turns": "recover.teacher_order",
    "method.starts_from": "method.init",
    "method_record.starts_from": "method_record.init",  # in manifests alone
}


def earlier_names(name: str) -> list[str]:
    """Return the names that a setting had before; `settings.METHOD.` and the like stay in front of them."""
    return [name.removesuffix(new) + old for old, new in RENAMED.items() if f".{name}".endswith(f".{new}")]


def current_name(name: str) -> str:
    """Return today's name of a setting that may be given by an earlier one."""
    for old, new in RENAMED.items():
        if f".{name}".endswith(f".{old}"):
            return name.removesuffix(old) + new
    return name


def with_current_names(
    document: Mapping[str, Any], said: Callable[[str, str], None] = lambda old, new: None, within: str = ""
) -> dict[str, Any]:
    """Return settings with today's names, in sections and by dotted name alike.

    Args:
        document: Settings as plain data.
        said: Called with every earlier name that is found and the name of today.
        within: The dotted name of the document itself.

    Raises:
        ConfigError: If a setting is given by both of its names.
    """
    current: dict[str, Any] = {}
    for key, value in document.items():
        old, new = f"{within}{key}", current_name(f"{within}{key}")
        name = new.removeprefix(within)
        if name in current or (name != key and name in document):
            raise ConfigError(f"{old} and {new} are the same setting; leave out {old}")
        if name != key:
            said(old, new)
        current[name] = with_current_names(value, said, f"{new}.") if isinstance(value, Mapping) else value
    return current
