"""A new version of an artifact, edited: images or classes go, classes get new names, or several become one.

The artifact it is made of stays as it is. What an edit makes untrue is not carried over: results of students, scores,
pictures of images that went, accuracies of teachers on classes that went. The manifest names what it was made of, with
the digest of its manifest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import Tensor

from fadrm_hf import __version__
from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import FORMAT_VERSION, ClassRecord, Manifest, artifact_files
from fadrm_hf.artifact.reading import each_image, table_files
from fadrm_hf.artifact.recorded_teachers import recorded_labeller, withheld_teachers
from fadrm_hf.artifact.tables import write_image_table, write_label_table
from fadrm_hf.config import SourceConfig
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.data.image_table import empty_images
from fadrm_hf.errors import ConfigError, FadrmError
from fadrm_hf.hub import fetch_all, open_artifact
from fadrm_hf.hub.repository import label_folder
from fadrm_hf.labels.relabel import Labeller
from fadrm_hf.pipeline.kept_images import Changes, following, image_tables, kept_images, renamed
from fadrm_hf.pipeline.kept_labels import KeptLabels, LabelCount, Part
from fadrm_hf.pipeline.merged import differing_settings, joined_records, require_mergeable
from fadrm_hf.pipeline.new_version import (
    appearing,
    copy_files,
    finish,
    inherit_source,
    public_name,
    require_whole,
)
from fadrm_hf.runtime.progress import QUIET, Reporter
from fadrm_hf.runtime.run_folder import (
    CARD,
    GALLERY,
    IMAGES_FOLDER,
    LABELS_FOLDER,
    PICTURES,
    RECIPE,
    TEACHERS,
)
from fadrm_hf.runtime.shards import join_world

__all__ = ["Changes", "Edited", "LabelCount", "edit"]

# What holds names of classes; new names leave everything else as it is.
_WITH_NAMES = (CARD, RECIPE, f"{IMAGES_FOLDER}/", f"{PICTURES}grid.png")


@dataclass(frozen=True)
class Edited:
    """An edited artifact.

    Attributes:
        manifest: Its manifest.
        num_dropped: Images that went.
        labels: What became of the stored views, where images went or came.
    """

    manifest: Manifest
    num_dropped: int = 0
    labels: LabelCount = field(default_factory=LabelCount)


def edit(
    artifact: str | Path | Location,
    output: str | Path,
    changes: Changes | None = None,
    merge: Sequence[str | Path | Location] = (),
    reporter: Reporter = QUIET,
) -> Edited:
    """Make a new version of an artifact.

    Args:
        artifact: The artifact, which is only read.
        output: Folder of the new one, which must be new or empty; it appears complete or not at all.
        changes: What goes, and what gets another name.
        merge: Artifacts whose images follow those of the first, class by class: of the same classes, source, size,
            teachers and way of labelling. Nothing else can be changed with it.
        reporter: Shows progress.

    Raises:
        ArtifactError: If an artifact is damaged.
        ConfigError: If there is nothing to change, what should be changed does not exist, artifacts do not fit
            together, or labels must be made again and the teachers cannot.
        HubError: If the Hub does not deliver it.
        RunFolderError: If `output` holds anything.
    """
    changes = changes or Changes()
    locations = [open_artifact(each) if isinstance(each, str | Path) else each for each in (artifact, *merge)]
    if merge:
        require_mergeable(locations, changes != Changes())
    elif changes == Changes(even=changes.even):
        raise ConfigError("nothing is changed; set --drop_images, --drop_classes, --rename_classes or --merge")
    return _Edit(locations, changes, Path(output), reporter).make()


class _Edit:
    """An edit of one artifact, or of several that are merged.

    Args:
        locations: The artifacts, which fit together.
        changes: What is changed of one.
        output: The new artifact's folder.
        reporter: Shows progress.
    """

    def __init__(self, locations: Sequence[Location], changes: Changes, output: Path, reporter: Reporter) -> None:
        self._locations, self._changes, self._output, self._reporter = locations, changes, output, reporter
        self._title = output.resolve().name
        self._manifests = [location.manifest for location in locations]
        if len(locations) > 1:
            before = [sum(each.num_images for each in self._manifests[:place]) for place in range(len(locations))]
            self._kept = [following(*pair) for pair in zip(self._manifests, before, strict=True)]
        else:
            self._kept = [kept_images(self._manifests[0], changes)]
        self._manifest = self._new_manifest()

    def make(self) -> Edited:
        """Make it; see `edit`."""
        folders = [fetch_all(location) for location in self._locations]
        with appearing(self._output, self._reporter) as work:
            for location, folder in zip(self._locations, folders, strict=True):
                require_whole(folder, label_folder(location), location.manifest)
            copy_files(folders[0], self._carried_over(folders[0]), work)
            num_images, size = self._manifest.num_images, self._manifest.pixels.size
            write_image_table(work, self._images(folders), num_images, size, self._reporter)
            count = self._write_labels(work)
            has_gallery = any((folder / GALLERY).is_dir() for folder in folders)
            recipe = self._manifest.config
            made = finish(work, self._manifest, recipe, self._title, has_gallery, self._reporter)
            inherit_source(self._output, folders[0], made)
        return Edited(made, sum(each.num_images for each in self._manifests) - made.num_images, count)

    @property
    def _only_renames(self) -> bool:
        """Whether images and labels stay what they are."""
        return len(self._locations) == 1 and not self._changes.drops

    def _carried_over(self, folder: Path) -> list[str]:
        """Return the files that stay true: the teachers, and under new names all but what holds names."""
        files = [name for name in artifact_files(folder) if name in self._manifests[0].files]
        if self._only_renames:
            return [name for name in files if not name.startswith((*_WITH_NAMES, f"{LABELS_FOLDER}/"))]
        return [name for name in files if name.startswith(TEACHERS)]

    def _images(self, folders: Sequence[Path]) -> Iterator[pa.Table]:
        first = 0
        for folder, before, kept in zip(folders, self._manifests, self._kept, strict=True):
            yield from image_tables(folder, before, kept, self._manifest, first)
            first += len(kept.rows)

    def _write_labels(self, work: Path) -> LabelCount:
        """Write the label table, once images and teachers are in `work`."""
        folders = [label_folder(location) for location in self._locations]
        if self._only_renames:
            tables = table_files(folders[0], LABELS_FOLDER)
            copy_files(folders[0], [f"{LABELS_FOLDER}/{file.name}" for file in tables], work)
            return LabelCount()
        parts = [Part(*each) for each in zip(folders, self._manifests, self._kept, strict=True)]
        manifest = self._manifest
        labels = KeptLabels(parts, manifest, lambda: _read_images(work, manifest), lambda: _labeller(work, manifest))
        if self._changes.drop_classes and manifest.teachers and not withheld_teachers(manifest):
            labels.require_teachers()  # `verify` will ask them for labels of the classes that stay
        write_label_table(
            work, labels.features, labels.tables(), manifest.label_epochs, manifest.num_images, self._reporter
        )
        return labels.count

    def _new_manifest(self) -> Manifest:
        """Return what the manifest will say, but for the files."""
        first, changes = self._manifests[0], self._changes
        classes = renamed(first.class_map, changes.rename_classes)
        kept = self._kept[0].classes
        classes = ClassMap(tuple(classes.ids[each] for each in kept), tuple(classes.names[each] for each in kept))
        teachers = first.teachers
        if len(kept) < len(first.class_map):
            _require_same_test_images(first)
            teachers = tuple(replace(teacher, accuracy=None) for teacher in teachers)
        ipc = sum(each.ipc for each in self._kept)
        together = joined_records(self._manifests)
        return replace(
            together,
            ipc=ipc,
            config=together.config | {"output": self._title, "ipc": ipc} | self._recorded(classes),
            classes=ClassRecord(classes.ids, classes.names, classes.hash),
            teachers=teachers,
            label_repository=None,
            format_version=FORMAT_VERSION,
            fadrm_hf_version=__version__,
        )

    def _recorded(self, classes: ClassMap) -> dict[str, Any]:
        """Return the sections of the recipe that an edit adds or changes."""
        before, kept = self._manifests[0], self._kept[0]
        old = before.class_map
        names = zip(classes.ids, classes.names, (old.names[label] for label in kept.classes), strict=True)
        gone = [row for row, new in enumerate(kept.new_rows.tolist()) if new < 0 and row % len(old) in kept.classes]
        record = {
            "made_from": [_origin(location) for location in self._locations],
            "differing_settings": differing_settings(self._manifests),
            "dropped_classes": [each for each in old.ids if each not in set(classes.ids)],
            "dropped_images": gone,
            "renamed_classes": {identity: new for identity, new, was in names if new != was},
        }
        sections = {"edit": {name: value for name, value in record.items() if value}}
        if record["dropped_classes"]:
            sections["source"] = before.config["source"] | {"classes": list(classes.ids)}
        return sections


def _origin(location: Location) -> dict[str, Any]:
    """Return what an edited artifact records of one that it was made of: name and fingerprint, and its own edit."""
    manifest = location.manifest
    earlier = {"edit": manifest.config["edit"]} if "edit" in manifest.config else {}
    return {"name": public_name(location), "digest": manifest.digest} | earlier


def _require_same_test_images(manifest: Manifest) -> None:
    """Refuse to drop classes where test images were held out by the number of their class."""
    source = manifest.settings("source", SourceConfig)
    if manifest.source.test_rows is not None:
        raise ConfigError(
            f"the test images were held out of the training images (source.test_fraction {source.test_fraction}), and "
            "without some classes others would be held out, of which images were made; classes of this artifact "
            "cannot be dropped: distil again with --source.classes"
        )


def _read_images(work: Path, manifest: Manifest) -> Tensor:
    """Return (N, 3, S, S) uint8, the edited images."""
    images = empty_images(manifest.num_images, manifest.pixels.size)
    for row, image in enumerate(each_image(work, manifest)):
        images[row] = image
    return images


def _labeller(work: Path, manifest: Manifest) -> Labeller:
    """Return the teachers for labels that must be made again."""
    needed = "some labels belong to images that go, or to their batches, and must be made again"
    if not manifest.teachers:
        raise ConfigError(f"{needed}, but the artifact names no teachers; only classes of it can be renamed")
    if withheld := withheld_teachers(manifest):
        raise ConfigError(
            f"{needed}, but the artifact was published without the weights of {', '.join(withheld)}; edit the one "
            "that has them"
        )
    try:
        return recorded_labeller(work, manifest, join_world().device)
    except FadrmError as error:
        raise ConfigError(f"{needed}, but its teachers cannot label: {error}") from error
