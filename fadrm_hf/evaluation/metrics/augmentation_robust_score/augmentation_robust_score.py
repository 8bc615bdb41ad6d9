"""ARS of DD-Ranking: improvement over random with and without augmentation, in [0, 1]; more is better."""

import evaluate

from fadrm_hf.evaluation.metrics import accuracy, of_classes
from fadrm_hf.evaluation.scores import augmentation_robust_score, improvement_over_random

_INPUTS = """
Args:
    predictions: classes named by a student of the distilled dataset, trained with augmentation.
    references: the class of each test image.
    random: classes named by a student of random real images, trained likewise.
    unaugmented: classes named by a student of the distilled dataset, trained without augmentation.
    random_unaugmented: classes named by a student of random real images, trained likewise.
    weight: gamma, the weight of the improvement with augmentation.
"""


class AugmentationRobustScore(evaluate.Metric):
    """Augmentation-robust score."""

    def _info(self) -> evaluate.MetricInfo:
        return of_classes(__doc__, _INPUTS, "random", "unaugmented", "random_unaugmented")

    def _compute(
        self,
        predictions: list[int],
        references: list[int],
        random: list[int],
        unaugmented: list[int],
        random_unaugmented: list[int],
        weight: float = 0.5,
    ) -> dict[str, float]:
        students = (predictions, random, unaugmented, random_unaugmented)
        distilled, at_random, plain, plain_random = (accuracy(guessed, references) for guessed in students)
        augmented = improvement_over_random(distilled, at_random)
        unaugmented_gain = improvement_over_random(plain, plain_random)
        return {"augmentation_robust_score": augmentation_robust_score(augmented, unaugmented_gain, weight)}
