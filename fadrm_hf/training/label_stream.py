"""The soft-label table as a stream of epochs: fetched, read and checked by one thread, slightly ahead of training.

A table may be larger than memory, and on the Hub. At most the current epoch and the next are in memory; small epochs
are read further ahead, so that training does not wait for a slow connection.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from fadrm_hf.artifact.location import Location, table_names
from fadrm_hf.artifact.reading import Arrays, open_table, read_label_columns
from fadrm_hf.artifact.row_checks import bad_rows
from fadrm_hf.builders.soft_labels import label_features, row_bytes
from fadrm_hf.errors import ArtifactError
from fadrm_hf.runtime.run_folder import LABELS_FOLDER

Item = TypeVar("Item")
Read = TypeVar("Read")

_AHEAD_BYTES = 32 << 20
_AHEAD_EPOCHS = 8


class LabelEpochs:
    """The stored epochs of an artifact's soft labels; for one thread at a time.

    Files are opened in row order, as epochs need them. Whole files are downloaded one by one, each while the previous
    one is read; streamed files are never written to disk.

    Args:
        location: The artifact.
        last: The last stored epoch that will be read; no file after it is fetched.
        streaming: Read ranges of remote files.
        views_only: Leave out the columns of the codec.
    """

    def __init__(self, location: Location, last: int, streaming: bool = False, views_only: bool = False) -> None:
        self._location, self._last, self._streaming, self._views_only = location, last, streaming, views_only
        self._names = _label_files(location)
        self._ends: list[int] = []  # epochs up to the end of each file whose footer was read
        self._fetcher = ThreadPoolExecutor(1, "fetch-labels")
        self._fetched: dict[int, Future[Path]] = {}
        self._source: BinaryIO | pa.NativeFile | None = None
        self._open_table: pq.ParquetFile | None = None
        self._table_index = -1

    @property
    def num_ahead(self) -> int:
        """Epochs to read ahead: the next one, and more while they are small."""
        manifest = self._location.manifest
        features = label_features(manifest.label_codec, len(manifest.class_map))
        return max(1, min(_AHEAD_EPOCHS, _AHEAD_BYTES // (manifest.num_images * row_bytes(features))))

    def read(self, epoch: int) -> Arrays:
        """Return the columns of one stored epoch, arrays (n, ...) as they are stored.

        Raises:
            ArtifactError: If there is no such epoch, its file is damaged, or a row is no view of the images.
            HubError: If the Hub does not deliver the file.
        """
        index, group = self._find(epoch)
        name, manifest = Path(self._names[index]), self._location.manifest
        columns = read_label_columns(name, self._table(index), group, manifest, self._views_only)
        for row, why in bad_rows(columns, epoch, manifest):
            raise ArtifactError(f"{name}, epoch {epoch}, row {row}: {why}; fetch the artifact again")
        return columns

    def close(self) -> None:
        """Close the open file, after a download that is under way has finished."""
        self._fetcher.shutdown(cancel_futures=True)
        self._close_file()

    def _find(self, epoch: int) -> tuple[int, int]:
        """Return the index of the file with an epoch, and its row group; no footer after that file is read."""
        while not self._ends or epoch >= self._ends[-1]:
            done = self._ends[-1] if self._ends else 0
            if len(self._ends) == len(self._names):
                raise ArtifactError(
                    f"epoch {epoch} was requested, {self._location.name} has labels for epochs 0 to {done - 1};"
                    " fetch the artifact again"
                )
            self._ends.append(done + self._num_groups(len(self._ends)))
        index = next(index for index, end in enumerate(self._ends) if epoch < end)
        return index, epoch - (self._ends[index - 1] if index else 0)

    def _num_groups(self, index: int) -> int:
        if self._streaming:
            return int(self._table(index).num_row_groups)
        with self._location.stream(self._names[index]) as source:
            return int(open_table(Path(self._names[index]), source).num_row_groups)

    def _table(self, index: int) -> pq.ParquetFile:
        """Open a file, and close the one that was open before."""
        if self._table_index != index or self._open_table is None:
            self._close_file()
            name = self._names[index]
            self._source = self._location.stream(name) if self._streaming else pa.OSFile(str(self._file(index)))
            self._open_table, self._table_index = open_table(Path(name), self._source), index
        return self._open_table

    def _file(self, index: int) -> Path:
        """Return the complete file on this disk, and begin to fetch the next one if it will be read, too."""
        self._fetch(index)
        path = self._fetched.pop(index).result()
        if index + 1 < len(self._names) and self._last >= self._ends[index]:
            self._fetch(index + 1)
        return path

    def _fetch(self, index: int) -> None:
        if index not in self._fetched:
            self._fetched[index] = self._fetcher.submit(self._location.local, self._names[index])

    def _close_file(self) -> None:
        if self._source is not None:
            self._source.close()
        self._source = self._open_table = None


def read_ahead(
    read: Callable[[Item], Read], items: Iterable[Item], num_ahead: int
) -> Generator[tuple[Item, Read], None, None]:
    """Yield each item with the result of `read`, in order, computed by one thread ahead of the caller.

    The thread starts with the first result and ends with the iterator, even if that is closed or collected early.
    An exception of `read` is raised when its result is due.

    Args:
        read: Called in the thread, for one item at a time.
        items: What to read.
        num_ahead: Results that may wait, at least 1.
    """
    waiting: deque[tuple[Item, Future[Read]]] = deque()
    with ThreadPoolExecutor(1, "read-labels") as reader:
        try:
            for item in items:
                waiting.append((item, reader.submit(read, item)))
                if len(waiting) > num_ahead:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            reader.shutdown(cancel_futures=True)


def _first(waiting: "deque[tuple[Item, Future[Read]]]") -> tuple[Item, Read]:
    item, future = waiting.popleft()
    try:
        return item, future.result()
    finally:
        del future  # its exception has a traceback that refers to it: workers would wait for the collector


def _label_files(location: Location) -> list[str]:
    """Return the table's files by the manifest, in row order; refuse a gap."""
    names = table_names(location.manifest, LABELS_FOLDER)
    expected = [f"{LABELS_FOLDER}/train-{index:05d}-of-{len(names):05d}.parquet" for index in range(len(names))]
    if not names or names != expected:
        raise ArtifactError(
            f"{location.name} has {', '.join(names) or 'no soft labels'}, expected all files of a numbered set;"
            " fetch the artifact again"
        )
    return names
