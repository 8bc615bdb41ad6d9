"""Layouts of sources on disk, one file for each kind; `_images` here tries them in a fixed order.

A new layout is a function that takes a `Folder` and the configuration and returns `Tables`, or `None` for a folder of
another kind; call it from `_images`. `folder`, `tables`, `file_names` and `refusals` are what layouts share.
"""

from pathlib import Path

import datasets
from datasets import DatasetDict

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources.layouts.class_folders import read_class_folders
from fadrm_hf.data.sources.layouts.file_names import FILE_NAME
from fadrm_hf.data.sources.layouts.folder import Folder, scan
from fadrm_hf.data.sources.layouts.ground_truth import with_ground_truth
from fadrm_hf.data.sources.layouts.image_tables import read_image_tables, read_table_file
from fadrm_hf.data.sources.layouts.parquet_tables import holds_images, read_files, read_parquet_tables
from fadrm_hf.data.sources.layouts.refusals import no_classes, nothing_found, refuse_detection
from fadrm_hf.data.sources.layouts.tables import Tables, some
from fadrm_hf.errors import SourceError

__all__ = ["FILE_SUFFIXES", "Tables", "read_file", "read_folder"]

FILE_SUFFIXES = (".parquet", ".csv", ".tsv", ".json", ".jsonl")


def read_folder(path: Path, config: SourceConfig) -> Tables:
    """Read a local folder of any layout.

    Raises:
        SourceError: It is of none, or of one that can be read in several ways.
        ValueError: A file in it is damaged.
    """
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        saved = datasets.load_from_disk(str(path))
        splits = dict(saved) if isinstance(saved, DatasetDict) else {"train": saved}
        return Tables(splits, "saved by datasets.save_to_disk")
    folder = scan(path)
    tables = read_parquet_tables(folder, config) or _images(folder, config)
    if tables is None:
        raise SourceError(nothing_found(folder, config))
    left_out = [f"{count} {kind}" for kind, count in sorted(folder.left_out.items()) if count]
    left_out += [f"{name}: an archive" for name in folder.archives]
    said = "\n".join([tables.labels_from, *tables.left_out])
    if unused := [name for name in folder.tables if name not in said]:
        left_out.append(f"{len(unused)} text files that say no class of an image ({some(unused)})")
    return _with_left_out(tables, left_out)


def read_file(path: Path, config: SourceConfig) -> Tables:
    """Read a table that is the source itself."""
    if path.suffix.lower() == ".parquet" and holds_images(path):
        return Tables({config.train_split or "train": read_files([path])}, "a parquet file")
    return read_table_file(path, config)


def _images(folder: Folder, config: SourceConfig) -> Tables | None:
    """Read images whose class a table or their folder says; a table of few images is not about them all."""
    refused, table = None, None
    if config.label_column == FILE_NAME and (named := read_class_folders(folder, config)):
        return _with_left_out(named, [])
    try:
        table = read_image_tables(folder, config, "labels")
    except ValueError as error:
        refused = error
    if table is not None and _covers(table, folder) and _is_clear(table, folder):
        return table
    folders = read_class_folders(folder, config)
    if folders is not None and any(set(split.features) != {"image"} for split in folders.splits.values()):
        lists = read_image_tables(folder, config, "splits") if len(folders.splits) == 1 and not refused else None
        if lists is not None and len(lists.splits) > 1 and _covers(lists, folder):
            return lists
        reason = [f"a table that cannot be read ({refused})"] if refused else []
        if table is not None and _covers(table, folder):
            reason = ["a table whose files are not there, or are several of the same name"]
        return _with_left_out(with_ground_truth(folders, folder), reason)
    if refused is not None:
        raise refused
    table = table or read_image_tables(folder, config, "anything")
    if table is None and folders is not None:
        refuse_detection(folder, config)
        raise SourceError(no_classes(folder, config))
    return table


def _covers(tables: Tables, folder: Folder) -> bool:
    """Return whether tables are about at least half of the images."""
    return 2 * sum(map(len, tables.splits.values())) >= folder.num_images


def _is_clear(tables: Tables, folder: Folder) -> bool:
    """Return whether every row of tables is an image of its own; if not, class folders know better."""
    known = {f"{folder.root}/{path}" for path in folder.image_paths()}
    for table in tables.splits.values():
        image = next(name for name, feature in table.features.items() if isinstance(feature, datasets.Image))
        paths = table.data.column(image).combine_chunks().field("path").to_pylist()
        if len(set(paths)) < len(paths) or not known.issuperset(paths):
            return False
    return True


def _with_left_out(tables: Tables, more: list[str]) -> Tables:
    unlabelled = [name for name, table in tables.splits.items() if set(table.features) == {"image"}]
    is_partly = 0 < len(unlabelled) < len(tables.splits)
    flat = [f"split {name}: {len(tables.splits[name])} images without labels" for name in unlabelled if is_partly]
    known = [*tables.left_out, *more]
    splits = {name: table for name, table in tables.splits.items() if not (is_partly and name in unlabelled)}
    return Tables(
        splits,
        tables.layout,
        tables.labels_from,
        (*known, *(line for line in flat if line not in known)),
        tables.class_names,
        tables.revision,
    )
