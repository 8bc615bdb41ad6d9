"""An artifact's tables written from finished shards; equal shards give equal bytes.

The `datasets` builders make the rows. They are written to parquet here because `datasets` itself would turn dictionary
encoding on for the logits, which then decode four times slower. Soft labels have one row group per epoch,
images one per hundred; one row group is in memory at a time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from fadrm_hf.builders import Images, SoftLabels
from fadrm_hf.builders.soft_labels import row_bytes
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.runtime.files import write_with
from fadrm_hf.runtime.progress import QUIET, Reporter
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER, RECOVERED, TABLE_CACHE, RunFolder

MAX_FILE_BYTES = 500_000_000
LABEL_FILES, MIN_LABEL_FILE_BYTES = 8, 8_000_000  # files of soft labels that are aimed at, none smaller than these
IMAGES_PER_GROUP = 100

_PAGE_BYTES = 128 * 1024  # a damaged page hides few rows, at 1.4 times the reading time of 1 MiB pages
_GROUP_OVERHEAD = 1024  # bytes of a group of labels beside its rows, before compression
_ROW_OVERHEAD = 256  # bytes of an image's row beside its pixels, generously
_PNG_OVERHEAD = 1.01  # noise does not compress; PNG adds a byte per line and five per block


def _open_labels(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        # Parquet has no integers of less than four bytes. Split into first bytes, second bytes and so on, those that
        # are always zero take no room: views are a third smaller, codes of labels hardly larger than their bits.
        # Halves are not split, because not every reader joins them again.
        column_encoding=dict.fromkeys(_integer_columns(schema), "BYTE_STREAM_SPLIT"),
        write_statistics=["epoch", "step", "image"],  # what `filters=` asks for
        write_page_checksum=True,
        write_page_index=True,
        data_page_size=_PAGE_BYTES,
    )


def _integer_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of integers and of lists of integers, as parquet names them."""
    lists = {field.name: field.type.value_type for field in schema if pa.types.is_fixed_size_list(field.type)}
    values = {field.name: field.type for field in schema if field.name not in lists}
    found = [name for name, kind in values.items() if pa.types.is_integer(kind)]
    return found + [f"{name}.list.element" for name, kind in lists.items() if pa.types.is_integer(kind)]


_open_images = partial(
    pq.ParquetWriter,
    compression="none",  # PNG is compressed already
    use_dictionary=False,
    write_statistics=["label", "ipc_index"],
    write_page_checksum=True,
    write_page_index=True,
    data_page_size=_PAGE_BYTES,
)


def write_tables(
    artifact: Path,
    work: Path,
    class_map: ClassMap,
    size: int,
    ipc: int,
    epochs: int,
    codec: str = "float16",
    reporter: Reporter = QUIET,
) -> None:
    """Write the two tables of an artifact from the finished shards of its run.

    The manifest, if there is one, is removed first: until it is written again the artifact is unfinished.

    Args:
        artifact: The run folder.
        work: The folder of shards, with `recovered/` and `soft_labels/`.
        class_map: The classes in label order.
        size: Side of the images in pixels.
        ipc: Images per class.
        epochs: Epochs of soft labels that are stored.
        codec: How they are stored (`fadrm_hf.labels.codecs`).
        reporter: Where progress goes.

    Raises:
        RunFolderError: If a shard is missing or is not what this run makes.
    """
    RunFolder(artifact).manifest.unlink(missing_ok=True)
    names, cache = label_names(class_map), str(work / TABLE_CACHE)
    images = Images(cache_dir=cache, shards=str(work / RECOVERED), class_names=names, size=size, ipc=ipc)
    write_image_table(artifact, images.tables(), ipc * len(names), size, reporter)

    shards = str(work / LABELS_FOLDER)
    labels = SoftLabels(cache_dir=cache, shards=shards, class_names=names, epochs=epochs, codec=codec)
    write_label_table(artifact, labels.info.features, labels.tables(), epochs, ipc * len(names), reporter)


def write_image_table(
    artifact: Path, tables: Iterator[pa.Table], num_images: int, size: int, reporter: Reporter = QUIET
) -> None:
    """Write the images table of an artifact.

    Args:
        artifact: The run folder.
        tables: The rows in order, in parts of any length.
        num_images: How many there are.
        size: Side of the images in pixels.
        reporter: Where progress goes.
    """
    num_groups = -(-num_images // IMAGES_PER_GROUP)
    group_bytes = int(IMAGES_PER_GROUP * (3 * size * size * _PNG_OVERHEAD + _ROW_OVERHEAD))
    groups = _regroup(tables, IMAGES_PER_GROUP)
    with reporter.stage("pack images", num_groups) as task:
        per_file = _groups_per_file(num_groups, group_bytes, num_files=1)
        _write_files(artifact / IMAGES_FOLDER, task.counting(groups), num_groups, per_file, _open_images)


def write_label_table(
    artifact: Path,
    features: Features,
    groups: Iterator[pa.Table],
    num_groups: int,
    num_rows: int,
    reporter: Reporter = QUIET,
) -> None:
    """Write the soft-label table of an artifact.

    Args:
        artifact: The run folder.
        features: The columns.
        groups: The rows of each stored epoch; one is in memory at a time.
        num_groups: How many epochs there are.
        num_rows: Rows of one epoch.
        reporter: Where progress goes.
    """
    group_bytes = num_rows * row_bytes(features) + _GROUP_OVERHEAD
    num_files = min(LABEL_FILES, max(1, num_groups * group_bytes // MIN_LABEL_FILE_BYTES))
    per_file = _groups_per_file(num_groups, group_bytes, num_files)
    with reporter.stage("pack labels", num_groups) as task:
        _write_files(artifact / LABELS_FOLDER, task.counting(groups), num_groups, per_file, _open_labels)


def label_names(class_map: ClassMap) -> list[str]:
    """Return class names for `ClassLabel`, no two equal: a name that occurs twice is followed by its id."""
    count = Counter(class_map.names)
    pairs = zip(class_map.ids, class_map.names, strict=True)
    return [name if count[name] == 1 else f"{name} ({identity})" for identity, name in pairs]


def _regroup(tables: Iterator[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of `num_rows`; the last may be shorter."""
    waiting: pa.Table | None = None
    for table in tables:
        waiting = table if waiting is None else pa.concat_tables([waiting, table])
        while len(waiting) >= num_rows:
            yield waiting[:num_rows].combine_chunks()
            waiting = waiting[num_rows:]
    if waiting is not None and len(waiting):
        yield waiting.combine_chunks()


def _groups_per_file(num_groups: int, group_bytes: int, num_files: int) -> int:
    """Return how many row groups are in a file: at most so many files, or more that stay below `MAX_FILE_BYTES`."""
    return max(1, min(MAX_FILE_BYTES // group_bytes, -(-num_groups // num_files)))


def _write_files(
    folder: Path,
    groups: Iterator[pa.Table],
    num_groups: int,
    per_file: int,
    open_writer: Callable[..., pq.ParquetWriter],
) -> None:
    """Write row groups to numbered files, so many to each; the last may have fewer."""
    num_files = -(-num_groups // per_file)
    for stale in folder.glob("train-*.parquet"):
        stale.unlink()
    for index in range(num_files):
        path = folder / f"train-{index:05d}-of-{num_files:05d}.parquet"
        write_with(path, partial(_write_groups, islice(groups, per_file), open_writer))
    next(groups, None)  # there is none, and the last one counts as done


def _write_groups(groups: Iterator[pa.Table], open_writer: Callable[..., pq.ParquetWriter], path: Path) -> None:
    first = next(groups)
    with open_writer(path, first.schema) as writer:
        for group in chain([first], groups):
            writer.write_table(group, row_group_size=len(group))
