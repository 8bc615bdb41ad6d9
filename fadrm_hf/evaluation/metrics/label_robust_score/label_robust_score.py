"""LRS of DD-Ranking: improvement over random against hard-label recovery, in [0, 1]; more is better."""

from fadrm_hf.evaluation import metrics
from fadrm_hf.evaluation.scores import hard_label_recovery, improvement_over_random, label_robust_score


class LabelRobustScore(metrics.StudentScore):
    """Label-robust score.

    Args:
        predictions: classes named by a student of the distilled dataset.
        references: the class of each test image.
        random: classes named by a student of random real images, labelled and trained alike.
        hard: classes named by a student of the distilled dataset with hard labels.
        whole: classes named by a student of the whole dataset with hard labels.
        weight: w, the weight of the improvement over random.
    """

    columns = metrics.integers("predictions", "random", "hard", "whole")

    @staticmethod
    def score(predictions: float, random: float, hard: float, whole: float, weight: float = 0.5) -> float:
        """Return LRS."""
        ior, hlr = improvement_over_random(predictions, random), hard_label_recovery(whole, hard)
        return label_robust_score(ior, hlr, weight)
