"""The teachers' weights that a publication sends: which, how many bytes, under what licence; or none of them.

Weights travel with an artifact where no reader could fetch them by name: those trained for the run, and local folders.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fadrm_hf.artifact.manifest import Manifest, TeacherRecord
from fadrm_hf.report.card.metadata import public_source
from fadrm_hf.report.card.text import size
from fadrm_hf.runtime.files import read_json, write_json
from fadrm_hf.runtime.run_folder import MANIFEST, TEACHERS, RunFolder, inner_path

SentWeights = Literal["with", "hash", "none"]


@dataclass(frozen=True)
class SentTeacher:
    """A teacher whose weights are in the artifact.

    Attributes:
        name: Its name in the manifest.
        bytes: Size of its files.
        terms: Its licence, or how it was made, in words; `None` if that is unknown.
    """

    name: str
    bytes: int
    terms: str | None


def teachers_in(folder: Path, manifest: Manifest) -> list[SentTeacher]:
    """Return the teachers whose weights are in an artifact."""
    return [
        SentTeacher(record.name, _bytes_of(record, manifest), _terms_of(folder, record, manifest))
        for record in manifest.teachers
        if record.path is not None
    ]


def lines_about(teachers: Sequence[SentTeacher], weights: SentWeights) -> Iterator[str]:
    """Yield what a publication sends of the teachers' weights, or leaves out, for people."""
    if not teachers:
        return
    total, count = size(sum(teacher.bytes for teacher in teachers)), len(teachers)
    if weights == "hash":
        yield f"  teachers   weights of {count} are left out ({total}); {MANIFEST} has their SHA-256"
    elif weights == "none":
        yield f"  teachers   {count} left out ({total}), names and SHA-256 of all teachers, too"
    else:
        yield f"  teachers   weights of {count} are sent, {total}"
        for teacher in teachers:
            yield f"    {teacher.name}: {size(teacher.bytes)}, licence {teacher.terms or 'unknown'}"


def leave_out_teachers(folder: Path, weights: SentWeights) -> None:
    """Take the teachers out of the manifest of a copy that does not have their files.

    Args:
        folder: The copy; its digest is renewed with its card.
        weights: "hash" keeps their names and hashes, "none" nothing.
    """
    path = RunFolder(folder).manifest
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    document["teachers"] = [record | {"path": None} for record in document["teachers"]] if weights == "hash" else []
    files = document["files"].items()
    document["files"] = {name: record for name, record in files if not name.startswith(TEACHERS)}
    write_json(path, document)


def _bytes_of(record: TeacherRecord, manifest: Manifest) -> int:
    return sum(file.bytes for name, file in manifest.files.items() if name.startswith(f"{record.path}/"))


def _terms_of(folder: Path, record: TeacherRecord, manifest: Manifest) -> str | None:
    """Return the terms of a teacher's weights, if its configuration states them or it was trained by this library."""
    config = read_json(inner_path(folder, f"{record.path}/config.json"))
    config = config if isinstance(config, dict) else {}
    if record.name.startswith("squeeze/") or isinstance(config.get("fadrm"), dict):
        return f"yours: trained on {public_source(manifest.source.name)} ({manifest.source.licence or 'unknown'})"
    places = (config, config.get("pretrained_cfg"))
    stated = [place.get(key) for place in places if isinstance(place, dict) for key in ("license", "licence")]
    return next((licence for licence in stated if isinstance(licence, str) and licence), None)
