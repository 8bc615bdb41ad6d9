"""Shannon entropy of how images activate a network's features, in bits: mean, and sample deviation over images."""

import datasets
import evaluate
import torch

from fadrm_hf.evaluation.scores import feature_entropy
from fadrm_hf.training.accuracy import summarise

_INPUTS = """
Args:
    predictions: features of each image, as the classifier of a network sees them (`fadrm_hf.evaluation.information`).
"""


class FeatureEntropy(evaluate.Metric):
    """Feature entropy."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.List(datasets.Value("float64"))}),
        )

    def _compute(self, predictions: list[list[float]]) -> dict[str, float]:
        summary = summarise(feature_entropy(torch.tensor(predictions, dtype=torch.float64)).tolist())
        return {"feature_entropy": summary["mean"], "std": summary["std"]}
