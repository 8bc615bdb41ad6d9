"""The difficulty of real images, the statistics of its groups, and the images of each, by loops in float64."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from accelerate import PartialState
from fixtures.plain_matching import channel_statistics, network, seen
from fixtures.small import small_teacher
from fixtures.small_digits import RECIPE, small_digits

from fadrm_hf.config import Matching, PatchConfig, StatisticsConfig
from fadrm_hf.methods.psm import PSM
from fadrm_hf.networks.teachers.teacher import weights_sha256
from fadrm_hf.recovery.matching.difficulty import difficulty_groups, image_scores
from fadrm_hf.recovery.matching.distance import MatchedStatistics
from fadrm_hf.recovery.matching.gathering import StatisticsPass
from fadrm_hf.recovery.matching.targets import Targets
from fadrm_hf.recovery.patches.graded import pick_in_groups
from fadrm_hf.recovery.patches.starting import starting_images
from fadrm_hf.runtime.progress import QUIET
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
GROUPS = 3
WHOLE = StatisticsConfig(augment=False)


@pytest.fixture(scope="module")
def source():
    return small_digits(150, 20)


@pytest.fixture(scope="module")
def teacher(source):
    made = small_teacher(source, steps=4)
    return replace(made, sha256=weights_sha256(made.module))


def scores_by_hand(module, images):
    """GPS, image by image, layer by layer and channel by channel; beta 1, epsilon 1e-6."""
    exact, scores = copy.deepcopy(module).double(), []
    for image in images.double():
        terms = []
        for name, maps in seen(exact, image[None])[1].items():
            layer = exact.get_submodule(name)
            if not isinstance(layer, torch.nn.BatchNorm2d):
                continue
            squares, logarithms = 0.0, 0.0
            for channel, values in enumerate(maps[0]):
                mean = values.mean().item()
                var = ((values - mean) ** 2).mean().item()
                squares += (mean - layer.running_mean[channel].item()) ** 2
                logarithms += math.log((var + 1e-6) / (layer.running_var[channel].item() + 1e-6)) ** 2
            terms.append((math.sqrt(squares) + math.sqrt(logarithms)) / math.sqrt(maps.shape[1]))
        scores.append(sum(terms) / len(terms))
    return torch.tensor(scores, dtype=torch.float64)


def test_the_score_is_the_distance_from_running_statistics():
    images = torch.randn((7, 3, 9, 9), dtype=torch.float64, generator=generator(0, "scores"))
    module = network()
    torch.testing.assert_close(image_scores(module, images.split(3)), scores_by_hand(module, images))


@pytest.mark.parametrize(("num", "groups", "sizes"), [(12, 3, [4, 4, 4]), (11, 3, [4, 4, 3]), (3, 3, [1, 1, 1])])
def test_groups_are_equal_parts_of_the_ranks(num, groups, sizes):
    scores = torch.rand(num, generator=generator(num, "groups"))
    found = difficulty_groups(scores, groups)
    assert found.bincount().tolist() == sizes
    assert all(scores[found == g].max() < scores[found == g + 1].min() for g in range(groups - 1))


def test_the_end_of_a_group_that_an_image_starts_from():
    scores = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.7, 0.2])  # groups: images 1 and 5, 3 and 0, 4 and 2
    ends = {"easy": [1, 3, 4], "medium": [5, 0, 2], "hard": [5, 0, 2]}
    assert {end: pick_in_groups(scores, 3, end).tolist() for end in ends} == ends


def grouped(source, teacher):
    """The groups of all training images, ranked class by class, and these images."""
    images = source.normalise(source.pixels("train", range(len(source.train))))
    labels = torch.as_tensor(source.labels("train"))
    scores, groups = scores_by_hand(teacher.module, images), torch.empty(len(images), dtype=torch.int64)
    for label in range(10):
        rows = (labels == label).nonzero()[:, 0]
        for rank, row in enumerate(rows[scores[rows].argsort()].tolist()):
            groups[row] = rank * GROUPS // len(rows)
    return images, labels, scores, groups


def test_statistics_of_a_group_are_those_of_its_images_of_all_classes(source, teacher, tmp_path):
    matching = PSM(num_groups=GROUPS).matching
    statistics = StatisticsPass(teacher, source, WHOLE, RECIPE, matching, 0)
    measured = statistics.gather(tmp_path, PartialState(cpu=True), QUIET)
    images, _, _, groups = grouped(source, teacher)
    assert set(measured) == {"bn1", "bn2"}
    exact = copy.deepcopy(teacher.module).double()
    for group in range(GROUPS):
        with torch.no_grad():
            maps = seen(exact, images[groups == group].double())[1]
        for name, targets in measured.items():
            mean, var = channel_statistics(maps[name])
            torch.testing.assert_close(targets.class_mean[group].double(), mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(targets.class_var[group].double(), var, rtol=1e-4, atol=1e-5)
    other = StatisticsPass(teacher, source, WHOLE, RECIPE, replace(matching, difficulty_groups=2), 0)
    other.gather(tmp_path, PartialState(cpu=True), QUIET)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2, "of other groups there is another file"


def test_a_group_without_images_has_the_statistics_of_all(source, teacher, tmp_path):
    one_each = replace(WHOLE, images_per_class=1)
    matching = Matching(category=1.0, difficulty_groups=2)
    measured = StatisticsPass(teacher, source, one_each, RECIPE, matching, 0).gather(
        tmp_path, PartialState(cpu=True), QUIET
    )
    for targets in measured.values():
        assert torch.equal(targets.class_mean[1], targets.mean) and torch.equal(targets.class_var[1], targets.var)
        torch.testing.assert_close(targets.class_mean[0], targets.mean, rtol=1e-5, atol=1e-6)


def test_a_batch_is_matched_to_the_group_of_its_index():
    """Values and gradients, with the factor 10 on the first layer; the classes of the images do not count."""
    module = network()
    rng = generator(0, "targets")
    targets = {}
    for name, width in (("1", 4), ("4", 6)):
        mean, var = torch.randn((GROUPS, width), generator=rng), torch.rand((GROUPS, width), generator=rng)
        own = module.get_submodule(name)
        targets[name] = Targets(own.running_mean, own.running_var, class_mean=mean.double(), class_var=var.double())
    watch = MatchedStatistics(module, PSM(num_groups=GROUPS).matching, 10.0, targets)
    for group in range(GROUPS):
        watch.begin(torch.arange(5), rng, torch.full((5,), group))
        images = torch.randn((5, 3, 9, 9), dtype=torch.float64, generator=rng).requires_grad_()
        module(images)
        found, maps, expected = watch.loss(), seen(network(), images)[1], 0.0
        for factor, name in ((10.0, "1"), (1.0, "4")):
            mean, var = channel_statistics(maps[name])
            goal = targets[name].class_mean[group], targets[name].class_var[group]
            expected = expected + factor * ((goal[0] - mean).norm() + (goal[1] - var).norm())
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        gradients = [torch.autograd.grad(loss, images, retain_graph=True)[0] for loss in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_image_i_starts_from_group_i(source, teacher, difficulty):
    patches = starting_images("graded", source, teacher, range(10), GROUPS, PatchConfig(difficulty), 0, CPU)
    _, labels, scores, groups = grouped(source, teacher)
    rows = patches.source_index[:, 0]
    assert torch.equal(labels[rows], patches.label) and torch.equal(groups[rows], patches.ipc_index)
    for row in rows.tolist():
        others = scores[(labels == labels[row]) & (groups == groups[row])]
        assert scores[row] == (others.min() if difficulty == "easy" else others.max())
    assert torch.equal(patches.images, source.pixels("train", rows.tolist()))
