"""The soft labels of the images that stay when an artifact is edited.

Views of images that go are left out, and the batches of an epoch are cut anew from what is left. A view that another
image was mixed into that goes is shown unmixed. A label stays if it still belongs to what a student will see: its view
alone, where teachers used running statistics; the same views in the same batch, where they used those of the batch.
All others are made again by the artifact's own teachers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.reading import Arrays
from fadrm_hf.artifact.stored_rows import stored_epochs
from fadrm_hf.builders.soft_labels import VIEW_FEATURES, label_features, label_table
from fadrm_hf.config import RelabelConfig
from fadrm_hf.data.views import LabelViews
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.labels.drawing import split_sizes
from fadrm_hf.labels.relabel import Labeller
from fadrm_hf.pipeline.kept_images import Kept, Rows
from fadrm_hf.runtime.randomness import generator

Flags = npt.NDArray[np.bool_]

_OF_PARTNER = ("mix_crop", "mix_flip", "mix_box")


@dataclass
class LabelCount:
    """What became of the stored views.

    Attributes:
        views: Views of images that stay.
        dropped: Views of images that go.
        unmixed: Views that had an image mixed in that goes, and show none now.
        labelled: Views that were labelled again.
    """

    views: int = 0
    dropped: int = 0
    unmixed: int = 0
    labelled: int = 0


@dataclass(frozen=True, eq=False)
class Part:
    """One artifact that an edit takes labels from.

    Attributes:
        labels: The folder that its `soft_labels/` is in.
        manifest: Its manifest.
        kept: Which of its images stay.
    """

    labels: Path
    manifest: Manifest
    kept: Kept


@dataclass(frozen=True, eq=False)
class _Epoch:
    """Rows of one epoch in a new order.

    Attributes:
        columns: As they are stored, but for `step`.
        origin: (n,) int64, which stored batch each row is from.
        size: (n,) int64, how many views that batch had.
        lost: (n,) whether the image that was mixed in goes.
    """

    columns: Arrays
    origin: Rows
    size: Rows
    lost: Flags

    def __getitem__(self, rows: Rows | Flags) -> "_Epoch":
        columns = {name: column[rows] for name, column in self.columns.items()}
        return _Epoch(columns, self.origin[rows], self.size[rows], self.lost[rows])


class KeptLabels:
    """The label table of an edited artifact.

    Args:
        parts: Where its labels come from; several have the same classes, codec, epochs and teachers.
        manifest: What it will say.
        images: Returns the edited images, (N, 3, S, S) uint8; called if there is anything to label.
        labeller: Returns the teachers; called if there is anything to label.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        manifest: Manifest,
        images: Callable[[], torch.Tensor],
        labeller: Callable[[], Labeller],
    ) -> None:
        self._parts, self._manifest, self._read_images, self._load_labeller = parts, manifest, images, labeller
        self._relabel = manifest.settings("relabel", RelabelConfig)
        self._codec = find_codec(manifest.label_codec)
        self._sizes = split_sizes(manifest.num_images, self._relabel.batch_size)
        self.features = label_features(manifest.label_codec, len(manifest.class_map))
        self.count = LabelCount()

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of each epoch; one is in memory at a time."""
        stored = [stored_epochs(part.labels, part.manifest) for part in self._parts]
        for columns in zip(*stored, strict=True):
            epoch = self._ordered([_kept(c, p, i) for i, (c, p) in enumerate(zip(columns, self._parts, strict=True))])
            self.count.views += len(epoch.origin)
            self.count.dropped += sum(len(part["image"]) for part in columns) - len(epoch.origin)
            self.count.unmixed += int(epoch.lost.sum())
            yield self._table(epoch)

    def require_teachers(self) -> None:
        """Load the teachers; see `recorded_labeller` for what it raises."""
        assert self._labeller is not None

    @cached_property
    def _labeller(self) -> Labeller:
        return self._load_labeller()

    @cached_property
    def _images(self) -> torch.Tensor:
        return self._read_images()

    @cached_property
    def _classes(self) -> list[int] | None:
        """Which stored logits stay; `None` for all."""
        kept = self._parts[0].kept.classes
        return None if len(kept) == len(self._parts[0].manifest.class_map) else list(kept)

    @property
    def _several_scaled(self) -> bool:
        """Whether logits of several teachers were scaled by norms over all classes and views of a batch."""
        config, num = self._relabel, len(self._manifest.teachers)
        return config.ensemble == "frobenius" and min(config.num_teachers or num, num) > 1

    def _ordered(self, parts: Sequence[_Epoch]) -> _Epoch:
        """Join the rows of an epoch: batches of which nothing went come first, those of several artifacts shuffled."""
        columns = {name: np.concatenate([p.columns[name] for p in parts]) for name in parts[0].columns}
        joined = _Epoch(
            columns,
            np.concatenate([part.origin for part in parts]),
            np.concatenate([part.size for part in parts]),
            np.concatenate([part.lost for part in parts]),
        )
        batches, first, place, num_left = np.unique(joined.origin, True, True, True)
        num_lost = np.bincount(place, weights=joined.lost, minlength=len(batches))
        is_full = joined.size[first] == self._relabel.batch_size
        is_whole = is_full & (num_left == joined.size[first]) & (num_lost == 0)
        rank = np.arange(len(batches))
        if len(parts) > 1:
            rng = generator(self._manifest.seeds.get("run", 0), "edit", int(columns["epoch"][0]))
            rank = torch.randperm(len(batches), generator=rng).numpy()
        return joined[np.lexsort((rank[place], ~is_whole[place]))]

    def _to_label(self, epoch: _Epoch) -> Flags:
        """Return (n,) which rows need another label."""
        none = np.zeros(len(epoch.origin), dtype=bool)
        if not self._codec.has_logits:
            return none
        if self._classes is not None and (self._codec.is_lossy or self._several_scaled):
            return ~none  # codes of all classes cannot be cut; norms were taken over all of them
        if not (self._relabel.batch_statistics or self._several_scaled):
            return epoch.lost
        batches = np.split(np.arange(len(none)), np.cumsum(self._sizes)[:-1])
        for rows in batches:
            is_same = (epoch.origin[rows] == epoch.origin[rows[0]]).all() and epoch.size[rows[0]] == len(rows)
            none[rows] = not is_same or epoch.lost[rows].any()
        return none

    def _table(self, epoch: _Epoch) -> pa.Table:
        """Return the rows of an epoch with their new steps and labels."""
        columns = {name: epoch.columns[name] for name in VIEW_FEATURES}
        columns["step"] = np.repeat(np.arange(len(self._sizes), dtype=np.int32), self._sizes)
        if self._codec.has_logits:
            columns |= self._labels(epoch, self._to_label(epoch))
        return label_table({name: torch.from_numpy(column) for name, column in columns.items()}, self.features)

    def _labels(self, epoch: _Epoch, to_label: Flags) -> dict[str, npt.NDArray[Any]]:
        """Return the codec's columns: as they were stored, of the classes that stay, or made again."""
        names = list(self._codec.features(len(self._manifest.class_map)))
        if self._classes is not None and self._codec.is_lossy:
            columns: dict[str, npt.NDArray[Any]] = {}
        else:
            columns = {name: epoch.columns[name] for name in names}
            if self._classes is not None:
                columns["logits"] = columns["logits"][:, self._classes]
        rows, done = np.flatnonzero(to_label), 0
        for block in self._made_again(epoch, rows):
            for name, values in self._codec.encode(block).items():
                shape = (len(to_label), *values.shape[1:])
                column = columns.setdefault(name, np.empty(shape, values.numpy().dtype))
                column[rows[done : done + len(values)]] = values.numpy()
            done += len(block)
        self.count.labelled += done
        return columns

    def _made_again(self, epoch: _Epoch, rows: Rows) -> Iterator[torch.Tensor]:
        """Yield the logits (n, C) that the teachers give for some rows, batch by batch."""
        if not len(rows):
            return
        views = {name: torch.from_numpy(epoch.columns[name][rows]) for name in VIEW_FEATURES}
        place = np.searchsorted(np.cumsum(self._sizes), rows, side="right")
        sizes = np.unique(place, return_counts=True)[1].tolist()  # whole batches where labels depend on them
        yield from self._labeller.label_steps(self._images, LabelViews.from_columns(views), sizes)


def _kept(columns: Arrays, part: Part, index: int) -> _Epoch:
    """Return the rows of the images that stay; the image that was mixed in is taken out where it goes."""
    new_rows, num_steps = part.kept.new_rows, int(columns["step"][-1]) + 1
    sizes = np.bincount(columns["step"], minlength=num_steps)
    image = new_rows[columns["image"]]
    partner = np.where(columns["mix_image"] >= 0, new_rows[columns["mix_image"]], -1)
    lost = (columns["mix_image"] >= 0) & (partner < 0)
    changed = dict(columns) | {"image": image.astype(np.int32), "mix_image": partner.astype(np.int32)}
    for name in _OF_PARTNER:
        changed[name] = columns[name].copy()
        changed[name][lost] = 0
    step = columns["step"].astype(np.int64)
    return _Epoch(changed, step + (index << 32), sizes[step], lost)[image >= 0]
