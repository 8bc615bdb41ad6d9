"""ARS of DD-Ranking: improvement over random with and without augmentation, in [0, 1]; more is better."""

from fadrm_hf.evaluation import metrics
from fadrm_hf.evaluation.scores import augmentation_robust_score, improvement_over_random


class AugmentationRobustScore(metrics.StudentScore):
    """Augmentation-robust score.

    Args:
        predictions: classes named by a student of the distilled dataset, trained with augmentation.
        references: the class of each test image.
        random: classes named by a student of random real images, trained likewise.
        unaugmented: classes named by a student of the distilled dataset, trained without augmentation.
        random_unaugmented: classes named by a student of random real images, trained likewise.
        weight: gamma, the weight of the improvement with augmentation.
    """

    columns = metrics.integers("predictions", "random", "unaugmented", "random_unaugmented")

    @staticmethod
    def score(
        predictions: float, random: float, unaugmented: float, random_unaugmented: float, weight: float = 0.5
    ) -> float:
        """Return ARS."""
        augmented = improvement_over_random(predictions, random)
        plain = improvement_over_random(unaugmented, random_unaugmented)
        return augmentation_robust_score(augmented, plain, weight)
