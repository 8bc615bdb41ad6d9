"""The accuracy of any model on the test images of an artifact's source, as `train-student` measures a student's."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fadrm_hf.errors import StudentError
from fadrm_hf.training.accuracy import Accuracy, predict, topk_accuracy
from fadrm_hf.training.loader import Distilled, load_distilled
from fadrm_hf.training.testing import TestImages


def evaluate(
    model: nn.Module, artifact: str | Path | Distilled | TestImages, source: str | Path | None = None
) -> Accuracy:
    """Measure a model's accuracy on the test images of an artifact's source, as `fadrm-hf train-student` does.

    The model is evaluated in eval mode on the device that it is on, and left in the mode that it was in.

    Args:
        model: (B, 3, S, S) normalised images -> (B, C) logits in the order of the artifact's classes: of timm, of
            torchvision, or of your own; one of transformers, whose output has `logits`.
        artifact: A run folder, `ORG/NAME` on the Hub, or what `load_distilled` returned; to measure more than once,
            `Distilled.test_images()`, which is read once.
        source: Path to the source, if it has moved.

    Raises:
        ArtifactError: If there is no artifact, or it is damaged.
        ConfigError: If the source is another than the artifact was distilled from.
        HubError: If the Hub does not deliver it.
        SourceError: If the source cannot be read, or has no test images.
        StudentError: If the model does not give one logit per class.
    """
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    if isinstance(artifact, str | Path):
        artifact = load_distilled(artifact)
    test = artifact.test_images(source, device) if isinstance(artifact, Distilled) else artifact
    modes = {module: module.training for module in model.modules()}
    try:
        logits = predict(_Classifier(model, test.num_classes), (batch.to(device) for batch in test.batches()))
    finally:
        for module, was_training in modes.items():
            module.training = was_training
    top1, top5 = (topk_accuracy(logits, test.labels, k) for k in (1, 5))
    return Accuracy(top1, top5, len(test), test.are_training_images)


class _Classifier(nn.Module):
    """A model by its logits (n, C), whatever it wraps them in."""

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        super().__init__()
        self._model, self._num_classes = model, num_classes

    def forward(self, images: Tensor) -> Tensor:
        output = self._model(images)
        logits = getattr(output, "logits", output)
        expected = (len(images), self._num_classes)
        if not isinstance(logits, Tensor) or logits.shape != expected:
            given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise StudentError(
                f"the model gives {given} for {len(images)} images, expected {expected}: a logit for each class of the"
                f" artifact; build it with {self._num_classes} classes"
            )
        return logits
