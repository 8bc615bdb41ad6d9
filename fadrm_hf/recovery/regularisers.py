"""Losses beside the predictions and the matched statistics of a teacher: image priors, densification, flatness."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

ViewFunction = Callable[[Tensor], Tensor]  # makes one view of images (B, 3, S, S)


@dataclass(frozen=True, eq=False)
class Step:
    """One iteration of recovery, as a term sees it."""

    images: Tensor  # (B, 3, S, S) float32, normalised: what is optimised, with its gradient
    view: Tensor  # (B, 3, S, S) the view of them that the teachers saw, with its gradient
    labels: Tensor  # (B,) int64
    logits: Tensor  # (B, C) float32 of the teacher, the first of several
    make_view: ViewFunction  # makes the same view of other images
    predict: Callable[[Tensor], Tensor]  # the teacher's logits of a view, without a gradient and without matching
    num_classes: int | None = None  # how many classes the labels are of, where that is known
    memory: dict[Hashable, Tensor] = field(default_factory=dict)  # what terms keep from step to step


class Term(Protocol):
    """A loss that a method adds; what it keeps from step to step is in the step's memory.

    On a GPU a run with terms is computed step by step, unless all say more of themselves: `is_capturable = True`, that
    they neither wait for the device nor draw random numbers and update their memory in place, so that a graph may hold
    them; or `is_apart = True`, that they look at labels and view alone, so that they are computed beside a graph.
    """

    def __call__(self, step: Step) -> Tensor:
        """Return the weighted loss, a scalar."""


@dataclass(frozen=True)
class TotalVariation:
    """Mean over images of the Euclidean norms of their differences between neighbouring rows and columns."""

    is_capturable: ClassVar[bool] = True
    weight: float

    def __call__(self, step: Step) -> Tensor:
        """Return the weighted loss."""
        rows, columns = step.images.diff(dim=2), step.images.diff(dim=3)
        return self.weight * (rows.flatten(1).norm(dim=1) + columns.flatten(1).norm(dim=1)).mean()


@dataclass(frozen=True)
class EuclideanNorm:
    """Mean over images of their Euclidean norm, in normalised pixels."""

    is_capturable: ClassVar[bool] = True
    weight: float

    def __call__(self, step: Step) -> Tensor:
        """Return the weighted loss."""
        return self.weight * step.images.flatten(1).norm(dim=1).mean()


@dataclass(frozen=True)
class Densification:
    """L_DD of G-VBSM (arXiv 2311.17950): the images of a class are to span many directions evenly.

    Of each class's views, pooled to at most 32 x 32, the eigenvalues l of the Gram matrix: KL(softmax(l / tau) ||
    softmax(l)), summed over the classes. The flatter distribution is a fixed goal: no gradient goes through it. A
    class with a single image adds nothing.

    The images of a class follow each other, and every class has as many.

    Attributes:
        weight: lambda_n.
        temperature: tau.
        side: Side that views are pooled to.
    """

    is_apart: ClassVar[bool] = True  # torch reads whether eigenvalues were found, so the host waits for them
    weight: float = 1.0
    temperature: float = 4.0
    side: int = 32

    def __call__(self, step: Step) -> Tensor:
        """Return the weighted loss."""
        small = F.adaptive_avg_pool2d(step.view, min(self.side, step.view.shape[-1])).flatten(1)
        num_classes = step.num_classes or len(torch.unique_consecutive(step.labels))
        return self.weight * self.of_classes(small.unflatten(0, (num_classes, -1))).to(small.dtype)

    def of_classes(self, images: Tensor) -> Tensor:
        """Return the divergences of K classes, summed, from pooled and flattened views (K, n, d); float64."""
        # Eigenvalues are thousands and a softmax sees their differences, of which float32 would leave two digits. What
        # is not finite is refused after the optimisation; until then eigenvalues could not even be computed.
        precise = images.double().nan_to_num()
        eigenvalues = torch.linalg.eigvalsh(precise @ precise.mT)
        goal = F.log_softmax(eigenvalues.detach() / self.temperature, dim=1)
        return F.kl_div(F.log_softmax(eigenvalues, dim=1), goal, reduction="sum", log_target=True)


@dataclass(frozen=True)
class Flatness:
    """L'_FR of EDC (arXiv 2404.13733): predictions at the images agree with those at their moving average.

    x_ema <- beta x_ema + (1 - beta) x after each iteration;  KL(softmax(f(x) / tau) || softmax(f(x_ema) / tau)).

    Attributes:
        weight: Weight of the loss.
        decay: beta.
        temperature: tau.
        reverse: Released: the divergence the other way round, averaged over batch and classes.
    """

    is_capturable: ClassVar[bool] = True
    weight: float = 0.25
    decay: float = 0.99
    temperature: float = 4.0
    reverse: bool = False

    def __call__(self, step: Step) -> Tensor:
        """Return the weighted loss, by the average up to the iteration before; then update the average."""
        images = step.images.detach()
        if self not in step.memory:
            step.memory[self] = images.clone()
        average = step.memory[self]
        smooth = F.log_softmax(step.predict(step.make_view(average)) / self.temperature, dim=1)
        sharp = F.log_softmax(step.logits / self.temperature, dim=1)
        average.lerp_(images, 1.0 - self.decay)
        first, second, count = (sharp, smooth, sharp.numel()) if self.reverse else (smooth, sharp, len(sharp))
        return self.weight / count * F.kl_div(first, second, reduction="sum", log_target=True)
