"""SRe2L++: SRe2L from real patches, with batch-specific soft labels in small batches (Cui et al.; 2025).

Paper: https://arxiv.org/abs/2501.07575, the baseline that CV-DD and FADRM build on.
Reference code: https://github.com/Jiacheng8/CV-DD at 24097e9, model setting 0 (read for facts, not copied).

Three changes to SRe2L: images begin as real patches, soft labels are made with the statistics of the batch that the
student will see, and the student trains in batches of 16 with a slower cosine. None of them is in the optimisation,
whose objective is SRe2L's; only x_0 is a patch.
"""

from dataclasses import dataclass

from fadrm_hf.config import Init
from fadrm_hf.config.citation import Paper
from fadrm_hf.methods.method import Settings, Table, merged, pool
from fadrm_hf.methods.sre2l import SRe2L

PAPER = Paper(
    title="Dataset Distillation via Committee Voting",
    arxiv="2501.07575",
    bibtex="""\
@article{cui2025dataset,
  title = {Dataset Distillation via Committee Voting},
  author = {Cui, Jiacheng and Li, Zhaoyi and Ma, Xiaochen and Bi, Xinyue and Luo, Yaxin and Shen, Zhiqiang},
  journal = {arXiv preprint arXiv:2501.07575},
  year = {2025},
}
""",
)


# Teachers of the released scripts (squeeze/); those of other datasets are FADRM's.
_CIFAR = {"epochs": 200, "batch_size": 512, "lr": 1e-3, "optimiser": "adam", "weight_decay": 1e-4}
SQUEEZE: Table = {
    "cifar10": {"squeeze": _CIFAR},
    "cifar100": {"squeeze": _CIFAR},
    "tiny_imagenet": {"squeeze": {"epochs": 50, "batch_size": 128, "lr": 0.01}},
    "imagenette": {"squeeze": {"epochs": 300, "batch_size": 64, "lr": 0.01}},  # its cosine turned back at epoch 100
}


@dataclass(frozen=True)
class SRe2LPlusPlus(SRe2L):
    """Recovery from real patches, as from noise."""

    name = "sre2l_pp"
    title = "SRe2L++"
    paper = PAPER

    init: Init = "patches"

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return the released settings; patches, Adam and labels are those that FADRM kept, the defaults of a run."""
        settings: Settings = {
            "teachers": pool(dataset, "resnet18"),
            "relabel": {"epochs": 300, "batch_size": label_batch_size(dataset, ipc)},
            "student": {"name": "cv_dd"},
        }
        return merged(settings, SQUEEZE.get(dataset, {}))


def label_batch_size(dataset: str | None, ipc: int) -> int:
    """Return how many views the released scripts label together: 16, or all ten images where there are no more."""
    has_ten_classes = dataset in ("digits", "cifar10", "imagenette", "imagewoof")
    return 10 if ipc == 1 and has_ten_classes else 16
