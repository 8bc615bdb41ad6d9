"""The statistics that a method matches, as plain data."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Matching:
    """Statistics of a teacher's layers that distilled images are matched to.

    Args:
        convolutions: Whether inputs of convolutions are matched besides those of BatchNorm layers, by channel and by
            block.
        momentum: m: the residual is that of the exponential average of the statistics over the iterations, with the
            gradient of the current ones. 0: of the current ones.
        from_zero: Whether that average starts at zero, as released, and not at the first statistics.
        drop: Probability that a convolution's term is left out of an iteration.
        category: alpha: weight of the classes' own statistics against the global ones.
        category_form: What the classes' statistics are compared with: each class's images ("classes"); or the batch's,
            against the mixture of its classes ("mixture"), or against the plain average of their means and of their
            variances, which lacks the spread between classes ("average", as EDC's code does).
        difficulty_groups: Number of groups of equal difficulty that take the place of classes: all images of a batch
            are matched to the group of their index (PSM, arXiv 2609.34299). 0: classes are matched.
    """

    convolutions: bool = False
    momentum: float = 0.0
    from_zero: bool = False
    drop: float = 0.0
    category: float = 0.0
    category_form: Literal["classes", "mixture", "average"] = "classes"
    difficulty_groups: int = 0
