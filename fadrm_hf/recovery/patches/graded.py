"""Whole images of every degree of difficulty: image i of a class from its i-th group (PSM, arXiv 2609.34299)."""

import torch
from torch import Tensor

from fadrm_hf.data.sources import Source
from fadrm_hf.networks.teachers import Teacher, require_finite
from fadrm_hf.recovery.matching.difficulty import difficulty_groups, image_scores
from fadrm_hf.recovery.patches.crops import SCORE_BATCH
from fadrm_hf.recovery.patches.patches import Patches, rows_of_class


def graded_images(
    source: Source, scorer: Teacher, classes: range, ipc: int, difficulty: str, device: torch.device
) -> Patches:
    """Return one image of each of `ipc` groups of a class, as test views: the easiest, middle or hardest of its group.

    Nothing is random. See `starting_images`.
    """
    return Patches.stack({label: _select(source, scorer, label, ipc, difficulty, device) for label in classes})


def pick_in_groups(scores: Tensor, num_groups: int, difficulty: str) -> Tensor:
    """Return which image stands for each group, (num_groups,) int64.

    Args:
        scores: (n,) of a class's images, at least as many as groups; more is harder.
        num_groups: Number of groups.
        difficulty: Which of a group: its "easy" end, its "medium" or its "hard" end (PSM: front, middle, back).
    """
    order = scores.argsort(stable=True)
    groups = difficulty_groups(scores, num_groups)[order]
    members = [order[groups == group] for group in range(num_groups)]
    places = {"easy": lambda num: 0, "medium": lambda num: num // 2, "hard": lambda num: num - 1}
    return torch.stack([of_group[places[difficulty](len(of_group))] for of_group in members])


def _select(
    source: Source, scorer: Teacher, label: int, ipc: int, difficulty: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the images of one class, (ipc, 3, S, S) uint8, and their rows (ipc, 1)."""
    rows = torch.as_tensor(rows_of_class(source, label, ipc))
    pixels = (source.pixels("train", part.tolist()) for part in rows.split(SCORE_BATCH))
    scores = image_scores(scorer.module, (source.normalise(part).to(device) for part in pixels))
    require_finite(scorer.name, scores, f"feature maps of images of class {label}")
    chosen = rows[pick_in_groups(scores, ipc, difficulty)]
    return source.pixels("train", chosen.tolist()), chosen[:, None]
