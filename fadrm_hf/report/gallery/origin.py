"""Where an artifact comes from and what it cost: the facts below a page's title."""

import re
from typing import Any

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.report.card.metadata import public_source
from fadrm_hf.report.card.text import link, machine_line, percent, size
from fadrm_hf.runtime.terminal import duration

_ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def hub_page(name: str) -> str | None:
    """Return the address of a dataset's page on the Hub, if the name is that of a repository."""
    return f"https://huggingface.co/datasets/{name}" if _ON_THE_HUB.fullmatch(name) else None


def origin_of(manifest: Manifest, name: str) -> list[dict[str, Any]]:
    """Return the facts about an artifact by title.

    Args:
        manifest: The artifact's.
        name: Repository id, or the name of its folder.

    Returns:
        Each with its "title", its "lines", which are a text and the address it leads to or `None`, and its "note".
    """
    source, total = manifest.source, sum(stage.seconds for stage in manifest.stages.values())
    licence = source.licence or "not stated"
    address, sizes = hub_page(name), manifest.bytes
    facts = [
        ("Source", [_source_line(manifest)], ""),
        ("Licence", [(licence, link(source.licence_link))], "consent is asked for" if source.gated else ""),
        ("Teachers", [(_teacher_line(each.name, each.accuracy), None) for each in manifest.teachers], ""),
        ("Cost", [(duration(total) if manifest.stages else "not recorded", None)], machine_line(manifest.machine)),
        ("Size", [(f"images {size(sizes.images)}", None), (f"labels {size(sizes.soft_labels)}", None)], ""),
        ("Repository", [(name, address)] if address else [], ""),
    ]
    return [{"title": title, "lines": lines, "note": note} for title, lines, note in facts if lines]


def _source_line(manifest: Manifest) -> tuple[str, str | None]:
    name = public_source(manifest.source.name)
    return name, hub_page(name) if manifest.source.revision else None  # only a Hub dataset has a revision


def _teacher_line(name: str, accuracy: float | None) -> str:
    return name if accuracy is None else f"{name}, {percent(accuracy)}".replace(" %", "\N{NO-BREAK SPACE}%")
