"""Pixels of images, and the values that networks take in their place."""

import torch
from torch import Tensor

from fadrm_hf.config import Colour


def normalise(pixels: Tensor, mean: Colour, std: Colour) -> Tensor:
    """Return (pixels / 255 - mean) / std in float32, for (..., 3, H, W) pixels in [0, 255]."""
    centre, scale = torch.tensor([mean, std], device=pixels.device)[:, :, None, None]
    return (pixels.float() / 255 - centre) / scale


def to_pixels(images: Tensor, mean: Colour, std: Colour) -> Tensor:
    """Return (..., 3, H, W) normalised images in uint8, rounded half to even (truncation would darken every image)."""
    centre, scale = torch.tensor([mean, std], device=images.device)[:, :, None, None]
    return ((images * scale + centre) * 255.0).round().clamp(0, 255).to(torch.uint8)
