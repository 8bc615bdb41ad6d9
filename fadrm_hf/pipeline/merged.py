"""Which artifacts can become one, and what its manifest says of them together."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import Manifest, MethodRecord, StageRecord
from fadrm_hf.config import RelabelConfig
from fadrm_hf.errors import ConfigError

MERGED = "merged"  # the method of images that several methods have made
_OF_EVERY_RUN = {"output", "ipc", "edit"}  # which differ anyway
_MUST_AGREE: dict[str, Callable[[Manifest], Any]] = {
    "classes": lambda manifest: manifest.classes.ids,
    "pixels": lambda manifest: asdict(manifest.pixels),
    "source.fingerprint": lambda manifest: manifest.source.fingerprint,
    "source.test_rows": lambda manifest: manifest.source.test_rows,
    "teachers": lambda manifest: [(teacher.sha256, teacher.vote) for teacher in manifest.teachers],
    "label_codec": lambda manifest: manifest.label_codec,
    "label_epochs": lambda manifest: manifest.label_epochs,
    "relabel": lambda manifest: asdict(manifest.settings("relabel", RelabelConfig)),
}
_REMEDIES = {
    "label_codec": "; fadrm-hf recode stores labels in another way",
    "label_epochs": "; fadrm-hf recode --stored_epochs keeps fewer",
}


def require_mergeable(locations: Sequence[Location], is_changed: bool) -> None:
    """Refuse artifacts that cannot become one.

    Args:
        locations: The artifacts.
        is_changed: Whether something else is to be changed.

    Raises:
        ConfigError: If one is named twice, or differs from the first in what all must share.
    """
    if is_changed:
        raise ConfigError("--merge is given with other changes, expected one after the other; merge first, then edit")
    first, *others = locations
    for other in others:
        for name, value_of in _MUST_AGREE.items():
            here, there = value_of(first.manifest), value_of(other.manifest)
            if here != there:
                what = _difference(name, here, there)
                raise ConfigError(
                    f"{other.name} cannot be merged with {first.name}: {what}, expected the same"
                    f"{_REMEDIES.get(name, '')}"
                )
    digests = [location.manifest.digest for location in locations]
    for place, location in enumerate(locations):
        if digests.index(location.manifest.digest) < place:
            raise ConfigError(f"{location.name} is named twice, expected different artifacts to merge")


def joined_records(manifests: Sequence[Manifest]) -> Manifest:
    """Return the first manifest with the methods and costs of all: seconds are added up, memory is the most of any."""
    first = manifests[0]
    if len(manifests) == 1:
        return first
    if len({each.method for each in manifests}) > 1:
        titles = dict.fromkeys(each.method_title for each in manifests)
        first = replace(first, method=MERGED, method_record=MethodRecord(" + ".join(titles)))
    stages: dict[str, StageRecord] = {}
    for stage, cost in (pair for each in manifests for pair in each.stages.items()):
        stages[stage] = _sum(stages[stage], cost) if stage in stages else cost
    return replace(first, stages=stages)


def differing_settings(manifests: Sequence[Manifest]) -> list[str]:
    """Return the sections of their recipes that are not the same in all; the recipe that is kept is the first's."""
    first = manifests[0].config
    names = dict.fromkeys(name for each in manifests for name in each.config if name not in _OF_EVERY_RUN)
    return [name for name in names if any(each.config.get(name) != first.get(name) for each in manifests)]


def _sum(one: StageRecord, other: StageRecord) -> StageRecord:
    memory = [cost.peak_memory_bytes for cost in (one, other) if cost.peak_memory_bytes is not None]
    return replace(
        one, seconds=round(one.seconds + other.seconds, 1), peak_memory_bytes=max(memory) if memory else None
    )


def _difference(name: str, here: Any, there: Any) -> str:
    """Return in words how two values differ; of sections the first setting that does."""
    if isinstance(here, dict):
        key = next(key for key in here if here[key] != there[key])
        name, here, there = f"{name}.{key}", here[key], there[key]
    return f"{name} is {there!r:.100} there, {here!r:.100} here"
