"""Plain data, as JSON and YAML hold it: read as typed values, and flattened to dotted names."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")
Unknown = Callable[[list[str]], None]


class PlainDataError(ValueError):
    """Plain data that is not of a type.

    Attributes:
        name: The dotted name of the value; of a record that lacks values, their names.
        value: What was given; `MISSING` for a record that lacks values.
        expected: The type in words.
    """

    def __init__(self, name: str, value: Any, expected: str) -> None:
        super().__init__(f"lacks {name}" if value is MISSING else f"has {name} = {value!r:.200}, expected {expected}")
        self.name, self.value, self.expected = name, value, expected


def read_record(
    kind: type[Record], values: Mapping[str, Any], name: str = "", unknown: Unknown = lambda names: None
) -> Record:
    """Return a dataclass from plain data: lists become tuples, mappings the dataclasses that they stand for.

    Whole numbers pass for fractions and stay what they are; truth values are no numbers.

    Args:
        kind: The dataclass, whose fields have types of JSON, tuples and dataclasses.
        values: Its fields by name; keys that it does not have are left out.
        name: Its own dotted name, for messages.
        unknown: Called with the dotted names of keys that were left out.

    Raises:
        PlainDataError: If a value is of another type than its field, or one without a default is absent.
    """
    hints, prefix = get_type_hints(kind), f"{name}." if name else ""
    known = {field.name: field for field in fields(kind) if field.init}  # type: ignore[arg-type]
    optional = {key for key, field in known.items() if (field.default, field.default_factory) != (MISSING, MISSING)}
    if missing := [prefix + key for key in known if key not in values and key not in optional]:
        raise PlainDataError(", ".join(missing), MISSING, "")
    if left_out := [f"{prefix}{key}" for key in values if key not in known]:
        unknown(left_out)
    return kind(**{key: read_value(hints[key], values[key], prefix + key, unknown) for key in known if key in values})


def read_value(hint: Any, value: Any, name: str, unknown: Unknown = lambda names: None) -> Any:
    """Return plain data as a value of an annotated type; see `read_record`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _read_choice(hint, value, name, unknown)
    if is_dataclass(hint) and isinstance(value, Mapping):
        return read_record(hint, value, name, unknown)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, list | tuple):
        inner = arguments[:1] * len(value) if ... in arguments else arguments
        if len(inner) == len(value):
            items = enumerate(zip(inner, value, strict=True))
            return tuple(read_value(part, item, f"{name}[{index}]", unknown) for index, (part, item) in items)
    elif origin is dict and isinstance(value, Mapping):
        return {key: read_value(arguments[1], item, f"{name}[{key!r}]", unknown) for key, item in value.items()}
    elif _is_plain(hint, origin, value):
        return value
    raise PlainDataError(name, value, _in_words(hint))


def _read_choice(hint: Any, value: Any, name: str, unknown: Unknown) -> Any:
    """Return a value as the first of several types that it is of."""
    choices = [choice for choice in get_args(hint) if choice is not NoneType]
    if value is None and NoneType in get_args(hint):
        return None
    if len(choices) == 1 and isinstance(value, Mapping | list):  # what is wrong inside says more
        return read_value(choices[0], value, name, unknown)
    for choice in choices:
        try:
            return read_value(choice, value, name, unknown)
        except PlainDataError:
            continue
    raise PlainDataError(name, value, _in_words(hint))


def _is_plain(hint: Any, origin: Any, value: Any) -> bool:
    if hint is Any:
        return True
    if origin is Literal:
        return value in get_args(hint)
    if hint in (int, float):
        return type(value) is int or type(value) is hint
    return origin not in (tuple, dict) and isinstance(value, origin or hint)


def _in_words(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def flatten(settings: Mapping[str, Any], prefix: str = "", depth: int = -1) -> dict[str, Any]:
    """Return nested settings by dotted name, e.g. `{"method.alpha": 0.5}`.

    Args:
        settings: Values by name; mappings of them are sections.
        prefix: What every name begins with.
        depth: How deep sections are opened: 1 keeps a section within a section together; all of them if negative.
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        is_opened = isinstance(value, Mapping) and depth != 0
        flat |= flatten(value, f"{prefix}{name}.", depth - 1) if is_opened else {f"{prefix}{name}": value}
    return flat
