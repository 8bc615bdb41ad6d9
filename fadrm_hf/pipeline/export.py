"""An artifact for programs that read neither parquet nor this library's manifest.

`image_folder`, which torchvision's `ImageFolder` reads, with the views and labels of each epoch:

    images/00003_cat/00000.png       the images as they are stored, class by class
    labels/epoch00000.safetensors    one row per view, in the order of training
    index.json                       classes, files in the order that rows of labels refer to, normalisation

`dd_ranking`, what DD-Ranking (arXiv 2505.13300, NUS-HPC-AI-Lab/DD-Ranking @ v0.2.0) takes as `image_tensor`,
`soft_labels` and configuration:

    images.pt      (N, 3, S, S) float32, normalised, class by class
    labels.pt      (N, C) float32, the teachers' logits of each whole image
    config.yaml    what of its settings follows from the artifact
    index.json     as above

Both begin with all images of the first class, because DD-Ranking counts hard labels so, and `ImageFolder` sorts so.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.reading import decode_png, read_images, reading, table_files
from fadrm_hf.artifact.recorded_teachers import recorded_labeller, withheld_teachers
from fadrm_hf.artifact.stored_rows import StoredImages, stored_epochs
from fadrm_hf.artifact.tables import IMAGES_PER_GROUP
from fadrm_hf.builders.soft_labels import VIEW_FEATURES
from fadrm_hf.config import Colour, RelabelConfig, SourceConfig, StudentConfig
from fadrm_hf.config.datasets import IMAGENET_MEAN, IMAGENET_STD, preset_of
from fadrm_hf.data.pixels import normalise
from fadrm_hf.data.views import LabelViews
from fadrm_hf.errors import ConfigError, unknown
from fadrm_hf.hub import fetch_all, open_artifact
from fadrm_hf.hub.repository import label_folder
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.labels.drawing import split_sizes
from fadrm_hf.pipeline.new_version import appearing, require_whole
from fadrm_hf.runtime.files import write_bytes, write_json, write_with
from fadrm_hf.runtime.progress import QUIET, Reporter
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.runtime.tensor_files import save_tensors

Form = Literal["image_folder", "dd_ranking"]

_CIFAR: tuple[Colour, Colour] = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_IMAGENET: tuple[Colour, Colour] = IMAGENET_MEAN, IMAGENET_STD
# DD-Ranking's name for a preset, mean and standard deviation of its test images (ddranking/utils/data.py). ImageWoof
# is not here: DD-Ranking numbers its classes otherwise.
_DD_RANKING: dict[str, tuple[str, tuple[Colour, Colour]]] = {
    "cifar10": ("CIFAR10", _CIFAR),
    "cifar100": ("CIFAR100", _CIFAR),
    "tiny_imagenet": ("TinyImageNet", _IMAGENET),
    "imagenette": ("ImageNette", _IMAGENET),
    "imagenet1k": ("ImageNet1K", _IMAGENET),
}
_LONGEST_NAME = 60  # characters of a class's name in that of its folder
_LABELS_TOGETHER = 64  # whole images that are labelled in one pass


def export(
    artifact: str | Path | Location, output: str | Path, form: Form = "image_folder", reporter: Reporter = QUIET
) -> list[str]:
    """Write an artifact in a form that other programs read; see the head of this module.

    Args:
        artifact: The artifact, which is only read.
        output: Folder, new or empty; it appears complete or not at all.
        form: Which form.
        reporter: Shows progress.

    Returns:
        What a reader of the files should know, line by line.

    Raises:
        ArtifactError: If the artifact is damaged.
        ConfigError: If there is no such form.
        HubError: If the Hub does not deliver it.
        RunFolderError: If `output` holds anything.
        TeacherError: If a teacher that the artifact names cannot be loaded, where whole images are labelled.
    """
    if form not in _FORMS:
        raise ConfigError(f"{unknown('form', form, _FORMS)}; set --form")
    location = open_artifact(artifact) if isinstance(artifact, str | Path) else artifact
    content = _Content(location, fetch_all(location), label_folder(location))
    with appearing(Path(output), reporter) as work:
        require_whole(content.folder, content.labels, content.manifest)
        write_json(work / "index.json", content.index())
        return _FORMS[form](content, work, reporter)


@dataclass(frozen=True, eq=False)
class _Content:
    """What is exported of an artifact.

    Attributes:
        location: The artifact.
        folder: Its folder.
        labels: The folder that its labels are in.
    """

    location: Location
    folder: Path
    labels: Path

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""
        return self.location.manifest

    @property
    def rows(self) -> Tensor:
        """(N,) int64, the images in the order of the export, class by class, as rows of the images table."""
        num_classes = len(self.manifest.class_map)
        return torch.arange(self.manifest.num_images).view(self.manifest.ipc, num_classes).T.flatten()

    @cached_property
    def class_folders(self) -> list[str]:
        """A folder's name for each class, which sort as the classes are numbered, whatever the classes are called."""
        width = max(5, len(str(len(self.manifest.class_map))))
        names = (re.sub(r"\W+", "_", name).strip("_")[:_LONGEST_NAME] for name in self.manifest.classes.names)
        return [f"{label:0{width}d}_{name}".rstrip("_") for label, name in enumerate(names)]

    def file(self, row: int) -> str:
        """Return where the image of a row of the images table goes."""
        ipc_index, label = divmod(row, len(self.manifest.class_map))
        return f"images/{self.class_folders[label]}/{ipc_index:05d}.png"

    def index(self) -> dict[str, Any]:
        """Return what `index.json` says."""
        manifest, classes = self.manifest, self.manifest.classes
        named = zip(classes.ids, classes.names, self.class_folders, strict=True)
        return {
            "artifact": Path(self.location.name).name
            if self.folder == Path(self.location.name)
            else self.location.name,
            "digest": manifest.digest,
            "method": manifest.method,
            "ipc": manifest.ipc,
            "size": manifest.pixels.size,
            "mean": list(manifest.pixels.mean),
            "std": list(manifest.pixels.std),
            "label_epochs": manifest.label_epochs,
            "licence": manifest.source.licence,
            "classes": [{"id": each, "name": name, "folder": folder} for each, name, folder in named],
            "files": [self.file(row) for row in self.rows.tolist()],
        }


def _as_image_folder(content: _Content, work: Path, reporter: Reporter) -> list[str]:
    manifest = content.manifest
    _write_images(content, work, reporter)
    position = torch.empty(manifest.num_images, dtype=torch.int32)
    position[content.rows] = torch.arange(manifest.num_images, dtype=torch.int32)
    codec, num_classes = find_codec(manifest.label_codec), len(manifest.class_map)
    with reporter.stage("labels", manifest.label_epochs) as task:
        for epoch, columns in enumerate(task.counting(stored_epochs(content.labels, manifest))):
            views = {name: torch.from_numpy(columns[name]) for name in VIEW_FEATURES if name != "epoch"}
            image, partner = views["image"].long(), views["mix_image"].long()
            mixed = torch.where(partner >= 0, position[partner], -1)
            tensors = views | {"image": position[image], "mix_image": mixed, "label": image % num_classes}
            if codec.has_logits:
                logits = torch.from_numpy(np.ascontiguousarray(codec.decode(columns, num_classes)))
                tensors["logits"] = logits if codec.is_lossy else logits.half()
            save_tensors(work / f"labels/epoch{epoch:05d}.safetensors", tensors)
    if not codec.has_logits:
        return ["labels/ has views and classes: the artifact stores no logits, its teachers make them"]
    return []


def _write_images(content: _Content, work: Path, reporter: Reporter) -> None:
    """Write the images, byte for byte as they are stored."""
    manifest, stored = content.manifest, StoredImages(content.folder, content.manifest)
    file = table_files(content.folder, IMAGES_FOLDER)[0]
    with reporter.stage("images", manifest.num_images) as task:
        for first in range(0, manifest.num_images, IMAGES_PER_GROUP):
            rows = range(first, min(first + IMAGES_PER_GROUP, manifest.num_images))
            for row, image in zip(rows, stored.rows(rows).column("image").to_pylist(), strict=True):
                with reading(file, f"row {row}"):
                    decode_png(image["bytes"], manifest.pixels.size)
                write_bytes(work / content.file(row), image["bytes"])
                task.advance()


def _for_dd_ranking(content: _Content, work: Path, reporter: Reporter) -> list[str]:
    manifest = content.manifest
    images = read_images(content.folder)[0]
    name, (mean, std) = _dd_ranking_constants(manifest)
    _save(work / "images.pt", normalise(images[content.rows], mean, std))
    constants = f"DD-Ranking's constants of {name}" if name else "the artifact's constants, for want of DD-Ranking's"
    notes = [f"images.pt: normalised by {constants}, mean {mean}, std {std}"]
    has_labels = bool(manifest.teachers) and not withheld_teachers(manifest)
    if has_labels:
        _save(work / "labels.pt", _labels_of_whole_images(content, images, reporter))
        notes.append(
            "labels.pt: the teachers' logits of each whole image by running statistics, for soft_label_mode S"
        )
    else:
        notes.append(
            "no labels.pt: the artifact has no weights of its teachers; soft_label_mode is M, DD-Ranking's own"
        )
    settings = _dd_ranking_settings(manifest, name, has_labels)
    write_bytes(work / "config.yaml", yaml.safe_dump(settings, sort_keys=False).encode())
    return notes


def _dd_ranking_constants(manifest: Manifest) -> tuple[str | None, tuple[Colour, Colour]]:
    """Return DD-Ranking's name for the source and its normalisation; the artifact's own for a source unknown to it."""
    preset = preset_of(manifest.settings("source", SourceConfig))
    if preset is not None and preset.name in _DD_RANKING and preset.num_classes == len(manifest.class_map):
        return _DD_RANKING[preset.name]
    (red, green, blue), (of_red, of_green, of_blue) = manifest.pixels.mean, manifest.pixels.std
    return None, ((red, green, blue), (of_red, of_green, of_blue))


def _labels_of_whole_images(content: _Content, images: Tensor, reporter: Reporter) -> Tensor:
    """Return (N, C) float32 logits of the images themselves, class by class."""
    manifest, (num, size) = content.manifest, (len(images), images.shape[-1])
    config = replace(manifest.settings("relabel", RelabelConfig), batch_statistics=False)
    labeller = recorded_labeller(content.folder, manifest, join_world().device, config)
    nothing = torch.zeros((num, 4), dtype=torch.int64)
    whole = torch.tensor([0, 0, size, size]).expand(num, 4)
    flip, alone = torch.zeros(num, dtype=torch.bool), torch.full((num,), -1)
    views = LabelViews(content.rows, whole, flip, alone, nothing, flip, nothing)
    steps = split_sizes(num, _LABELS_TOGETHER)
    with reporter.stage("soft labels", len(steps)) as task:
        return torch.cat(list(task.counting(labeller.label_steps(images, views, steps))))


def _dd_ranking_settings(manifest: Manifest, dataset: str | None, has_labels: bool) -> dict[str, Any]:
    """Return DD-Ranking's settings as far as they follow from the artifact; the others are its reader's to choose."""
    student, size = manifest.settings("student", StudentConfig), manifest.pixels.size
    kl = {"temperature": student.temperature, "scale_loss": student.scale_by_temperature}
    mse = {"mse_weight": 1.0, "ce_weight": student.ce_weight}
    return {
        **({"dataset": dataset} if dataset else {}),
        "ipc": manifest.ipc,
        "im_size": [size, size],
        "soft_label_mode": "S" if has_labels else "M",
        "soft_label_criterion": "mse_gt" if student.loss == "mse" else "kl",
        "loss_fn_kwargs": mse if student.loss == "mse" else kl,
        "custom_train_trans": None,  # DD-Ranking asks for both by name
        "custom_val_trans": None,
    }


def _save(path: Path, tensor: Tensor) -> None:
    """Write a tensor as `torch.load(path, weights_only=True)` reads it; nothing here ever opens such a file."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            torch.save(tensor.clone(), file)

    write_with(path, write)


_FORMS: dict[str, Callable[[_Content, Path, Reporter], list[str]]] = {
    "image_folder": _as_image_folder,
    "dd_ranking": _for_dd_ranking,
}
