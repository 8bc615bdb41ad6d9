"""Coresets: the training images that a teacher finds easiest, whole or four in the pixels of one.

EL2N (Paul, Ganguli, Dziugaite; arXiv 2107.07075) is the length of a network's error on an image. The paper drops a
part of the data, that of the shortest errors. Where only a few images of each class remain, the easy ones teach more
(arXiv 2502.06434), and they are what is kept here, the same number of each class.

The paper averages the score over ten networks early in training; here it is that of one teacher, the first.
"""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from fadrm_hf.data.sources import Source
from fadrm_hf.networks.teachers import Teacher, require_finite
from fadrm_hf.recovery.patches.crops import SCORE_BATCH
from fadrm_hf.recovery.patches.mosaics import compose_mosaics, fill_border, rows_of_mosaics
from fadrm_hf.recovery.patches.patches import Patches, rows_of_class
from fadrm_hf.runtime.out_of_memory import in_halves


def easy_images(source: Source, scorer: Teacher, classes: range, ipc: int, grid: int, device: torch.device) -> Patches:
    """Return the images of each class with the lowest EL2N of its training images, as test views; nothing is random.

    With a grid of 2 they are mosaics of four whole images, each shrunk, none cropped ("combine" of arXiv 2502.06434);
    ranks are dealt out as by RDED, on which that paper builds. See `starting_images`.
    """
    return Patches.stack({label: _select(source, scorer, label, ipc, grid, device) for label in classes})


def el2n(logits: Tensor, label: int) -> Tensor:
    """Return EL2N, less is easier: the Euclidean distance of a prediction from its label (arXiv 2107.07075, §2).

    Args:
        logits: (n, C).
        label: The class that all of them belong to.

    Returns:
        (n,) float64 in [0, sqrt(2)]: float32 cannot tell apart predictions that a trained network is sure of.
    """
    errors = logits.double().softmax(dim=1)
    errors[:, label] -= 1.0
    return torch.linalg.vector_norm(errors, dim=1)


def _select(
    source: Source, scorer: Teacher, label: int, ipc: int, grid: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the images of one class, (ipc, 3, S, S) uint8, and their rows (ipc, tiles)."""
    needed = ipc * grid**2
    rows = torch.as_tensor(rows_of_class(source, label, needed))
    scores = torch.cat([_score(source, scorer, part, label, device) for part in rows.split(SCORE_BATCH)])
    easiest = rows[scores.argsort(stable=True)[:needed]]
    side = source.size // grid
    tiles = transforms.resize(source.pixels("train", easiest.tolist()), [side, side], antialias=True)
    return fill_border(compose_mosaics(tiles, ipc, grid), source.size), rows_of_mosaics(easiest, ipc)


@torch.inference_mode()
def _score(source: Source, scorer: Teacher, rows: Tensor, label: int, device: torch.device) -> Tensor:
    images = source.normalise(source.pixels("train", rows.tolist())).to(device)
    logits = in_halves(scorer.module, images)
    require_finite(scorer.name, logits, f"logits of images of class {label}")
    return el2n(logits.cpu(), label)
