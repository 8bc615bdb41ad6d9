"""Dynamic retrieval: the real patch that is mixed into an image is chosen again, by what the image has become.

RETA (arXiv 2602.24144) objects to FADRM's residuals that they always come from the same patch. Its dynamic retrieval
connection takes, before each residual, the patch o of the image's class that is near to the image x for a teacher, and
simple:

    o* = argmin_o  (1 - lambda) || phi(x) / ||phi(x)||  -  phi(o) / ||phi(o)|| ||^2  +  lambda Var(||grad(G * o)||^2)

The paper's are this score, lambda = 0.1, and a pool of real patches that is made beforehand. Not found: the width of
the Gaussian G, how gradients are taken, and what is in the pool. Ours: a standard deviation of 1 pixel; central
differences of normalised values, squared and summed over the colours; phi is what the last linear layer of the first
teacher is given, of an image at its full size; the pool is what patches are chosen from otherwise, the best crop of
each of up to `patches.pool` images of a class, or mosaics of these. The other half of RETA, a loss on the persistent
homology of features (persistent topology alignment), is not implemented.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from fadrm_hf.config import PatchConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import TeacherError
from fadrm_hf.networks.features import features_before_last_linear
from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.recovery.patches.starting import starting_images
from fadrm_hf.recovery.recover import resample

_SIGMA = 1.0  # in pixels
_BATCH = 100


def build_pool(
    source: Source, teacher: Teacher, label: int, ipc: int, config: PatchConfig, seed: int, device: torch.device
) -> dict[str, Tensor]:
    """Make the patches of a class that can be retrieved: all that `starting_images` makes of its pool, at least `ipc`.

    Returns:
        "images": (n, 3, S, S) uint8; "features": (n, D) float32, see `unit_features`; "complexity": (n,) float64.

    Raises:
        SourceError: The class has fewer images than `ipc` patches need.
        TeacherError: The teacher has no linear layer.
    """
    num_images = len(source.rows_by_class[label])
    num = max(ipc, min(config.pool, num_images) // config.grid**2)
    images = starting_images("patches", source, teacher, range(label, label + 1), num, config, seed, device).images
    batches = [source.normalise(batch).to(device) for batch in images.split(_BATCH)]
    return {
        "images": images,
        "features": torch.cat([unit_features(teacher.module, batch).cpu() for batch in batches]),
        "complexity": torch.cat([complexity(batch).cpu() for batch in batches]),
    }


class Retriever:
    """A function that finds a real patch for each image of a shard.

    Args:
        teacher: Whose features are compared; the pools' own.
        source: Size and normalisation of the images.
        pools: For each of the B images the file of its class's pool, as `build_pool` made it.
        weight: lambda in [0, 1]: how much a patch's complexity counts against its distance.
    """

    def __init__(self, teacher: Teacher, source: Source, pools: Sequence[Path], weight: float) -> None:
        self._teacher, self._source, self._pools, self._weight = teacher, source, pools, weight

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, s, s) images of any size -> (B, 3, S, S) patches that fit best, of equal ones the first."""
        features = unit_features(self._teacher.module, resample(images, self._source.size)).cpu()
        pairs = zip(self._pools, features, strict=True)
        patches = torch.stack([self._nearest(pool, of_image) for pool, of_image in pairs])
        return self._source.normalise(patches).to(images.device)

    def _nearest(self, path: Path, features: Tensor) -> Tensor:
        """Read the best patch, (3, S, S) uint8, alone, since the pools of a shard may be larger than memory."""
        with safe_open(path, framework="pt") as pool:
            distance = (pool.get_tensor("features").double() - features.double()).square().sum(dim=1)
            scores = (1.0 - self._weight) * distance + self._weight * pool.get_tensor("complexity")
            best = int(scores.argmin())
            patch: Tensor = pool.get_slice("images")[best : best + 1]
        return patch[0]


def unit_features(module: nn.Module, images: Tensor) -> Tensor:
    """Return the features (n, D) that a classifier is given of images (n, 3, S, S), scaled to unit length."""
    try:
        features = features_before_last_linear(module, images)
    except TeacherError as error:
        raise TeacherError(
            f"images are compared by the first teacher's features, and {error}; put another teacher first in "
            "--teachers.names, or set --method.retrieval null"
        ) from error
    return F.normalize(features.flatten(1), dim=1)


def complexity(images: Tensor) -> Tensor:
    """Return Var(||grad(G * o)||^2) over the positions of images (n, 3, S, S), normalised: (n,) float64.

    It is 0 for a plain surface or an even slope, large for a few sharp edges.
    """
    side = 2 * round(3 * _SIGMA) + 1
    smooth = transforms.gaussian_blur(images.double(), [side, side], [_SIGMA, _SIGMA])  # mirrored at the border
    rows, columns = torch.gradient(smooth, dim=(2, 3))
    return (rows.square() + columns.square()).sum(dim=1).flatten(1).var(dim=1, correction=0)
