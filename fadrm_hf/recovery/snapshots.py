"""Snapshots of images along their optimisation, for curves of information density (FADRM, Fig. 3)."""

import torch
from torch import Tensor

from fadrm_hf.data.sources import Source
from fadrm_hf.recovery.recover import resample
from fadrm_hf.runtime.run_folder import SNAPSHOTS, WorkFolder


class Snapshots:
    """A callback of recovery that keeps images at the beginning and at the end of every run of the loop.

    Two that follow each other at one iteration are before and after what a method does in between: FADRM's residual.
    They are kept of one shard, at the artifact's resolution, as bytes: 2 (k + 1) times its images for k residuals.

    Args:
        work: Where they are kept.
        source: Normalisation and size.
    """

    def __init__(self, work: WorkFolder, source: Source) -> None:
        self._work, self._source, self._num = work, source, 0

    def __call__(self, iteration: int, images: Tensor) -> None:
        """Keep a snapshot of images (B, 3, s, s) float32, normalised, after so many iterations."""
        pixels = self._source.to_pixels(resample(images, self._source.size).cpu())
        self._work.save(SNAPSHOTS, f"{self._num:05d}", {"images": pixels, "iteration": torch.tensor(iteration)})
        self._num += 1
