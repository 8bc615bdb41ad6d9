"""The checks of every section's values, and the types that sections share."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from fadrm_hf.config.plain_data import PlainDataError, read_record
from fadrm_hf.errors import ConfigError

Precision = Literal["fp32", "tf32", "fp16", "bf16"]
Interval = tuple[float, float]
Colour = tuple[float, float, float]
Section = TypeVar("Section")
Value = TypeVar("Value")

# A setting that is filled in when the run is resolved: who parses settings sees that it may be `None` until then, who
# checks types sees the value of a resolved run.
OPEN: Any = None
if TYPE_CHECKING:
    Open = Annotated[Value, OPEN]
else:
    Open = Value | None


MOST_WORKERS = 256
_BEFORE = "before"


def added(default: Any, before: Any) -> Any:
    """Declare a setting that recipes of earlier versions lack, and what their runs did.

    Args:
        default: The setting's default today.
        before: Its value in every recipe that does not name it.
    """
    return field(default=default, metadata={_BEFORE: before})


def values_before(section: Any) -> dict[str, Any]:
    """Return the values, in recipes that lack them, of the settings that a section was given by `added`."""
    return {item.name: item.metadata[_BEFORE] for item in fields(section) if _BEFORE in item.metadata}


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise `ConfigError` naming the field, what was expected and what was given."""
    if not condition:
        raise ConfigError(f"{name} must be {expected}, got {value!r}; set --{name}")


def require_finite(section: str, settings: Any) -> None:
    """Raise `ConfigError` for a field of a section that is, or holds, a number that is infinite or none."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        numbers = value if isinstance(value, tuple) else (value,)
        are_finite = all(math.isfinite(number) for number in numbers if isinstance(number, float))
        require(are_finite, f"{section}.{item.name}", value, "finite")


def require_probability(name: str, probability: float | None) -> None:
    """Raise `ConfigError` for a number that is given and outside [0, 1]."""
    require(probability is None or 0.0 <= probability <= 1.0, name, probability, "a probability in [0, 1]")


def require_workers(name: str, num_workers: int) -> None:
    """Raise `ConfigError` for more processes than any machine feeds images with; each one is started."""
    require(0 <= num_workers <= MOST_WORKERS, name, num_workers, f"0 to {MOST_WORKERS} processes")


def require_area(name: str, area: Interval) -> None:
    """Raise `ConfigError` for a value that is not a range of fractions of an image's area."""
    require(len(area) == 2 and 0.0 < area[0] <= area[1] <= 1.0, name, area, "two fractions 0 < low <= high <= 1")


def build(kind: type[Section], values: Mapping[str, Any], section: str = "") -> Section:
    """Build a section of settings from plain data: lists become tuples, mappings the sections they stand for.

    Args:
        kind: Its frozen dataclass.
        values: Some or all of its fields, as JSON or YAML holds them. Of a section inside, keys that are unknown here
            are left out.
        section: Its name in a run, for messages.

    Raises:
        ConfigError: For a value that no run can have, or of another type than its field.
        TypeError: For a field that there is not.
    """
    if unknown := values.keys() - {item.name for item in fields(kind)}:  # type: ignore[arg-type]
        raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    try:
        return read_record(kind, values, section)
    except PlainDataError as error:
        given = "missing" if error.value is MISSING else f"{error.value!r:.80}, expected {error.expected}"
        raise ConfigError(f"{error.name} is {given}; set --{error.name}") from error


def filled(section: Section, **values: Any) -> Section:
    """Return `section` with its open fields, those that are `None`, set from `values`."""
    is_open = {name: value for name, value in values.items() if getattr(section, name) is None}
    return replace(section, **is_open)  # type: ignore[type-var]


def with_defaults(held: Mapping[str, Any], section: Any) -> dict[str, Any]:
    """Complete a section that an earlier version wrote with the settings that it did not have yet.

    They were what was done before there was the setting: its default, unless it was `added` with another value.

    Args:
        held: The section as plain data, as JSON holds it.
        section: The same section of today, with all settings, also in sections inside.
    """
    whole = dict(held)
    for item in fields(section):
        value = getattr(section, item.name)
        if item.name not in whole:
            whole |= _default_of(item)
        elif is_dataclass(value) and isinstance(whole[item.name], Mapping):
            whole[item.name] = with_defaults(whole[item.name], value)
    return whole


def _default_of(item: "Field[Any]") -> dict[str, Any]:
    """Return a field's value in earlier recipes by its name, as JSON holds it; nothing for a field without one."""
    if _BEFORE in item.metadata:
        return {item.name: item.metadata[_BEFORE]}
    if item.default is MISSING and item.default_factory is MISSING:
        return {}
    default = item.default if item.default_factory is MISSING else item.default_factory()
    settings: Any = asdict(default) if is_dataclass(default) and not isinstance(default, type) else default
    plain: dict[str, Any] = json.loads(json.dumps({item.name: settings}))
    return plain
