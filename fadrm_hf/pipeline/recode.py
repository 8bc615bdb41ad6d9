"""The same artifact with smaller labels: stored by another codec, or fewer epochs of them, or both.

Images, teachers and views stay byte for byte what they were. Results stay behind if the labels change, because they
were measured with others.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Features

from fadrm_hf.artifact.manifest import Manifest, artifact_files, read_manifest
from fadrm_hf.artifact.reading import open_table, read_label_columns, read_label_group, table_files
from fadrm_hf.artifact.tables import write_label_table
from fadrm_hf.builders.soft_labels import VIEW_FEATURES, label_features, label_table
from fadrm_hf.errors import ConfigError
from fadrm_hf.labels.codecs import Columns, find_codec
from fadrm_hf.pipeline.new_version import (
    appearing,
    copy_files,
    finish,
    inherit_source,
    require_all_epochs,
    require_unchanged,
)
from fadrm_hf.runtime.progress import QUIET, Reporter
from fadrm_hf.runtime.run_folder import CARD, GALLERY, LABELS_FOLDER, PICTURES, RECIPE, RESULTS

_WRITTEN_ANEW = (CARD, RECIPE, f"{LABELS_FOLDER}/")
_MEASURED = (RESULTS, f"{PICTURES}accuracy.png")


def recode(
    folder: Path,
    output: Path,
    codec: str,
    stored_epochs: int | None = None,
    labels: Path | None = None,
    reporter: Reporter = QUIET,
) -> Manifest:
    """Make an artifact with other labels from one that stores them.

    The result is what `distill` makes with the same recipe, but for this codec and number of stored epochs; training
    takes as many epochs as before. One epoch of labels is in memory at a time.

    Args:
        folder: The artifact; it is only read.
        output: Folder of the new one, which must be new or empty; it appears complete or not at all.
        codec: How its labels are stored (`fadrm_hf.labels.codecs`).
        stored_epochs: How many epochs of labels are kept, the first ones; `None` keeps all.
        labels: The folder that `soft_labels/` is in, if it is another than `folder`.
        reporter: Where progress goes.

    Returns:
        The new artifact's manifest.

    Raises:
        ConfigError: If these labels cannot become those.
        RunFolderError: If `output` holds anything.
        ArtifactError: If the artifact is damaged.
    """
    manifest = read_manifest(folder)
    epochs = manifest.label_epochs if stored_epochs is None else stored_epochs
    _check(manifest, codec, epochs)
    is_changed = (codec, epochs) != (manifest.label_codec, manifest.label_epochs)
    left_behind = _WRITTEN_ANEW + (_MEASURED if is_changed else ())
    with appearing(output, reporter) as work:
        kept = [name for name in artifact_files(folder) if not name.startswith(left_behind)]
        tables = [f"{LABELS_FOLDER}/{file.name}" for file in table_files(labels or folder, LABELS_FOLDER)]
        require_unchanged(manifest, {name: folder / name for name in kept})
        require_unchanged(manifest, {name: (labels or folder) / name for name in tables})
        require_all_epochs(manifest, labels or folder)
        copy_files(folder, kept, work)
        features = label_features(codec, len(manifest.class_map))
        groups = _recoded(labels or folder, manifest, codec, features, epochs)
        write_label_table(work, features, groups, epochs, manifest.num_images, reporter)
        recipe = _recipe(manifest.config, output, codec, epochs)
        recoded = replace(manifest, config=recipe, label_codec=codec, label_epochs=epochs, label_repository=None)
        inherit_source(output, folder, recoded)
        return finish(work, recoded, recipe, output.resolve().name, (work / GALLERY).exists(), reporter)


def _check(manifest: Manifest, name: str, epochs: int) -> None:
    before, after = find_codec(manifest.label_codec), find_codec(name)
    after.features(len(manifest.class_map))  # refuses a number of classes that it cannot store
    if before.is_lossy and after.has_logits and after.name != before.name:
        raise ConfigError(
            f"the labels are stored as {before.name}, from which {after.name} would lose more than it needs to; start "
            "from the artifact that stores float16"
        )
    if not 1 <= epochs <= manifest.label_epochs:
        raise ConfigError(
            f"stored_epochs is {epochs}, expected 1 to {manifest.label_epochs}: that many epochs of labels are stored"
        )


def _recoded(labels: Path, manifest: Manifest, codec: str, features: Features, epochs: int) -> Iterator[pa.Table]:
    """Yield the rows of the first epochs, in the new columns."""
    done = 0
    for file in table_files(labels, LABELS_FOLDER):
        table = open_table(file)
        for group in range(min(table.num_row_groups, epochs - done)):
            columns = _recoded_columns(file, table, group, manifest, codec)
            writable = {name: np.require(column, requirements="W") for name, column in columns.items()}  # for torch
            yield label_table({name: torch.from_numpy(column) for name, column in writable.items()}, features)
            done += 1


def _recoded_columns(file: Path, table: pq.ParquetFile, group: int, manifest: Manifest, codec: str) -> Columns:
    if codec == manifest.label_codec:
        return read_label_columns(file, table, group, manifest)
    columns = read_label_group(file, table, group, manifest)
    views = {name: columns[name] for name in VIEW_FEATURES}
    coded = find_codec(codec).encode(torch.from_numpy(columns["logits"]))
    return views | {name: column.numpy() for name, column in coded.items()}


def _recipe(config: dict[str, Any], output: Path, codec: str, epochs: int) -> dict[str, Any]:
    """Return the run that would have made the new artifact."""
    before = config.get("relabel", {})
    relabel = before | {"codec": codec, "stored_epochs": None if epochs == before.get("epochs") else epochs}
    return config | {"output": output.resolve().name, "relabel": relabel}
