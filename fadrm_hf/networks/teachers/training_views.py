"""The batches that a teacher is trained on: random crops and flips of real images, and CutMix where asked for.

A batch draws from a generator derived from (seed, epoch, step), so neither the number of workers nor an interruption
changes it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as transforms

from fadrm_hf.config import LARGEST_SMALL_SIZE, SqueezeConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.data.views import draw_mix_box
from fadrm_hf.runtime.randomness import generator

MEMORY_BYTES = 4 << 30  # a decoded training set below this stays in memory
CROP_AREA, CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # RandomResizedCrop's usual ranges


class TrainingViews(Dataset[tuple[Tensor, Tensor]]):
    """The batches of one epoch.

    Args:
        source: The real images.
        pixels: All training images, (N, 3, S, S) uint8 (`pixels_in_memory`), or `None` to decode them as used.
        config: Batch size and augmentation, resolved.
        seed: Seed of the run.
        epoch: Epoch, from 0.
    """

    def __init__(self, source: Source, pixels: Tensor | None, config: SqueezeConfig, seed: int, epoch: int) -> None:
        self._source, self._pixels, self._config = source, pixels, config
        self._key = (seed, "squeeze", epoch)
        self._labels = torch.from_numpy(source.labels("train"))
        order = torch.randperm(len(self._labels), generator=generator(*self._key, "order"))
        batches = order.split(config.batch_size)
        self._batches = batches[:-1] if len(batches[-1]) == 1 < len(batches) else batches  # BatchNorm needs two images

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) float32 normalised views, and their classes: (B,) int64, or (B, C) float32 shares if mixed."""
        indices, rng = self._batches[step], generator(*self._key, "views", step)
        crops = self._pad_crops(indices, rng) if self._config.crop == "pad" else self._resized_crops(indices, rng)
        flipped = torch.rand(len(indices), generator=rng) < self._config.flip_probability
        views = torch.where(flipped[:, None, None, None], crops.flip(-1), crops)
        labels = self._labels[indices]
        if self._config.cutmix:
            views, labels = cutmix(views, labels, len(self._source.class_map), rng)
        return self._source.normalise(views), labels

    def _pad_crops(self, indices: Tensor, rng: torch.Generator) -> Tensor:  # (B, 3, S, S) uint8
        decoded = self._pixels
        images = self._source.pixels("train", indices.tolist()) if decoded is None else decoded[indices]
        return pad_crop(images, self._config.padding, rng)

    def _resized_crops(self, indices: Tensor, rng: torch.Generator) -> Tensor:  # (B, 3, S, S) uint8
        side = self._source.size
        return torch.stack([resized_crop(self._image(index), side, rng) for index in indices.tolist()])

    def _image(self, index: int) -> Tensor:  # (3, H, W) uint8; a large image is cropped from its full resolution
        if self._pixels is not None:
            return self._pixels[index]
        return transforms.pil_to_tensor(self._source.image("train", index))


def pixels_in_memory(source: Source, config: SqueezeConfig) -> Tensor | None:  # (N, 3, S, S) uint8
    """Return all training images decoded, if they fit and crops of them need no higher resolution."""
    count, side = len(source.labels("train")), source.size
    is_enough = side <= LARGEST_SMALL_SIZE or config.crop == "pad"
    return source.pixels("train", range(count)) if is_enough and count * 3 * side**2 < MEMORY_BYTES else None


def cutmix(
    views: Tensor,  # (B, 3, S, S) of any type
    labels: Tensor,  # (B,) int64
    num_classes: int,
    rng: torch.Generator,
) -> tuple[Tensor, Tensor]:  # (B, 3, S, S) of that type, (B, C) float32 that sums to 1 over classes
    """Paste a box of its partner in the batch into every view; labels are shares of pixels (arXiv 1905.04899)."""
    side = views.shape[-1]
    partner = torch.randperm(len(views), generator=rng)
    top, left, height, width = draw_mix_box(side, rng).tolist()
    mixed = views.clone()
    mixed[..., top : top + height, left : left + width] = views[partner, :, top : top + height, left : left + width]
    one_hot, share = F.one_hot(labels, num_classes).float(), height * width / side**2
    return mixed, (1.0 - share) * one_hot + share * one_hot[partner]


def pad_crop(
    images: Tensor,  # (B, 3, S, S) uint8
    padding: int,
    rng: torch.Generator,
) -> Tensor:  # (B, 3, S, S) uint8
    """Cut one random window of each image with `padding` black pixels around it."""
    count, _, side, _ = images.shape
    offsets = torch.randint(2 * padding + 1, (2, count, 1), generator=rng)
    rows, columns = offsets + torch.arange(side)  # (B, S) each
    padded = F.pad(images, [padding] * 4).permute(0, 2, 3, 1)
    windows = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]  # (B, S, S, 3)
    return windows.permute(0, 3, 1, 2)


def resized_crop(
    image: Tensor,  # (3, H, W) uint8
    size: int,
    rng: torch.Generator,
) -> Tensor:  # (3, size, size) uint8
    """Cut a random area of 8 to 100 % of the image with an aspect ratio of 3/4 to 4/3, and resize it."""
    top, left, height, width = crop_box(image.shape[1], image.shape[2], rng)
    return transforms.resized_crop(image, top, left, height, width, [size, size], antialias=True)


def crop_box(height: int, width: int, rng: torch.Generator) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a random crop; the whole image when ten draws do not fit."""
    for _ in range(10):
        area, ratio, vertical, horizontal = torch.rand(4, generator=rng).tolist()
        pixels = height * width * (CROP_AREA[0] + area * (CROP_AREA[1] - CROP_AREA[0]))
        aspect = CROP_RATIO[0] * (CROP_RATIO[1] / CROP_RATIO[0]) ** ratio
        wide, high = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < wide <= width and 0 < high <= height:
            return int(vertical * (height - high + 1)), int(horizontal * (width - wide + 1)), high, wide
    return 0, 0, height, width
