"""Shannon entropy of the grey levels of images, in bits: the mean, and the sample standard deviation over images."""

from typing import Any, ClassVar

import datasets
import numpy as np
import torch
from PIL.Image import Image

from fadrm_hf.evaluation import metrics
from fadrm_hf.evaluation.scores import pixel_entropy
from fadrm_hf.training.accuracy import summarise


class PixelEntropy(metrics.Score):
    """Pixel entropy.

    Args:
        predictions: images, as `datasets` gives them or as arrays (H, W, 3) uint8.
        bins: bins of the histogram of grey levels, 1 to 256.
    """

    columns: ClassVar[dict[str, Any]] = {"predictions": datasets.Image()}

    def _compute(self, predictions: list[Image], bins: int = 256) -> dict[str, float]:
        values: list[float] = []
        for image in predictions:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
            values += pixel_entropy(pixels[None], bins).tolist()
        summary = summarise(values)
        return {"pixel_entropy": summary["mean"], "std": summary["std"]}
