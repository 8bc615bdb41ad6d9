"""Pixels of images, and the values that networks take in their place."""

from functools import lru_cache

import torch
from torch import Tensor

from fadrm_hf.config import Colour


def normalise(pixels: Tensor, mean: Colour, std: Colour) -> Tensor:
    """Return (pixels / 255 - mean) / std in float32, for (..., 3, H, W) pixels in [0, 255]."""
    centre, scale = _centre_and_scale(mean, std, pixels.device)
    return (pixels.float() / 255 - centre) / scale


def to_pixels(images: Tensor, mean: Colour, std: Colour) -> Tensor:
    """Return (..., 3, H, W) normalised images in uint8, rounded half to even (truncation would darken every image)."""
    centre, scale = _centre_and_scale(mean, std, images.device)
    return ((images * scale + centre) * 255.0).round().clamp(0, 255).to(torch.uint8)


@lru_cache(maxsize=64)
def _centre_and_scale(mean: Colour, std: Colour, device: torch.device) -> Tensor:
    """Return mean and standard deviation, (2, 3, 1, 1): a GPU is sent them once, since the host waits for that."""
    with torch.inference_mode(False):  # whatever the first caller computes, a later one may need gradients
        return torch.tensor([mean, std], device=device)[:, :, None, None]
