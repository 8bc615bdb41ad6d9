"""CDA: Dataset Distillation via Curriculum Data Augmentation in Large Data Era (Yin, Shen; TMLR 2024).

Paper: https://arxiv.org/abs/2311.18838.
Reference code: https://github.com/VILA-Lab/SRe2L at 8d00cba (read for facts, not copied).

SRe2L in which the crops begin as the whole image and shrink while the images are optimised: first what is common to an
image as a whole, then its details. The least area of a crop follows a curve down to that of the other methods.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fadrm_hf.config import Interval, require
from fadrm_hf.config.citation import Paper
from fadrm_hf.methods.method import Settings, pool
from fadrm_hf.methods.sre2l import SRe2L

if TYPE_CHECKING:
    from torch import Tensor

    from fadrm_hf.recovery.recover import Recovery

PAPER = Paper(
    title="Dataset Distillation via Curriculum Data Augmentation in Large Data Era",
    arxiv="2311.18838",
    bibtex="""\
@article{yin2024dataset,
  title = {Dataset Distillation via Curriculum Data Augmentation in Large Data Era},
  author = {Yin, Zeyuan and Shen, Zhiqiang},
  journal = {Transactions on Machine Learning Research},
  year = {2024},
}
""",
)

# Of the released scripts, where they differ from those for ImageNet-1k.
_RECOVER: dict[str | None, dict[str, Any]] = {
    "tiny_imagenet": {"lr": 0.4, "statistics_weight": 0.05},
    "imagenet21k_p": {"lr": 0.05, "statistics_weight": 0.25},
}
_ITERATIONS: dict[str | None, int] = {"imagenet21k_p": 2000}


@dataclass(frozen=True)
class CDA(SRe2L):
    """Recovery from noise with a curriculum of crops.

    Args:
        curve: How the least area falls.
        milestone: Fraction of the iterations at which it arrives; 0 is no curriculum (the released argument's default,
            which every released script overrides with 1).
        least_area: Where it arrives.
        first_area: Where it begins.
    """

    name = "cda"
    title = "CDA"
    paper = PAPER

    curve: Literal["cosine", "linear", "step"] = "cosine"
    milestone: float = 1.0
    least_area: float = 0.08
    first_area: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 <= self.milestone <= 1.0, "method.milestone", self.milestone, "a fraction in [0, 1]")
        fits = 0.0 < self.least_area <= self.first_area <= 1.0
        areas = (self.least_area, self.first_area)
        require(fits, "method.least_area", areas, "two fractions 0 < least_area <= first_area <= 1")

    def crop_area(self, iteration: int) -> Interval:
        """Return the least and largest area of an iteration's crop."""
        arrives = self.milestone * self.iterations
        if iteration >= arrives:
            return self.least_area, 1.0
        done = iteration / arrives
        left = {"cosine": 0.5 * (1.0 + math.cos(math.pi * done)), "linear": 1.0 - done, "step": 1.0}[self.curve]
        return self.least_area + (self.first_area - self.least_area) * left, 1.0

    def recover(self, start: "Tensor", recovery: "Recovery") -> "Tensor":
        """Optimise the images once, under the curriculum."""
        return recovery.optimise(start, self.iterations, crop_area=self.crop_area)

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return the released scripts' settings; labels by running statistics in batches of 128."""
        return {
            "teachers": pool(dataset, "resnet18"),
            "method": {"iterations": _ITERATIONS.get(dataset, 4000)},
            "recover": {"lr": 0.25, "statistics_weight": 0.01} | _RECOVER.get(dataset, {}),
            "relabel": {"epochs": 300, "batch_size": 128, "batch_statistics": False},
            "student": {"name": "sre2l"},
        }
