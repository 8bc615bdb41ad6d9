"""How different the images of a class are to a network: mean cosine distance of pairs, and the Vendi score."""

import datasets
import evaluate
import torch

from fadrm_hf.evaluation.scores import cosine_distance, effective_number

_INPUTS = """
Args:
    predictions: features of each image, as the classifier of a network sees them (`fadrm_hf.evaluation.information`).
    references: the class of each image.
"""
_CITATION = """\
@article{friedman2023vendi,
  title = {The Vendi Score: A Diversity Evaluation Metric for Machine Learning},
  author = {Friedman, Dan and Dieng, Adji Bousso},
  journal = {Transactions on Machine Learning Research},
  year = {2023},
}
"""


class FeatureDiversity(evaluate.Metric):
    """Diversity of features."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        features, labels = torch.tensor(predictions, dtype=torch.float64), torch.tensor(references)
        return {
            "cosine_distance": cosine_distance(features, labels),
            "effective_number": effective_number(features, labels),
        }
