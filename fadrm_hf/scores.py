"""What a student's accuracy is and what it is worth. Accuracies are fractions; percentages are for printing.

HLR, IOR and LRS are DD-Ranking's (arXiv 2505.13300), on fractions, so that LRS stays within [0, 1].
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from fadrm_hf.halving import in_halves


def topk_accuracy(logits: Tensor, labels: Tensor, k: int = 1) -> float:
    """Fraction of rows whose label is among the k largest logits.

    Args:
        logits: (n, C).
        labels: (n,) int64.
        k: How many guesses count; more than C counts as C.
    """
    guesses = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (guesses == labels[:, None]).any(dim=1).double().mean().item()


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds (0 for one seed), with the values themselves."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "values": [round(value, 6) for value in values]}


def hard_label_recovery(whole_hard: float, distilled_hard: float) -> float:
    """HLR: what hard labels on the distilled set lose against hard labels on the whole one; less is better."""
    return whole_hard - distilled_hard


def improvement_over_random(distilled: float, random: float) -> float:
    """IOR: what the distilled images gain over random ones under the same labels; more is better."""
    return distilled - random


def label_robust_score(ior: float, hlr: float, weight: float = 0.5) -> float:
    """LRS = (exp(a) - exp(-1)) / (exp(1) - exp(-1)) with a = w IOR - (1 - w) HLR.

    Args:
        ior: Improvement over random.
        hlr: Hard-label recovery.
        weight: w, the weight of IOR.
    """
    balance = weight * ior - (1.0 - weight) * hlr
    return (math.exp(balance) - math.exp(-1.0)) / (math.e - math.exp(-1.0))


@torch.inference_mode()
def predict(module: torch.nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """(n, C) logits, on the CPU, of a network in eval mode over batches of normalised images; its mode is restored."""
    was_training = module.training
    module.eval()
    try:
        return torch.cat([in_halves(module, batch).float() for batch in batches]).cpu()
    finally:
        module.train(was_training)
