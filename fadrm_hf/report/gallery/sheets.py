"""Sheets: the pictures of a gallery, many images in one file, so that a page fetches only those that it shows.

A stage of the optimisation is a set of images: the real patches, the recovered images, or snapshots between them. A
sheet of about a million pixels holds the images of whole classes, row by row, class after class. Equal images give
equal bytes with the same version of Pillow.
"""

import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from torch import Tensor

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.config.plain_data import read_record
from fadrm_hf.errors import ArtifactError
from fadrm_hf.runtime.files import MAX_TEXT_BYTES, parse_json, read_regular, write_bytes, write_json

Pixels = npt.NDArray[np.uint8]

RECORD = "pictures.json"
START, RECOVERED = "start", "recovered"

# Up to this many pixels, of all stages together, images are stored unchanged: at most 24 MB of incompressible noise.
WHOLE_PIXELS = 1 << 23
# Beyond, thumbnails of at most this many pixels in all, as lossy WebP: 50,000 images and their patches at 64 px, about
# the size at which the page shows them.
THUMBNAIL_PIXELS = 100_000 * 64**2
_SIDES = (160, 128, 96, 64, 48, 32, 24, 16, 12, 8)  # of thumbnails
_QUALITY = 75  # of thumbnails: 0.2 to 0.4 bytes a pixel
_SHEET_PIXELS = 1 << 20  # decoded, four bytes each


@dataclass(frozen=True)
class Stage:
    """The images at one moment of the optimisation.

    Attributes:
        name: Its files are `NAME-00000.webp` and so on.
        title: Its title on the page.
        iteration: Iterations done, if that has a meaning.
        rows: Rows of the images table on its one sheet, in order; `None`: all, class by class.
        num_sheets: Number of files.
        columns: Images in a row of a sheet.
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
    """The contents of a gallery's sheets; `pictures.json`.

    Attributes:
        side: Side of an image on a sheet, in pixels.
        is_whole: Whether these are the images themselves, not thumbnails.
        ipc: Images per class.
        num_classes: Number of classes.
        classes_per_sheet: Whole classes on one sheet.
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
        """Choose the size of images and the number of classes on a sheet for `num_images` of all stages together."""
        size, num_classes = manifest.pixels.size, len(manifest.classes.ids)
        is_whole = num_images * size**2 <= WHOLE_PIXELS
        fitting = (side for side in _SIDES if side <= size and num_images * side**2 <= THUMBNAIL_PIXELS)
        side = size if is_whole else next(fitting, min(size, _SIDES[-1]))
        together = max(1, min(num_classes, _SHEET_PIXELS // (manifest.ipc * side**2)))
        return cls(side, is_whole, manifest.ipc, num_classes, together)

    @property
    def columns(self) -> int:
        """Images in a row of a sheet of whole classes."""
        return math.isqrt(self.classes_per_sheet * self.ipc - 1) + 1

    @property
    def num_sheets(self) -> int:
        """Sheets of whole classes."""
        return -(-self.num_classes // self.classes_per_sheet)

    def whole_stage(self, name: str, title: str, iteration: int | None) -> Stage:
        """Return a stage of all images."""
        return Stage(name, title, iteration, None, self.num_sheets, self.columns)

    def part_stage(self, name: str, title: str, iteration: int, rows: tuple[int, ...]) -> Stage:
        """Return a stage of some rows of the images table."""
        return Stage(name, title, iteration, rows, 1, math.isqrt(len(rows) - 1) + 1)

    def with_stages(self, stages: Iterable[Stage]) -> "Pictures":
        """Return a copy with these stages."""
        return replace(self, stages=tuple(stages))

    def has_same_sheets(self, other: "Pictures") -> bool:
        """Return whether sheets of the other gallery fit into this one."""
        return self.with_stages(()) == other.with_stages(())


def draw_whole(folder: Path, pictures: Pictures, stage: Stage, images: Iterable[Tensor]) -> None:
    """Write the sheets of all images (3, S, S) uint8, given by ipc index, then label, as in the images table."""
    tiles = np.zeros((pictures.num_classes, pictures.ipc, pictures.side, pictures.side, 3), np.uint8)
    for row, image in enumerate(images):
        ipc_index, label = divmod(row, pictures.num_classes)
        tiles[label, ipc_index] = _tile(image, pictures.side)
    for index, name in enumerate(stage.files):
        first = index * pictures.classes_per_sheet
        classes = tiles[first : first + pictures.classes_per_sheet]
        sheet = _arranged(classes.reshape(-1, *tiles.shape[2:]), stage.columns)
        write_bytes(folder / name, _encoded(sheet, pictures.is_whole))


def draw_part(folder: Path, pictures: Pictures, stage: Stage, images: Tensor) -> None:
    """Write the sheet of some images (n, 3, S, S) uint8, in the order of the stage's rows."""
    sheet = _arranged(np.stack([_tile(image, pictures.side) for image in images]), stage.columns)
    write_bytes(folder / stage.files[0], _encoded(sheet, pictures.is_whole))


def _tile(image: Tensor, side: int) -> Pixels:
    """Return an image (3, S, S) uint8 in the size of a sheet, (side, side, 3)."""
    pixels = image.permute(1, 2, 0).numpy()
    if pixels.shape[0] == side:
        return pixels
    return np.asarray(PillowImage.fromarray(pixels).resize((side, side), PillowImage.Resampling.LANCZOS))


def write_record(folder: Path, pictures: Pictures) -> None:
    """Write `pictures.json`."""
    write_json(folder / RECORD, asdict(pictures))


def read_pictures(folder: Path) -> Pictures | None:
    """Read `pictures.json` of a gallery, which may be foreign; `None` if there is none.

    Raises:
        ArtifactError: If it is no record of a gallery.
    """
    try:
        pictures = read_record(Pictures, parse_json(read_regular(folder / RECORD, MAX_TEXT_BYTES)))
        if min(pictures.side, pictures.ipc, pictures.num_classes, pictures.classes_per_sheet) < 1:
            raise ValueError("a count is below 1")
        return pictures.with_stages([_renamed(pictures, index) for index in range(len(pictures.stages))])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{folder.name}/{RECORD} is not a list of pictures ({error!r}); remove that folder, and regenerate it"
            " with fadrm-hf gallery"
        ) from error


def _renamed(pictures: Pictures, index: int) -> Stage:
    """Return a stage with regenerated file names, so that a record can name no file outside a gallery."""
    stage = pictures.stages[index]
    if stage.rows is None:
        return pictures.whole_stage(START if stage.name == START else RECOVERED, stage.title, stage.iteration)
    num_images = pictures.ipc * pictures.num_classes
    if stage.iteration is None or not stage.rows or not all(0 <= row < num_images for row in stage.rows):
        raise ValueError(f"stage {stage.title!r} has no iteration, or rows that do not exist")
    return pictures.part_stage(snapshot_name(index), stage.title, stage.iteration, stage.rows)


def snapshot_name(index: int) -> str:
    """Return the name of the stage at this index, for a snapshot's files."""
    return f"snapshot{index:02d}"


def _arranged(tiles: Pixels, columns: int) -> Pixels:
    """Arrange images (n, s, s, 3) in rows of `columns`, the last one filled with black: (rows s, columns s, 3)."""
    side, rows = tiles.shape[1], -(-len(tiles) // columns)
    full = np.zeros((rows * columns, side, side, 3), np.uint8)
    full[: len(tiles)] = tiles
    return full.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)


def _encoded(sheet: Pixels, is_whole: bool) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"lossless": True, "quality": 50, "exact": True} if is_whole else {"quality": _QUALITY}
    PillowImage.fromarray(sheet).save(buffer, format="WEBP", method=3, **options)
    return buffer.getvalue()
