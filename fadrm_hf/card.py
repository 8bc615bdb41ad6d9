"""The card of an artifact: README.md and pictures, made from the manifest, the tables and the results.

Nothing on it is typed by hand, and what was not measured says so.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files as resources
from pathlib import Path, PurePath
from typing import Any

import jinja2
import pyarrow.parquet as pq
from huggingface_hub import DatasetCardData

from fadrm_hf.artifact.manifest import Manifest, SourceRecord, table_bytes
from fadrm_hf.artifact.reading import card_configs, reading, table_files
from fadrm_hf.artifact.tables import IMAGES_FOLDER, LABELS_FOLDER
from fadrm_hf.errors import ArtifactError
from fadrm_hf.files import write_bytes
from fadrm_hf.pictures import write_pictures

Result = dict[str, Any]

NOT_MEASURED = "not measured"
METHODS = {"fadrm": "FADRM", "fadrm_plus": "FADRM+", "random_real": "Random real images"}
# What every card compares, in the order of its table.
ROWS: dict[tuple[str, str], str] = {
    ("distilled", "soft"): "distilled images + soft labels",
    ("distilled", "hard"): "distilled images + hard labels",
    ("random_real", "soft"): "random real images + the same soft labels",
    ("random_real", "hard"): "random real images + hard labels",
    ("whole", "hard"): "whole dataset + hard labels",
}
_SECTIONS = ("method", "patches", "recover", "relabel")
# Licences that the Hub knows by these names; all others are "other" with a name and a link.
_KNOWN_LICENCES = (
    "apache-2.0",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "mit",
    "unknown",
)


def write_card(folder: Path, manifest: Manifest, work: Path | None = None, name: str | None = None) -> Path:
    """Write README.md and the pictures; the caller then writes or refreshes the manifest.

    Args:
        folder: The artifact, with its tables.
        manifest: Its manifest; sizes are taken from the tables.
        work: The run's folder of shards, from which pictures of the recovery are drawn.
        name: Repository id that the card's examples load; the folder's name when not given.
    """
    results = read_results(folder)
    write_pictures(folder, manifest.classes.names, [_bar(result) for result in _in_order(results)], work)
    pictures = [file.stem for file in sorted((folder / "assets").glob("*.png"))]
    manifest = replace(manifest, bytes=table_bytes(folder))
    rows = _first_row(folder, IMAGES_FOLDER), _first_row(folder, LABELS_FOLDER)
    text = render_card(manifest, results, rows, pictures, name or folder.resolve().name)
    write_bytes(folder / "README.md", text.encode())
    return folder / "README.md"


def read_results(folder: Path) -> list[Result]:
    """All evaluations of an artifact, sorted by file name."""
    results = []
    for path in sorted((folder / "results").glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            _row(result), _bar(result)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"results/{path.name} is not an evaluation ({error!r}); remove it, or run fadrm-hf train-student again"
            ) from error
        results.append(result)
    return results


def render_card(
    manifest: Manifest, results: Sequence[Result], rows: tuple[str, str], pictures: Sequence[str], name: str
) -> str:
    """The text of the card.

    Args:
        manifest: What the artifact is and how it was made.
        results: Its evaluations.
        rows: A row of the images table and one of the soft-label table, as text.
        pictures: Which of "grid", "recovery" and "accuracy" there are.
        name: What the examples load.
    """
    source = replace(manifest.source, name=_public_name(manifest.source.name))
    settings = [(f"{section}.{key}", _shown(value)) for section, key, value in _settings(manifest.config)]
    template = _environment().from_string((resources("fadrm_hf.cards") / "dataset_card.md").read_text("utf-8"))
    return template.render(
        vars(manifest)
        | {
            "metadata": _metadata(manifest).to_yaml(),
            "title": _title(manifest),
            "name": name,
            "method": _method_name(manifest),
            "is_distilled": manifest.method != "random_real",
            "num_images": manifest.num_images,
            "num_classes": len(manifest.classes.ids),
            "size": manifest.pixels.size,
            "mean": list(manifest.pixels.mean),
            "std": list(manifest.pixels.std),
            "batch_size": manifest.config.get("relabel", {}).get("batch_size", 16),
            "temperature": manifest.config.get("student", {}).get("temperature", 20.0),
            "source": source,
            "needs_import": any(teacher.needs_import for teacher in manifest.teachers),
            "settings": settings,
            "results": _result_rows(results),
            "label_ratio": f"{manifest.bytes.soft_labels / max(1, manifest.bytes.images):.3g}",
            "machine": _describe_machine(manifest.machine),
            "seeds": ", ".join(str(seed) for seed in manifest.seeds.values()),
            "image_row": rows[0],
            "label_row": rows[1],
            "pictures": pictures,
        }
    )


def _metadata(manifest: Manifest) -> DatasetCardData:
    """The card's YAML header."""
    source = manifest.source
    tags = ["dataset-distillation", "fadrm_hf", manifest.method, f"ipc-{manifest.ipc}", "arxiv:2506.24125"]
    return DatasetCardData(
        pretty_name=_title(manifest),
        task_categories=["image-classification"],
        task_ids=["multi-class-image-classification"],
        annotations_creators=["machine-generated"],
        size_categories=[_size_category(manifest.num_images)],
        source_datasets=[source.name] if source.revision else None,  # only a Hub dataset has a revision
        tags=tags,
        configs=card_configs(),
        **_licence(source),
    )


def _licence(source: SourceRecord) -> dict[str, Any]:
    licence = (source.licence or "unknown").lower()
    if licence in _KNOWN_LICENCES:
        return {"license": licence}
    name = licence if licence != "other" else f"terms-of-{_public_name(source.name)}"
    fields = {"license": "other", "license_name": re.sub("[^a-z0-9.]+", "-", name.lower()).strip("-")}
    return fields | ({"license_link": source.licence_link} if source.licence_link else {})


def _size_category(num_images: int) -> str:
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if num_images < bound), "1M<n<10M")


def _method_name(manifest: Manifest) -> str:
    return METHODS.get(manifest.method, manifest.method.upper())


def _title(manifest: Manifest) -> str:
    source = _public_name(manifest.source.name).rpartition("/")[2]
    return f"{_method_name(manifest)} {source}, {manifest.ipc} image{'s' if manifest.ipc > 1 else ''} per class"


def _public_name(name: str) -> str:
    """A Hub id as it is; of a local path, the last part."""
    path = PurePath(name)
    return path.name if path.is_absolute() or name.startswith((".", "~")) else name


def _settings(config: dict[str, Any]) -> list[tuple[str, str, Any]]:
    return [(section, key, value) for section in _SECTIONS for key, value in config.get(section, {}).items()]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _in_order(results: Sequence[Result]) -> list[Result]:
    """Results in the order of `ROWS`; unknown kinds last."""
    kinds = list(ROWS)
    places = [(_kind(result), index) for index, result in enumerate(results)]
    ranked = sorted(places, key=lambda place: (kinds.index(place[0]) if place[0] in ROWS else len(ROWS), place[1]))
    return [results[index] for _, index in ranked]


def _result_rows(results: Sequence[Result]) -> list[list[str]]:
    """The numbers; kinds of evaluation that are absent say so."""
    rows = [_row(result) for result in _in_order(results)]
    missing = ROWS.keys() - {_kind(result) for result in results}
    return rows + [[ROWS[kind], "", "", "", "", NOT_MEASURED, "", ""] for kind in ROWS if kind in missing]


def _row(result: Result) -> list[str]:
    texts = [
        _kind_name(result),
        result["student"],
        result["protocol"],
        str(result["epochs"]),
        str(result["num_seeds"]),
    ]
    return texts + [_accuracy(result.get(key), result["num_seeds"]) for key in ("top1", "top5", "best_epoch_top1")]


def _bar(result: Result) -> tuple[str, float, float]:
    return f"{_kind_name(result)} ({result['student']})", result["top1"]["mean"], result["top1"]["std"]


def _kind(result: Result) -> tuple[str, str]:
    return result["images"], result["labels"]


def _kind_name(result: Result) -> str:
    return ROWS.get(_kind(result), f"{result['images']} images + {result['labels']} labels")


def _accuracy(summary: dict[str, float] | None, num_seeds: int) -> str:
    if not summary:
        return NOT_MEASURED
    spread = f" ± {100 * summary['std']:.1f}" if num_seeds > 1 else ""
    return f"{100 * summary['mean']:.1f}{spread}"


def _describe_machine(machine: dict[str, Any]) -> str:
    memory = machine.get("memory_bytes")
    parts = [machine.get("gpu"), machine.get("cpu"), f"{machine['cores']} cores" if machine.get("cores") else None]
    parts.append(f"{_size(memory)} of memory" if memory else None)
    return ", ".join(str(part) for part in parts if part) or "not recorded"


def _first_row(folder: Path, table: str) -> str:
    """The first row of a table as JSON, an entry a line; pictures described, long lists shortened."""
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


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"cell": _cell, "percent": _percent, "size": _size, "duration": _duration}
    return environment


def _cell(text: Any) -> str:
    """Text that cannot leave its table cell, nor be taken for markup."""
    plain = " ".join(str(text).split())
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace("|", r"\|").replace("`", "'")


def _percent(fraction: float | None) -> str:
    return NOT_MEASURED if fraction is None else f"{100 * fraction:.1f} %"


def _size(num_bytes: float | None) -> str:
    if num_bytes is None:
        return NOT_MEASURED
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
