"""The information that images hold for a network: information density (FADRM, arXiv 2506.24125, §3 and Fig. 3).

The paper shows images to a pretrained ResNet-18 that they were matched to. Here they can be shown to any teacher. The
artifact's own is always at hand, but the images have been optimised for it; another one says more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.recorded_teachers import load_recorded_teachers
from fadrm_hf.config import Colour, SourceConfig
from fadrm_hf.data.pixels import normalise
from fadrm_hf.errors import ScoreError, TeacherError
from fadrm_hf.evaluation.scores import feature_entropy, pixel_entropy
from fadrm_hf.networks.features import features_before_last_linear, last_linear
from fadrm_hf.networks.teachers import load_teacher, public_name, require_size
from fadrm_hf.runtime.out_of_memory import in_halves
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, TEACHERS
from fadrm_hf.runtime.tensor_files import load_tensors
from fadrm_hf.training.accuracy import predict

_IMAGES_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A network that images are shown to.

    Attributes:
        name: What it is called, without the folders of this machine.
        module: Takes images normalised by `mean` and `std`; it is used in evaluation mode.
        mean: Channel means, on pixels in [0, 1].
        std: Channel standard deviations.
        has_taught: Whether images were matched to it or labelled by it.
    """

    name: str
    module: nn.Module
    mean: Colour
    std: Colour
    has_taught: bool

    def features(
        self,
        images: Tensor,  # (N, 3, S, S) uint8
    ) -> Tensor:  # (N, D) float32 on the CPU
        """Return what its classifier is given.

        Raises:
            ScoreError: If it does not end with a linear classifier.
        """
        parts = (self.normalise(part.to(self._device)) for part in images.split(_IMAGES_AT_ONCE))
        return torch.cat([self.features_of(part) for part in parts])

    def features_of(
        self,
        normalised: Tensor,  # (N, 3, S, S) float32
    ) -> Tensor:  # (N, D) float32 on the CPU
        """Return what its classifier is given for images that are normalised already."""
        was_training = self.module.training
        self.module.eval()
        try:
            return torch.cat([in_halves(self._features, part).float().cpu() for part in self._batches(normalised)])
        finally:
            self.module.train(was_training)

    def logits_of(
        self,
        normalised: Tensor,  # (N, 3, S, S) float32
    ) -> Tensor:  # (N, C) float32 on the CPU
        """Return its logits for images that are normalised already."""
        return predict(self.module, self._batches(normalised))

    def normalise(self, images: Tensor) -> Tensor:
        """Return images (N, 3, S, S) uint8 as it takes them, float32."""
        return normalise(images, self.mean, self.std)

    def classifier(self, size: int) -> nn.Linear:
        """Return its last linear layer, for images of `size` pixels.

        Raises:
            ScoreError: If it has none.
        """
        try:
            return last_linear(self.module, torch.zeros(1, 3, size, size, device=self._device))
        except TeacherError as error:
            raise self._refusal() from error

    @property
    def _device(self) -> torch.device:
        return next((parameter.device for parameter in self.module.parameters()), torch.device("cpu"))

    def _batches(self, normalised: Tensor) -> Iterator[Tensor]:
        return (part.to(self._device) for part in normalised.split(_IMAGES_AT_ONCE))

    def _features(self, images: Tensor) -> Tensor:
        try:
            features = features_before_last_linear(self.module, images)
        except TeacherError as error:
            raise self._refusal() from error
        if features.shape[:-1] != images.shape[:1]:
            raise self._refusal()
        return features

    def _refusal(self) -> ScoreError:
        return ScoreError(f"{self.name} does not end with a linear classifier of (n, D) features; set --network")


@dataclass(frozen=True, eq=False)
class Information:
    """The information of some images.

    Attributes:
        pixel_entropy: (N,) bits.
        feature_entropy: (N,) bits.
        features: (N, D).
    """

    pixel_entropy: Tensor
    feature_entropy: Tensor
    features: Tensor

    @classmethod
    def of(cls, images: Tensor, network: FeatureNetwork, bins: int = 256) -> "Information":
        """Measure images (N, 3, S, S) uint8; `bins` as `fadrm_hf.evaluation.scores.pixel_entropy`."""
        features = network.features(images)
        return cls(pixel_entropy(images, bins), feature_entropy(features), features)


def fetch_images_and_teachers(location: Location) -> None:
    """Fetch what of an artifact is measured here; its labels are not."""
    for name in location.manifest.files:
        if name.startswith((f"{IMAGES_FOLDER}/", TEACHERS)):
            location.local(name)


def read_shards(work: Path, stage: str) -> list[dict[str, Tensor]]:
    """Return the finished shards of a stage in the folder of a run's work, sorted by name."""
    return [load_tensors(file) for file in sorted((work / stage).glob("*.safetensors"))]


def recorded_network(folder: Path, manifest: Manifest, device: torch.device) -> FeatureNetwork | None:
    """Load the first teacher that an artifact names; return `None` if it names none.

    Raises:
        TeacherError: If it cannot be loaded, or its weights are others.
    """
    if not manifest.teachers:
        return None
    (teacher,) = load_recorded_teachers(folder, manifest, device, 1)
    source = manifest.settings("source", SourceConfig)
    return FeatureNetwork(manifest.teachers[0].name, teacher.module, source.mean, source.std, has_taught=True)


def named_network(name: str, manifest: Manifest, device: torch.device) -> FeatureNetwork:
    """Load a network by its name as a teacher, e.g. `timm/resnet18.tv_in1k`.

    Args:
        name: See `fadrm_hf.networks.teachers.teacher`; not `squeeze/...`, whose folder is `timm/local-dir:PATH`.
        manifest: The manifest of the artifact whose images it must take.
        device: Where it runs.

    Raises:
        TeacherError: If it cannot be loaded, or does not take images of that size.
    """
    try:
        teacher = load_teacher(name, device)
    except TeacherError as error:
        reason = str(error).partition("; set --")[0]
        raise TeacherError(f"{reason}; set --network to another, such as timm/resnet18.tv_in1k") from error
    require_size(name, teacher.module, manifest.pixels.size, "; set --network to another")
    taught = any(teacher.sha256 == record.sha256 for record in manifest.teachers)
    return FeatureNetwork(public_name(name), teacher.module, teacher.mean, teacher.std, has_taught=taught)
