"""LPLD: Are Large-scale Soft Labels Necessary for Large-scale Dataset Distillation? (Xiao, He; NeurIPS 2024).

Paper: https://arxiv.org/abs/2410.15919.
Reference code: https://github.com/he-y/soft-label-pruning-for-dataset-distillation at 63eee18; scripts of recovery:
soft-label-pruning-quantization-for-dataset-distillation, same author, at 107c7a5 (read for facts, not copied).

SRe2L in which the images of a class are optimised together, towards what the layers see of that class:

    argmin_x  CE(f(x), c) + r_bn * sum_l k_l (|mean_lc - mean_l(x)| + |var_lc - var_l(x)|)      x: images of class c

Images of one class then differ from each other, as the batch has to have the class's variance all by itself, and few
views of them say enough: of each forty epochs of labels one is stored, and drawn again and again.
"""

from dataclasses import dataclass

from fadrm_hf.config import Matching, require
from fadrm_hf.config.citation import Paper
from fadrm_hf.methods.method import Settings, Table, merged, pool
from fadrm_hf.methods.sre2l import TINY_TEACHER, SRe2L

PAPER = Paper(
    title="Are Large-scale Soft Labels Necessary for Large-scale Dataset Distillation?",
    arxiv="2410.15919",
    bibtex="""\
@inproceedings{xiao2024large,
  title = {Are Large-scale Soft Labels Necessary for Large-scale Dataset Distillation?},
  author = {Xiao, Lingao and He, Yang},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024},
}
""",
)

_COMPRESSION = 40  # the ratio of the tables that the repository prints
# The released scripts and configurations: those for ImageNet-1k, and what differs from them for other datasets.
_PUBLISHED: Settings = {
    "method": {"iterations": 4000},
    "recover": {"lr": 0.25, "statistics_weight": 0.01, "layout": "class_major"},
    "relabel": {"epochs": 300, "batch_size": 128, "accumulation": 1, "batch_statistics": False},
    "student": {"name": "cda"},  # the same values
}
_BY_DATASET: Table = {
    "tiny_imagenet": {
        "squeeze": TINY_TEACHER,
        "recover": {"lr": 0.1, "statistics_weight": 0.05, "symmetric_roll": True},
        "relabel": {"epochs": 100, "batch_size": 64, "cutmix": False},
        "student": {"name": "sre2l", "batch_size": 64},
    },
    "imagenet21k_p": {
        "method": {"iterations": 2000},
        "recover": {"lr": 0.05, "statistics_weight": 0.25},
        "relabel": {"batch_size": 32, "cutmix": False},
        "student": {"name": "sre2l", "lr": 2e-3, "batch_size": 32, "accumulation": 1},
    },
}


@dataclass(frozen=True)
class LPLD(SRe2L):
    """Recovery from noise, class by class, towards each class's own statistics.

    Args:
        category: Weight of the class's own statistics against those of all classes; 1 as released.
    """

    name = "lpld"
    title = "LPLD"
    paper = PAPER

    category: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 <= self.category <= 1.0, "method.category", self.category, "a fraction in [0, 1]")

    @property
    def matching(self) -> Matching:
        """Match BatchNorm layers, of each class by itself."""
        return Matching(category=self.category)

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return the released settings: a class to a batch, running statistics label, one epoch of forty is stored."""
        settings = merged({"teachers": pool(dataset, "resnet18")}, _PUBLISHED, _BY_DATASET.get(dataset, {}))
        stored = -(-settings["relabel"]["epochs"] // _COMPRESSION)
        return merged(settings, {"recover": {"batch_size": ipc}, "relabel": {"stored_epochs": stored}})
