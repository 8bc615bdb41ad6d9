"""Protocols with a hard phase (soft, hard, soft), against the same written out as dense targets in float64."""

from pathlib import Path

import pytest
import torch
import yaml
from fixtures.runs import EPOCHS, STUDENT

from fadrm_hf.config import SourceConfig, StudentConfig
from fadrm_hf.data.sources import load_source
from fadrm_hf.data.views import LabelViews, render_views
from fadrm_hf.errors import ConfigError
from fadrm_hf.networks.students import create_student
from fadrm_hf.runtime.progress import Task
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.tensor_files import load_tensors
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.one_student import StudentTraining
from fadrm_hf.training.protocol import hard_label_loss, is_hard_epoch
from fadrm_hf.training.testing import TestImages as HeldOutImages

CPU = torch.device("cpu")
MICRO_BATCHES = ((slice(0, 16), 16 / 20), (slice(16, 20), 4 / 20))  # of the 20 images of a step, and their shares
HALD = StudentConfig(
    name="hald", student=STUDENT, epochs=EPOCHS, lr=1e-3, eta=2.0, hard_phase=(0.25, 0.75), label_smoothing=0.8
)


def dense_cross_entropy(logits, labels, mix_labels, shares, smoothing):
    """Cross-entropy with one (n, C) matrix of class probabilities, in float64."""
    num_classes = logits.shape[1]
    target = torch.zeros(logits.shape, dtype=torch.float64)
    for row, (own, other, share) in enumerate(zip(labels.tolist(), mix_labels.tolist(), shares.tolist(), strict=True)):
        target[row, own] += 1 - share
        target[row, other] += share
    target = (1 - smoothing) * target + smoothing / num_classes
    return -(target * logits.double().log_softmax(1)).sum(1).mean()


def kl(student, teacher, temperature):
    p, q = ((logits.double() / temperature).softmax(1) for logits in (teacher, student))
    return (p * (p.log() - q.log())).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.8])
def test_the_hard_loss_is_cross_entropy_with_the_mixed_and_smoothed_classes(smoothing):
    rng = generator(0, "test")
    logits = 3 * torch.randn((7, 10), generator=rng)
    labels, mix_labels = (torch.randint(0, 10, (7,), generator=rng) for _ in range(2))
    shares = torch.tensor([0.0, 1.0, 0.5, 0.25, 0.9, 0.1, 0.3])
    expected = dense_cross_entropy(logits, labels, mix_labels, shares, smoothing)
    found = hard_label_loss(logits.double(), labels, mix_labels, shares.double(), smoothing)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        hard_label_loss(logits, labels, mix_labels, shares, smoothing).double(), expected, rtol=1e-5, atol=0
    )


def test_a_share_is_the_part_of_the_pixels_that_shows_the_partner():
    images = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 3, 16, 16).contiguous()
    seen = set()
    for seed in range(20):
        views = LabelViews.draw(torch.arange(12), 16, (0.08, 1.0), 0.5, True, generator(seed, "test"))
        shown = render_views(images, views)[:, 0]
        other = views.mix_image != views.image
        counted = (shown == views.mix_image[:, None, None]).double().mean(dim=(1, 2))
        torch.testing.assert_close(views.mix_shares(16)[other].double(), counted[other], rtol=0, atol=1e-7)
        seen |= set(counted[other].tolist())
        assert not views.unmixed().mix_shares(16).any()
    assert len(seen) > 10


def test_batches_know_the_classes_that_are_mixed(finished_random_real):
    distilled = load_distilled(finished_random_real)
    (batch,) = distilled.batches(range(1))
    assert 0 < batch.mix_shares.mean() < 1 and (batch.mix_labels != batch.labels).any()
    (plain,) = distilled.batches(range(1), mixed=False)
    assert not plain.mix_shares.any() and torch.equal(plain.mix_labels, plain.labels)


@pytest.mark.parametrize(
    ("epochs", "phase", "expected"),
    [(300, (0.25, 0.75), range(75, 225)), (4, (0.25, 0.75), range(1, 3)), (10, (0.0, 0.5), range(5)),
     (10, (0.5, 1.0), range(5, 10)), (7, (0.5, 0.51), range(4, 4))],
)  # fmt: skip
def test_a_phase_begins_and_ends_where_it_is_said(epochs, phase, expected):
    config = StudentConfig(epochs=epochs, hard_phase=phase)
    assert [epoch for epoch in range(epochs) if is_hard_epoch(config, epoch)] == list(expected)


def test_without_a_phase_all_epochs_are_alike():
    assert not any(is_hard_epoch(StudentConfig(epochs=9), epoch) for epoch in range(9))
    assert all(is_hard_epoch(StudentConfig(epochs=9, labels="hard"), epoch) for epoch in range(9))


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"hard_phase": (0.5, 0.5)}, "student.hard_phase"), ({"hard_phase": (-0.1, 0.5)}, "student.hard_phase"),
     ({"hard_phase": (0.2, 1.1)}, "student.hard_phase"), ({"hard_phase": (0.5,)}, "student.hard_phase"),
     ({"hard_phase": (0.2, 0.5), "labels": "hard"}, "hard throughout"),
     ({"label_smoothing": 1.0}, "student.label_smoothing"), ({"label_smoothing": -0.1}, "student.label_smoothing")],
)  # fmt: skip
def test_a_phase_or_smoothing_that_cannot_be_is_refused(settings, named):
    with pytest.raises(ConfigError, match=named):
        StudentConfig(**settings)


def test_the_protocol_on_file_is_the_published_schedule():
    path = Path(__file__).parent.parent.parent / "recipes/configs/protocols/hald.yaml"
    values = yaml.safe_load(path.read_text())
    config = StudentConfig(**values | {"epochs": 300, "hard_phase": tuple(values["hard_phase"])})
    kinds = [is_hard_epoch(config, epoch) for epoch in range(300)]
    assert kinds == [False] * 75 + [True] * 150 + [False] * 75
    assert (config.labels, config.label_smoothing, config.temperature) == ("soft", 0.8, 20.0)


class Watching(Task):
    """Keeps the loss of every epoch and the checkpoint after it; stops after some number of epochs if asked to."""

    def __init__(self, checkpoint, stop_after=None):
        super().__init__("test", EPOCHS)
        self._checkpoint, self._stop_after = checkpoint, stop_after
        self.losses, self.kept = [], []

    def advance(self, units=1, **metrics):
        super().advance(units, **metrics)
        self.losses.append(metrics["loss"])
        self.kept.append(load_tensors(self._checkpoint))
        if len(self.kept) == self._stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def parts(finished_random_real):
    """One step an epoch: the loss of an epoch is that of its one batch under the weights of the epoch before."""
    return load_distilled(finished_random_real), HeldOutImages(load_source(SourceConfig(name="digits", size=16)), CPU)


def trained(parts, checkpoint, stop_after=None):
    task = Watching(checkpoint, stop_after)
    try:
        StudentTraining(*parts, HALD, 0, CPU).run(checkpoint, task)
    except KeyboardInterrupt:
        assert stop_after is not None
    return task


def test_a_training_is_soft_then_hard_then_soft(parts, tmp_path):
    task = trained(parts, tmp_path / "student.safetensors")
    batches = list(parts[0].batches(range(EPOCHS)))
    for epoch in range(1, EPOCHS):
        student, batch = create_student(STUDENT, 10, 16), batches[epoch]
        weights = {k[len("module.") :]: v for k, v in task.kept[epoch - 1].items() if k.startswith("module.")}
        student.load_state_dict(weights)
        student = student.double().train()
        expected = {"soft": 0.0, "hard": 0.0}
        for rows, share in MICRO_BATCHES:
            predicted = student(batch.images[rows].double())
            columns = (batch.labels[rows], batch.mix_labels[rows], batch.mix_shares[rows])
            expected["hard"] += share * dense_cross_entropy(predicted, *columns, 0.8).item()
            expected["soft"] += share * kl(predicted, batch.logits[rows], 20.0).item()
        kind, other = ("hard", "soft") if epoch in (1, 2) else ("soft", "hard")
        assert task.losses[epoch] == pytest.approx(expected[kind], rel=1e-3)
        assert task.losses[epoch] != pytest.approx(expected[other], rel=1e-1)


@pytest.mark.parametrize("epochs", [1, 2, 3], ids=["before the hard phase", "in it", "after it"])
def test_a_training_goes_on_across_a_phase_as_if_undisturbed(parts, tmp_path, epochs):
    whole = trained(parts, tmp_path / "whole.safetensors").kept[-1]
    checkpoint = tmp_path / "interrupted.safetensors"
    assert len(trained(parts, checkpoint, stop_after=epochs).kept) == epochs
    rest = trained(parts, checkpoint).kept
    assert len(rest) == EPOCHS - epochs
    assert rest[-1].keys() == whole.keys()
    assert all(torch.equal(rest[-1][name], whole[name]) for name in whole)
