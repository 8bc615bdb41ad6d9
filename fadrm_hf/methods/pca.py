"""PCA: Prune, Combine, Augment (Xiao, Liu, He, Wang; 2025), a coreset for hard labels.

Paper: https://arxiv.org/abs/2502.06434. Reference code: ArmandXiao/Rethinking-Dataset-Compression at 91d1ef0, which
holds the benchmark and announces PCA.

Prune: of the whole training set, the images of each class with the lowest EL2N. Combine: four of them, whole and
shrunk, in the pixels of one; a crop would lose what a hard label cannot bring back. Both are done here. Augment, a
crop that stays within one tile, belongs to the training of students and is not done: their crops see the mosaic.

Ours: the score is that of the first teacher; which ranks share a mosaic (as RDED deals them out); how images are
shrunk (bilinear, antialias); 2x2 at any size. The paper trains with hard labels (protocol `coreset`) on ImageNet-1k.
"""

from dataclasses import dataclass

from fadrm_hf.config.citation import Paper
from fadrm_hf.methods.method import Method, Settings

PAPER = Paper(
    title="Rethinking Large-scale Dataset Compression: Shifting Focus From Labels to Images",
    arxiv="2502.06434",
    bibtex="""\
@article{xiao2025rethinking,
  title = {Rethinking Large-scale Dataset Compression: Shifting Focus From Labels to Images},
  author = {Xiao, Lingao and Liu, Songhua and He, Yang and Wang, Xinchao},
  journal = {arXiv preprint arXiv:2502.06434},
  year = {2025},
}
""",
)


@dataclass(frozen=True)
class PCA(Method):
    """Mosaics of whole training images with the lowest EL2N of their class."""

    name = "pca"
    title = "PCA (prune, combine)"
    paper = PAPER
    init = "pca"

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return the published setting, four images in one; a grid of 1 is EL2N-easy."""
        return super().published(dataset, size, ipc) | {"patches": {"grid": 2}, "student": {"name": "coreset"}}
