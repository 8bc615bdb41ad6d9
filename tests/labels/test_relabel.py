"""Soft labels: which images share a forward pass, which layers see batch statistics, what is averaged."""

import itertools
import math
from dataclasses import replace

import pytest
import timm
import torch
from fixtures.small import Network, digits, small_teacher
from torch import nn

import fadrm_hf.networks.small_images  # noqa: F401 - registers the small-image architectures
from fadrm_hf.config import RelabelConfig
from fadrm_hf.data.pixels import normalise
from fadrm_hf.data.views import LabelViews, render_views
from fadrm_hf.errors import ConfigError
from fadrm_hf.labels.drawing import micro_batches, split_sizes
from fadrm_hf.labels.relabel import Labeller, check_labelling, combine_logits, label_epoch
from fadrm_hf.networks.teachers import vote_weights
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

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


# Of ResNet-18, ResNet-50, ShuffleNetV2, MobileNetV2 and DenseNet-121 in Jiacheng8/CV-DD @ 24097e9, and their weights.
PRIORS = {
    "cifar100": ((64, 60.6, 51.6, 59.4, 56.4), (0.32, 0.23, 0.09, 0.20, 0.15)),
    "cifar10": ((63, 65.3, 68.5, 67.6, 67.4), (0.14, 0.18, 0.24, 0.22, 0.22)),
    "imagenet1k": ((56.4, 42.3, 52.5, 44.2, 40.6), (0.41, 0.10, 0.28, 0.12, 0.09)),
    "imagenette": ((62.4, 52, 57.2, 54, 60.8), (0.31, 0.11, 0.18, 0.13, 0.26)),
    "tiny_imagenet": ((46.5, 28.3, 43.6, 44.8, 41.5), (0.30, 0.05, 0.22, 0.25, 0.18)),
}


@pytest.mark.parametrize("name", PRIORS)
def test_votes_weigh_as_the_released_priors_do(name):
    priors, expected = PRIORS[name]
    weights = vote_weights(torch.tensor(priors) / 100, 10.0)
    torch.testing.assert_close(weights, torch.tensor(expected), rtol=0, atol=0.005 + 1e-6)
    powers = [math.exp((prior - max(priors)) / 10) for prior in priors]
    torch.testing.assert_close(weights, torch.tensor([p / sum(powers) for p in powers]), rtol=1e-6, atol=0)


def test_a_vote_of_two_members_is_uneven():
    """ResNet-18 and MobileNetV2 of ImageNet-1k, at the temperature of CV-DD's recovery."""
    torch.testing.assert_close(
        vote_weights(torch.tensor([0.564, 0.442]), 5.0), torch.tensor([0.92, 0.08]), rtol=0, atol=0.005
    )


def by_votes(logits):
    """Teachers of votes 0.9 and 0.7 at temperature 10: weights in the ratio e^9 : e^7."""
    first, second = math.exp(9 - 9), math.exp(7 - 9)
    return (first * logits[0] + second * logits[1]) / (first + second)


def by_frobenius(logits):
    """Both scaled to the mean of their norms over the whole step."""
    norms = [math.sqrt(sum(value**2 for value in z.flatten().tolist())) for z in logits]
    return sum(z * (sum(norms) / 2 / norm) for z, norm in zip(logits, norms, strict=True)) / 2


ENSEMBLES = {"mean": lambda logits: (logits[0] + logits[1]) / 2, "votes": by_votes, "frobenius": by_frobenius}


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("batch_statistics", [True, False])
def test_logits_of_several_teachers_become_one_label(ensemble, batch_statistics, source, teachers, images):
    config = replace(CONFIG, ensemble=ensemble, batch_statistics=batch_statistics)
    voting = [replace(teacher, vote=vote) for teacher, vote in zip(teachers, (0.9, 0.7), strict=True)]
    views = some_views(16)
    alone = replace(config, ensemble="mean")
    each = [labeller(source, [teacher], alone).label(images, views).double() for teacher in teachers]
    expected = ENSEMBLES[ensemble](each)
    labels = labeller(source, voting, config).label(images, views)
    torch.testing.assert_close(labels.double(), expected, rtol=1e-5, atol=1e-6)
    others = [rule(each) for name, rule in ENSEMBLES.items() if name != ensemble]
    assert all((other - expected).abs().max() > 1e-3 for other in others), "the rules can be told apart"


def test_frobenius_norms_are_of_the_whole_step(source, teachers, images):
    """Not of a micro-batch of 8: half a step alone is labelled in another way, though by running statistics."""
    ours = labeller(source, teachers, replace(CONFIG, ensemble="frobenius", batch_statistics=False))
    normalised = shown(source, images, some_views(16))
    whole = ours.label_rendered(normalised)
    assert (whole[:8] - ours.label_rendered(normalised[:8])).abs().max() > 1e-3


def test_a_teacher_that_says_nothing_has_no_norm_to_scale_to():
    logits = torch.stack((torch.zeros(2, 3), torch.ones(2, 3)))
    combined = combine_logits(logits, replace(CONFIG, ensemble="frobenius"))
    torch.testing.assert_close(combined, torch.full((2, 3), 0.25))  # scaled to half its norm, and halved


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_the_first_teachers_label(ensemble, source, teachers, images):
    views = some_views(16)
    voting = [replace(teacher, vote=vote) for teacher, vote in zip(teachers, (0.2, 0.9), strict=True)]
    config = replace(CONFIG, ensemble=ensemble, num_teachers=1)
    expected = labeller(source, teachers[:1]).label(images, views)
    torch.testing.assert_close(labeller(source, voting, config).label(images, views), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "num_teachers", "has_votes", "message"),
    [
        ({"num_teachers": 3}, 2, True, "relabel.num_teachers is 3, expected at most 2.*--relabel.num_teachers 2"),
        ({"ensemble": "votes"}, 2, False, "'votes', which needs the vote of every teacher.*--relabel.ensemble mean"),
        ({"shuffle_tiles": 2}, 2, True, "an even side, but they have 15 pixels.*--relabel.shuffle_tiles 1"),
    ],
)
def test_labels_that_cannot_be_made_are_refused(changes, num_teachers, has_votes, message):
    with pytest.raises(ConfigError, match=message):
        check_labelling(replace(CONFIG, **changes), num_teachers, has_votes, 15)


def test_labels_that_can_be_made_are_not_refused():
    check_labelling(replace(CONFIG, num_teachers=2, ensemble="votes", shuffle_tiles=2), 2, True, 16)
    check_labelling(replace(CONFIG, ensemble="frobenius"), 1, False)


def test_a_labeller_needs_the_votes_of_those_who_label(source, teachers):
    config = replace(CONFIG, ensemble="votes")
    half = [replace(teachers[0], vote=0.5), teachers[1]]
    labeller(source, half, replace(config, num_teachers=1))
    for pool in (half, half[::-1]):
        with pytest.raises(ConfigError, match="needs the vote of every teacher"):
            labeller(source, pool, config)
    with pytest.raises(ConfigError, match="num_teachers is 3, expected at most 2"):
        labeller(source, teachers, replace(CONFIG, num_teachers=3))


def test_an_epoch_of_shuffled_mosaics_replays_bit_for_bit(source, teachers, images):
    ours, config = labeller(source, teachers), replace(CONFIG, shuffle_tiles=2)
    table = label_epoch(images, ours, config, 3, 1)
    crosses = (table["crop"][:, :2] + table["crop"][:, 2:]) > 16
    assert crosses.any() and (table["crop"][:, :2] < 16).all()
    plain = label_epoch(images, None, CONFIG, 3, 1)
    assert torch.equal(plain["image"], table["image"]), "the order of images does not depend on it"
    for step in range(2):
        rows = table["step"] == step
        views = LabelViews.from_columns({name: column[rows] for name, column in table.items()})
        assert torch.equal(ours.label(images, views), table["logits"][rows])


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


def test_many_steps_share_a_pass_and_each_is_labelled_as_alone(source, teachers):
    """More steps than a pass takes, and a last one of 17 views whose micro-batches are of 8 and 9."""
    images = source.pixels("train", range(16 * 20 + 1))
    for config in (CONFIG, replace(CONFIG, ensemble="frobenius"), replace(CONFIG, batch_statistics=False)):
        ours = labeller(source, teachers, config)
        table = label_epoch(images, ours, config, 0, 0)
        sizes = table["step"].unique(return_counts=True)[1].tolist()
        assert sizes == [16] * 19 + [17]
        views = LabelViews.from_columns(table)
        ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
        alone = [ours.label(images, views[start:end]) for start, end in itertools.pairwise(ends)]
        torch.testing.assert_close(table["logits"], torch.cat(alone), rtol=1e-5, atol=1e-5)
        at_random = LabelViews.cat([views[start:end] for start, end in ((16, 32), (304, 321))])
        some = torch.cat(list(ours.label_steps(images, at_random, [16, 17])))
        torch.testing.assert_close(some, torch.cat((alone[1], alone[19])), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["resnet10_narrow", "mobilenetv2_100_small_stem"])
def test_stored_labels_of_a_deep_teacher_are_those_of_single_steps(architecture, source, images):
    """Large and small passes round alike, so that labels made while training are those that are stored."""
    torch.manual_seed(0)
    module = timm.create_model(architecture, num_classes=10).eval().requires_grad_(False)
    ours = labeller(source, [replace(small_teacher(source), module=module)])
    table = label_epoch(images, ours, CONFIG, 0, 0)
    views = LabelViews.from_columns(table)
    alone = torch.cat([ours.label_rendered(shown(source, images, views[rows])) for rows in (slice(16), slice(16, 33))])
    largest = alone.abs().amax(dim=1, keepdim=True)
    assert ((table["logits"] - alone).abs() <= 2.0**-15 * largest).all(), "far below the rounding of float16"


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_half_precision_rounds_labels_and_nothing_else(batch_statistics, source, teachers, images):
    views, config = some_views(16), replace(CONFIG, batch_statistics=batch_statistics)
    exact, rounded = (
        labeller(source, teachers, replace(config, precision=precision)).label(images, views)
        for precision in ("fp32", "bf16")
    )
    assert rounded.dtype == torch.float32
    difference = (exact - rounded).abs().max() / exact.abs().max()
    assert 0 < difference < 0.05


def test_tf32_is_the_fp32_of_a_processor_and_told_to_a_gpu(source, images):
    """A GPU rounds the factors of fp32 products if and only if that is what the setting says."""
    teacher, views, seen = small_teacher(source), some_views(16), []
    labels = []
    for precision in ("fp32", "tf32"):
        ours = labeller(source, [teacher], replace(CONFIG, precision=precision))
        ours._networks[0]._module.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
        labels.append(ours.label(images, views))
    assert seen == [False, True] and torch.equal(*labels)


@pytest.mark.gpu
@pytest.mark.parametrize("batch_statistics", [True, False])
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-3), ("tf32", 3e-2), ("fp16", 3e-2)])
def test_labels_of_a_gpu_are_those_of_a_cpu(precision, most, batch_statistics, source, images):
    """Of many steps at once, and of each alone."""
    torch.manual_seed(0)
    module = timm.create_model("resnet18_small_stem", num_classes=10).eval().requires_grad_(False)
    teachers = [replace(small_teacher(source), module=module)]
    views = LabelViews.cat([some_views(16, seed) for seed in range(4)])
    config = replace(CONFIG, batch_statistics=batch_statistics)
    expected = torch.cat(list(labeller(source, teachers, config).label_steps(images, views, [16] * 4)))
    colours, config = (source.config.mean, source.config.std), replace(config, precision=precision)
    ours = Labeller(teachers, config, *colours, torch.device("cuda"))
    (together,) = ours.label_steps(images, views, [16] * 4)
    alone = torch.cat([ours.label(images, views[at : at + 16]) for at in range(0, 64, 16)])
    for found in (together, alone):
        assert (found - expected).abs().amax() <= most * expected.abs().amax()
