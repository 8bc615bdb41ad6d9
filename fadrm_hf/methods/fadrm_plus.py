"""FADRM+: residual matching against several teachers in turn (§4.2, Table 8: four networks).

The images are optimised as in FADRM, by one teacher per iteration in round robin; the soft labels are the mean of all
teachers' logits. That is the whole difference.
"""

from dataclasses import dataclass
from typing import ClassVar

from fadrm_hf.methods.fadrm import FADRM


@dataclass(frozen=True)
class FADRMPlus(FADRM):
    """FADRM with at least two teachers; the paper's four are ResNet-18, DenseNet-121, ShuffleNetV2 and MobileNetV2."""

    name: ClassVar[str] = "fadrm_plus"
    title: ClassVar[str] = "FADRM+"
    min_teachers: ClassVar[int] = 2
