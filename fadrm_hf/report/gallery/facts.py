"""The data of the pages besides their pictures, written as scripts, since a page from disk can read nothing else."""

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fadrm_hf.artifact.manifest import Manifest, TableBytes, table_bytes
from fadrm_hf.errors import ArtifactError
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.report.card.metadata import card_title, method_name, public_source
from fadrm_hf.report.card.results import Result, in_order, kind_title, measured_student, read_results
from fadrm_hf.report.card.scores import KINDS, read_scores, score_rows
from fadrm_hf.report.card.text import quoted
from fadrm_hf.report.card.writing import published_name
from fadrm_hf.report.class_names import shown_names
from fadrm_hf.report.gallery.origin import origin_of
from fadrm_hf.report.gallery.sheets import Pictures
from fadrm_hf.runtime.run_folder import RunFolder


def facts_of(folder: Path, manifest: Manifest, pictures: Pictures, name: str | None = None) -> dict[str, Any]:
    """Collect everything that a page shows of an artifact.

    Args:
        folder: The artifact, with its card and its results.
        manifest: Its manifest.
        pictures: The contents of the sheets.
        name: Name of the artifact in the examples, by default that on the card.

    Raises:
        ArtifactError: If a file in `results/` is no result.
    """
    name = name or published_name(RunFolder(folder).card) or folder.resolve().name
    paper, scores, results = manifest.paper, read_scores(folder), read_results(folder)
    manifest = replace(manifest, bytes=_stored_bytes(folder, manifest))
    return {
        "name": name,
        "title": card_title(manifest),
        "method": method_name(manifest),
        "isDistilled": manifest.method != "random_real",
        "paper": {"arxiv": paper.arxiv, "url": paper.url} if paper else None,
        "source": public_source(manifest.source.name),
        "origin": origin_of(manifest, name),
        "ids": list(manifest.classes.ids),
        "classes": shown_names(manifest),
        "ipc": manifest.ipc,
        "size": manifest.pixels.size,
        "labelEpochs": manifest.label_epochs,
        "labelCodec": manifest.label_codec,
        "hasLabels": find_codec(manifest.label_codec).has_logits,
        "pictures": asdict(pictures)
        | {
            "columns": pictures.columns,
            "stages": [asdict(stage) | {"files": stage.files} for stage in pictures.stages],
        },
        "results": _result_rows(results),
        "scores": [] if scores is None else [list(row) for row in score_rows(scores)],
        "scoreValues": {} if scores is None else {KINDS[key].title: s.value for key, s in scores.scores.items()},
        "course": [] if scores is None else [dict(point) for point in scores.course],
        "howTo": _how_to(name, measured_student(results, manifest)),
    }


def _stored_bytes(folder: Path, manifest: Manifest) -> TableBytes:
    """Return the bytes of the tables in a folder; of those that are elsewhere, what the manifest says."""
    here, said = table_bytes(folder), manifest.bytes
    return TableBytes(here.images or said.images, here.soft_labels or said.soft_labels)


def as_script(variable: str, value: Any) -> bytes:
    """Return a script that defines one variable, in which no text can end the script or begin markup."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    safe = re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)
    return f'"use strict";\nconst {variable} = {safe};\n'.encode()


def _result_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the evaluations in the order of the card's table, with accuracies as fractions."""
    try:
        return [_result_row(result) for result in in_order(results)]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ArtifactError(
            f"a file in results/ is not an evaluation ({error!r}); remove it, or run fadrm-hf train-student again"
        ) from error


def _result_row(result: Result) -> dict[str, Any]:
    return {
        "kind": kind_title(result),
        "own": result["images"] == "distilled",
        "student": str(result["student"]),
        "protocol": str(result["protocol"]),
        "epochs": int(result["epochs"]),
        "seeds": int(result["num_seeds"]),
        "top1": _summary(result["top1"]),
        "top5": _summary(result.get("top5")),
        "contributed": bool(result.get("contributed")),
    }


def _summary(found: Mapping[str, float] | None) -> dict[str, float] | None:
    if not found:
        return None
    summary = {name: float(found[name]) for name in ("mean", "std")}
    if not all(map(math.isfinite, summary.values())):
        raise ValueError(f"{summary} is not an accuracy")
    return summary


def _how_to(name: str, student: str) -> list[dict[str, str]]:
    """Return examples of the artifact's use, each with code to copy."""
    in_python, in_shell = quoted(name), shlex.quote(name)
    return [
        {
            "title": "Images, with datasets alone",
            "language": "Python",
            "code": f'from datasets import load_dataset\n\nimages = load_dataset({in_python}, split="train")',
        },
        {
            "title": "Training batches, with every view as the teachers saw it",
            "language": "Python",
            "code": "from fadrm_hf import load_distilled\n\n"
            f"for batch in load_distilled({in_python}).batches(range(1)):\n"
            "    batch.images, batch.labels, batch.logits",
        },
        {
            "title": "A student, trained by the evaluation protocol",
            "language": "Shell",
            "code": f"fadrm-hf train-student {in_shell} --student {shlex.quote(student)}",
        },
    ]
