"""The quantities of FADRM's two theorems (arXiv 2506.24125, §3 and Appendix A), on tensors.

Theorem 1 speaks of the entropy of a network's output, Theorem 2 of a class H of real functions h that are Lipschitz
with L_h, under a loss that is Lipschitz with L_l and lies in [0, B]. The paper names no class. Here H is the linear
functions <w, x> of points x in R^d with |w| <= Lambda, for which everything can be computed:

    R_n(H o S) = E_s sup_w (1/n) sum_i s_i <w, x_i> = (Lambda / n) E_s |sum_i s_i x_i|
               <= (Lambda / n) sqrt(sum_i |x_i|^2)                                       (Jensen)

A constant that is added to all functions changes nothing of this. Norms are Euclidean.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_COLUMNS_AT_ONCE = 4096
_CERTAIN = 2.0  # standard errors

Verdict = Literal["holds", "fails", "open"]


@dataclass(frozen=True)
class Estimate:
    """A mean over random signs.

    Attributes:
        value: The mean over the signs that were drawn.
        error: Its standard error; 0 for one draw.
    """

    value: float
    error: float

    @classmethod
    def of(cls, draws: Tensor) -> "Estimate":
        """Estimate from the value of each draw, (draws,)."""
        spread = draws.std().item() if len(draws) > 1 else 0.0
        return cls(draws.mean().item(), spread / math.sqrt(len(draws)))


@dataclass(frozen=True, eq=False)
class Residual:
    """The points of n images at a residual (Eq. 9), row by row.

    Attributes:
        before: (n, d), the optimised images: C~res of Theorem 2.
        after: (n, d), with the real patches mixed in: C~FADRM.
        patches: (n, d), the real patches: O.
    """

    before: Tensor
    after: Tensor
    patches: Tensor


@dataclass(frozen=True)
class Setting:
    """What Theorem 2 takes as given.

    Attributes:
        alpha: Merge ratio, the weight of the optimised image.
        norm_bound: Lambda, the largest norm of a function's weights.
        lipschitz: L_h, in input pixels.
        discrepancy: Delta, the mean distance of an optimised image from its patch, in input pixels.
        loss_lipschitz: L_l, with respect to the largest change of a logit.
        loss_range: B.
    """

    alpha: float
    norm_bound: float
    lipschitz: float
    discrepancy: float
    loss_lipschitz: float
    loss_range: float

    @property
    def needed_gap(self) -> float:
        """The right side of Eq. 11, which R(O) - R(C~res) has to be less than; 0 or negative."""
        slack = self.loss_lipschitz + 2.0 * self.loss_range * self.alpha
        return -self.lipschitz * self.discrepancy * slack / (2.0 * self.loss_range)

    @property
    def risk_ceiling(self) -> float:
        """The most that the residual can move the empirical risk of one function (Lemma 3, Eq. 24)."""
        return self.loss_lipschitz * self.lipschitz * (1.0 - self.alpha) * self.discrepancy


@dataclass(frozen=True)
class Complexities:
    """Empirical Rademacher complexities at a residual, all by the same signs.

    Attributes:
        before: Of the optimised images.
        after: Of those with the patches mixed in.
        patches: Of the patches.
        gap: R(O) - R(C~res), the left side of Eq. 11.
        ceilings: The closed-form upper bound of each of the first three, by its name.
        largest_gap: The largest gap of either sign that these points allow: (Lambda / n) sqrt(sum |x_res - x|^2).
    """

    before: Estimate
    after: Estimate
    patches: Estimate
    gap: Estimate
    ceilings: dict[str, float]
    largest_gap: float

    def after_ceiling(self, setting: Setting) -> float:
        """Return the bound of the complexity after the residual by Eq. 42."""
        alpha = setting.alpha
        between = setting.lipschitz * alpha * (1.0 - alpha) * setting.discrepancy
        return alpha * self.before.value + (1.0 - alpha) * self.patches.value + between

    def condition(self, setting: Setting) -> Verdict:
        """Return whether Eq. 11 is met; "open" within two standard errors."""
        margin = self.gap.value - setting.needed_gap
        if self.gap.error > 0.0 and abs(margin) <= _CERTAIN * self.gap.error:
            return "open"
        return "holds" if margin < 0.0 else "fails"


def output_entropy(
    logits: Tensor,  # (n, C)
) -> Tensor:  # (n,) float64
    """Return the Shannon entropy of a network's output softmax(z), in bits, from 0 to log2(C).

    Theorem 1 takes the largest over images and names neither base nor temperature; here bits, at temperature 1.
    """
    return torch.special.entr(logits.double().softmax(dim=1)).sum(dim=1) / math.log(2.0)


def loss_range(num_classes: int, largest_logit: float, temperature: float) -> float:
    """Return B of Theorem 3, in nats: log k + 2 C / T.

    No divergence KL(p || softmax(z / T)) of k classes is larger where |z_i| <= C.
    """
    return math.log(num_classes) + 2.0 * largest_logit / temperature


def loss_lipschitz(temperature: float) -> float:
    """Return L_l: the most that KL(p || softmax(z / T)) changes for a change of 1 in the largest-changed logit, 2 / T.

    The gradient is (q - p) / T, whose sum of magnitudes is at most 2 / T. Theorem 3 prints 1 / T, the largest of its
    magnitudes, which is the constant for the sum of the changes of all logits and not for the largest of them.
    """
    return 2.0 / temperature


def empirical_risk(
    logits: Tensor,  # (n, C)
    labels: Tensor,  # (n,) int64
    temperature: float,
) -> float:
    """Return the mean of KL(p || softmax(z / T)) for p that is all of one class, in nats: a tempered cross-entropy."""
    return F.cross_entropy(logits.double() / temperature, labels).item()


def draw_signs(draws: int, num_points: int, generator: torch.Generator) -> Tensor:
    """Draw Rademacher variables, -1 or 1: (draws, num_points) float64."""
    coins = torch.randint(0, 2, (draws, num_points), generator=generator)
    return 2.0 * coins.double() - 1.0


def rademacher_draws(
    points: Tensor,  # (n, d)
    signs: Tensor,  # (draws, n) float64
    norm_bound: float,  # Lambda
) -> Tensor:  # (draws,) float64
    """Return the supremum over the linear functions, for each draw of signs: (Lambda / n) |sum_i s_i x_i|.

    Their mean estimates the empirical Rademacher complexity without bias.
    """
    squares = signs.new_zeros(len(signs))
    for columns in points.split(_COLUMNS_AT_ONCE, dim=1):  # in float64 the whole would take twice its memory
        squares += (signs @ columns.double()).square().sum(dim=1)
    return norm_bound / len(points) * squares.sqrt()


def rademacher_ceiling(
    points: Tensor,  # (n, d)
    norm_bound: float,  # Lambda
) -> float:
    """Return the closed-form upper bound (Lambda / n) sqrt(sum_i |x_i|^2) of the empirical Rademacher complexity."""
    norms = torch.linalg.vector_norm(points, dim=1, dtype=torch.float64)
    return norm_bound / len(points) * torch.linalg.vector_norm(norms).item()


def complexities(
    points: Residual,  # in the space whose linear functions are meant
    signs: Tensor,  # (draws, n) float64; the same for all, so that differences have a smaller error than their terms
    norm_bound: float,  # Lambda
) -> Complexities:
    """Estimate the complexities at a residual."""
    drawn = {name: rademacher_draws(each, signs, norm_bound) for name, each in vars(points).items()}
    return Complexities(
        **{name: Estimate.of(draws) for name, draws in drawn.items()},
        gap=Estimate.of(drawn["patches"] - drawn["before"]),
        ceilings={name: rademacher_ceiling(each, norm_bound) for name, each in vars(points).items()},
        largest_gap=rademacher_ceiling(points.before - points.patches, norm_bound),
    )


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Return the distances (n,) float64 of points (n, d), row by row."""
    return torch.linalg.vector_norm(first - second, dim=1, dtype=torch.float64)


def largest_stretch(inputs: Residual, outputs: Residual) -> float:
    """Return the most that a map of inputs to outputs has stretched a distance between two points of an image.

    That is a lower bound of its Lipschitz constant; 0 where all three points of every image are the same.
    """
    pairs = (("before", "after"), ("after", "patches"), ("before", "patches"))
    apart, moved = (
        torch.cat([distances(getattr(points, one), getattr(points, other)) for one, other in pairs])
        for points in (inputs, outputs)
    )
    is_apart = apart > 0
    return (moved[is_apart] / apart[is_apart]).max().item() if bool(is_apart.any()) else 0.0
