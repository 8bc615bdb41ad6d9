"""How far a batch's statistics are from those of the real images, gathered while a teacher runs (Appendix B).

    D = sum_l  k_l sum_s || target_ls - s_l(x) ||_2        s: channel means and variances; of convolutions blocks' too

with k_1 = 10 for the first matched layer and 1 elsewhere, the choice of the released code (Jiacheng8/FADRM @ f445e38).
Of BatchNorm alone this is D_global (unnumbered, after Eq. 53); convolutions, averages over iterations and the classes'
own statistics are options (G-VBSM, arXiv 2311.17950; EDC, arXiv 2404.13733).
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fadrm_hf.config import Matching
from fadrm_hf.errors import TeacherError
from fadrm_hf.networks.joint import JointNorms
from fadrm_hf.networks.layers import GivesMoments, Watched, as_maps, watched_layers
from fadrm_hf.networks.moments import block_moments, channel_moments, pool_groups
from fadrm_hf.recovery.matching.targets import Goal, Targets, running_targets


def needs_measuring(matching: Matching, module: nn.Module) -> bool:
    """Return whether a network is matched to anything that it does not keep itself."""
    return matching.category > 0 or any(w.kind != "bn" for w in watched_layers(module, matching.convolutions))


def channel_distance(features: Tensor, target_mean: Tensor, target_var: Tensor) -> Tensor:
    """Distance of a batch's channel statistics from targets; one term of D_global.

    Args:
        features: (N, C, H, W), any floating type.
        target_mean: (C,) float32 or float64.
        target_var: (C,) like `target_mean`.

    Returns:
        Scalar in the targets' type, differentiable with respect to `features`.
    """
    gap, var = channel_moments(features, target_mean)
    return gap.norm() + (var - target_var).norm()


class MatchedStatistics:
    """Gathers D while a teacher runs.

    Args:
        module: A network in eval mode; its matched layers are watched in module order.
        matching: What is matched.
        first_weight: k_1, the weight of the first layer's term.
        measured: Targets by the name of the layer, where the network keeps none itself.
        block_side: Side of the blocks of convolutions' maps.
    """

    def __init__(
        self,
        module: nn.Module,
        matching: Matching | None = None,
        first_weight: float = 10.0,
        measured: Mapping[str, Targets] | None = None,
        block_side: int = 4,
    ) -> None:
        self._matching = matching or Matching()
        self._block_side = block_side
        watched = watched_layers(module, self._matching.convolutions)
        self._targets = {w.name: _targets_of(w, measured or {}) for w in watched}
        self._weights = {w.name: first_weight if place == 0 else 1.0 for place, w in enumerate(watched)}
        self._giving: list[GivesMoments] = []
        self._handles: list[RemovableHandle] = []
        for layer in watched:
            self._watch(layer)
        self._terms: list[Tensor] = []
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._joint: tuple[list[str], JointNorms] | None = None
        self._averages: dict[str, tuple[Tensor, Tensor]] = {}
        self._classes = torch.zeros(1, dtype=torch.int64)
        self._generator: torch.Generator | None = None
        self.num_layers = len(watched)

    def begin(self, labels: Tensor, generator: torch.Generator) -> None:
        """Start with a new batch of images: averages are forgotten.

        Args:
            labels: (B,) int64; the images of a class follow each other, and every class has as many.
            generator: Decides which terms are left out.
        """
        self._averages = {}
        self._classes = torch.unique_consecutive(labels)
        self._generator = generator
        for layer in self._giving:
            layer.num_groups = self._num_groups

    @property
    def is_stateless(self) -> bool:
        """Whether the loss of a batch depends on that batch alone, and asks for no random number."""
        return self._matching.momentum == 0.0 and self._matching.drop == 0.0

    def loss(self) -> Tensor:
        """D of the last forward pass; the gathered terms are forgotten."""
        terms, self._terms = self._terms, []
        if self._moments:
            terms.append(self._joint_distance())
        return torch.stack(terms).sum() if terms else torch.zeros((), device=self._classes.device)

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        for layer in self._giving:
            layer.receive = None

    def _watch(self, watched: Watched) -> None:
        """Have a layer's moments, from the layer itself where it computes them, else from its input."""
        if isinstance(watched.layer, GivesMoments):
            watched.layer.receive = partial(self._take, watched)
            self._giving.append(watched.layer)
        else:
            self._handles.append(watched.layer.register_forward_pre_hook(partial(self._gather, watched)))

    def _gather(self, watched: Watched, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled() and not self._is_dropped(watched):
            distance = self._distance(watched, as_maps(layer, inputs[0]))
            self._terms.append(self._weights[watched.name] * distance)

    def _take(self, watched: Watched, gap: Tensor, var: Tensor) -> None:
        name = watched.name
        if self._matching.momentum == 0.0 and self._matching.category == 0.0:
            self._moments[name] = gap[0], var[0]
            return
        self._terms.append(self._weights[name] * self._from_goal(name, self._targets[name].channels, gap, var))

    def _joint_distance(self) -> Tensor:
        """The terms of all layers that gave their moments, where means and variances are all there is to match."""
        moments, self._moments = self._moments, {}
        names = list(moments)
        if self._joint is None or self._joint[0] != names:
            variances = [self._targets[name].var for name in names]
            goals = [*(torch.zeros_like(var) for var in variances), *variances]
            self._joint = names, JointNorms(goals, 2 * [self._weights[name] for name in names])
        return self._joint[1]([*(gap for gap, _ in moments.values()), *(var for _, var in moments.values())])

    def _is_dropped(self, watched: Watched) -> bool:
        if watched.kind == "bn" or self._matching.drop == 0.0:
            return False
        return bool(torch.rand((), generator=self._generator) < self._matching.drop)

    def _distance(self, watched: Watched, maps: Tensor) -> Tensor:
        """The term of one layer, unweighted."""
        targets, num_groups = self._targets[watched.name], self._num_groups
        distance = self._from_goal(watched.name, targets.channels, *channel_moments(maps, targets.mean, num_groups))
        if watched.kind != "conv" or targets.blocks is None:
            return distance
        goal = targets.blocks
        blocks = block_moments(maps, goal.mean, self._block_side, num_groups)
        return distance + self._from_goal(f"{watched.name}.blocks", goal, *blocks)

    @property
    def _num_groups(self) -> int:
        by_class = self._matching.category > 0 and self._matching.category_form == "classes"
        return len(self._classes) if by_class else 1

    def _from_goal(self, key: str, goal: Goal, gap: Tensor, var: Tensor) -> Tensor:
        """Distance of means (less the goal's) and variances, (G, n) each, from what is to be reached."""
        whole = (gap[0], var[0]) if len(gap) == 1 else pool_groups(gap, var)
        whole_gap, whole_var = self._smoothed(key, goal, *whole)
        distance = whole_gap.norm() + (whole_var - goal.var).norm()
        alpha = self._matching.category
        if alpha == 0 or goal.class_mean is None or goal.class_var is None:
            return distance
        # The variance of all is no average of the classes' variances, so both have averages of their own.
        groups = (whole_gap, whole_var) if len(gap) == 1 else self._smoothed(f"{key} by class", goal, gap, var)
        mean_wanted, var_wanted = self._wanted(goal.class_mean - goal.mean, goal.class_var)
        of_classes = (groups[0] - mean_wanted).norm(dim=1) + (groups[1] - var_wanted).norm(dim=1)
        return (1.0 - alpha) * distance + alpha * of_classes.mean()

    def _wanted(self, class_gap: Tensor, class_var: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances, (G, n) each, that those of the classes in the batch make."""
        gap, var = class_gap[self._classes], class_var[self._classes]
        if self._matching.category_form == "mixture":
            gap, var = pool_groups(gap, var)
        elif self._matching.category_form == "average":
            gap, var = gap.mean(dim=0), var.mean(dim=0)
        return gap.view(-1, class_gap.shape[1]), var.view(-1, class_gap.shape[1])

    def _smoothed(self, key: str, goal: Goal, gap: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Exponential averages of both, with the gradient of their current values (G-VBSM)."""
        momentum = self._matching.momentum
        if momentum == 0.0:
            return gap, var
        now = gap.detach(), var.detach()
        # Means are less the goal's: the average that began at zero began at minus the goal.
        zero = (-goal.mean).expand_as(gap), torch.zeros_like(now[1])
        before = self._averages.get(key, zero if self._matching.from_zero else now)
        average = [momentum * then + (1.0 - momentum) * value for then, value in zip(before, now, strict=True)]
        self._averages[key] = (average[0], average[1])
        return average[0] + (gap - now[0]), average[1] + (var - now[1])


def _targets_of(watched: Watched, measured: Mapping[str, Targets]) -> Targets:
    """What a layer is matched to: a BatchNorm layer's global statistics are its own, all others are measured."""
    if not isinstance(watched.layer, nn.BatchNorm2d) or watched.kind != "bn":
        if watched.name not in measured:
            raise TeacherError(
                f"layer {watched.name!r} keeps no statistics and none were measured for it; gather those of this "
                "teacher (fadrm_hf.recovery.matching.gathering)"
            )
        return measured[watched.name]
    known = measured.get(watched.name)
    return running_targets(watched.layer) if known is None else known.with_running(watched.layer)
