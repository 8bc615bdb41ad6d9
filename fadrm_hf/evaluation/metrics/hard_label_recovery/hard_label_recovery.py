"""HLR of DD-Ranking: accuracy that hard labels lose on a distilled dataset against the whole; less is better."""

import evaluate

from fadrm_hf.evaluation.metrics import accuracy, of_classes
from fadrm_hf.evaluation.scores import hard_label_recovery

_INPUTS = """
Args:
    predictions: classes named by a student of the distilled dataset with hard labels.
    references: the class of each test image.
    whole: classes named by a student of the whole dataset with hard labels.
"""


class HardLabelRecovery(evaluate.Metric):
    """Hard-label recovery."""

    def _info(self) -> evaluate.MetricInfo:
        return of_classes(__doc__, _INPUTS, "whole")

    def _compute(self, predictions: list[int], references: list[int], whole: list[int]) -> dict[str, float]:
        on_whole, distilled = accuracy(whole, references), accuracy(predictions, references)
        return {"hard_label_recovery": hard_label_recovery(on_whole, distilled)}
