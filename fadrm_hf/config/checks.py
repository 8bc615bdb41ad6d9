"""What every section checks its values with, and the types that sections share."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from fadrm_hf.errors import ConfigError

Precision = Literal["fp32", "fp16", "bf16"]
Interval = tuple[float, float]
Colour = tuple[float, float, float]
Section = TypeVar("Section")


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


def require_area(name: str, area: Interval) -> None:
    """Raise `ConfigError` for what is no range of fractions of an image's area."""
    require(len(area) == 2 and 0.0 < area[0] <= area[1] <= 1.0, name, area, "two fractions 0 < low <= high <= 1")


def build(kind: type[Section], values: Mapping[str, Any]) -> Section:
    """A section of settings from plain data: lists become tuples, mappings the sections they stand for.

    Args:
        kind: Its frozen dataclass.
        values: Some or all of its fields, as JSON or YAML holds them. Of a section inside, keys that are unknown here
            are left out.

    Raises:
        ConfigError: For a value that no run can have.
        TypeError: For a field that there is not.
    """
    hints = get_type_hints(kind)
    return kind(**{name: _as_typed(hints.get(name), value) for name, value in values.items()})


def filled(section: Section, **values: Any) -> Section:
    """`section` with `values` where it is open, which is where it has `None`."""
    is_open = {name: value for name, value in values.items() if getattr(section, name) is None}
    return replace(section, **is_open)  # type: ignore[type-var]


def _as_typed(hint: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        inner = next((part for part in (hint, *get_args(hint)) if isinstance(part, type) and is_dataclass(part)), None)
        known = {} if inner is None else {item.name for item in fields(inner)}
        return value if inner is None else build(inner, {k: v for k, v in value.items() if k in known})
    return tuple(value) if isinstance(value, list) else value
