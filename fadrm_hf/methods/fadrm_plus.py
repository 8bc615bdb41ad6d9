"""FADRM+: residual matching against several teachers in turn (§4.2, Table 8: four networks).

The images are optimised as in FADRM, by one teacher per iteration in round robin; the soft labels are the mean of all
teachers' logits. That is the whole difference.
"""

from dataclasses import dataclass

from fadrm_hf.config import LARGEST_SMALL_SIZE
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.methods.method import Settings, pool


@dataclass(frozen=True)
class FADRMPlus(FADRM):
    """FADRM with at least two teachers; the paper's four are ResNet-18, DenseNet-121, ShuffleNetV2 and MobileNetV2."""

    name = "fadrm_plus"
    title = "FADRM+"
    min_teachers = 2
    ten_labelled_together = ("imagenette",)

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return Table 8, "FADRM+ Model (R)"; ShuffleNetV2 has half its width for small images, as released."""
        width = "x0_5" if size <= LARGEST_SMALL_SIZE else "x1_0"
        teachers = pool(dataset, "resnet18", "densenet121", f"shufflenet_v2_{width}", "mobilenet_v2")
        return super().published(dataset, size, ipc) | {"teachers": teachers}
