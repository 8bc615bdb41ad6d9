"""Diversity of the images of a class to a network: mean cosine distance of pairs, and the Vendi score."""

from typing import Any, ClassVar

import torch

from fadrm_hf.evaluation import metrics
from fadrm_hf.evaluation.scores import cosine_distance, effective_number


class FeatureDiversity(metrics.Score):
    """Diversity of features.

    Args:
        predictions: features of each image, as a network's classifier is given them
            (`fadrm_hf.networks.features`).
        references: the class of each image.
    """

    columns: ClassVar[dict[str, Any]] = {"predictions": metrics.FEATURES, "references": metrics.INTEGER}
    paper = """\
@article{friedman2023vendi,
  title = {The Vendi Score: A Diversity Evaluation Metric for Machine Learning},
  author = {Friedman, Dan and Dieng, Adji Bousso},
  journal = {Transactions on Machine Learning Research},
  year = {2023},
}
"""

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        features, labels = torch.tensor(predictions, dtype=torch.float64), torch.tensor(references)
        return {
            "cosine_distance": cosine_distance(features, labels),
            "effective_number": effective_number(features, labels),
        }
