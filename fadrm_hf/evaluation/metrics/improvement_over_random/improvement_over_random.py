"""IOR of DD-Ranking: accuracy gained over random real images under the same labels; more is better."""

import evaluate

from fadrm_hf.evaluation.metrics import accuracy, of_classes
from fadrm_hf.evaluation.scores import improvement_over_random

_INPUTS = """
Args:
    predictions: classes named by a student of the distilled dataset.
    references: the class of each test image.
    random: classes named by a student of as many random real images, labelled and trained alike.
"""


class ImprovementOverRandom(evaluate.Metric):
    """Improvement over random."""

    def _info(self) -> evaluate.MetricInfo:
        return of_classes(__doc__, _INPUTS, "random")

    def _compute(self, predictions: list[int], references: list[int], random: list[int]) -> dict[str, float]:
        distilled, at_random = accuracy(predictions, references), accuracy(random, references)
        return {"improvement_over_random": improvement_over_random(distilled, at_random)}
