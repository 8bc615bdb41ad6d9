"""Folders that cannot be read as classes: what they are, and what would help."""

from pathlib import Path

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources.layouts.archives import unpack_commands
from fadrm_hf.data.sources.layouts.file_names import FILE_NAME, classes_in_names
from fadrm_hf.data.sources.layouts.folder import IMAGE_SUFFIXES, Folder
from fadrm_hf.data.sources.layouts.ground_truth import columns_near
from fadrm_hf.data.sources.layouts.tables import some
from fadrm_hf.errors import SourceError


def refuse_detection(folder: Folder, config: SourceConfig) -> None:
    """Refuse images with a file of boxes for each, in the form of YOLO or VOC."""
    boxes = folder.left_out.get(".xml files", 0)
    texts = sum(name.endswith(".txt") and "labels/" in f"/{name}" for name in folder.tables)
    if max(boxes, texts) >= max(2, folder.num_images / 2):
        raise SourceError(
            f"source {config.name!r} is a detection set: {max(boxes, texts)} files of boxes lie with "
            f"{folder.num_images} images, expected one class for each image; cut the boxes out, one folder for each "
            "class, and set --source.name to it"
        )


def no_classes(folder: Folder, config: SourceConfig) -> str:
    """Return what is missing where there are images and nothing that says their classes."""
    places = some([place or "the folder itself" for place in folder.images])
    seen = f"{folder.num_images} images in {places}, and no table of their classes"
    seen += f" ({some(folder.tables)}: not of that form)" if folder.tables else ""
    return (
        f"source {config.name!r} has no label column, only image (Image): {seen}; expected several folders, one for "
        f"each class, or a table (csv, json) of images and classes{_hint(folder)}"
    )


def _hint(folder: Folder) -> str:
    """Return what the classes may be in, where something says so."""
    for names in folder.images.values():
        if classes := classes_in_names(names):
            return (
                f"; the names of the images begin with {some(classes, 6)}: if these are the classes, set "
                f"--source.label_column {FILE_NAME}"
            )
    counts = {folder.num_images, *map(len, folder.images.values())}
    for name, columns in columns_near(folder):
        cells = next(iter(columns.values()), [])
        is_of_files = any(Path(str(cell)).suffix.lower() in IMAGE_SUFFIXES for cell in cells[:9])
        if len(columns) == 1 and len(cells) in counts and not is_of_files:
            return (
                f"; {name} has a line for each image, but in which order is not said: write the name of the image "
                "before the class in each line"
            )
    return "; sort the images into folders, or write such a table beside them"


def nothing_found(folder: Folder, config: SourceConfig) -> str:
    """Return why a folder cannot be read, and what would help."""
    scripts = [name for name in (f"{folder.root.name}.py",) if (folder.root / name).is_file()]
    if scripts:
        return (
            f"source {config.name!r} is a dataset script, which is never run ({scripts[0]}); the Hub's own parquet "
            "copy of it is often there: set --source.revision refs/convert/parquet"
        )
    if folder.archives:
        return (
            f"source {config.name!r} holds no images but archives ({some(folder.archives)}), which are not read as "
            f"they are; unpack them, then try again: {unpack_commands(str(folder.root), folder.archives)}"
        )
    for name, columns in columns_near(folder):
        if any(column.casefold().startswith("pixel") for column in columns):
            return (
                f"source {config.name!r} cannot be read: {name} has the pixels of its images as numbers; write each "
                "image to a file in a folder for its class, and set --source.name to the folder around those"
            )
    seen = some([*folder.tables, *(f"{n} {kind}" for kind, n in folder.left_out.items())], 6)
    return (
        f"source {config.name!r} cannot be read: it holds no images and no table of them ({seen or 'it is empty'}); "
        "expected a Hub dataset id, a local image folder, a parquet, csv or json file, a folder of them, or 'digits'; "
        "set --source.name"
    )
