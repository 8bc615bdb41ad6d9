"""The classes: ordered ids and names, and the permutation that mends a different order.

A teacher or a test set with its classes in another order silently gives chance accuracy; so everything that has
classes carries a `ClassMap`, and two of them are matched by identity, never by position.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fadrm_hf.errors import ClassMapError


@dataclass(frozen=True)
class ClassMap:
    """The classes of a dataset or network, in the order of its labels.

    Args:
        ids: What identifies each class, e.g. WNIDs or the names themselves.
        names: What a reader calls each class; synonyms are separated by commas.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names) or not self.ids:
            raise ClassMapError(
                f"a class map needs one name for each of its ids, got {len(self.ids)} ids and {len(self.names)} names"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def hash(self) -> str:
        """Return the hexadecimal SHA-256 of the ordered ids."""
        return hashlib.sha256(json.dumps(self.ids).encode()).hexdigest()

    def to_json(self) -> dict[str, list[str]]:
        """Return the map as plain JSON values."""
        return {"ids": list(self.ids), "names": list(self.names)}

    @classmethod
    def from_json(cls, value: dict[str, list[str]]) -> "ClassMap":
        """Read a map from the values of `to_json`."""
        return cls(tuple(value["ids"]), tuple(value["names"]))

    def permutation_from(self, other: "ClassMap") -> tuple[int, ...] | None:
        """Return indices that put `other`'s logits in this map's order: `logits[:, indices]`.

        Classes are matched by id, or else all of them by name, or else all by the first synonym of the name, or else
        all by any synonym that only one class has.

        Args:
            other: The classes to reorder; it may have more classes than this map.

        Returns:
            One index into `other` per class, or `None` when the classes do not match one to one.
        """
        if self.ids == other.ids:
            return tuple(range(len(self)))  # no matching is needed, not even where two classes share a name
        keys = (
            (self.ids, other.ids),
            (_folded(self.names), _folded(other.names)),
            (_folded(_first_synonyms(self.names)), _folded(_first_synonyms(other.names))),
        )
        found = next((order for wanted, given in keys if (order := _match(wanted, given)) is not None), None)
        return found if found is not None else _match_synonyms(self.names, other.names)


def describe_difference(source_map: ClassMap, other: ClassMap) -> str:
    """Describe how the classes of `other` differ from those of the source, for an error message."""
    order = source_map.permutation_from(other)
    if order is None:
        return _describe_mismatch(source_map, other)
    moved = [position for position, index in enumerate(order) if position != index]
    if not moved:
        extra = len(other) - len(source_map)
        return f"the same classes in the same order, then {extra} more" if extra else "the same classes and order"
    examples = ", ".join(f"class {p} ({source_map.names[p]!r}) is its class {order[p]}" for p in moved[:3])
    text = f"{len(moved)} of {len(source_map)} classes are elsewhere: {examples}{', …' if len(moved) > 3 else ''}"
    return f"{text}; permutation {_shortened(order)}"


def _describe_mismatch(source_map: ClassMap, other: ClassMap) -> str:
    counts = f"the source has {len(source_map)} classes, the other {len(other)}"
    known = {*other.ids, *_folded(_first_synonyms(other.names))}
    firsts = _folded(_first_synonyms(source_map.names))
    missing = [
        name
        for name, first, identity in zip(source_map.names, firsts, source_map.ids, strict=True)
        if first not in known and identity not in known
    ]
    if missing:
        what = f"{len(missing)} of the source's classes are not among the other's, e.g. {_quoted(missing)}"
        return f"{counts}; {what}, whose first are {_quoted(other.names)}"
    doubled = [name for name, count in Counter(_folded(_first_synonyms(other.names))).items() if count > 1]
    return f"{counts}; names do not match one to one" + (f", e.g. {_quoted(doubled)} occurs twice" if doubled else "")


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:3])


def _shortened(order: Sequence[int]) -> str:
    shown = ", ".join(map(str, order[:10]))
    return f"[{shown}, … {len(order)} in all]" if len(order) > 10 else f"[{shown}]"


def _first_synonyms(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.split(",")[0] for name in names)


def _folded(names: Sequence[str]) -> tuple[str, ...]:
    return tuple("".join(name.casefold().replace("_", " ").replace("-", " ").split()) for name in names)


def _match_synonyms(wanted: Sequence[str], given: Sequence[str]) -> tuple[int, ...] | None:
    """Return the place in `given` of each of `wanted` by their synonyms, or `None` when one is absent or ambiguous."""
    owners: dict[str, set[int]] = {}
    for place, name in enumerate(given):
        for synonym in _folded(name.split(",")):
            owners.setdefault(synonym, set()).add(place)
    places = [set[int]().union(*(owners.get(one, set()) for one in _folded(name.split(",")))) for name in wanted]
    found = [min(owned) for owned in places if len(owned) == 1]
    return tuple(found) if len(set(found)) == len(wanted) else None


def _match(wanted: Sequence[str], given: Sequence[str]) -> tuple[int, ...] | None:
    """Return the place of each of `wanted` in `given`, or `None` when one is absent or occurs twice."""
    counts = Counter(given)
    if len(set(wanted)) < len(wanted) or any(counts[key] != 1 for key in wanted):
        return None
    places = {key: place for place, key in enumerate(given)}
    return tuple(places[key] for key in wanted)
