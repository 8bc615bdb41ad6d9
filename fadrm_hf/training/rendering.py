"""The views of training steps, rendered: step by step on a CPU, many steps at once on a GPU.

A step of 16 small views is far less work for a GPU than the sixty operations that draw it are for the host. So there
the views of successive steps are drawn together and handed out step by step. They are the same bit for bit, since
rendering looks at each view by itself.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fadrm_hf.artifact.reading import Arrays
from fadrm_hf.builders.soft_labels import VIEW_FEATURES
from fadrm_hf.config import Colour
from fadrm_hf.data.image_table import ImageTable
from fadrm_hf.data.pixels import normalise
from fadrm_hf.data.views import LabelViews, render_views
from fadrm_hf.labels.codecs import LabelCodec
from fadrm_hf.runtime.transfer import send
from fadrm_hf.training.batch import Batch, split

if TYPE_CHECKING:
    from fadrm_hf.labels.relabel import Labeller

_BLOCK_PIXELS = 1 << 21  # of a block's views: 2,048 of 32 px, or 41 of 224 px; 25 MB, and some times as much meanwhile


class Rendering(Dataset[Batch]):
    """A map from the stored columns of a step to its batch on a device; workers share the steps.

    Args:
        images: (N, 3, S, S) uint8 on the CPU.
        labels: (N,) int64 on the CPU.
        normalisation: Channel means and standard deviations.
        is_mixed: Whether views are mixed as they were labelled.
        codec: Decodes the logits; `None`: there are none.
        num_classes: Of the logits.
        device: Where views are rendered, and the batch is.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        normalisation: tuple[Colour, Colour],
        is_mixed: bool,
        codec: LabelCodec | None,
        num_classes: int,
        device: torch.device,
    ) -> None:
        self._images = images if device.type == "cpu" else ImageTable([images]).to(device)
        self._labels, self._normalisation, self._is_mixed = labels, normalisation, is_mixed
        self._codec, self._num_classes, self._device = codec, num_classes, device

    def __getitem__(self, columns: Arrays) -> Batch:
        views = LabelViews.from_columns({name: torch.from_numpy(columns[name]) for name in VIEW_FEATURES})
        views = views if self._is_mixed else views.unmixed()
        images = normalise(render_views(self._images, views), *self._normalisation)
        labels = self._labels[views.image]
        mix_labels = self._labels[torch.where(views.mix_image >= 0, views.mix_image, views.image)]
        shares = views.mix_shares(images.shape[-1])
        return Batch(images, *send([labels, self._logits(columns), mix_labels, shares], self._device))

    @property
    def block_size(self) -> int:
        """The number of views that a GPU renders at once."""
        return _BLOCK_PIXELS // self._images.shape[-1] ** 2

    def _logits(self, columns: Arrays) -> Tensor:
        if self._codec is None:
            return torch.empty((len(columns["image"]), 0))
        return torch.from_numpy(self._codec.decode(columns, self._num_classes))


def render_blocks(rendering: Rendering, steps: Iterator[Arrays], labeller: "Labeller | None") -> Iterator[Batch]:
    """Yield the batch of each step, made together with those of the steps after it.

    Args:
        rendering: Of a GPU.
        steps: The columns of each step.
        labeller: The teachers, if labels are made now; it sees each step's micro-batches as it would see them alone.
    """
    for block in _blocks(steps, rendering.block_size):
        sizes = [len(step["image"]) for step in block]
        whole = rendering[{name: np.concatenate([step[name] for step in block]) for name in block[0]}]
        if labeller is not None:
            # A clone, since tensors made in inference mode cannot be used in a loss.
            whole = whole._replace(logits=labeller.label_rendered(whole.images, sizes).clone())
        images = whole.images.contiguous(memory_format=torch.channels_last)  # once, as convolutions prefer them
        yield from split(whole._replace(images=images), sizes)


def _blocks(steps: Iterator[Arrays], most: int) -> Iterator[list[Arrays]]:
    """Group consecutive steps that have at most so many views together; a larger one is by itself."""
    block: list[Arrays] = []
    for step in steps:
        if block and sum(len(one["image"]) for one in (*block, step)) > most:
            yield block
            block = []
        block.append(step)
    if block:
        yield block
