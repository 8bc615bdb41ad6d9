"""Which images of an artifact stay when it is edited, in which rows, and the table of them.

Rows are ordered by ipc index, then class, and every class has equally many images: students, pictures and the datasets
of fewer images per class rely on it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.stored_rows import StoredImages
from fadrm_hf.artifact.tables import IMAGES_PER_GROUP, label_names
from fadrm_hf.builders.images import image_features
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.errors import ConfigError, unknown

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Changes:
    """What an edit changes.

    Args:
        drop_images: Rows of the images table that go.
        drop_classes: Classes that go with all their images, by id or name.
        rename_classes: New names of classes, by id or name; their ids stay, by which teachers and sources know them.
        even: Whether classes that would keep more images than others lose their last ones, too.
    """

    drop_images: tuple[int, ...] = ()
    drop_classes: tuple[str, ...] = ()
    rename_classes: Mapping[str, str] = field(default_factory=dict)
    even: bool = False

    @property
    def drops(self) -> bool:
        """True if images go."""
        return bool(self.drop_images or self.drop_classes)


@dataclass(frozen=True, eq=False)
class Kept:
    """The images that stay.

    Attributes:
        classes: Which classes of the artifact stay, by label, in order.
        rows: (n,) int64, the artifact's row of each image that stays, in the order of the new table.
        new_rows: (N,) int64, the new row of each image of the artifact; -1 for those that go.
    """

    classes: tuple[int, ...]
    rows: Rows
    new_rows: Rows

    @property
    def ipc(self) -> int:
        """Images per class that stay."""
        return len(self.rows) // len(self.classes)


def kept_images(manifest: Manifest, changes: Changes) -> Kept:
    """Return the images that stay.

    Raises:
        ConfigError: If a row or class does not exist, fewer than two classes or no image of one would stay, or classes
            would keep different numbers of images and `changes.even` is false.
    """
    num_classes, names = len(manifest.class_map), manifest.classes.names
    dropped = {class_named(manifest.class_map, name, "drop_classes") for name in changes.drop_classes}
    classes = tuple(label for label in range(num_classes) if label not in dropped)
    if len(classes) < 2:
        raise ConfigError(f"drop_classes leaves {len(classes)} of {num_classes} classes, expected two or more")
    stays = np.ones(manifest.num_images, dtype=bool)
    for row in changes.drop_images:
        if not 0 <= row < manifest.num_images:
            raise ConfigError(
                f"drop_images has {row}, expected rows of the images table, 0 to {manifest.num_images - 1}"
            )
        stays[row] = False
    places = [np.flatnonzero(stays.reshape(manifest.ipc, num_classes)[:, label]) for label in classes]
    counts = [len(place) for place in places]
    fewest, most = int(np.argmin(counts)), int(np.argmax(counts))
    if counts[fewest] == 0:
        raise ConfigError(
            f"drop_images leaves no image of class {names[classes[fewest]]!r}; drop the class: --drop_classes"
        )
    if counts[fewest] < counts[most] and not changes.even:
        raise ConfigError(
            f"drop_images leaves {counts[fewest]} images of class {names[classes[fewest]]!r} and {counts[most]} of "
            f"{names[classes[most]]!r}, expected equally many of each class; name as many of the others, or let their "
            "last ones go with --even"
        )
    kept = [place[: counts[fewest]] * num_classes + label for place, label in zip(places, classes, strict=True)]
    rows = np.stack(kept, axis=1).ravel()
    new_rows = np.full(manifest.num_images, -1, dtype=np.int64)
    new_rows[rows] = np.arange(len(rows))
    return Kept(classes, rows, new_rows)


def following(manifest: Manifest, num_before: int) -> Kept:
    """Return all images of an artifact, in the rows after the first `num_before` of another."""
    rows = np.arange(manifest.num_images)
    return Kept(tuple(range(len(manifest.class_map))), rows, rows + num_before)


def class_named(classes: ClassMap, name: str, option: str) -> int:
    """Return the label of a class by its id, or by its name if no other class has that.

    Raises:
        ConfigError: If there is none, or the name belongs to several.
    """
    if name in classes.ids:
        return classes.ids.index(name)
    found = [label for label, known in enumerate(classes.names) if known == name]
    if not found:
        raise ConfigError(f"{unknown('class', name, {*classes.names, *classes.ids})}; set --{option}")
    if len(found) > 1:
        ids = ", ".join(repr(classes.ids[label]) for label in found)
        raise ConfigError(f"class name {name!r} belongs to {len(found)} classes; give --{option} an id: {ids}")
    return found[0]


def renamed(classes: ClassMap, names: Mapping[str, str]) -> ClassMap:
    """Return the classes with new names, and the ids that they had.

    Raises:
        ConfigError: If one does not exist, or a new name is empty or no text that can be printed.
    """
    changed = list(classes.names)
    for old, new in names.items():
        label = class_named(classes, old, "rename_classes")
        if not new.strip() or not new.isprintable():
            raise ConfigError(f"rename_classes has {new!r} for {old!r}, expected a name that can be printed")
        changed[label] = new
    return ClassMap(classes.ids, tuple(changed))


def image_tables(folder: Path, before: Manifest, kept: Kept, after: Manifest, first: int = 0) -> Iterator[pa.Table]:
    """Yield the rows of the images that stay, a hundred at a time, with the labels and ipc indices of their new place.

    Args:
        folder: The artifact they come from.
        before: Its manifest.
        kept: Which.
        after: The manifest of the artifact to be.
        first: The new row of the first of them.
    """
    stored = StoredImages(folder, before)
    features = image_features(label_names(after.class_map))
    num_classes = len(after.class_map)
    for start in range(0, len(kept.rows), IMAGES_PER_GROUP):
        old = kept.rows[start : start + IMAGES_PER_GROUP]
        new = np.arange(first + start, first + start + len(old))
        found = stored.rows(old)
        columns = {
            "image": found.column("image"),
            "label": pa.array(new % num_classes, features["label"].pa_type),
            "ipc_index": pa.array(new // num_classes, features["ipc_index"].pa_type),
            "source_index": found.column("source_index"),
        }
        yield pa.Table.from_arrays([columns[name] for name in features], schema=features.arrow_schema)
