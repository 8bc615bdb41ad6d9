"""IOR of DD-Ranking: accuracy gained over random real images under the same labels; more is better."""

from fadrm_hf.evaluation import metrics
from fadrm_hf.evaluation.scores import improvement_over_random


class ImprovementOverRandom(metrics.StudentScore):
    """Improvement over random.

    Args:
        predictions: classes named by a student of the distilled dataset.
        references: the class of each test image.
        random: classes named by a student of as many random real images, labelled and trained alike.
    """

    columns = metrics.integers("predictions", "random")

    @staticmethod
    def score(predictions: float, random: float) -> float:
        """Return IOR."""
        return improvement_over_random(predictions, random)
