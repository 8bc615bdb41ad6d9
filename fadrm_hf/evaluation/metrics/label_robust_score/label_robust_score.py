"""LRS of DD-Ranking: improvement over random against hard-label recovery, in [0, 1]; more is better."""

import evaluate

from fadrm_hf.evaluation.metrics import accuracy, of_classes
from fadrm_hf.evaluation.scores import hard_label_recovery, improvement_over_random, label_robust_score

_INPUTS = """
Args:
    predictions: classes named by a student of the distilled dataset.
    references: the class of each test image.
    random: classes named by a student of random real images, labelled and trained alike.
    hard: classes named by a student of the distilled dataset with hard labels.
    whole: classes named by a student of the whole dataset with hard labels.
    weight: w, the weight of the improvement over random.
"""


class LabelRobustScore(evaluate.Metric):
    """Label-robust score."""

    def _info(self) -> evaluate.MetricInfo:
        return of_classes(__doc__, _INPUTS, "random", "hard", "whole")

    def _compute(
        self,
        predictions: list[int],
        references: list[int],
        random: list[int],
        hard: list[int],
        whole: list[int],
        weight: float = 0.5,
    ) -> dict[str, float]:
        named = (predictions, random, whole, hard)
        distilled, at_random, on_whole, on_hard = (accuracy(guessed, references) for guessed in named)
        ior, hlr = improvement_over_random(distilled, at_random), hard_label_recovery(on_whole, on_hard)
        return {"label_robust_score": label_robust_score(ior, hlr, weight)}
