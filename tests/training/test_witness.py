"""The training of a student a second time: plain torch in float64, beside the library's loader, protocol and step.

The witness reads the artifact's tables by itself: stored pixels, what was done to them, and the teachers' logits. It
crops, mirrors, pastes, weighs the divergence, and takes AdamW's steps from their formulas.
"""

import io
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from fixtures.artifacts import make_artifact
from fixtures.small import Network
from PIL import Image

from fadrm_hf.config import StudentConfig, filled
from fadrm_hf.config.protocols import student_defaults
from fadrm_hf.labels.drawing import micro_batches
from fadrm_hf.training.batch import Batch
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.protocol import create_optimiser, epoch_learning_rate, set_learning_rate
from fadrm_hf.training.student_step import StudentStep

pytestmark = pytest.mark.numerical

EPOCHS, BATCH, SIZE = 3, 4, 8  # of the artifact; two micro-batches of 2 each


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_artifact(tmp_path_factory.mktemp("witness") / "run")


def student():
    torch.manual_seed(1)
    return Network(4).double().train()


def library(folder):
    """The student after all epochs, and the loss of every step."""
    network, distilled = student(), load_distilled(folder)
    published = student_defaults("fadrm", None, "timm/resnet18", 2)
    config = filled(StudentConfig(lr=0.01, eta=2.0, epochs=EPOCHS), **published)
    optimiser, losses = create_optimiser(config, network), []
    step = StudentStep(network, optimiser, config)
    with distilled.batches(range(EPOCHS)) as batches:
        for index, batch in enumerate(batches):
            set_learning_rate(optimiser, epoch_learning_rate(config, index * BATCH // len(distilled.images)))
            columns = (x.double() if x.is_floating_point() else x for x in batch)
            sizes = micro_batches(len(batch.labels), distilled.relabel)
            losses.append(step(Batch(*columns), sizes, is_hard=False))
    return network, torch.stack(losses)


def witness(folder):
    network = student()
    parameters = dict(network.named_parameters())
    first, second = ({name: torch.zeros_like(p) for name, p in parameters.items()} for _ in range(2))
    losses = []
    for count, (epoch, rows) in enumerate(steps_of(folder), start=1):
        rate = 0.01 * (1 + math.cos(math.pi * epoch / (2 * EPOCHS))) / 2  # Eq. 57, with an eta of 2
        loss = sum(divergence(network, rows[half]) * len(rows[half]) / BATCH for half in (slice(2), slice(2, 4)))
        losses.append(loss.detach())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(parameters.items(), gradients, strict=True):
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                unbiased = first[name] / (1 - 0.9**count), second[name] / (1 - 0.999**count)
                if weight.ndim > 1:  # neither biases nor normalisation decay
                    weight -= rate * 0.01 * weight
                weight -= rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
    return network, torch.stack(losses)


def divergence(network, rows):
    """KL(softmax(teacher / 20) || softmax(student / 20)), without 20^2, of one micro-batch."""
    views, goal = (torch.stack(column) for column in zip(*rows, strict=True))
    goal, found = ((logits / 20 - (logits / 20).logsumexp(1, keepdim=True)) for logits in (goal, network(views)))
    return (goal.exp() * (goal - found)).sum() / len(rows)


def steps_of(folder):
    """Of each step its epoch, and its views (3, S, S), normalised, with their logits."""
    images = pq.read_table(folder / "data").column("image").to_pylist()
    pixels = [np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")) for image in images]
    pixels = [torch.tensor(image, dtype=torch.float64).permute(2, 0, 1) for image in pixels]
    rows = pq.read_table(folder / "soft_labels").to_pylist()
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        views = [view_of(pixels, row) / 255 - 0.5 for row in part]
        logits = [torch.tensor(row["logits"], dtype=torch.float64) for row in part]
        yield part[0]["epoch"], list(zip(views, logits, strict=True))


def view_of(pixels, row):
    """CutMix of two crops: inside the box the partner is seen."""
    view = crop_of(pixels[row["image"]], row["crop"], row["flip"])
    partner = crop_of(pixels[row["mix_image"]], row["mix_crop"], row["mix_flip"])
    top, left, height, width = row["mix_box"]
    view[:, top : top + height, left : left + width] = partner[:, top : top + height, left : left + width]
    return view


def crop_of(image, box, is_flipped):
    top, left, height, width = box
    part = image[None, :, top : top + height, left : left + width]
    (view,) = F.interpolate(part, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return view.flip(2) if is_flipped else view


def test_a_student_is_trained_as_the_equations_say(folder):
    (network, losses), (expected, expected_losses) = library(folder), witness(folder)
    assert len(losses) == EPOCHS * 2
    torch.testing.assert_close(losses, expected_losses, rtol=1e-5, atol=1e-9)
    # Views are rendered in float32; a gradient near AdamW's epsilon shows that.
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    moved = (network.head.weight - student().head.weight).abs().mean()
    assert moved > 1e-2, "a thousand times what both may differ by"
