"""A folder for each class: `train/cat/1.png`, or `cat/1.png` where there are no splits.

Splits are the first level of folders and nothing deeper; below them the first level is the class. Where folders in
two levels could be the classes, neither is taken: `--source.label_column folder1` or `folder2` chooses.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources.layouts.file_names import FILE_NAME, read_named_images
from fadrm_hf.data.sources.layouts.folder import Folder
from fadrm_hf.data.sources.layouts.split_names import (
    find_split,
    is_general_name,
    is_split_name,
    read_split_name,
    without_split,
)
from fadrm_hf.data.sources.layouts.tables import Tables, image_table, some
from fadrm_hf.errors import SourceError

_DIVISION = re.compile(r"(images?|imgs?|part|batch|chunk|photos?|pictures?|folder)(?![a-z])", re.IGNORECASE)

Images = dict[str, list[str]]  # names of images by folder, as `Folder.images`

_MASKS = ("mask", "masks", "label", "labels", "annotation", "annotations", "gt", "groundtruth", "segmentation")


class Found(NamedTuple):
    """The images of a split by folders below it, and where that is."""

    place: str
    images: Images


def read_class_folders(folder: Folder, config: SourceConfig) -> Tables | None:
    """Return the splits of an image folder, or `None` where there are no images."""
    if not folder.images:
        return None
    root, images = unwrapped(folder.images)
    splits, left_out = split_folders(root, images, config)
    _refuse_masks(splits, config)
    if config.label_column == FILE_NAME:
        named = read_named_images({name: _paths(folder, found) for name, found in splits.items()}, config.name)
        return replace(named, left_out=(*left_out, *named.left_out))
    levels = {name: _levels(found.images) for name, found in splits.items()}
    levels = _without_wrappers(levels)
    chosen = _class_level(levels, splits, config)
    levels, respelled = _in_one_spelling(levels, chosen)
    tables, stray = _tables(folder, splits, levels, chosen, config)
    has_splits = set(splits) != {"train"} or splits["train"].place != root
    layout = f"a folder for each {'split and class' if has_splits else 'class'}"
    return Tables(tables, layout, "; ".join([_described(levels, chosen), *respelled]), (*left_out, *stray))


def _paths(folder: Folder, found: Found) -> list[str]:
    base = str(folder.root / found.place)
    return [f"{base}/{place}/{name}" if place else f"{base}/{name}"
            for place, names in found.images.items() for name in names]  # fmt: skip


def split_folders(root: str, images: Images, config: SourceConfig) -> tuple[dict[str, Found], list[str]]:
    """Return the images of each split, and what is in none of them.

    Args:
        root: Where the images are, for messages.
        images: By their folder below it.
        config: May name the splits.
    """
    tops = _by_top(images)
    folders = [top for top in tops if top]
    deep = {top for top in folders if any(inner for inner in tops[top])}
    said = {top: read_split_name(top) for top in folders}
    exact = [top for top in folders if (name := said[top]) and name.is_exact]
    asked = find_split(config.train_split or "train", folders)
    with_classes = [top for top in deep if (name := said[top]) and (name.is_exact or top == config.train_split)]
    everywhere = bool(deep) and all(said.values()) and any(name and name.kind == "train" for name in said.values())
    strange = [top for top in deep if said[top] is None]
    if with_classes and strange and len(exact) < 2 and asked != config.train_split:
        raise SourceError(
            f"source {config.name!r} has folders of images in {some(sorted(with_classes))} and in "
            f"{some(sorted(strange))}, expected splits or classes, not both; set --source.train_split {exact[0]} if "
            "it is a split, or --source.name to the folder that is meant"
        )
    are_flat = (
        not (with_classes or everywhere)
        and bool(exact)
        and all(is_general_name(top) for top in folders)
        and len(folders) > 1
    )
    if not (with_classes or everywhere or are_flat):
        _refuse_joined(folders, config)
        return {"train": Found(root, images)}, []
    names = [top for top in folders if said[top] is not None or top == config.train_split or are_flat]
    left_out = [f"{_count(tops[top])} images in {top or 'no folder'}" for top in tops if top not in names]
    return {name: Found(f"{root}/{name}" if root else name, tops[name]) for name in names}, left_out


def _refuse_joined(folders: Sequence[str], config: SourceConfig) -> None:
    """Refuse folders that are split and class at once: `train_bus`, `test_bus`."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for name in folders:
        said, rest = read_split_name(name), without_split(name)
        if said is None or not rest:
            return
        kinds[rest].add(said.kind)
    if any(len(found) > 1 and "train" in found for found in kinds.values()):
        raise SourceError(
            f"source {config.name!r} has folders that are split and class at once ({some(folders)}), expected a "
            "folder for each split, with those of the classes in it: rename them, such as train_bus to train/bus"
        )


def unwrapped(images: Images) -> tuple[str, Images]:
    """Step into a folder that is the only one with images, unless it is a split or holds the images itself."""
    root = ""
    while True:
        tops = _by_top(images)
        if len(tops) != 1 or "" in tops:
            return root, images
        ((top, inner),) = tops.items()
        if "" in inner or read_split_name(top) is not None:
            return root, images
        root, images = f"{root}/{top}" if root else top, inner


def _by_top(images: Images) -> dict[str, Images]:
    """Return the images by their first folder; "" for those in none."""
    tops: dict[str, Images] = defaultdict(dict)
    for place, names in images.items():
        top, _, inner = place.partition("/")
        tops[top][inner] = names
    return dict(tops)


def _count(images: Images) -> int:
    return sum(map(len, images.values()))


def _levels(images: Images) -> dict[str, tuple[str, ...]]:
    """Return the folders on the way to each folder of images."""
    return {place: tuple(place.split("/")) if place else () for place in images}


def _without_wrappers(levels: Mapping[str, dict[str, tuple[str, ...]]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Drop levels that say nothing: one folder around everything of a split (`images`, or the split's name again)."""
    result = {name: dict(places) for name, places in levels.items()}
    level = 0
    while any(len(parts) > level for places in result.values() for parts in places.values()):
        values = [{parts[level] for parts in places.values() if len(parts) > level} for places in result.values()]
        is_inner = any(len(parts) > level + 1 for places in result.values() for parts in places.values())
        is_repeated = level > 0 and len(set[str]().union(*values)) == 1
        if is_repeated or (is_inner and all(len(found) <= 1 for found in values)):
            result = {
                name: {place: parts[:level] + parts[level + 1 :] for place, parts in places.items()}
                for name, places in result.items()
            }
        else:
            level += 1
    classes = set[str]().union(*(found for places in result.values() if len(found := _tops(places)) > 1))
    return {
        name: {place: parts[1:] for place, parts in places.items()}
        if len(_tops(places)) == 1 and classes and not _tops(places) & classes  # an unlabelled split, in a folder
        else places
        for name, places in result.items()
    }


def _tops(places: Mapping[str, tuple[str, ...]]) -> set[str]:
    return {parts[0] for parts in places.values() if parts}


def _class_level(
    levels: Mapping[str, Mapping[str, tuple[str, ...]]], splits: Mapping[str, Found], config: SourceConfig
) -> int:
    """Return which level of folders is the class, 0 for the first below the split."""
    every = [parts for places in levels.values() for parts in places.values() if parts]
    depth = max(map(len, every), default=0)
    if config.label_column in [f"folder{level + 1}" for level in range(depth)]:
        return int(str(config.label_column).removeprefix("folder")) - 1
    inner = _inner_folders(every)
    repeated = sorted(leaf for leaf, above in _parents(every).items() if len(above) > 1)
    flat = sorted(top for top, below in inner.items() if "" in below)
    divided = sorted(top for top, below in inner.items() if "" not in below and len(below) > 1)
    if depth < 2 or (not (divided and flat) and (not repeated or flat)):
        return 0
    first = sorted(inner)
    where = next(place for found in splits.values() for place in found.images if "/" in place)
    divided_in = next((place for place in _with_splits(every)), None)
    meant = f"{divided_in}, which has splits" if divided_in else "the folder that is meant"
    seen = (
        f"in several of them is {some(repeated)}" if not flat else f"{some(flat)} has images, {some(divided)} folders"
    )
    raise SourceError(
        f"source {config.name!r} has folders in {depth} levels, of which either may be the class (such as {where}): "
        f"folder1 is {some(first)}; {seen}; set --source.label_column folder1 or folder{depth}, or --source.name to "
        f"{meant}"
    )


def _in_one_spelling(
    levels: Mapping[str, dict[str, tuple[str, ...]]], level: int
) -> tuple[dict[str, dict[str, tuple[str, ...]]], list[str]]:
    """Call classes as training images do where splits differ in case alone (`Cat`, `cat`); also say which."""
    first = sorted(levels, key=lambda split: (said := read_split_name(split)) is None or said.kind != "train")
    used = {split: {parts[level] for parts in levels[split].values() if len(parts) > level} for split in first}
    spellings: dict[str, list[str]] = defaultdict(list)
    for split in first:
        for name in sorted(used[split]):
            spellings[_folded(name)].append(name)
    one = {name: names[0] for names in spellings.values() for name in names
           if not any(len(set(names) & own) > 1 for own in used.values())}  # fmt: skip
    renamed = {
        split: {
            place: (*parts[:level], *(one.get(name, name) for name in parts[level : level + 1]), *parts[level + 1 :])
            for place, parts in places.items()
        }
        for split, places in levels.items()
    }
    return renamed, [f"{name} is taken for {other}" for name, other in one.items() if name != other]


def _folded(name: str) -> str:
    """Return a name without what file systems do not tell apart: case, and how accents are composed."""
    return unicodedata.normalize("NFC", name).casefold()


def _with_splits(every: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield the folders that hold several splits, further in than splits are looked for."""
    inside: dict[str, set[str]] = defaultdict(set)
    for parts in every:
        for level in range(1, len(parts)):
            inside["/".join(parts[:level])].add(parts[level])
    yield from (place for place, names in inside.items() if sum(map(is_split_name, names)) > 1)


def _inner_folders(every: Sequence[tuple[str, ...]]) -> dict[str, set[str]]:
    """Return what is in each folder of the first level: folders, and "" for images."""
    inner: dict[str, set[str]] = defaultdict(set)
    for parts in every:
        inner[parts[0]].add(parts[1] if len(parts) > 1 else "")
    return inner


def _parents(every: Sequence[tuple[str, ...]]) -> dict[str, set[str]]:
    """Return in which folders each innermost folder is."""
    parents: dict[str, set[str]] = defaultdict(set)
    for parts in every:
        parents[parts[-1]].add("/".join(parts[:-1]))
    return parents


def _refuse_masks(splits: Mapping[str, Found], config: SourceConfig) -> None:
    """Refuse images beside their masks, which look like two classes."""
    for found in splits.values():
        tops = _by_top(found.images)
        masks = [top for top in tops if top.casefold().replace("_", "").replace("-", "") in _MASKS]
        if not masks or len(tops) != 2:
            continue
        stems = [{name.partition(".")[0] for names in inner.values() for name in names} for inner in tops.values()]
        if len(stems[0] & stems[1]) > min(map(len, stems)) / 2:
            raise SourceError(
                f"source {config.name!r} is a segmentation set: {masks[0]} holds a mask for each image, not a class; "
                "expected images by class; if something else says the classes, set --source.name to the folder of the "
                "images alone"
            )


def _tables(
    folder: Folder,
    splits: Mapping[str, Found],
    levels: Mapping[str, Mapping[str, tuple[str, ...]]],
    level: int,
    config: SourceConfig,
) -> tuple[dict[str, Dataset], list[str]]:
    """Build a table for each split, without labels where there are no classes; also say what is in no class."""
    classes = {parts[level] for places in levels.values() for parts in places.values() if len(parts) > level}
    classes = set() if _are_numbered(classes) else classes
    numbers = {name: number for number, name in enumerate(sorted(classes))}
    column = config.label_column if level or config.label_column == "folder1" else "label"
    feature = datasets.ClassLabel(names=list(numbers))
    tables, left_out = {}, []
    for split, found in splits.items():
        labelled = [place for place in found.images if len(levels[split][place]) > level]
        is_flat = not labelled or len(numbers) < 2
        places = list(found.images) if is_flat else labelled
        base = str(folder.root / found.place)
        folders = [(f"{base}/{place}" if place else base, found.images[place]) for place in places]
        paths = [f"{path}/{name}" for path, names in folders for name in names]
        if stray := _count(found.images) - len(paths):
            left_out.append(f"{stray} images in {found.place or '.'} itself: in no class folder")
        labels = [] if is_flat else [numbers[levels[split][place][level]] for place in places]
        repeated = np.repeat(labels, [] if is_flat else [len(names) for _, names in folders])
        given = {} if is_flat else {str(column): pa.array(repeated, pa.int64())}
        tables[split] = image_table(paths, given, {str(column): feature})
    return tables, left_out


def _are_numbered(folders: set[str]) -> bool:
    """Return whether folders only divide the images, such as `images_part_1` and `images_part_2`."""
    bare = {re.sub(r"\d+", "", name) for name in folders}
    return len(folders) > 1 and len(bare) == 1 and _DIVISION.search(bare.pop()) is not None


def _described(levels: Mapping[str, Mapping[str, tuple[str, ...]]], level: int) -> str:
    """Return which folders are the classes, in words."""
    depth = max((len(parts) for places in levels.values() for parts in places.values()), default=0)
    first = "the first level" if level == 0 else f"level {level + 1}"
    merged = f", each with the {depth - level - 1} levels in it" if depth > level + 1 else ""
    return f"folders: {first} is the class{merged}"
