"""Shannon entropy of how images activate a network's features, in bits: mean, and sample deviation over images."""

from typing import Any, ClassVar

import torch

from fadrm_hf.evaluation import metrics
from fadrm_hf.evaluation.scores import feature_entropy
from fadrm_hf.training.accuracy import summarise


class FeatureEntropy(metrics.Score):
    """Feature entropy.

    Args:
        predictions: features of each image, as a network's classifier is given them
            (`fadrm_hf.networks.features`).
    """

    columns: ClassVar[dict[str, Any]] = {"predictions": metrics.FEATURES}

    def _compute(self, predictions: list[list[float]]) -> dict[str, float]:
        summary = summarise(feature_entropy(torch.tensor(predictions, dtype=torch.float64)).tolist())
        return {"feature_entropy": summary["mean"], "std": summary["std"]}
