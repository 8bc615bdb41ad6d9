"""Random real images: the baseline every distilled dataset is compared with under the same labels and protocol."""

from dataclasses import dataclass

from fadrm_hf.methods.method import Method


@dataclass(frozen=True)
class RandomReal(Method):
    """Whole training images, drawn at random per class, left as they are."""

    name = "random_real"
    title = "Random real images"
    init = "random_images"
