"""DELT: A Simple Diversity-driven EarlyLate Training for Dataset Distillation (Shen, Sherif, Yin, Shao; CVPR 2025).

Paper: https://arxiv.org/abs/2411.19946.
Reference code: https://github.com/VILA-Lab/DELT at 0736b27 (read for facts, not copied).

CDA from real images of medium difficulty, whose images of a class join one after the other: with M rounds of R steps
each, image i of a class is optimised from the first round r on in which i < n_1 + ... + n_r,

    argmin_x  CE(f(view(x_joined)), y) + r_bn * D(view(x_joined))        n_r: IPC / M images, one more in the first

so that early images are far from their start and late ones near to it, and fewer steps are computed. One Adam, one
cosine and one curriculum of crops run over all rounds.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from fadrm_hf.config import Init, RelabelConfig, RunConfig, require
from fadrm_hf.config.citation import Paper
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.cda import CDA
from fadrm_hf.methods.method import Settings, merged, pool

if TYPE_CHECKING:
    from torch import Tensor

    from fadrm_hf.recovery.recover import Recovery

PAPER = Paper(
    title="DELT: A Simple Diversity-driven EarlyLate Training for Dataset Distillation",
    arxiv="2411.19946",
    bibtex="""\
@inproceedings{shen2025delt,
  title = {DELT: A Simple Diversity-driven EarlyLate Training for Dataset Distillation},
  author = {Shen, Zhiqiang and Sherif, Ammar and Yin, Zeyuan and Shao, Shitong},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2025},
}
""",
)

_AREA = (0.25, 1.0)  # of the crops of labelled views
# The released script, which is for ImageNet-1k.
_PUBLISHED: Settings = {
    "patches": {"difficulty": "medium", "pool": 5000, "crops_per_image": 1, "crop_area": (1.0, 1.0)},
    "method": {"iterations": 4000},
    "recover": {"lr": 0.25, "statistics_weight": 0.01, "max_roll": 0, "layout": "class_major"},
    "relabel": {"epochs": 300, "accumulation": 1, "batch_statistics": False, "crop_area": _AREA},
    "student": {"name": "rded", "relabel": RelabelConfig(batch_statistics=False, crop_area=_AREA)},
}
_MANY_CLASSES = ("cifar100", "imagenet100", "imagenet1k")  # whose batches of labels are twice as large


@dataclass(frozen=True)
class DELT(CDA):
    """Recovery from real images that join round after round.

    Args:
        round_iterations: R: steps between one group of images and the next.
    """

    name = "delt"
    title = "DELT"
    paper = PAPER

    init: Init = "patches"
    round_iterations: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.round_iterations >= 1, "method.round_iterations", self.round_iterations, "at least 1")

    @property
    def num_rounds(self) -> int:
        """Return M: how many rounds there are, of which the last one takes the rest."""
        return max(1, self.iterations // self.round_iterations)

    def check(self, run: RunConfig) -> None:
        """Refuse also batches that do not hold all images of a class, as these join in one order."""
        super().check(run)
        layout, batch_size = run.recover.layout, run.recover.batch_size
        if self.num_rounds > 1 and run.ipc > 1 and (layout != "class_major" or batch_size < run.ipc):
            raise ConfigError(
                f"method delt needs all {run.ipc} images of a class in one batch, got recover.layout {layout} and "
                f"recover.batch_size {batch_size}; set --recover.layout class_major, and --recover.batch_size to "
                f"{run.ipc} or more"
            )

    def first_round(self, index: int, ipc: int) -> int:
        """Return the round, from 0, that an image of a class joins in."""
        each, more = divmod(ipc, self.num_rounds)
        ends = accumulate(each + (number < more) for number in range(self.num_rounds))
        return next(number for number, end in enumerate(ends) if index < end)

    def recover(self, start: "Tensor", recovery: "Recovery") -> "Tensor":
        """Optimise the images once, under the curriculum, each from its first round on."""
        indices = recovery.ipc_indices.tolist()
        joins = recovery.labels.new_tensor([self.first_round(index, max(indices) + 1) for index in indices])
        joined = [(joins <= index).nonzero()[:, 0] for index in range(self.num_rounds)]

        def rows(iteration: int) -> "Tensor":
            return joined[min(iteration // self.round_iterations, self.num_rounds - 1)]

        return recovery.optimise(start, self.iterations, crop_area=self.crop_area, rows=rows)

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return the settings of the released script, with a class to a batch and batches of labels as in its code."""
        batches = {
            "recover": {"batch_size": max(100, ipc)},
            "relabel": {"batch_size": _batch_size(dataset, ipc)},
        }
        return merged({"teachers": pool(dataset, "resnet18")}, _PUBLISHED, batches)


def _batch_size(dataset: str | None, ipc: int) -> int:
    if dataset == "tiny_imagenet":
        return 100
    batch_size = 100 if ipc >= 30 else 50 if ipc >= 10 else 10
    return 2 * batch_size if dataset in _MANY_CLASSES else batch_size
