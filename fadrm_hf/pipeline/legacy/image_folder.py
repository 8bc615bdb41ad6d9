"""The images of a release: one folder for each class, in the order in which torchvision's `ImageFolder` lists them."""

import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder

from fadrm_hf.data.class_map import ClassMap, describe_difference
from fadrm_hf.errors import ArtifactError, ClassMapError

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True, eq=False)
class ReleasedImages:
    """The images of a release.

    Attributes:
        files: One path per image, in the order to which label files refer.
        labels: (N,) int64, the class of each.
        ipc_index: (N,) int64, the place of each among the images of its class.
        ipc: Images per class.
    """

    files: tuple[Path, ...]
    labels: Tensor
    ipc_index: Tensor
    ipc: int

    @property
    def rows(self) -> Tensor:
        """Return (N,) int64: the row of each in an image table, which is ordered by ipc index, then class."""
        num_classes = len(self.files) // self.ipc
        return self.ipc_index * num_classes + self.labels

    def formats(self) -> str:
        """Return the kinds of files, by their suffixes, e.g. "JPEG"."""
        kinds = {path.suffix.lower().removeprefix(".") for path in self.files}
        return ", ".join(sorted({"jpg": "jpeg"}.get(kind, kind).upper() for kind in kinds))


def find_images(folder: Path, class_map: ClassMap) -> ReleasedImages:
    """List the images of a release without opening them.

    Args:
        folder: Holds a folder of images for each class.
        class_map: The classes of the source.

    Raises:
        ArtifactError: If there are no images, or not equally many of each class.
        ClassMapError: If the folders are not the source's classes.
    """
    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder} holds no folder of images for each class ({error}); set --images") from error
    label_of = torch.tensor(match_folders(found.classes, class_map))
    labels = label_of[torch.tensor([place for _, place in found.samples])]
    counts = torch.bincount(labels, minlength=len(class_map))
    ipc = int(counts[0])
    if not bool((counts == ipc).all()):
        other = int((counts != ipc).nonzero()[0])
        raise ArtifactError(
            f"class {class_map.names[other]!r} has {counts[other]} images and {class_map.names[0]!r} has {ipc}, "
            "expected equally many of each class; add the missing ones, or remove the others with their labels"
        )
    seen: Counter[int] = Counter()
    ipc_index = []
    for label in labels.tolist():
        ipc_index.append(seen[label])
        seen[label] += 1
    return ReleasedImages(tuple(Path(path) for path, _ in found.samples), labels, torch.tensor(ipc_index), ipc)


def match_folders(folders: Sequence[str], class_map: ClassMap) -> list[int]:
    """Return the label of each class folder.

    Folders are matched by ids and names (`ClassMap.permutation_from`), or else by the numbers 0 to C - 1 that their
    names end with ("new00017", "00017"). WordNet ids, where the source goes by names, are taken in their order, as in
    every release of ImageNet and its subsets; whether labels and classes agree is seen when the labels are read.

    Args:
        folders: Their names, sorted.
        class_map: The classes of the source.

    Raises:
        ClassMapError: If there are more or fewer folders than classes, or their names mean nothing.
    """
    given = ClassMap(tuple(folders), tuple(folders))
    order = class_map.permutation_from(given) if len(given) == len(class_map) else None
    if order is not None:
        label_at = {place: label for label, place in enumerate(order)}
        return [label_at[place] for place in range(len(order))]
    numbers = [int(match[1]) for name in folders if (match := re.fullmatch(r"\D*(\d{1,9})", name))]
    if sorted(numbers) == list(range(len(class_map))):
        return numbers
    are_wordnet = all(_WORDNET_ID.fullmatch(name) for name in folders)
    if are_wordnet and len(given) == len(class_map) and not any(map(_WORDNET_ID.fullmatch, class_map.ids)):
        return list(range(len(class_map)))
    raise ClassMapError(
        f"the image folders are not the classes of the source: {describe_difference(class_map, given)}; name them by "
        "the source's class ids, or number them from 0 in its order; or set --source.name"
    )


def read_pixels(path: Path, size: int) -> Tensor:
    """Decode an image as the released code does, to (3, size, size) uint8.

    Raises:
        ArtifactError: If it is damaged or of another size, before any pixel is decoded.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        with Image.open(path) as image:
            if image.size == (size, size):
                return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
            found = image.size
    except (*_DAMAGE, *_BOMB) as error:
        raise ArtifactError(f"{where} cannot be decoded ({error}); fetch the release again") from error
    raise ArtifactError(
        f"{where} is {found[0]}x{found[1]} pixels, expected {size}x{size}; set --source.size to the size of the "
        "released images"
    )
