"""FADRM: Fast and Accurate Data Residual Matching for Dataset Distillation (Cui, Bi, Luo, Zhao, Liu, Shen; 2025).

Paper: https://arxiv.org/abs/2506.24125 (Algorithm 1, Eq. 5-10, Table 8).
Reference code: https://github.com/Jiacheng8/FADRM at f445e38 (read for facts, not copied).

Uni-level methods optimise pixels against a frozen network alone, and lose what the network does not hold. FADRM mixes
the real patch an image started from back into it between segments of the optimisation (ARC), and runs every other
segment at a reduced resolution (MRO). The last segment has no residual and the full resolution.

Where the paper is silent or ambiguous, as released: Adam restarts in every segment while the cosine runs over all of
them; for an even number of residuals the last segment still has the full size, so two neighbouring segments share it.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from fadrm_hf.config import OPEN, Open, require
from fadrm_hf.config.citation import Paper
from fadrm_hf.config.datasets import PRESETS
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.method import Method, Settings, merged, pool

if TYPE_CHECKING:
    from torch import Tensor

    from fadrm_hf.recovery.recover import Recovery

PAPER = Paper(
    title="FADRM: Fast and Accurate Data Residual Matching for Dataset Distillation",
    arxiv="2506.24125",
    bibtex="""\
@article{cui2025fadrm,
  title = {FADRM: Fast and Accurate Data Residual Matching for Dataset Distillation},
  author = {Cui, Jiacheng and Bi, Xinyue and Luo, Yaxin and Zhao, Xiaohan and Liu, Jiacheng and Shen, Zhiqiang},
  journal = {arXiv preprint arXiv:2506.24125},
  year = {2025},
}
""",
)

_REDUCTION = 200 / 224  # Table 8: D_ds = 200 at 224 px
_SMALL = 64  # §3.3: below this, a reduced resolution saves nothing


# Jiacheng8/FADRM @ f445e38, recover/scripts and relabel/scripts, where they differ from Table 8 and Tables 11-18.
_RELEASED: dict[tuple[str, str | None, int], Settings] = {
    ("fadrm", "imagenette", 50): {"recover": {"lr": 0.05}},
    ("fadrm", "tiny_imagenet", 50): {
        "method": {"iterations": 1000, "num_residuals": 1},
        "recover": {"lr": 0.01},
        "relabel": {"batch_statistics": False},
    },
    ("fadrm_plus", "tiny_imagenet", 1): {
        "teachers": pool("tiny_imagenet", "resnet18", "shufflenet_v2_x0_5", "mobilenet_v2"),
        "relabel": {"epochs": 300},  # and its note on students asks for 1000
    },
    ("fadrm_plus", "imagenet1k", 1): {
        # The images that are kept are those of patch 1, not 0.
        "teachers": pool("imagenet1k", "resnet18", "mobilenet_v2", "shufflenet_v2_x1_0", "alexnet"),
    },
}


@dataclass(frozen=True)
class FADRM(Method):
    """Residual matching.

    Args:
        alpha: Merge ratio: the weight of the optimised image against its real patch, Eq. 9.
        iterations: Budget B: steps per image over all segments.
        num_residuals: k: how often the patch is mixed in again; there are k + 1 segments.
        sizes: Resolution of each segment. `None`: 200/224 of the size and the size in turn, ending with the size;
            the size throughout for images of 64 px or less.
        retrieval: lambda of RETA's dynamic retrieval (arXiv 2602.24144; 0.1 there): before each residual the real
            patch is chosen again from its class, by distance and, with this weight, by complexity
            (`fadrm_hf.recovery.retrieval`). `None`: the patch stays the one an image started from, as in FADRM.
    """

    name = "fadrm"
    title = "FADRM"
    paper = PAPER
    init = "patches"
    ten_labelled_together: ClassVar[tuple[str, ...]] = ("imagenette", "imagewoof")  # released scripts, at any IPC

    alpha: float = 0.5  # Table 8, "Merge Ratio"
    iterations: int = 2000  # Table 8, "Iterations Budgets"
    num_residuals: int = 3  # Table 8, "Number of ARC (k)"
    sizes: Open[tuple[int, ...]] = OPEN  # Table 8, "Downsampled Size"
    retrieval: float | None = None  # not in the paper

    def __post_init__(self) -> None:
        require(0.0 <= self.alpha <= 1.0, "method.alpha", self.alpha, "a merge ratio in [0, 1]")
        require(self.num_residuals >= 0, "method.num_residuals", self.num_residuals, "0 or more")
        least = self.num_residuals + 1
        require(self.iterations >= least, "method.iterations", self.iterations, f"at least one per segment ({least})")
        fits = self.sizes is None or len(self.sizes) == least
        require(fits, "method.sizes", self.sizes, f"one size per segment: {least} for num_residuals={least - 1}")
        weight = self.retrieval
        require(weight is None or 0.0 <= weight <= 1.0, "method.retrieval", weight, "a weight in [0, 1], or null")

    def resolve(self, size: int) -> "FADRM":
        """Return the same settings with a resolution for each segment.

        Args:
            size: Side of the distilled images.

        Raises:
            ConfigError: If given sizes do not end with `size`, or exceed it.
        """
        if self.sizes is OPEN:
            small = size if size <= _SMALL else round(size * _REDUCTION)
            turns = [small if segment % 2 == 0 else size for segment in range(self.num_residuals)]
            return replace(self, sizes=(*turns, size))
        if self.sizes[-1] != size or max(self.sizes) > size or min(self.sizes) < 8:
            raise ConfigError(
                f"method.sizes must end with source.size ({size}) and stay within 8 and {size}, got {self.sizes}; "
                "set --method.sizes or --source.size"
            )
        return self

    def batch_size(self, num_classes: int) -> int:
        """Return how many images are optimised together: Table 8, "100 or 10 (if C < 100)"."""
        return 100 if num_classes >= 100 else 10

    def budgets(self) -> list[int]:
        """Return the iterations of each segment: b = floor(B / (k + 1)), the last one takes the rest (Algorithm 1)."""
        each = self.iterations // (self.num_residuals + 1)
        return [each] * self.num_residuals + [self.iterations - each * self.num_residuals]

    def relative_cost(self) -> float:
        """Return the pixels computed, relative to the full resolution throughout (Eq. 8)."""
        pairs = zip(self.budgets(), self.sizes, strict=True)
        return math.fsum(budget * (size / self.sizes[-1]) ** 2 for budget, size in pairs) / self.iterations

    def recover(self, start: "Tensor", recovery: "Recovery") -> "Tensor":
        """Run Algorithm 1.

        Args:
            start: The patches P_s, (B, 3, S, S) float32, normalised.
            recovery: GRADSTEP for this batch.

        Returns:
            Distilled images, like `start`.
        """
        from fadrm_hf.recovery.recover import resample  # takes torch along

        *segments, last = zip(self.budgets(), self.sizes, strict=True)
        images = resample(start, self.sizes[0])
        for (budget, _), size in zip(segments, self.sizes[1:], strict=True):
            images = recovery.optimise(images, budget)
            patches = self._patches(images, start, recovery)
            images = self.alpha * resample(images, size) + (1.0 - self.alpha) * resample(patches, size)
        return recovery.optimise(images, last[0])

    def _patches(self, images: "Tensor", start: "Tensor", recovery: "Recovery") -> "Tensor":
        """Return the patches (B, 3, S, S) that are mixed into `images`."""
        if self.retrieval is None:
            return start
        assert recovery.retrieve is not None, "recovery was given no pools"
        return recovery.retrieve(images)

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return Table 8's teacher, and the batches of labels that the released scripts have for ten classes."""
        are_ten = dataset is not None and PRESETS[dataset].num_classes * ipc == 10
        together = 10 if are_ten or dataset in cls.ten_labelled_together else None  # else 16, Tables 11-18
        return {
            "teachers": pool(dataset, "resnet18"),
            **({"relabel": {"batch_size": together}} if together else {}),
        }

    @classmethod
    def released(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return what the released scripts have in place of the tables, which for FADRM are those of IPC 50."""
        cell = _RELEASED.get((cls.name, dataset, ipc), {})
        return merged({"student": {"name": "fadrm_released"}}, cell)
