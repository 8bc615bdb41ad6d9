"""Training for more epochs than are stored: which stored epoch each reads, and in what order.

Most soft labels are redundant: a small random part of them, read again and again in new orders, trains students
nearly as well (LPLD: "Are Large-scale Soft Labels Necessary for Large-scale Dataset Distillation?",
arXiv 2410.15919). Whole batches are read again, never single views: a label made with batch statistics belongs to the
views that were labelled with it.
"""

from typing import NamedTuple

import torch

from fadrm_hf.runtime.randomness import generator


class StoredEpoch(NamedTuple):
    """The labels that one epoch of training reads.

    Attributes:
        epoch: The stored epoch, 0 to `num_stored` - 1.
        steps: The stored steps in the order of training; each occurs once.
    """

    epoch: int
    steps: tuple[int, ...]


def stored_epoch_of(epoch: int, num_stored: int, num_steps: int, seed: int) -> StoredEpoch:
    """Return the stored epoch that a training epoch reads, and the order of its steps.

    The first `num_stored` epochs of training read the labels as they were made. Every later pass over them reads the
    stored epochs in a new random order, and the batches of each in a new random order; no batch changes.

    Args:
        epoch: Epoch of training, from 0.
        num_stored: Epochs of labels in the artifact.
        num_steps: Batches of one epoch.
        seed: The run's seed; any worker and any resumed run gets the same result.
    """
    number, position = divmod(epoch, num_stored)
    if number == 0:
        return StoredEpoch(epoch, tuple(range(num_steps)))
    stored = int(torch.randperm(num_stored, generator=generator(seed, "reuse", number))[position])
    steps = torch.randperm(num_steps, generator=generator(seed, "reuse", number, stored))
    return StoredEpoch(stored, tuple(steps.tolist()))
