"""The distance of a batch's statistics from those of the real images, gathered while a teacher runs (Appendix B).

    D = sum_l  k_l sum_s || target_ls - s_l(x) ||_2        s: channel means and variances; of convolutions blocks' too

with k_1 = 10 for the first matched layer and 1 elsewhere, the choice of the released code (Jiacheng8/FADRM @ f445e38).
Of BatchNorm alone this is D_global (unnumbered, after Eq. 53); convolutions, averages over iterations and the classes'
own statistics are options (G-VBSM, arXiv 2311.17950; EDC, arXiv 2404.13733).

Shapes: G groups of images that have statistics of their own, one or as many as classes; n channels or blocks.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fadrm_hf.config import Matching
from fadrm_hf.errors import TeacherError
from fadrm_hf.networks.fused.normalisation import FrozenNorm2d
from fadrm_hf.networks.joint import JointNorms
from fadrm_hf.networks.layers import MatchedLayer, as_maps, matched_layers
from fadrm_hf.networks.moments import block_moments, channel_moments, pool_groups
from fadrm_hf.recovery.matching.targets import Goal, Targets, running_targets
from fadrm_hf.runtime.transfer import send


def needs_measuring(matching: Matching, module: nn.Module) -> bool:
    """Return whether a network is matched to statistics that it does not keep itself."""
    return matching.category > 0 or any(layer.kind != "bn" for layer in matched_layers(module, matching.convolutions))


class MatchedStatistics:
    """D of the last forward pass of a teacher.

    Args:
        module: A network in eval mode.
        matching: Which statistics are matched.
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
        layers = matched_layers(module, self._matching.convolutions)
        self.num_layers = len(layers)
        self._targets = {layer.name: _targets_of(layer, measured or {}) for layer in layers}
        self._weights = {layer.name: first_weight if place == 0 else 1.0 for place, layer in enumerate(layers)}
        self._fused: list[FrozenNorm2d] = []
        self._handles: list[RemovableHandle] = []
        for layer in layers:
            self._observe(layer)
        self._terms: list[Tensor] = []  # weighted distances of layers, scalars
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}  # by layer, where all terms are computed together
        self._joint: tuple[list[str], JointNorms] | None = None
        self._averages: dict[str, tuple[Tensor, ...]] = {}  # means, variances; with draws ahead, whether there are any
        self._droppable = [layer.name for layer in layers if layer.kind != "bn" and self._matching.drop > 0.0]
        self._kept: Tensor | None = None  # (droppable layers,) bool: what the next step matches, if drawn ahead
        self._classes = torch.zeros(1, dtype=torch.int64)
        self._places: dict[int, Tensor] = {}  # where classes are kept, by their number: captured steps read them there
        self._generator: torch.Generator | None = None

    def begin(self, labels: Tensor, generator: torch.Generator, ipc_indices: Tensor | None = None) -> None:
        """Start with a new batch of images: averages are forgotten.

        Args:
            labels: (B,) int64; the images of a class follow each other, and every class has as many.
            generator: Decides which terms are left out.
            ipc_indices: (B,) int64, which of its class's images each is, the same for all; needed where groups of
                difficulty are matched.
        """
        self._averages, self._kept = {}, None
        groups = labels
        if self._matching.difficulty_groups:
            assert ipc_indices is not None, "groups of difficulty go by the index of an image"
            groups = ipc_indices.to(labels.device)
        classes = torch.unique_consecutive(groups)
        self._classes = self._places.setdefault(len(classes), classes).copy_(classes)
        self._generator = generator
        for layer in self._fused:
            layer.num_groups = self._num_groups

    @property
    def num_classes(self) -> int:
        """Return how many classes, or groups of difficulty, are in the batch."""
        return len(self._classes)

    def draw(self, hold: Callable[[Hashable, Tensor], Tensor]) -> None:
        """Draw which terms a captured step leaves out, ahead of it: it computes all of them, and weighs these by 0."""
        if self._droppable:
            draws = torch.stack([torch.rand((), generator=self._generator) for _ in self._droppable])
            (kept,) = send([draws >= self._matching.drop], self._classes.device)
            self._kept = hold((id(self), "kept"), kept)

    @property
    def is_fresh(self) -> bool:
        """Return whether the next step begins averages over iterations, and so computes otherwise than later ones."""
        return self._matching.momentum > 0.0 and not self._averages

    def settle(self, hold: Callable[[Hashable, Tensor], Tensor]) -> None:
        """Move averages to where captured steps read and write them."""
        for key, parts in self._averages.items():
            self._averages[key] = tuple(hold((id(self), key, place), part) for place, part in enumerate(parts))

    def loss(self) -> Tensor:
        """Return D of the last forward pass; the gathered terms are forgotten."""
        terms, self._terms = self._terms, []
        if self._moments:
            terms.append(self._joint_distance())
        return torch.stack(terms).sum() if terms else torch.zeros((), device=self._classes.device)

    def close(self) -> None:
        """Stop observing the network."""
        for handle in self._handles:
            handle.remove()
        for layer in self._fused:
            layer.moments_callback = None

    def _observe(self, layer: MatchedLayer) -> None:
        """Take a layer's moments from the layer itself where it computes them, else from its input."""
        if isinstance(layer.layer, FrozenNorm2d):
            layer.layer.moments_callback = partial(self._take_moments, layer.name)
            self._fused.append(layer.layer)
        else:
            self._handles.append(layer.layer.register_forward_pre_hook(partial(self._take_input, layer)))

    def _take_input(self, layer: MatchedLayer, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not torch.is_grad_enabled():
            return
        kept, weight = None, self._weights[layer.name]
        if self._kept is not None and layer.name in self._droppable:
            kept = self._kept[self._droppable.index(layer.name)]
        elif self._is_dropped(layer):
            return
        term = weight * self._distance(layer, as_maps(module, inputs[0]), kept)
        self._terms.append(term if kept is None else kept * term)

    def _take_moments(self, name: str, gap: Tensor, var: Tensor) -> None:
        if self._matching.momentum == 0.0 and self._matching.category == 0.0:
            self._moments[name] = gap.squeeze(0), var.squeeze(0)  # an index would be two kernels on the way back
            return
        self._terms.append(self._weights[name] * self._from_goal(name, self._targets[name].channels, gap, var))

    def _joint_distance(self) -> Tensor:
        """Return the terms of all fused layers, where means and variances are all there is to match."""
        moments, self._moments = self._moments, {}
        names = list(moments)
        if self._joint is None or self._joint[0] != names:
            variances = [self._targets[name].var for name in names]
            goals = [*(torch.zeros_like(var) for var in variances), *variances]
            self._joint = names, JointNorms(goals, 2 * [self._weights[name] for name in names])
        return self._joint[1]([*(gap for gap, _ in moments.values()), *(var for _, var in moments.values())])

    def _is_dropped(self, layer: MatchedLayer) -> bool:
        if layer.kind == "bn" or self._matching.drop == 0.0:
            return False
        return bool(torch.rand((), generator=self._generator) < self._matching.drop)

    def _distance(self, layer: MatchedLayer, maps: Tensor, kept: Tensor | None) -> Tensor:
        """Return the term of one layer, unweighted, from its input (N, C, H, W)."""
        targets, num_groups = self._targets[layer.name], self._num_groups
        moments = channel_moments(maps, targets.mean, num_groups)
        distance = self._from_goal(layer.name, targets.channels, *moments, kept)
        if layer.kind != "conv" or targets.blocks is None:
            return distance
        blocks = block_moments(maps, targets.blocks.mean, self._block_side, num_groups)
        return distance + self._from_goal(f"{layer.name}.blocks", targets.blocks, *blocks, kept)

    @property
    def _num_groups(self) -> int:
        by_class = self._matching.category > 0 and self._matching.category_form == "classes"
        return len(self._classes) if by_class else 1

    def _from_goal(self, key: str, goal: Goal, gap: Tensor, var: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the distance of means (less the goal's) and variances, (G, n) each, from a goal."""
        whole = (gap[0], var[0]) if len(gap) == 1 else pool_groups(gap, var)
        whole_gap, whole_var = self._smoothed(key, goal, *whole, kept)
        distance = whole_gap.norm() + (whole_var - goal.var).norm()
        alpha = self._matching.category
        if alpha == 0 or goal.class_mean is None or goal.class_var is None:
            return distance
        # The variance of all is no average of the classes' variances, so both have averages of their own.
        groups = (whole_gap, whole_var) if len(gap) == 1 else self._smoothed(f"{key} by class", goal, gap, var, kept)
        goal_gap, goal_var = self._goal_of_classes(goal.class_mean - goal.mean, goal.class_var)
        of_classes = (groups[0] - goal_gap).norm(dim=1) + (groups[1] - goal_var).norm(dim=1)
        return (1.0 - alpha) * distance + alpha * of_classes.mean()

    def _goal_of_classes(self, class_gap: Tensor, class_var: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and variances, (G, n) each, of the classes in the batch, from (K, n) of all classes."""
        gap, var = class_gap[self._classes], class_var[self._classes]
        if self._matching.category_form == "mixture":
            gap, var = pool_groups(gap, var)
        elif self._matching.category_form == "average":
            gap, var = gap.mean(dim=0), var.mean(dim=0)
        return gap.view(-1, class_gap.shape[1]), var.view(-1, class_gap.shape[1])

    def _smoothed(self, key: str, goal: Goal, gap: Tensor, var: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return exponential averages of both, with the gradient of their current values (G-VBSM)."""
        momentum = self._matching.momentum
        if momentum == 0.0:
            return gap, var
        now = gap.detach(), var.detach()
        # Means are less the goal's: an average that begins at zero begins at minus the goal.
        zero = (-goal.mean).expand_as(gap), torch.zeros_like(now[1])
        first, stored = zero if self._matching.from_zero else now, self._averages.get(key)
        before: Sequence[Tensor] = first if stored is None else stored[:2]
        if kept is not None and stored is not None:
            before = [torch.where(stored[2], then, begin) for then, begin in zip(stored[:2], first, strict=True)]
        average = [momentum * then + (1.0 - momentum) * value for then, value in zip(before, now, strict=True)]
        self._store(key, average, kept)
        return average[0] + (gap - now[0]), average[1] + (var - now[1])

    def _store(self, key: str, average: Sequence[Tensor], kept: Tensor | None) -> None:
        """Store averages where the ones before are; those of terms that are left out stay as they were."""
        stored = self._averages.get(key)
        values = average if kept is None else [*average, kept]
        if stored is None:
            self._averages[key] = tuple(values)
            return
        if kept is not None:
            values = [*(torch.where(kept, *pair) for pair in zip(average, stored, strict=False)), stored[2] | kept]
        for place, value in zip(stored, values, strict=True):
            place.copy_(value)


def _targets_of(layer: MatchedLayer, measured: Mapping[str, Targets]) -> Targets:
    """Return the targets of a layer: global statistics of a BatchNorm layer are its own, all others are measured."""
    targets = measured.get(layer.name)
    if layer.kind == "bn" and isinstance(layer.layer, nn.BatchNorm2d):
        return running_targets(layer.layer) if targets is None else targets.with_running(layer.layer)
    if targets is None:
        raise TeacherError(
            f"layer {layer.name!r} keeps no statistics and none were measured for it; gather those of this teacher "
            "(fadrm_hf.recovery.matching.gathering)"
        )
    return targets
