"""Real starting images P_s: crops scored by a teacher and selected, whole or in mosaics of four.

FADRM starts from "real data patches (both 1x1 and 2x2 [RDED])" (Fig. 2) and mixes them in again. Neither the paper nor
the released code says how they were chosen. Here, after RDED (arXiv 2312.03526) and the "medium" images of
arXiv 2411.19946: up to `pool` images of a class, some random crops of each, the crop with the lowest cross-entropy
stands for its image, and of the images ranked by that score the easiest, the ones around the median, or the hardest
are kept. With `difficulty="easy"` this is the whole synthesis of RDED (LINs-lab/RDED at 3f6453d), which besides draws
without a seed, truncates pixels, and refuses a class that is smaller than its pool.
"""

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from fadrm_hf.config import PatchConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.networks.teachers import Teacher, require_finite
from fadrm_hf.recovery.patches.mosaics import compose_mosaics, fill_border, rows_of_mosaics
from fadrm_hf.recovery.patches.patches import Patches, draw_pool
from fadrm_hf.runtime.out_of_memory import in_halves
from fadrm_hf.runtime.randomness import generator

SCORE_BATCH = 100
CUT_TOGETHER = 400  # crops in memory at once, so that threads have something to share


def select_patches(
    source: Source, scorer: Teacher, classes: range, ipc: int, config: PatchConfig, seed: int, device: torch.device
) -> Patches:
    """Score crops of each class by `scorer`'s cross-entropy and keep `ipc` patches; see `starting_images`."""
    return Patches.stack({label: _select(source, scorer, label, ipc, config, seed, device) for label in classes})


def order_by_difficulty(scores: Tensor, difficulty: str) -> Tensor:
    """Rank images of one class.

    Args:
        scores: (n,) cross-entropies.
        difficulty: "easy": ascending; "hard": descending; "medium": from the median outwards, alternating between the
            harder and the easier side (0, +1, -1, +2, -2, ...).

    Returns:
        (n,) int64 permutation, best candidate first. Any prefix of it is nested in a longer one.
    """
    ascending = scores.argsort(stable=True)
    if difficulty == "easy":
        return ascending
    if difficulty == "hard":
        return ascending.flip(0)
    distance = torch.arange(len(scores)) - len(scores) // 2
    outwards = (2 * distance.abs() - (distance > 0).long()).argsort(stable=True)
    return ascending[outwards]


def _select(
    source: Source, scorer: Teacher, label: int, ipc: int, config: PatchConfig, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the patches of one class, (ipc, 3, S, S) uint8, and their rows (ipc, tiles)."""
    needed = ipc * config.grid**2
    rows = torch.as_tensor(draw_pool(source, label, max(config.pool, needed), needed, seed))
    draws = _draw_crops(len(rows), config.crops_per_image, generator(seed, "patch-crops", label))
    together = max(1, CUT_TOGETHER // config.crops_per_image)
    best = [
        _best_crops(source, scorer, part, crops_of_part, label, config, device)
        for part, crops_of_part in zip(rows.split(together), draws.split(together), strict=True)
    ]
    scores, crops = (torch.cat(parts) for parts in zip(*best, strict=True))
    chosen = order_by_difficulty(scores, config.difficulty)[:needed]
    images = compose_mosaics(crops[chosen], ipc, config.grid)
    return fill_border(images, source.size), rows_of_mosaics(rows[chosen], ipc)


def _draw_crops(num_images: int, crops_per_image: int, rng: torch.Generator) -> Tensor:
    """Draw (n, crops, 3) float64 in [0, 1): the size of each crop, and its place down and across."""
    draws = [torch.rand(3, dtype=torch.float64, generator=rng) for _ in range(num_images * crops_per_image)]
    return torch.stack(draws).view(num_images, crops_per_image, 3)


def _best_crops(
    source: Source, scorer: Teacher, rows: Tensor, draws: Tensor, label: int, config: PatchConfig, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the lowest cross-entropy (n,) among each image's crops, and that crop (n, 3, side, side) uint8."""
    side = source.size // config.grid
    crops = torch.empty((*draws.shape[:2], 3, side, side), dtype=torch.uint8)

    def crop(index: int, image: Image) -> None:
        crops[index] = _cut(transforms.pil_to_tensor(image), draws[index], side, config.crop_area)

    source.each("train", rows.tolist(), crop)
    scores = _cross_entropy(scorer, source, crops.flatten(0, 1), label, device).view(crops.shape[:2])
    lowest, best = scores.min(dim=1)
    return lowest, crops[torch.arange(len(rows)), best]


def _cut(image: Tensor, draws: Tensor, side: int, area: tuple[float, float]) -> Tensor:
    """Cut (crops, 3, side, side) uint8 square crops of one source image (3, H, W) at its native resolution."""
    height, width = image.shape[1:]
    low, high = area
    # No further than the largest square that fits: the same distribution as RDED's, which draws again what does not.
    high = max(low, min(high, min(height, width) ** 2 / (height * width)))
    crops = []
    for share, vertical, horizontal in draws.tolist():
        length = round(((low + share * (high - low)) * height * width) ** 0.5)
        length = max(1, min(length, height, width))
        top = int(vertical * (height - length + 1))
        left = int(horizontal * (width - length + 1))
        crops.append(transforms.resized_crop(image, top, left, length, length, [side, side], antialias=True))
    return torch.stack(crops)


@torch.inference_mode()
def _cross_entropy(scorer: Teacher, source: Source, crops: Tensor, label: int, device: torch.device) -> Tensor:
    """Return -log p(label) of each crop, (n,); a tile smaller than the image is padded with the mean colour (RDED)."""
    margin = source.size - crops.shape[-1]
    low = margin // 2
    padding = (low, margin - low, low, margin - low)
    batches = (F.pad(source.normalise(chunk).to(device), padding) for chunk in crops.split(SCORE_BATCH))
    logits = torch.cat([in_halves(scorer.module, batch) for batch in batches])
    require_finite(scorer.name, logits, f"logits of crops of class {label}")
    return F.cross_entropy(logits, torch.full((len(logits),), label, device=device), reduction="none").cpu()
