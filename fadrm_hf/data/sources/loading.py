"""From a configuration to a source: find the layout, list what can be meant, read the labels, look at the pictures."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset

from fadrm_hf.config import SourceConfig
from fadrm_hf.config.datasets import NO_PRESET, preset_of, resolve_source
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.data.sources import columns, encoded, images
from fadrm_hf.data.sources.layouts import Tables
from fadrm_hf.data.sources.measuring import Measured, measure
from fadrm_hf.data.sources.readers import read_tables
from fadrm_hf.data.sources.report import SourceReport, preset_origin, suggestions
from fadrm_hf.data.sources.source import Source, Split
from fadrm_hf.data.sources.splits import ChosenSplit, by_column, choose_test, choose_train, in_order, is_stand_in
from fadrm_hf.errors import SourceError

logger = logging.getLogger(__name__)

HASHED_WHOLE_BYTES = 10**9  # sources below this are hashed completely
HASHED_SAMPLE = 1000  # images of each split that are hashed of larger ones
SCANNED_WHOLE_BYTES = 64 * 2**20  # sources below this are decoded completely before a run
SCANNED_SAMPLE = 1000  # images of each split that are decoded of larger ones
MEASURED_SAMPLE = 256  # training images whose size, mode and range of values are looked at
_SPLIT_SEED = 0  # of `test_fraction`: the same rows in every run, whatever its seed
_SPLITS: tuple[Split, ...] = ("train", "test")
_sound: set[str] = set()  # fingerprints of what this process has decoded completely: a comparison asks for each method


def load_source(config: SourceConfig) -> Source:
    """Read a source, find its splits, columns and classes, and take its fingerprint.

    With `on_corrupt="skip"` every image is decoded here once, so that the same rows are left out everywhere.

    Raises:
        SourceError: It does not exist or is no image-classification dataset; the message names what mends it.
    """
    asked, config = config, resolve_source(with_own_preset(config))
    tables = _read(config)
    train = choose_train(tables, config)
    config = columns.with_columns(replace(config, train_split=train.name), train.table)
    label = str(config.label_column)
    names = columns.class_names(train.table, label, config)
    used = columns.used_classes(config, names)
    test = _choose_test(tables, config, names)
    rows, rule, measured = _train_rows(train, config, names, used)
    test_rows = _rows(test, "test", config, names, used, rule) if test else None
    stands_in = test is not None and is_stand_in(_of(train, rows), _of(test, test_rows), config)
    class_map = _class_map(used, tables)
    fingerprint = _fingerprint(class_map, rows, test_rows, tables.revision, rule)
    config = replace(config, test_split=test.name if test else None)
    source = Source(config, class_map, rows, test_rows, tables.revision, fingerprint, rule, None, stands_in)
    if config.test_fraction is not None:
        source = source.hold_out(config.test_fraction, _SPLIT_SEED)
    if source.tests_on_training:
        logger.warning("the test images of %s are training images: no accuracy is of new images", config.name)
    return replace(source, report=_report(asked, source, tables, len(names), measured))


def inspect_source(config: SourceConfig) -> SourceReport:
    """Return what `load_source` reads of a source, and which of its images a run would refuse (`check_source`).

    Raises:
        SourceError: It cannot be read as it is; the message names what mends it.
    """
    source = load_source(config)
    assert source.report is not None
    broken = tuple(
        path or f"row {row} of {split}" for split, (row, path), _ in _undecodable(source, _decoded_rows(source))
    )
    skip = ("--source.on_corrupt skip",) if broken else ()
    return replace(source.report, undecodable=broken, suggested=source.report.suggested + skip)


def with_own_preset(config: SourceConfig) -> SourceConfig:
    """Return `config` without the preset that a folder's name suggests, if that has another number of classes."""
    preset = preset_of(config) if config.preset is None else None
    if preset is None or not Path(config.name).expanduser().exists():
        return config
    try:
        tables = _read(config)
        train = choose_train(tables, config)
        found = columns.with_columns(config, train.table)
        num_classes = len(columns.class_names(train.table, str(found.label_column), config))
    except SourceError:
        return config  # said when the source is loaded
    return config if num_classes == preset.num_classes else replace(config, preset=NO_PRESET)


def _read(config: SourceConfig) -> Tables:
    """Read the splits of a source with their columns of images and of classes."""
    tables = by_column(read_tables(config))
    splits = {
        name: columns.with_one_hot(columns.with_images(table, config), config) for name, table in tables.splits.items()
    }
    return replace(tables, splits=in_order(splits))


def _choose_test(tables: Tables, config: SourceConfig, names: Sequence[str]) -> ChosenSplit | None:
    if config.test_fraction is not None:
        return None
    label = str(config.label_column)
    labelled = [name for name, table in tables.splits.items() if columns.has_labels(table, label)]
    return choose_test(tables, config, labelled)


def _class_map(used: tuple[str, ...], tables: Tables) -> ClassMap:
    """Return the classes; two of the same name are told apart by what identifies them."""
    said = [tables.class_names.get(name, name) for name in used]
    unique = [f"{name} ({key})" if said.count(name) > 1 else name for key, name in zip(used, said, strict=True)]
    return ClassMap(used, tuple(unique))


def _of(split: ChosenSplit, rows: Dataset | None) -> ChosenSplit:
    assert rows is not None
    return replace(split, table=rows)


def _train_rows(
    train: ChosenSplit, config: SourceConfig, names: tuple[str, ...], used: tuple[str, ...]
) -> tuple[Dataset, images.PixelRule, Measured]:
    """Return the training images, and what a sample of them looks like."""
    numbered = _numbered(train, "train", config, names, used)
    rule = images.PixelRule(config.bands, config.value_range)
    chosen = encoded.sample(len(numbered), MEASURED_SAMPLE, "measure")
    found = encoded.chunks(encoded.encoded_images(numbered), chosen)
    measured = measure((encoded.content_of(item) for _, chunk in found for item in chunk), rule)
    if measured.num_pointers and (config.on_corrupt == "refuse" or measured.num_pointers == measured.num_images):
        raise SourceError(
            f"source {config.name!r}: {measured.num_pointers} of {measured.num_images} images that were looked at are "
            "Git LFS pointers, not the images themselves; run git lfs pull in its repository"
        )
    rule = replace(rule, value_range=config.value_range or measured.value_range)
    return _without_damaged(numbered, train.name, rule, config), rule, measured


def _rows(
    split: ChosenSplit,
    role: Split,
    config: SourceConfig,
    names: tuple[str, ...],
    used: tuple[str, ...],
    rule: images.PixelRule,
) -> Dataset:
    return _without_damaged(_numbered(split, role, config, names, used), split.name, rule, config)


def _numbered(
    split: ChosenSplit, role: Split, config: SourceConfig, names: tuple[str, ...], used: tuple[str, ...]
) -> Dataset:
    """Return the split with columns `image` (encoded) and `label` (index into `used`), without other classes."""
    table, image_column, label_column = split.table, str(config.image_column), str(config.label_column)
    for column in (image_column, label_column):
        if column not in table.features:
            raise SourceError(
                f"split {split.name!r} of {config.name!r} lacks column {column!r} of the training split, expected the "
                "same columns in both; mend it, or set --source.test_split"
            )
    skips = config.on_corrupt == "skip"
    labels = columns.class_indices(table, label_column, split.name, role, names, skips)
    if unlabelled := int((labels < 0).sum()):
        logger.warning("left out: split %r, %d rows without a label", split.name, unlabelled)
    rows = table.select_columns(image_column)
    if used != names:
        places = {name: place for place, name in enumerate(used)}
        chosen = np.array([places.get(name, -1) for name in names], dtype=np.int64)
        labels = np.where(labels < 0, -1, chosen[labels])
    if image_column != "image":
        rows = rows.rename_column(image_column, "image")
    rows = rows.cast_column("image", datasets.Image(decode=False)).add_column("label", labels)
    if (labels < 0).any():
        rows = rows.select(np.flatnonzero(labels >= 0))  # last: a column added to chosen rows copies their images
    paths = encoded.paths(rows)
    once = None if paths is None else columns.first_of_repeated(paths, labels[labels >= 0], used, config)
    if once is None:
        return rows
    logger.warning("left out: split %r, %d rows of images that are in a row before", split.name, len(rows) - len(once))
    return rows.select(once)


def _without_damaged(table: Dataset, split: str, rule: images.PixelRule, config: SourceConfig) -> Dataset:
    if config.on_corrupt == "refuse":
        return table
    damaged = list(encoded.damaged(table, range(len(table)), rule))
    for (row, path), reason in damaged:
        logger.warning("left out: split %r, row %d%s %s", split, row, f" ({path})" if path else "", reason)
    skipped = {row for (row, _), _ in damaged}
    return table.select([row for row in range(len(table)) if row not in skipped]) if skipped else table


def _fingerprint(
    class_map: ClassMap, train: Dataset, test: Dataset | None, revision: str | None, rule: images.PixelRule
) -> str:
    tables = [table for table in (train, test) if table is not None]
    whole = sum(encoded.num_bytes(table, HASHED_WHOLE_BYTES) for table in tables) < HASHED_WHOLE_BYTES
    digest = hashlib.sha256(class_map.hash.encode())
    if rule != images.AS_FILED:
        digest.update(json.dumps([rule.bands, rule.value_range]).encode())
    if not whole:
        digest.update(str(revision).encode())
    for table in tables:
        labels = np.asarray(columns.values_of(table, "label"), dtype=np.int64)
        digest.update(labels.astype("<i8").tobytes())
        rows = range(len(table)) if whole else encoded.sample(len(table), HASHED_SAMPLE, "fingerprint")
        for _, chunk in encoded.chunks(encoded.encoded_images(table), rows):
            for item in chunk:
                digest.update(hashlib.sha256(encoded.content_of(item)).digest())  # of equal length: no bound can shift
    return digest.hexdigest()


def _report(asked: SourceConfig, source: Source, tables: Tables, num_classes: int, measured: Measured) -> SourceReport:
    config, counts = source.config, source.images_per_class.tolist()
    classes = dict(zip(source.class_map.names, counts, strict=True))
    held = f"{asked.test_fraction:g} of {config.train_split}, of each class" if asked.test_fraction else None
    labels_from = tables.labels_from.replace("COLUMN", f"column {config.label_column!r}")
    shorter = (min(measured.smallest) + min(measured.largest)) // 2
    return SourceReport(
        name=asked.name,
        layout=tables.layout,
        splits={name: len(table) for name, table in tables.splits.items()},
        train_split=str(config.train_split),
        test_split=held or config.test_split,
        num_train=len(source.train),
        num_test=0 if source.test is None else len(source.test),
        tests_on_training=source.tests_on_training,
        labels_from=labels_from,
        classes=classes,
        smallest_image=measured.smallest,
        largest_image=measured.largest,
        modes=measured.modes,
        num_measured=measured.num_images,
        value_range=source.rule.value_range,
        bands=source.rule.bands,
        left_out=(*tables.left_out, *_unlabelled(tables, str(config.label_column))),
        preset=None if preset_of(config) is None else config.preset,
        preset_from=preset_origin(asked, config, num_classes),
        size=source.size,
        suggested=suggestions(
            asked, config, shorter, source.test is not None, dict(zip(source.class_map.ids, counts, strict=True))
        ),
    )


def _unlabelled(tables: Tables, label: str) -> list[str]:
    return [
        f"split {name}: {len(table)} images without labels in column {label!r}"
        for name, table in tables.splits.items()
        if not columns.has_labels(table, label)
    ]


def check_source(source: Source, ipc: int, images_per_class_needed: int) -> int:
    """Check before a run: enough images in every class, a test split, and images that decode.

    Args:
        source: The source.
        ipc: Images per class of the run, named in the message.
        images_per_class_needed: Training images that each class must have.

    Returns:
        How many images were decoded: all of a small source, a seeded sample of a larger one, whose other images are
        first decoded when they are used.
    """
    if len(source.class_map) < 2:
        raise SourceError(
            f"source {source.config.name!r} has the single class {source.class_map.names[0]!r}, expected at least 2 "
            "classes; add images of others, or set --source.label_column"
        )
    counts = source.images_per_class
    least = int(counts.argmin())
    if counts[least] == 0:
        raise SourceError(
            f"class {source.class_map.names[least]!r} has 0 training images ({int((counts == 0).sum())} of "
            f"{len(counts)} classes have none), expected some of each class; add images, or name the other classes: "
            "--source.classes"
        )
    if counts[least] < images_per_class_needed:
        short = int((counts < images_per_class_needed).sum())
        raise SourceError(
            f"class {source.class_map.names[least]!r} has {counts[least]} training images, expected at least "
            f"{images_per_class_needed} for ipc {ipc} ({short} of {len(counts)} classes have too few); lower --ipc, "
            "set --patches.grid 1, or add images"
        )
    rows, total = _decoded_rows(source), sum(len(source.rows(split)) for split in _SPLITS)
    for split, row, reason in _undecodable(source, rows):
        raise SourceError(encoded.located(reason, split, *row))
    scanned = sum(map(len, rows.values()))
    if scanned == total:
        _sound.add(source.fingerprint)
    logger.info("decoded %d of %d images of %s, all sound", scanned, total, source.config.name)
    return scanned


def _decoded_rows(source: Source) -> dict[Split, Sequence[int]]:
    """Return which rows of each split are decoded before a run: all of a small source, a sample of a larger one."""
    tables = {split: source.rows(split) for split in _SPLITS if split == "train" or source.test is not None}
    total_bytes = sum(encoded.num_bytes(table, HASHED_WHOLE_BYTES) for table in tables.values())
    whole = total_bytes <= SCANNED_WHOLE_BYTES  # and so hashed completely
    return {
        split: range(len(table)) if whole else encoded.sample(len(table), SCANNED_SAMPLE, "scan")
        for split, table in tables.items()
    }


def _undecodable(
    source: Source, rows: dict[Split, Sequence[int]]
) -> Iterator[tuple[str, tuple[int, str | None], str]]:
    """Yield split, (row, path) and reason of each image of `rows` that cannot be decoded."""
    if source.fingerprint in _sound and all(len(rows[split]) == len(source.rows(split)) for split in rows):
        return
    names = {"train": source.config.train_split, "test": source.config.test_split}
    for split, numbers in rows.items():
        for row, reason in encoded.damaged(source.rows(split), numbers, source.rule):
            yield str(names[split]), row, reason
