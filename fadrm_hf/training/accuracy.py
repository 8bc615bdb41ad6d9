"""A student's predictions, its accuracy as a fraction, and the mean over seeds."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fadrm_hf.errors import ScoreError
from fadrm_hf.runtime.number_format import rounding_products
from fadrm_hf.runtime.out_of_memory import in_halves


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of one model on test images.

    Attributes:
        top1: The fraction of images whose class has the largest logit.
        top5: The fraction of images whose class is among the five largest logits.
        num_images: How many images there were.
        on_training_images: True if they were training images, as the source has no others.
    """

    top1: float
    top5: float
    num_images: int
    on_training_images: bool = False

    def __str__(self) -> str:
        kind = "training" if self.on_training_images else "test"
        return f"top-1 {100 * self.top1:.1f} %, top-5 {100 * self.top5:.1f} % of {self.num_images} {kind} images"


def topk_accuracy(logits: Tensor, labels: Tensor, k: int = 1) -> float:
    """Return the fraction of rows whose label (n,) is among the k largest logits (n, C); k may exceed C."""
    return accuracy_of_guesses(logits.topk(min(k, logits.shape[1]), dim=1).indices, labels)


def accuracy_of_guesses(guesses: Tensor, labels: Tensor) -> float:
    """Return the fraction of rows whose label (n,) is among the guessed classes (n, k).

    Raises:
        ScoreError: If there is no row.
    """
    if not len(labels):
        raise ScoreError(
            "an accuracy of 0 images was requested, expected at least 1; pass the labels of the test images"
        )
    return (guesses == labels[:, None]).any(dim=1).double().mean().item()


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and sample standard deviation over seeds (0 for one seed), with the values themselves."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "values": [round(value, 6) for value in values]}


@torch.inference_mode()
def predict(module: torch.nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Return (n, C) logits, on the CPU, of a network in eval mode over batches of normalised images."""
    was_training = module.training
    module.eval()
    try:
        with rounding_products("fp32"):
            return torch.cat([in_halves(module, batch).float() for batch in batches]).cpu()
    finally:
        module.train(was_training)
