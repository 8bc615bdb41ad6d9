"""RDED: On the Diversity and Realism of Distilled Dataset (Sun, Shi, Yu, Lin; CVPR 2024).

Paper: https://arxiv.org/abs/2312.03526.
Reference code: https://github.com/LINs-lab/RDED at 3f6453d (read for facts, not copied).

No pixel is optimised. For the images x of a class y and an observer network f:

1. crop: some random crops of each image of a pool (`patches.pool`, `patches.crops_per_image`);
2. score: s(c) = -log f(c)_y; the crop with the least stands for its image (`fadrm_hf.recovery.patches.crops`);
3. stitch: the crops of the least scores fill n distilled images, grid x grid tiles in each, rank i in image i mod n
   (`fadrm_hf.recovery.patches.mosaics`); one tile up to 64 px.
"""

from dataclasses import dataclass

from fadrm_hf.config import LARGEST_SMALL_SIZE
from fadrm_hf.config.citation import Paper
from fadrm_hf.config.protocols import student_defaults
from fadrm_hf.methods.method import Method, Settings, pool

PAPER = Paper(
    title="On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation Paradigm",
    arxiv="2312.03526",
    bibtex="""\
@inproceedings{sun2024diversity,
  title = {On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation Paradigm},
  author = {Sun, Peng and Shi, Bei and Yu, Daiwei and Lin, Tao},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2024},
}
""",
)


@dataclass(frozen=True)
class RDED(Method):
    """Real crops, selected and put together."""

    name = "rded"
    title = "RDED"
    paper = PAPER
    init = "patches"

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return the released settings ("cr5": five crops of each of 300 images); labels by running statistics.

        Images of 64 px or less show one crop each and their views are uncropped; larger ones show four, whose rows and
        columns every view shuffles.
        """
        grid = 1 if size <= LARGEST_SMALL_SIZE else 2
        return {
            "teachers": pool(dataset, "resnet18"),
            "patches": {"difficulty": "easy", "grid": grid, "pool": 300, "crops_per_image": 5},
            "relabel": {
                "epochs": 300,
                "batch_size": student_defaults(cls.name, dataset, "timm/resnet18", ipc)["batch_size"],
                "accumulation": 1,
                "batch_statistics": False,
                "crop_area": (1.0 / grid, 1.0),
                "shuffle_tiles": grid,
            },
            "student": {"name": "rded"},
        }
