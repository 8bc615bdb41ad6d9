"""SRe2L: Squeeze, Recover and Relabel (Yin, Xing, Shen; NeurIPS 2023).

Paper: https://arxiv.org/abs/2306.13092.
Reference code: https://github.com/VILA-Lab/SRe2L at 8d00cba (read for facts, not copied).

Images begin as noise and are optimised until a frozen network classifies them and their BatchNorm statistics are those
of the training set; soft labels of many views then train the student. The first method that does not train networks
inside the optimisation, and the frame of all others here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fadrm_hf.config import Init, require
from fadrm_hf.config.citation import Paper
from fadrm_hf.methods.method import Method, Settings, pool

if TYPE_CHECKING:
    from torch import Tensor

    from fadrm_hf.recovery.recover import Recovery

PAPER = Paper(
    title="Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New Perspective",
    arxiv="2306.13092",
    bibtex="""\
@inproceedings{yin2023squeeze,
  title = {Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New Perspective},
  author = {Yin, Zeyuan and Xing, Eric and Shen, Zhiqiang},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023},
}
""",
)

# Of the released scripts, where they differ from those for ImageNet-1k.
_RECOVER: dict[str | None, dict[str, Any]] = {
    "tiny_imagenet": {"lr": 0.1, "statistics_weight": 1.0, "symmetric_roll": True},
    "cifar100": {"crop_area": (1.0, 1.0), "flip_probability": 0.0},
}
_ITERATIONS: dict[str | None, int] = {"cifar100": 1000}
_EPOCHS: dict[str | None, int] = {"cifar100": 400, "tiny_imagenet": 100}


@dataclass(frozen=True)
class SRe2L(Method):
    """Recovery from noise.

    Args:
        iterations: Steps per image.
        init: What is optimised; anything but noise is another method's beginning.
    """

    name = "sre2l"
    title = "SRe2L"
    paper = PAPER

    iterations: int = 4000
    init: Init = "noise"

    def __post_init__(self) -> None:
        require(self.iterations >= 1, "method.iterations", self.iterations, "at least 1")

    def recover(self, start: "Tensor", recovery: "Recovery") -> "Tensor":
        """Optimise the images once, from the start to the end."""
        return recovery.optimise(start, self.iterations)

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return the released scripts' settings; labels by running statistics, 1024 views in two micro-batches."""
        return {
            "teachers": pool(dataset, "resnet18"),
            "method": {"iterations": _ITERATIONS.get(dataset, 4000)},
            "recover": {"lr": 0.25, "statistics_weight": 0.01} | _RECOVER.get(dataset, {}),
            "relabel": {"epochs": _EPOCHS.get(dataset, 300), "batch_size": 1024, "batch_statistics": False},
            "student": {"name": "sre2l"},
        }
