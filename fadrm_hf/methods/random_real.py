"""Random real images: the baseline every distilled dataset is compared with under the same labels and protocol."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fadrm_hf.citation import Paper
from fadrm_hf.recover import Recovery


@dataclass(frozen=True)
class RandomReal:
    """Whole training images, drawn at random per class, left as they are."""

    name: ClassVar[str] = "random_real"
    title: ClassVar[str] = "Random real images"
    paper: ClassVar[Paper | None] = None
    starts_from: ClassVar[str] = "random_images"
    min_teachers: ClassVar[int] = 1
    iterations: ClassVar[int] = 0

    def resolve(self, size: int) -> "RandomReal":
        """Nothing to resolve."""
        return self

    def recover(self, patches: Tensor, recovery: Recovery) -> Tensor:
        """The images themselves."""
        return patches
