"""Coresets: EL2N against its definition, which images are kept, how they are combined, and the methods by name."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fixtures.small import digits, small_teacher

from fadrm_hf.config import PatchConfig
from fadrm_hf.errors import ConfigError, SourceError
from fadrm_hf.methods.el2n import EL2N
from fadrm_hf.methods.pca import PCA
from fadrm_hf.recovery.patches.coresets import easy_images, el2n
from fadrm_hf.recovery.patches.patches import random_images
from fadrm_hf.recovery.patches.starting import INITS, images_needed, starting_images

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source():
    return digits()


@pytest.fixture(scope="module")
def teacher(source):
    return small_teacher(source)


@pytest.fixture(scope="module")
def ranked(source, teacher):
    """{label: rows, easiest first}, one image at a time from the definition in float64."""
    module = teacher.module.double()
    labels = source.labels("train")
    pixels = source.pixels("train", range(len(labels)))
    order = {}
    for label in range(10):
        rows = (labels == label).nonzero()[0].tolist()
        errors = []
        for row in rows:
            odds = module(source.normalise(pixels[row : row + 1]).double())[0].exp()
            p = odds / odds.sum()
            errors.append(sum((p[k].item() - (k == label)) ** 2 for k in range(10)))
        order[label] = [row for _, row in sorted(zip(errors, rows, strict=True))]
    teacher.module.float()
    return order


def start(kind, source, teacher, classes=range(10), ipc=3, seed=0, **settings):
    return starting_images(kind, source, teacher, classes, ipc, PatchConfig(**settings), seed, CPU)


def test_el2n_against_hand_computed_values():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0], [-1000.0, 1000.0]])
    expected = [math.sqrt(0.5), math.sqrt(2 * 0.25**2), math.sqrt(2.0)]
    assert el2n(logits, 0).tolist() == pytest.approx(expected, rel=1e-6)


def test_el2n_still_ranks_images_that_a_teacher_is_sure_of():
    """Margins of 16 and more: in float32 the probability of the class is 1 or one of its few neighbours."""
    margins = 16.0 + 0.01 * torch.arange(20)
    scores = el2n(torch.stack((margins, torch.zeros(20)), dim=1), 0)
    assert (scores.diff() < 0).all()
    torch.testing.assert_close(scores, math.sqrt(2) * torch.sigmoid(-margins.double()), rtol=1e-6, atol=0)


def test_the_easiest_images_of_each_class_are_kept_whole(source, teacher, ranked):
    patches = start("el2n", source, teacher)
    assert patches.source_index.flatten().tolist() == [row for label in range(10) for row in ranked[label][:3]]
    assert patches.label.tolist() == [label for label in range(10) for _ in range(3)]
    assert patches.ipc_index.tolist() == [0, 1, 2] * 10
    assert torch.equal(patches.images, source.pixels("train", patches.source_index.flatten().tolist()))


def test_combined_images_are_four_whole_ones_dealt_out_by_rank(source, teacher, ranked):
    patches = start("pca", source, teacher, range(4, 6), ipc=2, grid=2)
    assert patches.source_index.tolist() == [
        [ranked[label][image + 2 * tile] for tile in range(4)] for label in (4, 5) for image in range(2)
    ]
    half = source.size // 2
    for mosaic, rows in zip(patches.images, patches.source_index.tolist(), strict=True):
        whole = source.pixels("train", rows).double()
        shrunk = F.interpolate(whole, size=(half, half), mode="bilinear", antialias=True)
        quarters = torch.stack([mosaic[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)])
        assert (quarters - shrunk).abs().max() <= 1.0  # rounded along each axis


def test_a_grid_of_one_combines_nothing(source, teacher):
    one, whole = start("pca", source, teacher, grid=1), start("el2n", source, teacher, grid=2)
    assert all(torch.equal(vars(one)[name], vars(whole)[name]) for name in vars(one))


def test_the_choice_depends_on_neither_seed_nor_pool_nor_grouping(source, teacher):
    together = start("el2n", source, teacher)
    parts = [
        start("el2n", source, teacher, classes, seed=7, pool=1, difficulty="hard")
        for classes in (range(3), range(3, 10))
    ]
    for name, column in vars(together).items():
        assert torch.equal(column, torch.cat([vars(part)[name] for part in parts])), name


@pytest.mark.parametrize(("kind", "needed"), [("el2n", 300), ("pca", 1200), ("random_images", 300), ("patches", 1200)])
def test_a_class_with_too_few_images_is_named(source, teacher, kind, needed):
    """What `images_needed` says is what the selection asks for."""
    assert images_needed(kind, 300, PatchConfig(grid=2)) == needed
    with pytest.raises(SourceError, match=rf"has \d+ training images, {needed} are needed"):
        start(kind, source, teacher, ipc=300, grid=2)


def test_unknown_starting_images_are_refused(source, teacher):
    with pytest.raises(ConfigError, match=r"unknown starting images 'nois'; did you mean 'noise'\?"):
        start("nois", source, teacher)


def test_odd_sizes_are_filled_at_the_border(source, teacher):
    odd = replace(source, config=replace(source.config, size=15))
    images = easy_images(odd, teacher, range(1), 2, 2, CPU).images
    assert images.shape == (2, 3, 15, 15) and torch.equal(images[..., 14], images[..., 13])


@pytest.mark.parametrize("method", [EL2N(), PCA()])
def test_methods_leave_their_coreset_as_it_is(method, source):
    images = source.normalise(random_images(source, range(2), 1, 0).images)
    assert method.init in INITS and method.resolve(16) == method and method.iterations == 0
    assert method.recover(images, None) is images


def test_published_settings():
    assert set(EL2N.published("cifar10", 32, 10)) == {"teachers", "student"}
    assert EL2N.published("cifar10", 32, 10)["student"] == PCA.published("cifar10", 32, 10)["student"]
    assert PatchConfig(**PCA.published("imagenet1k", 224, 10)["patches"]).grid == 2
