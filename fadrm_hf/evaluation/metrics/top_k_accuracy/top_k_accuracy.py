"""Fraction of images whose class is among the k classes that a student thinks likeliest; more is better."""

from typing import Any, ClassVar

import datasets
import torch

from fadrm_hf.errors import ScoreError
from fadrm_hf.evaluation import metrics
from fadrm_hf.training.accuracy import accuracy_of_guesses


class TopKAccuracy(metrics.Score):
    """Top-k accuracy; of a student that was trained with hard labels, the hard-label accuracy.

    Args:
        predictions: classes of each image, the likeliest first, at least k: `logits.topk(5).indices`.
        references: the class of each image.
        k: how many guesses count.
    """

    columns: ClassVar[dict[str, Any]] = {"predictions": datasets.List(metrics.INTEGER), "references": metrics.INTEGER}

    def _compute(self, predictions: list[list[int]], references: list[int], k: int = 1) -> dict[str, float]:
        guesses = torch.tensor(predictions)
        if not 1 <= k <= guesses.shape[1]:
            raise ScoreError(f"k is {k}, expected 1 to {guesses.shape[1]}, the classes that are given of each image")
        return {f"top_{k}_accuracy": accuracy_of_guesses(guesses[:, :k], torch.tensor(references))}
