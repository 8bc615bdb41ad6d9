"""The manifest of an artifact that is made for a benchmark: tables of noise, of no source and by no teacher."""

from dataclasses import replace
from pathlib import Path

from fadrm_hf.artifact.manifest import ClassRecord, Manifest, PixelRecord, SourceRecord, write_manifest
from fadrm_hf.config import RelabelConfig
from fadrm_hf.data.class_map import ClassMap

Colour = tuple[float, float, float]


def numbered_classes(num: int) -> ClassMap:
    """Return a map of so many classes, named by number."""
    return ClassMap(tuple(f"n{index:05d}" for index in range(num)), tuple(f"class {index}" for index in range(num)))


def finish_artifact(
    folder: Path,
    classes: ClassMap,
    ipc: int,
    size: int,
    relabel: RelabelConfig,
    stored_epochs: int,
    mean: Colour = (0.5, 0.5, 0.5),
    std: Colour = (0.25, 0.25, 0.25),
) -> None:
    """Write the manifest of a folder that holds its tables.

    Args:
        folder: The artifact.
        classes: Its classes.
        ipc: Images per class.
        size: Side of the images in pixels.
        relabel: How views are cut into batches; epochs that it leaves open are those that are stored.
        stored_epochs: How many epochs of labels there are.
        mean: Channel means of the normalisation.
        std: Channel standard deviations of the normalisation.
    """
    manifest = Manifest(
        method="benchmark",
        ipc=ipc,
        label_epochs=stored_epochs,
        config={"relabel": vars(replace(relabel, epochs=relabel.epochs or stored_epochs))},
        classes=ClassRecord(classes.ids, classes.names, classes.hash),
        source=SourceRecord("benchmark", "0" * 64),
        teachers=(),
        pixels=PixelRecord(size, mean, std),
        seeds={"run": 0},
        versions={},
        machine={},
        stages={},
    )
    write_manifest(folder, manifest)
