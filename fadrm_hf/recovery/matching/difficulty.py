"""The difficulty of real images: how far their statistics are from those that a teacher keeps (PSM, arXiv 2609.34299).

    GPS(x) = mean_l  ( |mean_l(x) - mean_l| + beta |log (var_l(x) + eps) / (var_l + eps)| ) / sqrt(C_l)

over the BatchNorm layers l of C_l channels; of a class the images are ranked by it, and the ranks cut into groups.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fadrm_hf.networks.layers import matched_layers
from fadrm_hf.recovery.matching.image_moments import image_moments
from fadrm_hf.recovery.matching.targets import running_targets

_BETA = 1.0  # by a note on the paper
_EPS = 1e-6  # likewise


def precision_score(mean: Tensor, var: Tensor, goal_mean: Tensor, goal_var: Tensor) -> Tensor:
    """Return one layer's term of GPS, (N,), of the channels' means and variances (N, C) against the goal's (C,)."""
    gap = (mean - goal_mean).norm(dim=1)
    ratio = ((var + _EPS) / (goal_var + _EPS)).log().norm(dim=1)
    return (gap + _BETA * ratio) / mean.shape[1] ** 0.5


def image_scores(module: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Return GPS of images, (N,) float64 on the CPU; more is harder.

    Args:
        module: A teacher in eval mode. One without BatchNorm keeps no statistics: for it the layers that are matched
            count, and the images are compared with all of them together.
        batches: Images (n, 3, S, S), normalised, on the teacher's device.
    """
    layers = matched_layers(module)
    parts = [image_moments(module, layers, None, images) for images in batches]
    scores = []
    for layer in layers:
        key = layer.name, ""
        if key not in parts[0]:  # it is never used
            continue
        mean, second = torch.cat([part[key] for part in parts], dim=1)
        if isinstance(layer.layer, nn.BatchNorm2d):
            goal = running_targets(layer.layer)
            goal_mean, goal_var = goal.mean.double(), goal.var.double()
        else:
            goal_mean = mean.mean(0)
            goal_var = second.mean(0) - goal_mean.square()
        scores.append(precision_score(mean, (second - mean.square()).clamp_min(0), goal_mean, goal_var))
    return torch.stack(scores).mean(0).cpu()


def difficulty_groups(scores: Tensor, num_groups: int) -> Tensor:
    """Return the group of each image of a class, (N,) int64: the easiest are in group 0, groups are equally large."""
    ranks = torch.empty(len(scores), dtype=torch.int64)
    ranks[scores.argsort(stable=True)] = torch.arange(len(scores))
    return ranks * num_groups // len(scores)
