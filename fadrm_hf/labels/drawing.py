"""An epoch of views before it is labelled: its batches, their micro-batches, and one view of every image."""

import torch
from torch import Tensor

from fadrm_hf.config import RelabelConfig
from fadrm_hf.data.views import LabelViews
from fadrm_hf.runtime.randomness import generator


def split_sizes(total: int, size: int) -> list[int]:
    """Return consecutive groups of `size`; the rest is a group of its own, unless it is a single image.

    BatchNorm has no statistics of one image where the feature map is 1 x 1, so a single image joins the group before.
    """
    sizes = [size] * (total // size) + ([total % size] if total % size else [])
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [size + 1]
    return sizes


def micro_batches(total: int, config: RelabelConfig) -> list[int]:
    """Split a batch of `total` views into micro-batches: what one forward pass of teacher or student sees."""
    return split_sizes(total, config.batch_size // config.accumulation)


def draw_epoch(
    num_images: int, size: int, config: RelabelConfig, seed: int, epoch: int
) -> tuple[dict[str, Tensor], LabelViews]:
    """Draw one view of every image, in a random order, batch by batch.

    Args:
        num_images: Rows of the image table.
        size: Side of the images in pixels.
        config: Resolved settings.
        seed: The run's seed; each epoch has its own generator.
        epoch: Which epoch.

    Returns:
        The columns of the soft-label table that need no label, and the views that they hold.
    """
    rng = generator(seed, "relabel", epoch)
    sizes = split_sizes(num_images, config.batch_size)
    law = (config.crop_area, config.flip_probability, config.cutmix, rng, config.shuffle_tiles)
    steps = torch.randperm(num_images, generator=rng).split(sizes)
    views = LabelViews.cat([LabelViews.draw(rows, size, *law) for rows in steps])
    step = torch.arange(len(sizes), dtype=torch.int32).repeat_interleave(torch.tensor(sizes))
    return {"epoch": torch.full_like(step, epoch), "step": step} | views.columns(), views
