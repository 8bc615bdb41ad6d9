"""From finished shards to the artifact: tables, teachers that travel with it, the recipe; the manifest last of all."""

from pathlib import Path
from typing import Any

import yaml

from fadrm_hf.artifact.manifest import (
    ClassRecord,
    Manifest,
    MethodRecord,
    PixelRecord,
    SourceRecord,
    StageRecord,
    write_manifest,
)
from fadrm_hf.artifact.recorded_teachers import record_teacher
from fadrm_hf.artifact.tables import write_tables
from fadrm_hf.config.datasets import preset_of
from fadrm_hf.data.sources import Source
from fadrm_hf.methods import METHODS
from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.report.card.writing import write_card
from fadrm_hf.report.gallery.writing import write_gallery
from fadrm_hf.runtime import files
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RunFolder


def write_artifact(
    folder: Path,
    work: Path,
    recipe: dict[str, Any],
    source: Source,
    teachers: list[Teacher],
    costs: dict[str, StageRecord],
    reporter: Reporter,
) -> Manifest:
    """Write the whole run folder from the shards in `work`.

    Args:
        folder: The run folder.
        work: The folder of finished shards.
        recipe: The resolved run as plain data.
        source: What was distilled.
        teachers: The networks that were matched and that labelled.
        costs: Seconds and peak memory of each stage.
        reporter: Where progress goes.
    """
    files.remove_temporaries(folder)
    size, relabel = recipe["source"]["size"], recipe["relabel"]
    epochs, codec = relabel["stored_epochs"] or relabel["epochs"], relabel["codec"]
    write_tables(folder, work, source.class_map, size, recipe["ipc"], epochs, codec, reporter)
    files.write_bytes(RunFolder(folder).recipe, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).encode())
    preset, method = preset_of(source.config), METHODS.get(recipe["method"]["name"])
    manifest = Manifest(
        method=recipe["method"]["name"],
        method_record=MethodRecord(method.title, method.paper, method.init) if method else None,
        ipc=recipe["ipc"],
        label_epochs=epochs,
        label_codec=codec,
        config=recipe,
        classes=ClassRecord(source.class_map.ids, source.class_map.names, source.class_map.hash),
        source=SourceRecord(
            name=recipe["source"]["name"],
            fingerprint=source.fingerprint,
            revision=source.revision,
            licence=source.config.licence,
            licence_link=preset.licence_link if preset else None,
            gated=preset.gated if preset else False,
            test_rows=source.test_rows,
            tests_on_training=source.tests_on_training,
        ),
        teachers=tuple(record_teacher(folder, teacher) for teacher in teachers),
        pixels=PixelRecord(size, tuple(recipe["source"]["mean"]), tuple(recipe["source"]["std"])),
        seeds={"run": recipe["seed"]},
        versions=library_versions(),
        machine=describe_machine(),
        stages=costs,
    )
    write_card(folder, manifest, work, reporter=reporter)
    write_gallery(folder, manifest, work, reporter=reporter)
    return write_manifest(folder, manifest)
