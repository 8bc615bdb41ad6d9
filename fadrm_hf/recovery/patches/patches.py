"""Starting images as columns, the pools that they are drawn from, and their mirror images."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fadrm_hf.data.sources import Source
from fadrm_hf.errors import SourceError
from fadrm_hf.runtime.randomness import generator


@dataclass(frozen=True)
class Patches:
    """Starting images of some classes.

    Attributes:
        images: (n, 3, S, S) uint8.
        label: (n,) int64.
        ipc_index: (n,) int64, which of its class's images each is.
        source_index: (n, tiles) int64, rows of the source's training split that each shows, row-major; one tile for a
            whole image, four for a mosaic, none for noise.
    """

    images: Tensor
    label: Tensor
    ipc_index: Tensor
    source_index: Tensor

    @classmethod
    def stack(cls, per_class: dict[int, tuple[Tensor, Tensor]]) -> "Patches":
        """Stack {label: (images (ipc, 3, S, S), source_index (ipc, tiles))}."""
        images = torch.cat([images for images, _ in per_class.values()])
        source_index = torch.cat([index for _, index in per_class.values()])
        label = torch.cat([torch.full((len(images),), k) for k, (images, _) in per_class.items()])
        ipc_index = torch.cat([torch.arange(len(images)) for images, _ in per_class.values()])
        return cls(images, label, ipc_index, source_index)


def rows_of_class(source: Source, label: int, needed: int) -> np.ndarray:
    """Return the training images of a class, (n,) int64, in the source's order; refuse fewer than `needed`."""
    rows = source.rows_by_class[label]
    if len(rows) < needed:
        name = source.class_map.names[label]
        raise SourceError(
            f"class {name!r} has {len(rows)} training images, {needed} are needed per class (ipc x patches.grid^2); "
            f"lower --ipc, or set --patches.grid 1"
        )
    return rows


def draw_pool(source: Source, label: int, pool: int, needed: int, seed: int) -> np.ndarray:
    """Draw random training images of a class, (up to `pool`,) int64; refuse fewer than `needed`."""
    rows = rows_of_class(source, label, needed)
    order = torch.randperm(len(rows), generator=generator(seed, "patch-pool", label))
    return rows[order[:pool].numpy()]


def random_images(source: Source, classes: range, ipc: int, seed: int) -> Patches:
    """Draw `ipc` training images of each class, whole: the baseline every method is compared with."""
    per_class = {}
    for label in classes:
        rows = draw_pool(source, label, ipc, ipc, seed)
        per_class[label] = (source.pixels("train", rows.tolist()), torch.as_tensor(rows)[:, None])
    return Patches.stack(per_class)


def mirror(patches: Patches, probability: float, seed: int) -> Patches:
    """Flip each image left to right with `probability`, each by a separate coin (EDC, arXiv 2404.13733).

    The tiles of a mosaic change sides with it, and so do their rows in `source_index`.
    """
    if probability == 0.0:
        return patches
    images_of = zip(patches.label.tolist(), patches.ipc_index.tolist(), strict=True)
    coins = [torch.rand((), generator=generator(seed, "patch-flip", *image)) for image in images_of]
    flipped = torch.stack(coins) < probability
    images = torch.where(flipped[:, None, None, None], patches.images.flip(3), patches.images)
    grid = round(patches.source_index.shape[1] ** 0.5)
    mirrored = patches.source_index.unflatten(1, (grid, grid)).flip(2).flatten(1)
    return replace(patches, images=images, source_index=torch.where(flipped[:, None], mirrored, patches.source_index))
