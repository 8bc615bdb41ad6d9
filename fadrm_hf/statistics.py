"""Matched statistics: how far a batch's BatchNorm statistics are from those the teacher has seen (Appendix B).

    D_global = sum_l  k_l ( ||mu_l(x) - RM_l||_2 + ||sigma_l^2(x) - RV_l||_2 )        unnumbered, after Eq. 53

with mu_l, sigma_l^2 the channel means and biased variances of the input of BatchNorm layer l over batch, rows and
columns. k_1 = 10 for the first layer and 1 elsewhere is the choice of the released code (Jiacheng8/FADRM @ f445e38).
"""

from typing import Any

import torch
from torch import Tensor, nn


class _ChannelDistance(torch.autograd.Function):
    """||mean - target_mean|| + ||var - target_var|| of a feature map, with its closed-form gradient.

    The gradient with respect to the map is affine per channel, a_c + b_c x, so nothing but the map itself is kept and
    the backward pass reads it once. Statistics are fp32 (or float64) whatever the map's type.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, target_mean: Tensor, target_var: Tensor) -> Tensor:
        # Moments about the target mean do not cancel; two plain means are 4 to 6 times faster than `torch.var_mean`.
        shifted = features.to(target_mean.dtype) - target_mean.view(1, -1, 1, 1)
        mean_gap = shifted.mean((0, 2, 3))
        var_gap = shifted.square_().mean((0, 2, 3)) - mean_gap.square() - target_var
        mean_norm, var_norm = mean_gap.norm(), var_gap.norm()
        # At a distance of exactly 0 the norm has no gradient; 0 is the subgradient that autograd uses too.
        count = features.numel() // features.shape[1]
        tiny = torch.finfo(mean_norm.dtype).tiny
        slope = var_gap * (2.0 / count) / var_norm.clamp_min(tiny)
        offset = mean_gap * (1.0 / count) / mean_norm.clamp_min(tiny) - slope * (mean_gap + target_mean)
        ctx.save_for_backward(features, slope, offset)
        return mean_norm + var_norm

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grad_outputs
        features, slope, offset = ctx.saved_tensors
        shape = (1, -1, 1, 1)
        gradient = torch.addcmul((grad * offset).view(shape), features, (grad * slope).view(shape))
        return gradient.to(features.dtype), None, None


def channel_distance(features: Tensor, target_mean: Tensor, target_var: Tensor) -> Tensor:
    """Distance of a batch's channel statistics from targets; one term of D_global.

    Args:
        features: (N, C, H, W), any floating type.
        target_mean: (C,) float32 or float64.
        target_var: (C,) like `target_mean`.

    Returns:
        Scalar in the targets' type, differentiable with respect to `features`.
    """
    distance: Tensor = _ChannelDistance.apply(features, target_mean, target_var)
    return distance


class BNStatistics:
    """Gathers D_global while a teacher runs.

    Args:
        module: A network in eval mode; its `BatchNorm2d` layers (subclasses too) are watched in module order.
        first_weight: k_1, the weight of the first layer's term.
    """

    def __init__(self, module: nn.Module, first_weight: float = 10.0) -> None:
        layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        self._terms: list[Tensor] = []
        self._weights = [first_weight] + [1.0] * (len(layers) - 1)
        self._handles = [layer.register_forward_pre_hook(self._gather) for layer in layers]
        self._slots = {id(layer): slot for slot, layer in enumerate(layers)}
        self.num_layers = len(layers)

    def _gather(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not torch.is_grad_enabled():
            return
        assert isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None
        distance = channel_distance(inputs[0], layer.running_mean, layer.running_var)
        self._terms.append(self._weights[self._slots[id(layer)]] * distance)

    def loss(self) -> Tensor:
        """D_global of the last forward pass; the gathered terms are forgotten."""
        terms, self._terms = self._terms, []
        return torch.stack(terms).sum()

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
