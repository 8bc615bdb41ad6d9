"""PSM: Dataset Distillation Based on Precise Statistical Matching by Difficulty (Ma, Li, Wang and others; 2026).

Paper: https://arxiv.org/abs/2609.34299. Known from a note on it, not from its text; no code is released.

FADRM in which image i of each class belongs to the i-th of IPC groups of equal difficulty: it starts from a real image
of that group, and is matched to the statistics of the group's images of all classes instead of those of all images,

    argmin_x  CE(f(x), y) + r_bn * sum_l k_l (|mean_lg - mean_l(x)| + |var_lg - var_l(x)|)     x: images of group g

so that the distilled images are not all of one difficulty. How difficult an image is, its own statistics say
(`fadrm_hf.recovery.matching.difficulty`).
"""

from dataclasses import dataclass

from fadrm_hf.config import Matching, RunConfig, require
from fadrm_hf.config.citation import Paper
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.methods.method import Settings, merged

PAPER = Paper(
    title="PSM: Dataset Distillation Based on Precise Statistical Matching by Difficulty",
    arxiv="2609.34299",
    bibtex="""\
@article{ma2026psm,
  title = {PSM: Dataset Distillation Based on Precise Statistical Matching by Difficulty},
  author = {Ma, Hongxu and Li, Guang and Wang, Shijie and others},
  journal = {arXiv preprint arXiv:2609.34299},
  year = {2026},
}
""",
)


@dataclass(frozen=True)
class PSM(FADRM):
    """Residual matching by groups of difficulty.

    Args:
        num_groups: Number of groups: the images per class.
    """

    name = "psm"
    title = "PSM"
    paper = PAPER
    init = "graded"  # type: ignore[assignment]  # FADRM's is inferred as its own value alone

    num_groups: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_groups >= 1, "method.num_groups", self.num_groups, "at least 1")

    @property
    def matching(self) -> Matching:
        """Match BatchNorm layers, of the group that the batch is of."""
        return Matching(category=1.0, difficulty_groups=self.num_groups)

    def check(self, run: RunConfig) -> None:
        """Refuse also other groups than there are images of a class, and batches of several groups."""
        super().check(run)
        if self.num_groups != run.ipc:
            raise ConfigError(
                f"method psm has a group for each image of a class, got method.num_groups {self.num_groups} and ipc "
                f"{run.ipc}; leave --method.num_groups out"
            )
        if run.recover.layout != "ipc_major":
            raise ConfigError(
                "method psm optimises the images of one group together, got recover.layout class_major; set "
                "--recover.layout ipc_major"
            )

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return FADRM's settings, a group for each image, and the end of its group that an image starts from."""
        end = "easy" if dataset == "imagenette" else "hard"  # "front", "back"
        own: Settings = {"method": {"num_groups": ipc}, "patches": {"difficulty": end}}
        return merged(super().published(dataset, size, ipc), own)
