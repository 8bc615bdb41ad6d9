"""What the pages know besides their pictures: plain data, which they read as scripts, as a page from disk must."""

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.tables import label_names
from fadrm_hf.errors import ArtifactError
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.report.card import ROWS, Result, card_title, method_name, public_source, read_results
from fadrm_hf.report.card.scores import KINDS, read_scores, score_rows
from fadrm_hf.report.card.text import quoted
from fadrm_hf.report.card.writing import published_name
from fadrm_hf.report.gallery.sheets import Pictures
from fadrm_hf.runtime.run_folder import RunFolder


def facts_of(folder: Path, manifest: Manifest, pictures: Pictures, name: str | None = None) -> dict[str, Any]:
    """Everything a page says about an artifact.

    Args:
        folder: The artifact, with its card and its results.
        manifest: Its manifest.
        pictures: What the sheets hold.
        name: What the examples load; the name on the card if not given.

    Raises:
        ArtifactError: If a file in `results/` is no result.
    """
    name = name or published_name(RunFolder(folder).card) or folder.resolve().name
    paper, scores = manifest.paper, read_scores(folder)
    return {
        "name": name,
        "title": card_title(manifest),
        "method": method_name(manifest),
        "isDistilled": manifest.method != "random_real",
        "paper": {"arxiv": paper.arxiv, "url": paper.url} if paper else None,
        "source": public_source(manifest.source.name),
        "ids": list(manifest.classes.ids),
        "classes": label_names(manifest.class_map),
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
        "results": _result_rows(read_results(folder)),
        "scores": [] if scores is None else [list(row) for row in score_rows(scores)],
        "scoreValues": {} if scores is None else {KINDS[key].title: s.value for key, s in scores.scores.items()},
        "course": [] if scores is None else [dict(look) for look in scores.course],
        "howTo": _how_to(name),
    }


def as_script(variable: str, value: Any) -> bytes:
    """A script that defines one variable, in which no text can end the script or begin markup."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    safe = re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)
    return f'"use strict";\nconst {variable} = {safe};\n'.encode()


def _result_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The evaluations, in the order of the card's table; accuracies as fractions."""
    kinds = list(ROWS)
    known = {kind: place for place, kind in enumerate(kinds)}
    ordered = sorted(results, key=lambda result: known.get((result["images"], result["labels"]), len(kinds)))
    try:
        return [_result_row(result) for result in ordered]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ArtifactError(
            f"a file in results/ is not an evaluation ({error!r}); remove it, or run fadrm-hf train-student again"
        ) from error


def _result_row(result: Result) -> dict[str, Any]:
    kind = (result["images"], result["labels"])
    return {
        "kind": ROWS.get(kind, f"{kind[0]} images + {kind[1]} labels"),
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
        raise ValueError(f"{summary} is no accuracy")
    return summary


def _how_to(name: str) -> list[dict[str, str]]:
    """How the artifact is used, each with what to copy."""
    shown, typed = quoted(name), shlex.quote(name)
    return [
        {
            "title": "Images, with datasets alone",
            "language": "Python",
            "code": f'from datasets import load_dataset\n\nimages = load_dataset({shown}, split="train")',
        },
        {
            "title": "Training batches, every view as the teachers saw it",
            "language": "Python",
            "code": "from fadrm_hf import load_distilled\n\n"
            f"for batch in load_distilled({shown}).batches(range(1)):\n"
            "    batch.images, batch.labels, batch.logits",
        },
        {
            "title": "A student, trained as the results above",
            "language": "Shell",
            "code": f"fadrm-hf train-student {typed} --student timm/resnet18",
        },
    ]
