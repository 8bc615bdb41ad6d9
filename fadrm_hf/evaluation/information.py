"""How much images hold, as a network sees them: information density (FADRM, arXiv 2506.24125, §3 and Fig. 3).

The paper looks through a pretrained ResNet-18 at images that were matched to one. Any teacher can be looked through
here. The artifact's own is always at hand, but has been optimised for; another one says more.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.recorded_teachers import load_recorded_teachers
from fadrm_hf.config import Colour, SourceConfig
from fadrm_hf.data.pixels import normalise
from fadrm_hf.errors import ScoreError, TeacherError
from fadrm_hf.evaluation.scores import feature_entropy, pixel_entropy
from fadrm_hf.networks.teachers import load_teacher, public_name, require_size
from fadrm_hf.training.accuracy import predict

_IMAGES_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class Observer:
    """A network that images are looked at through.

    Attributes:
        name: What it is called, without the folders of this machine.
        module: In evaluation mode; takes images normalised by `mean` and `std`.
        mean: Channel means, on pixels in [0, 1].
        std: Channel standard deviations.
        has_taught: Whether images were matched to it or labelled by it.
    """

    name: str
    module: nn.Module
    mean: Colour
    std: Colour
    has_taught: bool

    def features(self, images: Tensor) -> Tensor:
        """What its classifier sees of images (N, 3, S, S) uint8: (N, D) float32 on the CPU."""
        device = next(self.module.parameters()).device
        parts = (self.normalise(part.to(device)) for part in images.split(_IMAGES_AT_ONCE))
        return penultimate_features(self.name, self.module, parts)

    def features_of(self, normalised: Tensor) -> Tensor:
        """The same of images (N, 3, S, S) float32 that are normalised already."""
        return penultimate_features(self.name, self.module, self._batches(normalised))

    def logits_of(self, normalised: Tensor) -> Tensor:
        """(N, C) float32 on the CPU, of images (N, 3, S, S) float32, normalised."""
        return predict(self.module, self._batches(normalised))

    def normalise(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) uint8 as it takes them, float32."""
        return normalise(images, self.mean, self.std)

    def _batches(self, normalised: Tensor) -> Iterator[Tensor]:
        device = next(self.module.parameters()).device
        return (part.to(device) for part in normalised.split(_IMAGES_AT_ONCE))


@dataclass(frozen=True, eq=False)
class Information:
    """What some images hold.

    Attributes:
        pixel_entropy: (N,) bits.
        feature_entropy: (N,) bits.
        features: (N, D).
    """

    pixel_entropy: Tensor
    feature_entropy: Tensor
    features: Tensor

    @classmethod
    def of(cls, images: Tensor, observer: Observer, bins: int = 256) -> "Information":
        """Look at images (N, 3, S, S) uint8; `bins` as `fadrm_hf.evaluation.scores.pixel_entropy`."""
        features = observer.features(images)
        return cls(pixel_entropy(images, bins), feature_entropy(features), features)


def recorded_observer(folder: Path, manifest: Manifest, device: torch.device) -> Observer | None:
    """The first teacher that an artifact names; `None` if it names none.

    Raises:
        TeacherError: If it cannot be loaded, or its weights are others.
    """
    if not manifest.teachers:
        return None
    (teacher,) = load_recorded_teachers(folder, manifest, device, 1)
    source = manifest.settings("source", SourceConfig)
    assert source.mean is not None and source.std is not None
    return Observer(manifest.teachers[0].name, teacher.module, source.mean, source.std, has_taught=True)


def named_observer(name: str, manifest: Manifest, device: torch.device) -> Observer:
    """A network by its name as a teacher, e.g. `timm/resnet18.tv_in1k`.

    Args:
        name: See `fadrm_hf.networks.teachers.teacher`; not `squeeze/...`, whose folder is `timm/local-dir:PATH`.
        manifest: The artifact's, whose images it must take.
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
    return Observer(public_name(name), teacher.module, teacher.mean, teacher.std, has_taught=taught)


def classifier_of(observer: Observer, size: int) -> nn.Linear:
    """The linear layer of a network that is called last.

    Args:
        observer: The network.
        size: Side of the images it takes.

    Raises:
        ScoreError: If it has none.
    """
    called: list[nn.Linear] = []

    def note(layer: nn.Module, _: tuple[Any, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        called.append(layer)

    layers = [layer for layer in observer.module.modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        observer.logits_of(torch.zeros(1, 3, size, size))
    finally:
        for handle in handles:
            handle.remove()
    if not called:
        raise ScoreError(f"{observer.name} has no linear classifier; set --network to another network")
    return called[-1]


def penultimate_features(name: str, module: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """What the classifier of a network sees: the inputs of the linear layer that is called last.

    Args:
        name: The network's, for messages.
        module: A classifier; it is used in eval mode.
        batches: (n, 3, S, S) float32, as it takes them.

    Returns:
        (N, D) float32 on the CPU.

    Raises:
        ScoreError: If it has no linear classifier.
    """
    seen: list[Tensor] = []
    kept: list[Tensor] = []

    def look(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])

    def keep(_: nn.Module, inputs: tuple[Any, ...], __: Tensor) -> None:
        if not seen or seen[-1].shape[:-1] != inputs[0].shape[:1]:
            raise ScoreError(f"{name} does not end with a linear classifier of (n, D) features; set --network")
        kept.append(seen[-1].float().cpu())
        seen.clear()

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    handles.append(module.register_forward_hook(keep))
    try:
        predict(module, batches)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(kept)
