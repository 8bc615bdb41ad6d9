"""The settings in which artifacts differ, side by side."""

import json
from collections.abc import Sequence
from typing import Any

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.config.plain_data import flatten
from fadrm_hf.report.card.metadata import method_name, public_source
from fadrm_hf.report.card.text import size
from fadrm_hf.runtime.terminal import duration, printable

_ABSENT = "–"
_NOT_COMPARED = {"output", "ipc", "seed", "method.name", "source.name"}  # a folder, and what has a row of its own


def differences(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Compare artifacts by their settings and their costs.

    Returns:
        "rows": (name, the text of each artifact) of what differs; "numSame": the number of settings that do not.
    """
    described = [_described(manifest) for manifest in manifests]
    configured = [_settings(manifest) for manifest in manifests]
    names = list(dict.fromkeys(name for each in configured for name in each))
    settings = [(name, [each.get(name, _ABSENT) for each in configured]) for name in names]
    facts = [(name, [each[name] for each in described]) for name in described[0]]
    rows = [(name, texts) for name, texts in (*facts, *settings) if len(set(texts)) > 1]
    return {"rows": rows, "numSame": len(facts) + len(settings) - len(rows)}


def _described(manifest: Manifest) -> dict[str, str]:
    """Return what people look for first."""
    return {
        "method": method_name(manifest),
        "source": public_source(manifest.source.name),
        "images per class": f"{manifest.ipc:,}",
        "classes": f"{len(manifest.classes.ids):,}",
        "pixels": f"{manifest.pixels.size} × {manifest.pixels.size}",
        "teachers": ", ".join(teacher.name for teacher in manifest.teachers) or "not recorded",
        "labelled views of each image": f"{manifest.label_epochs:,}",
        "labels stored as": manifest.label_codec,
        "bytes of images": size(manifest.bytes.images),
        "bytes of labels": size(manifest.bytes.soft_labels),
        "made in": duration(sum(stage.seconds for stage in manifest.stages.values())),
        "seed": ", ".join(str(seed) for seed in manifest.seeds.values()) or "not recorded",
    }


def _settings(manifest: Manifest) -> dict[str, str]:
    """Return the recipe's settings by their dotted names, as text."""
    flat = flatten(manifest.config)
    return {printable(name): _text(value) for name, value in flat.items() if name not in _NOT_COMPARED}


def _text(value: Any) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
