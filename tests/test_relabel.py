"""Soft labels: which images share a forward pass, which layers see batch statistics, what is averaged."""

from dataclasses import replace

import pytest
import torch
from fixtures.small import Network, digits, small_teacher
from torch import nn

from fadrm_hf.config import RelabelConfig
from fadrm_hf.randomness import generator
from fadrm_hf.relabel import Labeller, label_epoch, micro_batches, split_sizes
from fadrm_hf.sources.images import normalise
from fadrm_hf.views import LabelViews, render_views

CPU = torch.device("cpu")
CONFIG = RelabelConfig(epochs=2, flip_probability=0.5)


@pytest.fixture(scope="module")
def source():
    return digits()


@pytest.fixture(scope="module")
def teachers(source):
    return [small_teacher(source, seed) for seed in range(2)]


@pytest.fixture(scope="module")
def images(source):
    return source.pixels("train", range(33))


def labeller(source, teachers, config=CONFIG):
    return Labeller(teachers, config, source.config.mean, source.config.std, CPU)


def shown(source, images, views):
    return normalise(render_views(images, views), source.config.mean, source.config.std)


def some_views(num, seed=0):
    rng = generator(seed, "test")
    return LabelViews.draw(torch.randperm(33, generator=rng)[:num], 16, (0.08, 1.0), 0.5, True, rng)


@pytest.mark.parametrize(
    ("total", "size", "expected"),
    [(32, 16, [16, 16]), (33, 16, [16, 17]), (34, 16, [16, 16, 2]), (1, 16, [1]), (15, 16, [15]), (17, 8, [8, 9])],
)
def test_no_group_of_a_single_image(total, size, expected):
    assert split_sizes(total, size) == expected


def test_micro_batches_are_those_of_the_student():
    assert micro_batches(16, CONFIG) == [8, 8]
    assert micro_batches(17, CONFIG) == [8, 9]
    assert micro_batches(5, CONFIG) == [5]


def batch_statistics_forward(module, images):
    """BSSL by hand: normalise by the batch's own statistics, everything else as in eval mode."""

    def normalised(x, bn):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        weight, bias = bn.weight.view(1, -1, 1, 1), bn.bias.view(1, -1, 1, 1)
        return (x - mean) / (var + bn.eps).sqrt() * weight + bias

    x = torch.relu(normalised(module.conv1(images), module.bn1))
    x = torch.relu(normalised(module.conv2(x), module.bn2))
    return module.head(x.mean((2, 3)))


def test_without_teachers_the_same_views_are_drawn(source, teachers, images):
    labelled, alone = (label_epoch(images, who, CONFIG, 3, 1) for who in (labeller(source, teachers), None))
    assert labelled.keys() - alone.keys() == {"logits"}
    assert all(column.equal(labelled[name]) for name, column in alone.items())


def test_bssl_labels_each_micro_batch_by_its_own_statistics(source, teachers, images):
    views = some_views(16)
    labels = labeller(source, teachers[:1]).label(images, views)
    halves = shown(source, images, views).split(8)
    expected = torch.cat([batch_statistics_forward(teachers[0].module, half) for half in halves])
    torch.testing.assert_close(labels, expected, rtol=1e-4, atol=1e-4)
    whole = batch_statistics_forward(teachers[0].module, torch.cat(halves))
    assert (labels - whole).abs().max() > 0.05


def test_running_statistics_make_labels_independent_of_the_batch(source, teachers, images):
    config = replace(CONFIG, batch_statistics=False)
    views = some_views(16)
    labels = labeller(source, teachers[:1], config).label(images, views)
    torch.testing.assert_close(labels, teachers[0].module(shown(source, images, views)), rtol=1e-5, atol=1e-5)


def test_labels_are_the_mean_of_logits(source, teachers, images):
    views = some_views(16)
    each = [labeller(source, [teacher]).label(images, views) for teacher in teachers]
    both = labeller(source, teachers).label(images, views)
    torch.testing.assert_close(both, (each[0] + each[1]) / 2, rtol=1e-6, atol=1e-6)


class WithDropout(Network):
    """A teacher whose dropout must stay off while BatchNorm uses batch statistics."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Dropout(0.9), nn.Linear(16, 10))


def test_only_batchnorm_uses_batch_statistics(source, images):
    teacher = small_teacher(source, 0, 5, WithDropout())
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    ours = labeller(source, [teacher])
    assert torch.equal(ours.label(images, some_views(16)), ours.label(images, some_views(16)))
    after = teacher.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "running statistics must not drift"


class ToOnePixel(nn.Module):
    """A network whose BatchNorm sees 1 x 1 maps, where a single image has no statistics."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 16), nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, images):
        return self.head(self.bn(self.conv(images)).flatten(1))


def test_a_last_batch_of_one_image_is_handled(source, images):
    teacher = small_teacher(source, 0, 2, ToOnePixel())
    table = label_epoch(images, labeller(source, [teacher]), CONFIG, 0, 0)  # 33 = 2 * 16 + 1
    assert torch.isfinite(table["logits"]).all()
    assert table["step"].unique(return_counts=True)[1].tolist() == [16, 17]


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(source, teachers, images):
    first, second = (label_epoch(images, labeller(source, teachers), CONFIG, 0, epoch) for epoch in range(2))
    for epoch, table in enumerate((first, second)):
        assert table["image"].sort().values.tolist() == list(range(33))
        assert (table["epoch"] == epoch).all() and (table["step"].diff() >= 0).all()
    assert not torch.equal(first["image"], second["image"])
    assert not torch.equal(first["crop"], second["crop"])


def test_stored_rows_replay_to_the_stored_logits_bit_for_bit(source, teachers, images):
    ours = labeller(source, teachers)
    table = label_epoch(images, ours, CONFIG, 3, 1)
    for step in range(2):
        rows = table["step"] == step
        views = LabelViews.from_columns({name: column[rows] for name, column in table.items()})
        assert torch.equal(ours.label(images, views), table["logits"][rows])


def test_epochs_are_labelled_alike_alone_and_again(source, teachers, images):
    ours = labeller(source, teachers)
    alone = label_epoch(images, ours, CONFIG, 0, 1)
    label_epoch(images, ours, CONFIG, 0, 0)
    again = label_epoch(images, ours, CONFIG, 0, 1)
    assert all(torch.equal(alone[name], again[name]) for name in alone)
