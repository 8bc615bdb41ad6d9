"""Noise to start from: no real image at all (SRe2L, CDA, G-VBSM)."""

import torch
from torch import Tensor

from fadrm_hf.data.sources import Source
from fadrm_hf.recovery.patches.patches import Patches
from fadrm_hf.runtime.randomness import generator


def noise_start(label: int, ipc_index: int, size: int, seed: int) -> Tensor:
    """What the recovery of one image begins from: (3, size, size) float32, N(0, 1) in normalised space.

    Each image has its own generator, so images may be drawn in any grouping.
    """
    return torch.randn((3, size, size), generator=generator(seed, "noise", label, ipc_index))


def noise_images(source: Source, classes: range, ipc: int, seed: int) -> Patches:
    """The noise as pixels, for records and pictures: values that no pixel has are clamped. They show no source row."""
    places = [(label, ipc_index) for label in classes for ipc_index in range(ipc)]
    images = torch.stack([source.to_pixels(noise_start(*place, source.size, seed)) for place in places])
    label, ipc_index = torch.tensor(places).unbind(dim=1)
    return Patches(images, label.clone(), ipc_index.clone(), torch.empty((len(places), 0), dtype=torch.int64))
