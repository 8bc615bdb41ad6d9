"""Rows of an artifact's tables as they are stored, to be put into another table or written to other files."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.reading import (
    Arrays,
    image_row_bytes,
    open_table,
    read_label_columns,
    reading,
    require_group_size,
    require_schema,
    table_files,
)
from fadrm_hf.artifact.row_checks import bad_rows
from fadrm_hf.artifact.tables import label_names
from fadrm_hf.builders.images import image_features
from fadrm_hf.errors import ArtifactError
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER

_GROUPS_IN_MEMORY = 32  # of a hundred images each; rows that follow each other in one table were near in the other


class StoredImages:
    """Rows of an images table by their numbers; the groups that were read last stay in memory.

    Args:
        folder: The artifact.
        manifest: Its manifest.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._manifest = manifest
        self._tables = {file: open_table(file) for file in table_files(folder, IMAGES_FOLDER)}
        self._groups = [(file, group) for file, table in self._tables.items() for group in range(table.num_row_groups)]
        sizes = [self._tables[file].metadata.row_group(group).num_rows for file, group in self._groups]
        self._ends = np.cumsum(sizes)
        self._group = lru_cache(_GROUPS_IN_MEMORY)(self._read)

    def rows(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> pa.Table:
        """Return the images, as PNG, and source indices of some rows.

        Raises:
            ArtifactError: If a file is damaged, or the table has fewer rows.
        """
        return pa.concat_tables([self._row(int(number)) for number in numbers]).combine_chunks()

    def _row(self, number: int) -> pa.Table:
        index = int(np.searchsorted(self._ends, number, side="right"))
        if index == len(self._groups):
            raise ArtifactError(
                f"{IMAGES_FOLDER}/ has {self._ends[-1]} rows, row {number} is asked for; fetch the artifact again"
            )
        first = int(self._ends[index - 1]) if index else 0
        return self._group(index).slice(number - first, 1)

    def _read(self, index: int) -> pa.Table:
        file, group = self._groups[index]
        table = self._tables[file]
        require_schema(file, table, image_features(label_names(self._manifest.class_map)))
        require_group_size(file, table, group, image_row_bytes(self._manifest))
        with reading(file, f"row group {group}"):
            return table.read_row_group(group, ["image", "source_index"])


def stored_epochs(folder: Path, manifest: Manifest) -> Iterator[Arrays]:
    """Yield the columns of each stored epoch of labels; one is in memory at a time.

    Args:
        folder: The folder that `soft_labels/` is in.
        manifest: The artifact's manifest.

    Raises:
        ArtifactError: If a file is damaged, or a row is no view of the images.
    """
    epoch = 0
    for file in table_files(folder, LABELS_FOLDER):
        table = open_table(file)
        for group in range(table.num_row_groups):
            columns = read_label_columns(file, table, group, manifest)
            for row, why in bad_rows(columns, epoch, manifest):
                raise ArtifactError(
                    f"{LABELS_FOLDER}/{file.name}, epoch {epoch}, row {row}: {why}; fetch the artifact again"
                )
            yield columns
            epoch += 1
