"""What a card says of an edit: what the artifact was made from, and what was changed. All of it is foreign text."""

from collections.abc import Iterator
from typing import Any

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.report.card.text import cell, in_code

_MOST_NAMES = 20


def edit_lines(manifest: Manifest) -> list[str]:
    """Return sentences in Markdown about the edit that made an artifact; none if it was not edited."""
    record = manifest.config.get("edit")
    return list(_lines(record)) if isinstance(record, dict) else []


def differing_settings(manifest: Manifest) -> set[str]:
    """Return the sections of settings in which artifacts that were merged differ."""
    record = manifest.config.get("edit")
    found = record.get("differing_settings") if isinstance(record, dict) else None
    return {name for name in _list(found) if isinstance(name, str)}


def _lines(record: dict[str, Any]) -> Iterator[str]:
    origins = [each for each in _list(record.get("made_from")) if isinstance(each, dict)]
    named = (f"{cell(each.get('name'))} (manifest `{in_code(each.get('digest'))}`)" for each in origins)
    yield f"It was edited with `fadrm-hf edit`, from {' and '.join(named) or 'an artifact that is not named'}."
    if classes := _list(record.get("dropped_classes")):
        yield f"Left out: the class{'es' if len(classes) > 1 else ''} {_names(classes)}."
    if rows := _list(record.get("dropped_images")):
        yield f"Left out: {len(rows):,} image{'s' if len(rows) > 1 else ''}, whose rows are in `fadrm.json`."
    if settings := _list(record.get("differing_settings")):
        yield f"Their settings of {_names(settings)} differ; `recipe.yaml` has those of the first."
    renamed = record.get("renamed_classes")
    if isinstance(renamed, dict) and renamed:
        names = [f"{old}: {new}" for old, new in renamed.items()]
        yield f"Classes have other names than in the source: {_names(names)}."


def _names(names: list[Any]) -> str:
    return ", ".join(map(cell, names[:_MOST_NAMES])) + (", …" if len(names) > _MOST_NAMES else "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
