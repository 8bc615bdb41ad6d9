"""SRe2L: Squeeze, Recover and Relabel (Yin, Xing, Shen; NeurIPS 2023).

Paper: https://arxiv.org/abs/2306.13092.
Reference code: https://github.com/VILA-Lab/SRe2L at 8d00cba (read for facts, not copied).

Images begin as noise and are optimised until a frozen network classifies them and their BatchNorm statistics are those
of the training set; soft labels of many views then train the student. The first method that does not train networks
inside the optimisation, and the frame of all others here. For a batch x of classes y, with one random view per step:

    min_x  CE(f(view(x)), y) + r_bn sum_l c_l (||mean_l(view(x)) - mu_l|| + ||var_l(view(x)) - sigma_l^2||)

over the BatchNorm layers l of f with running statistics mu_l and sigma_l^2; c_l is 10 for the first of them, else 1.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fadrm_hf.config import Init, require
from fadrm_hf.config.citation import Paper
from fadrm_hf.methods.method import Method, Settings, Table, merged, pool

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

# The released scripts: those for ImageNet-1k, and what differs from them for other datasets.
_PUBLISHED: Settings = {
    "method": {"iterations": 4000},
    "recover": {"lr": 0.25, "statistics_weight": 0.01},
    "relabel": {"epochs": 300, "batch_size": 1024, "batch_statistics": False},  # in two micro-batches
    "student": {"name": "sre2l"},
}
TINY_TEACHER = {"epochs": 50, "batch_size": 256, "lr": 0.2, "warmup_epochs": 5, "crop": "resized"}  # 59.6 %
_BY_DATASET: Table = {
    "cifar100": {
        "source": {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)},
        "squeeze": {"epochs": 200, "batch_size": 128, "lr": 0.1, "weight_decay": 5e-4},  # 78.7 %
        "method": {"iterations": 1000},
        "recover": {"crop_area": (1.0, 1.0), "flip_probability": 0.0},
        "relabel": {"epochs": 400},
    },
    "tiny_imagenet": {
        "squeeze": TINY_TEACHER,
        "recover": {"lr": 0.1, "statistics_weight": 1.0, "symmetric_roll": True},
        "relabel": {"epochs": 100},
    },
}


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
        """Return the released scripts' settings."""
        return merged({"teachers": pool(dataset, "resnet18")}, _PUBLISHED, _BY_DATASET.get(dataset, {}))
