"""Sheets: the pictures of a gallery, many images in one file, so that a page fetches only those it comes to show.

A stage of the optimisation is a set of images: the real patches, the recovered images, what was between them. The
images of whole classes lie together on a sheet of about a million pixels, row by row, class after class. Equal images
give equal bytes with the same version of Pillow.
"""

import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from torch import Tensor

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.errors import ArtifactError
from fadrm_hf.runtime.files import write_bytes, write_json

Pixels = npt.NDArray[np.uint8]

RECORD = "pictures.json"
START, RECOVERED = "start", "recovered"

# Up to so many pixels, of all stages together, images are kept as they are: at most 24 MB, as noise does not compress.
WHOLE_PIXELS = 1 << 23
# Beyond, thumbnails of at most so many pixels in all, as lossy WebP: 50,000 images and their patches at 64 px, about
# as large as the page shows them.
THUMBNAIL_PIXELS = 100_000 * 64**2
_SIDES = (160, 128, 96, 64, 48, 32, 24, 16, 12, 8)  # of thumbnails
_QUALITY = 75  # of thumbnails: 0.2 to 0.4 bytes a pixel
_SHEET_PIXELS = 1 << 20  # decoded, four bytes each


@dataclass(frozen=True)
class Stage:
    """The images at one moment of the optimisation.

    Attributes:
        name: Its files are `NAME-00000.webp` and so on.
        title: What a reader is told it is.
        iteration: Iterations done; `None` where that says nothing.
        rows: Which rows of the images table it shows, in the order of its one sheet; `None`: all, class by class.
        num_sheets: How many files.
        columns: Images beside each other on a sheet.
    """

    name: str
    title: str
    iteration: int | None
    rows: tuple[int, ...] | None
    num_sheets: int
    columns: int

    @property
    def files(self) -> list[str]:
        """Its sheets, in order."""
        return [f"{self.name}-{index:05d}.webp" for index in range(self.num_sheets)]


@dataclass(frozen=True)
class Pictures:
    """What the sheets of a gallery hold; `pictures.json`.

    Attributes:
        side: Side of an image on a sheet, in pixels.
        is_whole: Whether these are the images themselves, not thumbnails.
        ipc: Images per class.
        num_classes: Number of classes.
        classes_per_sheet: Whole classes that lie together.
        stages: From the start of the optimisation to its end.
    """

    side: int
    is_whole: bool
    ipc: int
    num_classes: int
    classes_per_sheet: int
    stages: tuple[Stage, ...] = ()

    @classmethod
    def plan(cls, manifest: Manifest, num_images: int) -> "Pictures":
        """How large images are shown, and how many classes share a sheet.

        Args:
            manifest: The artifact's.
            num_images: Images of all stages together.
        """
        size, num_classes = manifest.pixels.size, len(manifest.classes.ids)
        is_whole = num_images * size**2 <= WHOLE_PIXELS
        fitting = (side for side in _SIDES if side <= size and num_images * side**2 <= THUMBNAIL_PIXELS)
        side = size if is_whole else next(fitting, min(size, _SIDES[-1]))
        together = max(1, min(num_classes, _SHEET_PIXELS // (manifest.ipc * side**2)))
        return cls(side, is_whole, manifest.ipc, num_classes, together)

    @property
    def columns(self) -> int:
        """Images beside each other on a sheet of whole classes."""
        return math.isqrt(self.classes_per_sheet * self.ipc - 1) + 1

    @property
    def num_sheets(self) -> int:
        """Sheets of whole classes."""
        return -(-self.num_classes // self.classes_per_sheet)

    def whole_stage(self, name: str, title: str, iteration: int | None) -> Stage:
        """A stage of all images."""
        return Stage(name, title, iteration, None, self.num_sheets, self.columns)

    def part_stage(self, name: str, title: str, iteration: int, rows: tuple[int, ...]) -> Stage:
        """A stage of some rows of the images table."""
        return Stage(name, title, iteration, rows, 1, math.isqrt(len(rows) - 1) + 1)

    def with_stages(self, stages: Iterable[Stage]) -> "Pictures":
        """The same with these stages."""
        return replace(self, stages=tuple(stages))

    def has_same_sheets(self, other: "Pictures") -> bool:
        """Whether a sheet of the other may stand among these."""
        return self.with_stages(()) == other.with_stages(())


def draw_whole(folder: Path, pictures: Pictures, stage: Stage, images: Iterable[Tensor]) -> None:
    """Write the sheets of all images.

    Args:
        folder: The gallery.
        pictures: How large they are shown.
        stage: Which they are.
        images: (3, S, S) uint8 each, in the order of the images table: by ipc index, then label.
    """
    tiles = np.zeros((pictures.num_classes, pictures.ipc, pictures.side, pictures.side, 3), np.uint8)
    for row, image in enumerate(images):
        ipc_index, label = divmod(row, pictures.num_classes)
        tiles[label, ipc_index] = shown(image, pictures.side)
    for index, name in enumerate(stage.files):
        first = index * pictures.classes_per_sheet
        classes = tiles[first : first + pictures.classes_per_sheet]
        sheet = _arranged(classes.reshape(-1, *tiles.shape[2:]), stage.columns)
        write_bytes(folder / name, _encoded(sheet, pictures.is_whole))


def draw_part(folder: Path, pictures: Pictures, stage: Stage, images: Tensor) -> None:
    """Write the sheet of some images (n, 3, S, S) uint8, in the order of the stage's rows."""
    sheet = _arranged(np.stack([shown(image, pictures.side) for image in images]), stage.columns)
    write_bytes(folder / stage.files[0], _encoded(sheet, pictures.is_whole))


def shown(image: Tensor, side: int) -> Pixels:
    """An image (3, S, S) uint8 as a sheet shows it: (side, side, 3)."""
    pixels = image.permute(1, 2, 0).numpy()
    if pixels.shape[0] == side:
        return pixels
    return np.asarray(PillowImage.fromarray(pixels).resize((side, side), PillowImage.Resampling.LANCZOS))


def write_record(folder: Path, pictures: Pictures) -> None:
    """Write down what the sheets hold."""
    write_json(folder / RECORD, asdict(pictures))


def read_record(folder: Path) -> Pictures | None:
    """What the sheets of a gallery hold; `None` where there is none.

    Raises:
        ArtifactError: If the record is none of a gallery. It may be a stranger's.
    """
    try:
        document = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return _parsed(document)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{folder.name}/{RECORD} does not say what pictures there are ({error!r}); remove that folder, and make "
            "it again with fadrm-hf gallery"
        ) from error


def _parsed(document: Any) -> Pictures:
    numbers = [int(document[name]) for name in ("side", "ipc", "num_classes", "classes_per_sheet")]
    if min(numbers) < 1:
        raise ValueError(f"{min(numbers)} is no count")
    side, ipc, num_classes, together = numbers
    plan = Pictures(side, bool(document["is_whole"]), ipc, num_classes, together)
    return plan.with_stages(_parsed_stages(plan, document["stages"]))


def _parsed_stages(plan: Pictures, documents: list[dict[str, Any]]) -> Iterator[Stage]:
    """The stages, with files named anew: a record can name no file but those of a gallery."""
    for index, found in enumerate(documents):
        title, iteration = str(found["title"]), found["iteration"]
        if found["rows"] is None:
            name = START if found["name"] == START else RECOVERED
            yield plan.whole_stage(name, title, None if iteration is None else int(iteration))
        else:
            rows = tuple(int(row) for row in found["rows"])
            if not rows or not all(0 <= row < plan.ipc * plan.num_classes for row in rows):
                raise ValueError(f"stage {title!r} shows rows that there are not")
            yield plan.part_stage(snapshot_name(index), title, int(iteration), rows)


def snapshot_name(index: int) -> str:
    """What the files of the snapshot at this place among the stages are called."""
    return f"snapshot{index:02d}"


def _arranged(tiles: Pixels, columns: int) -> Pixels:
    """Images (n, s, s, 3) in rows of `columns`, the last one filled with black: (rows s, columns s, 3)."""
    side, rows = tiles.shape[1], -(-len(tiles) // columns)
    full = np.zeros((rows * columns, side, side, 3), np.uint8)
    full[: len(tiles)] = tiles
    return full.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)


def _encoded(sheet: Pixels, is_whole: bool) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"lossless": True, "quality": 50, "exact": True} if is_whole else {"quality": _QUALITY}
    PillowImage.fromarray(sheet).save(buffer, format="WEBP", method=3, **options)
    return buffer.getvalue()
