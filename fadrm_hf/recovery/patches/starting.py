"""The starting images of recovery, by the name that a method gives them."""

from typing import get_args

import torch

from fadrm_hf.config import Init, PatchConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ConfigError, unknown
from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.recovery.patches.coresets import easy_images
from fadrm_hf.recovery.patches.crops import select_patches
from fadrm_hf.recovery.patches.graded import graded_images
from fadrm_hf.recovery.patches.noise import noise_images
from fadrm_hf.recovery.patches.patches import Patches, mirror, random_images

INITS: tuple[Init, ...] = get_args(Init)


def starting_images(
    kind: Init,
    source: Source,
    scorer: Teacher,
    classes: range,
    ipc: int,
    config: PatchConfig,
    seed: int,
    device: torch.device,
) -> Patches:
    """Make the starting images of some classes.

    Args:
        kind: "patches": scored crops (`select_patches`); "random_images": whole random images; "noise": N(0, 1), of
            which recovery itself takes the unclamped `noise_start`; "el2n", "pca": the easiest images, whole or in
            mosaics (`easy_images`); "graded": one of each degree of difficulty (`graded_images`).
        source: The real images.
        scorer: The teacher that ranks crops or images, where something is ranked.
        classes: Labels to make images for.
        ipc: Images per class.
        config: How patches are chosen; `grid` also counts for "pca", `flip_probability` for all that is real.
        seed: The run's seed. Classes may be made in any grouping.
        device: Where the scorer runs.

    Raises:
        ConfigError: If `kind` is none of these.
        SourceError: If a class has fewer images than are needed (`images_needed`).
        TeacherError: If the scorer's logits are not finite.
    """
    if kind == "noise":
        return noise_images(source, classes, ipc, seed)
    if kind == "random_images":
        patches = random_images(source, classes, ipc, seed)
    elif kind == "patches":
        patches = select_patches(source, scorer, classes, ipc, config, seed, device)
    elif kind in ("el2n", "pca"):
        patches = easy_images(source, scorer, classes, ipc, _grid(kind, config), device)
    elif kind == "graded":
        patches = graded_images(source, scorer, classes, ipc, config.difficulty, device)
    else:
        raise ConfigError(unknown("starting images", kind, INITS) + "; set method.init")
    return mirror(patches, config.flip_probability, seed)


def images_needed(kind: Init, ipc: int, config: PatchConfig) -> int:
    """Return how many training images each class must have for `ipc` starting images of a kind."""
    return 0 if kind == "noise" else ipc * _grid(kind, config) ** 2


def num_candidates(kind: Init, ipc: int, config: PatchConfig, num_images: int) -> int:
    """Return how many of a class's `num_images` training images are looked at for `ipc` starting images of a kind."""
    needed = images_needed(kind, ipc, config)
    if kind == "patches":
        return min(max(config.pool, needed), num_images)
    return num_images if is_scored(kind) else needed


def is_scored(kind: Init) -> bool:
    """Return whether a teacher scores the images that these starting images are chosen from."""
    return kind not in ("noise", "random_images")


def _grid(kind: Init, config: PatchConfig) -> int:
    return config.grid if kind in ("patches", "pca") else 1
