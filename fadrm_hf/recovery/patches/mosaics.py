"""Mosaics: several real images in the pixels of one."""

import torch
import torch.nn.functional as F
from torch import Tensor


def compose_mosaics(tiles: Tensor, num: int, grid: int) -> Tensor:
    """Paste ranked tiles into `num` images, row-major; image i shows ranks i, i + num, i + 2 num, ... (RDED).

    Args:
        tiles: (num * grid * grid, C, side, side), best first.
        num: Number of images.
        grid: Tiles per row and column.

    Returns:
        (num, C, grid * side, grid * side).
    """
    channels, side = tiles.shape[1], tiles.shape[2]
    cells = tiles.view(grid, grid, num, channels, side, side)
    return cells.permute(2, 3, 0, 4, 1, 5).reshape(num, channels, grid * side, grid * side)


def fill_border(images: Tensor, size: int) -> Tensor:
    """Repeat the border of mosaics of an odd size: (n, 3, s, s) uint8 -> (n, 3, size, size)."""
    missing = size - images.shape[-1]
    if missing == 0:
        return images
    return F.pad(images.float(), (0, missing, 0, missing), mode="replicate").to(torch.uint8)


def rows_of_mosaics(rows: Tensor, num: int) -> Tensor:
    """Return the source rows (num * tiles,) of ranked tiles as `compose_mosaics` shows them: (num, tiles)."""
    return rows.view(-1, num).T.contiguous()
