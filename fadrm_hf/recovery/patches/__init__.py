"""Starting images: real crops, whole images, mosaics, or noise."""

from fadrm_hf.recovery.patches.coresets import easy_images, el2n
from fadrm_hf.recovery.patches.crops import order_by_difficulty, select_patches
from fadrm_hf.recovery.patches.mosaics import compose_mosaics
from fadrm_hf.recovery.patches.noise import noise_start
from fadrm_hf.recovery.patches.patches import Patches, random_images
from fadrm_hf.recovery.patches.starting import STARTS, images_needed, starting_images

__all__ = [
    "STARTS",
    "Patches",
    "compose_mosaics",
    "easy_images",
    "el2n",
    "images_needed",
    "noise_start",
    "order_by_difficulty",
    "random_images",
    "select_patches",
    "starting_images",
]
