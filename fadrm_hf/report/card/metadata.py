"""The YAML header of a card, by which the Hub shows, searches, loads and gates a dataset.

The Hub derives its Croissant description from it: `name`, `url` and `creator` from the repository, `alternateName`
from `pretty_name`, `description` from the card's opening paragraph, `keywords` from `tags` and the task and size
categories, `license` from `license` or `license_link`, `distribution` from `configs`, and `recordSet`, with the names
of the classes, from the schema in each parquet file. So there is no `dataset_info`: it could only repeat that schema,
and its `splits` would break `filters=`.
"""

import re
from pathlib import PurePath
from typing import Any

from huggingface_hub import DatasetCardData

from fadrm_hf.artifact.manifest import Manifest, SourceRecord
from fadrm_hf.report.card.text import cell, link
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER
from fadrm_hf.runtime.terminal import printable

NESTED_IPC = (1, 2, 5, 10, 20, 50, 100, 200)
# Licences that the Hub knows by these names; all others are "other" with a name and a link.
_HUB_LICENCES = {
    "apache-2.0",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "mit",
    "unknown",
}


def card_metadata(manifest: Manifest) -> DatasetCardData:
    """Return the card's YAML header."""
    source = manifest.source
    return DatasetCardData(
        pretty_name=card_title(manifest),
        task_categories=["image-classification"],
        task_ids=["multi-class-image-classification"],
        annotations_creators=["machine-generated"],
        size_categories=[_size_category(manifest.num_images)],
        source_datasets=[source.name] if source.revision else None,  # only a Hub dataset has a revision
        tags=_tags(manifest),
        configs=card_configs(manifest),
        **licence_fields(source),
        **_consent(source),
    )


def card_configs(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the configurations of `load_dataset(name, CONFIG)`, all of them views of the same parquet files.

    `default` is the images, `ipcK` the images of the first K indices, which are an IPC K dataset of their own; for the
    others see `label_configs`. A repository cannot offer files of another one (`datasets` refuses it).
    """
    return [
        {"config_name": "default", "default": True, "data_files": _train_files(IMAGES_FOLDER)},
        *(label_configs() if manifest.label_repository is None else []),
        *(
            {"config_name": f"ipc{ipc}", "data_files": _train_files(IMAGES_FOLDER), "filters": _below(ipc)}
            for ipc in nested_ipc(manifest)
        ),
    ]


def label_configs() -> list[dict[str, Any]]:
    """Return the configurations of the soft labels: `soft_labels`, and `views`, the same without the labels."""
    from fadrm_hf.builders.soft_labels import VIEW_FEATURES  # it imports datasets, and torch with it

    return [
        {"config_name": "soft_labels", "data_files": _train_files(LABELS_FOLDER)},
        {"config_name": "views", "data_files": _train_files(LABELS_FOLDER), "columns": list(VIEW_FEATURES)},
    ]


def nested_ipc(manifest: Manifest) -> list[int]:
    """Return the images per class of the smaller datasets that an artifact contains."""
    return [ipc for ipc in NESTED_IPC if ipc < manifest.ipc]


def licence_fields(source: SourceRecord) -> dict[str, Any]:
    """Return the licence for a card's header: one that the Hub does not know is "other", with name and link."""
    licence = (source.licence or "unknown").lower()
    if licence in _HUB_LICENCES:
        return {"license": licence}
    name = licence if licence != "other" else f"terms-of-{public_source(source.name)}"
    fields = {"license": "other", "license_name": _slug(name)}
    address = link(source.licence_link)
    return fields | ({"license_link": address} if address else {})


def method_name(manifest: Manifest) -> str:
    """Return the method's name as papers spell it."""
    return manifest.method_title


def card_title(manifest: Manifest) -> str:
    """Return a title of source, method and images per class."""
    source = printable(public_source(manifest.source.name).rpartition("/")[2])
    images = f"image{'s' if manifest.ipc > 1 else ''} per class"
    if manifest.method == "random_real":
        return f"{source}, {manifest.ipc} random real {images}"
    return f"{source} distilled by {printable(method_name(manifest))}, {manifest.ipc} {images}"


def public_source(name: str) -> str:
    """Return a source's name for other readers: a Hub id as it is, a local path without its folders."""
    path = PurePath(name)
    return path.name if path.is_absolute() or name.startswith((".", "~")) else name


def _tags(manifest: Manifest) -> list[str]:
    from fadrm_hf.labels.codecs import find_codec  # it imports torch

    labelled = find_codec(manifest.label_codec).has_logits
    paper = manifest.paper
    return [
        "dataset-distillation",
        "dataset-condensation",
        *(["soft-labels"] if labelled else []),
        "knowledge-distillation",
        "fadrm_hf",
        manifest.method,
        f"ipc-{manifest.ipc}",
        _slug(public_source(manifest.source.name).rpartition("/")[2]),
        *([f"arxiv:{paper.arxiv}"] if paper else []),
    ]


def _consent(source: SourceRecord) -> dict[str, Any]:
    """Return the fields by which the Hub asks for consent to the terms of a gated source."""
    if not source.gated:
        return {}
    name, address = cell(public_source(source.name)), link(source.licence_link)
    where = f" ({address})" if address else ""
    return {
        "extra_gated_heading": "Agree to the terms of the source dataset",
        "extra_gated_prompt": f"These images and labels are derived from {name}, and its terms{where} apply to them,"
        " too: non-commercial research and education only, unless the terms permit more.",
        "extra_gated_fields": {f"I agree to the terms of {name}": "checkbox"},
    }


def _train_files(folder: str) -> list[dict[str, str]]:
    return [{"split": "train", "path": f"{folder}/train-*.parquet"}]


def _below(ipc: int) -> list[list[list[Any]]]:
    """Return the filter for the first `ipc` indices as `datasets` expects it: any of (all of (column, op, value))."""
    return [[["ipc_index", "<", ipc]]]


def _size_category(num_images: int) -> str:
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if num_images < bound), "1M<n<10M")


def _slug(name: str) -> str:
    return re.sub("[^a-z0-9.]+", "-", name.lower()).strip("-")
