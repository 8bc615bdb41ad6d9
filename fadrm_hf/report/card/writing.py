"""README.md and its pictures, made from the manifest, the tables and the results.

Nothing on a card is typed by hand, and missing measurements are named as such. The manifest and the results of a
downloaded artifact are foreign text, which is escaped everywhere.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fadrm_hf.artifact.manifest import Manifest, TableBytes, table_bytes
from fadrm_hf.artifact.reading import reading, table_files
from fadrm_hf.builders.soft_labels import label_features, row_bytes
from fadrm_hf.config import SourceConfig
from fadrm_hf.errors import ArtifactError
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.report.card.edited import differing_settings, edit_lines
from fadrm_hf.report.card.metadata import card_metadata, card_title, method_name, nested_ipc, public_source
from fadrm_hf.report.card.results import Result, accuracy_bars, measured_student, read_results, render_results
from fadrm_hf.report.card.scores import KINDS, Scores, complete_points, read_scores, score_rows, trajectory_rows
from fadrm_hf.report.card.text import machine_line, quoted, render
from fadrm_hf.report.pictures.card import write_pictures
from fadrm_hf.runtime.files import write_bytes
from fadrm_hf.runtime.progress import QUIET, Reporter
from fadrm_hf.runtime.run_folder import CARD, IMAGES_FOLDER, LABELS_FOLDER, RunFolder, read_inner

_SECTIONS = ("method", "import", "patches", "recover", "relabel")
_LOADED_FROM_THE_HUB = re.compile(r'load_dataset\("([\w.-]+/[\w.-]+)"')


def write_card(
    folder: Path,
    manifest: Manifest,
    work: Path | None = None,
    name: str | None = None,
    reporter: Reporter = QUIET,
) -> Path:
    """Write README.md and the pictures; the caller then writes or refreshes the manifest.

    Args:
        folder: The artifact, with its tables.
        manifest: Its manifest; sizes are taken from the tables.
        work: The run's work folder, for pictures of the recovery.
        name: Repository id for the card's examples, by default that of the card it replaces, else the folder's name.
        reporter: Told of damaged lines of the log.
    """
    results, scores = read_results(folder), read_scores(folder)
    trajectory = complete_points(scores) if scores else []
    write_pictures(folder, manifest, accuracy_bars(results), trajectory, work, reporter)
    run = RunFolder(folder)
    manifest = replace(manifest, bytes=_sizes(folder, manifest))
    rows = _first_row(folder, IMAGES_FOLDER), _first_label_row(folder, manifest)
    name = name or published_name(run.card) or folder.resolve().name
    write_bytes(run.card, render_card(manifest, results, rows, run.pictures(), name, scores).encode())
    return run.card


def render_card(
    manifest: Manifest,
    results: Sequence[Result],
    rows: tuple[str, str],
    pictures: Sequence[str],
    name: str,
    scores: Scores | None = None,
) -> str:
    """Render the text of the card.

    Args:
        manifest: The artifact's manifest.
        results: Its evaluations.
        rows: A row of the images table and one of the soft-label table, as text; an empty one is left out.
        pictures: Which of "grid", "recovery", "accuracy" and "information" exist.
        name: Repository id or name of a folder, for the examples.
        scores: The results of `fadrm-hf score`, if it was run.
    """
    values = vars(manifest) | _facts(manifest) | _label_facts(manifest, name)
    return render(
        "dataset_card.md",
        **values,
        metadata=card_metadata(manifest).to_yaml(),
        name=name,
        on_hub="/" in name,
        is_imported="import" in manifest.config,
        edit_lines=edit_lines(manifest),
        results=render_results(results),
        has_results=bool(results),
        student=measured_student(results, manifest),
        image_row=rows[0],
        label_row=rows[1],
        pictures=pictures,
        **_score_facts(scores),
    )


def _facts(manifest: Manifest) -> dict[str, Any]:
    """Return the template's values about images, method and source."""
    return {
        "title": card_title(manifest),
        "method": method_name(manifest),
        "paper": manifest.paper,
        "is_distilled": manifest.method != "random_real",
        "num_images": manifest.num_images,
        "num_classes": len(manifest.classes.ids),
        "nested": nested_ipc(manifest),
        "pixel_size": manifest.pixels.size,
        "mean": list(manifest.pixels.mean),
        "std": list(manifest.pixels.std),
        "source": replace(manifest.source, name=public_source(manifest.source.name)),
        "source_is_private": manifest.source.revision is None
        and manifest.source.name != SourceConfig().name,  # bundled
        "needs_import": any(teacher.needs_import for teacher in manifest.teachers),
        "settings": [(f"{section}.{key}", _shown(value)) for section, key, value in _settings(manifest)],
        "machine": machine_line(manifest.machine),
        "seeds": ", ".join(str(seed) for seed in manifest.seeds.values()) or "not recorded",
    }


def _label_facts(manifest: Manifest, name: str) -> dict[str, Any]:
    """Return the template's values about the soft labels; `name` is loaded by the examples."""
    codec = find_codec(manifest.label_codec)
    relabel = manifest.config.get("relabel", {})
    epochs = relabel.get("epochs") or manifest.label_epochs
    num_views = max(1, manifest.num_images * manifest.label_epochs)
    in_float16 = manifest.num_images * epochs * row_bytes(label_features("float16", len(manifest.classes.ids)))
    repository, _, commit = (manifest.label_repository or name).partition("@")
    pin = f"revision={quoted(commit)}, " if commit else ""
    return {
        "load_labels": f'{quoted(repository)}, "soft_labels", {pin}split="train"',
        "has_logits": codec.has_logits,
        "decode_snippet": codec.decode_snippet.strip(),
        "training_epochs": epochs,
        "batch_size": relabel.get("batch_size", 16),
        "accumulation": relabel.get("accumulation", 1),
        "batch_statistics": relabel.get("batch_statistics", False),
        "ensemble": relabel.get("ensemble", "mean"),
        "num_teachers": relabel.get("num_teachers"),
        "shuffle_tiles": relabel.get("shuffle_tiles", 1),
        "temperature": manifest.config.get("student", {}).get("temperature", 20.0),
        "bytes_per_view": f"{manifest.bytes.soft_labels / num_views:.0f}",
        "label_ratio": f"{manifest.bytes.soft_labels / max(1, manifest.bytes.images):.3g}",
        "float16_ratio": f"{manifest.bytes.soft_labels / in_float16:.3g}",
    }


def _score_facts(scores: Scores | None) -> dict[str, Any]:
    """Return the template's values about the scores, empty if there are none."""
    if scores is None:
        return {"score_rows": [], "trajectory_rows": [], "missing_scores": [], "scored_by": {}}
    return {
        "score_rows": score_rows(scores),
        "trajectory_rows": trajectory_rows(scores),
        "missing_scores": [KINDS[name].title for name in KINDS if name in scores.missing],
        "scored_by": {"student": "?", "network": None, "has_taught": False} | dict(scores.settings),
    }


def _sizes(folder: Path, manifest: Manifest) -> TableBytes:
    """Return the bytes of the tables; for labels in a repository of their own, by their records."""
    sizes = table_bytes(folder)
    if manifest.label_repository is None:
        return sizes
    records = (record for name, record in manifest.files.items() if name.startswith(f"{LABELS_FOLDER}/"))
    return replace(sizes, soft_labels=sum(record.bytes for record in records))


def published_name(card: Path) -> str | None:
    """Return the repository id that the examples of an earlier card load."""
    found = _LOADED_FROM_THE_HUB.search(read_card(card.parent)) if card.exists() or card.is_symlink() else None
    return found[1] if found else None


def read_card(folder: Path) -> str:
    """Return the text of an artifact's card.

    Raises:
        ArtifactError: If it is no text file of a card's size.
    """
    try:
        return read_inner(folder, CARD).decode("utf-8")
    except ArtifactError:
        raise
    except ValueError as error:
        raise ArtifactError(
            f"{CARD} of {folder} is no card ({error}); remove it, or fetch the artifact again"
        ) from error


def _settings(manifest: Manifest) -> list[tuple[str, str, Any]]:
    """Return the settings that had an effect: none of patches for noise, none of recovery without iterations."""
    idle = {"patches"} if manifest.method_setting("init") == "noise" else set()
    idle |= {"recover"} if manifest.method_setting("iterations") == 0 else set()
    shown = [section for section in _SECTIONS if section not in idle | differing_settings(manifest)]
    return [(section, key, value) for section in shown for key, value in manifest.config.get(section, {}).items()]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _first_label_row(folder: Path, manifest: Manifest) -> str:
    """Return `_first_row` of the labels, or "" if they are in a repository of their own."""
    apart = manifest.label_repository is not None and not (folder / LABELS_FOLDER).exists()
    return "" if apart else _first_row(folder, LABELS_FOLDER)


def _first_row(folder: Path, table: str) -> str:
    """Return the first row of a table as JSON, an entry per line, with pictures described and long lists shortened."""
    file = table_files(folder, table)[0]
    with reading(file):
        row = next(pq.ParquetFile(file).iter_batches(1)).to_pylist()[0]
    lines = [f"{json.dumps(name)}: {_entry(value)}" for name, value in row.items()]
    return "{" + ",\n ".join(lines) + "}"


def _entry(value: Any) -> str:
    if isinstance(value, dict) and "bytes" in value:
        return f"<PNG of {len(value['bytes'])} bytes>"
    if isinstance(value, list) and len(value) > 6:
        return f"[{', '.join(map(json.dumps, value[:4]))}, … {len(value)} in all]"
    return json.dumps(value)
