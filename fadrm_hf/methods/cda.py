"""CDA: Dataset Distillation via Curriculum Data Synthesis in Large Data Era (Yin, Shen; TMLR 2024).

Paper: https://arxiv.org/abs/2311.18838.
Reference code: https://github.com/VILA-Lab/SRe2L at 8d00cba (read for facts, not copied).

SRe2L in which the crops begin as the whole image and shrink while the images are optimised: first what is common to an
image as a whole, then its details. The least area of a crop follows a curve down to that of the other methods.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fadrm_hf.config import Interval, RecoverConfig, RunConfig, require
from fadrm_hf.config.citation import Paper
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.method import Settings, Table, merged, pool
from fadrm_hf.methods.sre2l import TINY_TEACHER, SRe2L

if TYPE_CHECKING:
    from torch import Tensor

    from fadrm_hf.recovery.recover import Recovery

PAPER = Paper(
    title="Dataset Distillation via Curriculum Data Synthesis in Large Data Era",
    arxiv="2311.18838",
    bibtex="""\
@article{yin2024dataset,
  title = {Dataset Distillation via Curriculum Data Synthesis in Large Data Era},
  author = {Yin, Zeyuan and Shen, Zhiqiang},
  journal = {Transactions on Machine Learning Research},
  year = {2024},
}
""",
)

# The released scripts: those for ImageNet-1k, and what differs from them for other datasets. The labels' batch and the
# protocol are those of its appendix, which its author confirms.
_PUBLISHED: Settings = {
    "method": {"iterations": 4000},
    "recover": {"lr": 0.25, "statistics_weight": 0.01},
    "relabel": {"epochs": 300, "batch_size": 128, "accumulation": 1, "batch_statistics": False},
    "student": {"name": "cda"},
}
_BY_DATASET: Table = {
    "tiny_imagenet": {"squeeze": TINY_TEACHER, "recover": {"lr": 0.4, "statistics_weight": 0.05}},
    "imagenet21k_p": {"method": {"iterations": 2000}, "recover": {"lr": 0.05, "statistics_weight": 0.25}},
}


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

    def check(self, run: RunConfig) -> None:
        """Refuse settings of views that the curriculum replaces."""
        super().check(run)
        if run.recover.crop != "resized" or run.recover.crop_area != RecoverConfig().crop_area:
            given = f"recover.crop is {run.recover.crop!r}, recover.crop_area {run.recover.crop_area}"
            raise ConfigError(
                f"{given}, and the curriculum of {self.name} decides what is cropped; leave both out, and set "
                "--method.least_area and --method.first_area"
            )

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
        """Return the released scripts' settings, and the appendix's of students."""
        return merged({"teachers": pool(dataset, "resnet18")}, _PUBLISHED, _BY_DATASET.get(dataset, {}))
