"""Noise to start from: no real image at all (SRe2L, CDA, G-VBSM)."""

import torch
from torch import Tensor

from fadrm_hf.data.sources import Source
from fadrm_hf.recovery.patches.patches import Patches
from fadrm_hf.runtime.randomness import generator


def noise_start(label: int, ipc_index: int, size: int, seed: int) -> Tensor:
    """Draw what one image begins as: (3, size, size) float32, N(0, 1) in normalised space, in any grouping."""
    return torch.randn((3, size, size), generator=generator(seed, "noise", label, ipc_index))


def noise_images(source: Source, classes: range, ipc: int, seed: int) -> Patches:
    """Draw the noise as pixels, for records and pictures: values that no pixel has are clamped; no row is shown."""
    images_of = [(label, ipc_index) for label in classes for ipc_index in range(ipc)]
    images = torch.stack([source.to_pixels(noise_start(*image, source.size, seed)) for image in images_of])
    label, ipc_index = torch.tensor(images_of).unbind(dim=1)
    return Patches(images, label.clone(), ipc_index.clone(), torch.empty((len(images_of), 0), dtype=torch.int64))
