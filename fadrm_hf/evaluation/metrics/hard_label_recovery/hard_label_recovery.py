"""HLR of DD-Ranking: accuracy that hard labels lose on a distilled dataset against the whole; less is better."""

from fadrm_hf.evaluation import metrics
from fadrm_hf.evaluation.scores import hard_label_recovery


class HardLabelRecovery(metrics.StudentScore):
    """Hard-label recovery.

    Args:
        predictions: classes named by a student of the distilled dataset with hard labels.
        references: the class of each test image.
        whole: classes named by a student of the whole dataset with hard labels.
    """

    columns = metrics.integers("predictions", "whole")

    @staticmethod
    def score(predictions: float, whole: float) -> float:
        """Return HLR."""
        return hard_label_recovery(whole, predictions)
