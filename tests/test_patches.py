"""Starting images: which crops are kept, in which order, and how they are put together."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from fixtures.small import digits, small_teacher
from PIL import Image as PillowImage
from torch import nn

from fadrm_hf.class_map import ClassMap
from fadrm_hf.config import PatchConfig
from fadrm_hf.errors import SourceError
from fadrm_hf.patches import compose_mosaics, order_by_difficulty, random_images, select_patches
from fadrm_hf.teachers import Teacher

CPU = torch.device("cpu")
SIZE = 32


def make_source(images):
    """A source of one class from (S, S, 3) uint8 arrays."""
    rows = []
    for image in images:
        buffer = io.BytesIO()
        PillowImage.fromarray(image).save(buffer, format="PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    features = Features({"image": Image(decode=False), "label": Value("int64")})
    train = Dataset.from_dict({"image": rows, "label": [0] * len(rows)}, features=features)
    source = digits(SIZE)
    plain = replace(source.config, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return replace(source, config=plain, class_map=ClassMap(("n0",), ("grey",)), train=train)


class PrefersBright(nn.Module):
    """Two logits, of which the first is the mean brightness: cross-entropy falls with it."""

    def forward(self, images):
        bright = images.mean((1, 2, 3))
        return torch.stack((bright, torch.full_like(bright, 0.5)), dim=1)


def prefers_bright(source):
    return Teacher(
        name="test/bright", module=PrefersBright(), class_map=None, mean=source.config.mean, std=source.config.std,
        sha256="0" * 64,
    )  # fmt: skip


@pytest.fixture(scope="module")
def greys():
    """Nine uniform images; from easy to hard they are rows 4, 2, 7, 0, 5, 8, 1, 3, 6."""
    brightness = np.empty(9, np.uint8)
    brightness[[4, 2, 7, 0, 5, 8, 1, 3, 6]] = range(250, 70, -20)
    return make_source([np.full((SIZE, SIZE, 3), value, np.uint8) for value in brightness])


EASY_TO_HARD = [4, 2, 7, 0, 5, 8, 1, 3, 6]


def select(source, ipc, seed=0, **settings):
    return select_patches(source, prefers_bright(source), range(1), ipc, PatchConfig(**settings), seed, CPU)


@pytest.mark.parametrize(
    ("difficulty", "expected"),
    [("easy", [4, 2, 7, 0, 5]), ("hard", [6, 3, 1, 8, 5]), ("medium", [5, 8, 0, 1, 7])],
)
def test_images_are_ranked_by_cross_entropy(greys, difficulty, expected):
    """Easy: lowest first; hard: highest first; medium: from the median outwards, the harder side first."""
    patches = select(greys, 5, difficulty=difficulty)
    assert patches.source_index.flatten().tolist() == expected
    assert patches.label.tolist() == [0] * 5 and patches.ipc_index.tolist() == [*range(5)]
    for patch, row in zip(patches.images, expected, strict=True):
        assert torch.equal(patch, greys.pixels("train", [row])[0])


@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
@pytest.mark.parametrize("num", [1, 2, 7, 8])
def test_an_order_is_a_permutation_whose_beginnings_are_nested(difficulty, num):
    order = order_by_difficulty(torch.arange(num).flip(0) / num, difficulty)
    assert sorted(order.tolist()) == [*range(num)]
    assert order.tolist()[0] == {"easy": num - 1, "hard": 0, "medium": num - 1 - num // 2}[difficulty]


def test_mosaics_show_ranks_row_major(greys):
    """Image i of n shows ranks i, i + n, i + 2n, i + 3n: upper left, upper right, lower left, lower right."""
    patches = select(greys, 2, difficulty="easy", grid=2)
    assert patches.source_index.tolist() == [EASY_TO_HARD[0:8:2], EASY_TO_HARD[1:8:2]]
    half = SIZE // 2
    for mosaic, rows in zip(patches.images, patches.source_index.tolist(), strict=True):
        quarters = [mosaic[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        for quarter, row in zip(quarters, rows, strict=True):
            assert torch.equal(quarter, greys.pixels("train", [row])[0, :, :half, :half])


def test_compose_mosaics_against_a_loop():
    tiles = torch.arange(12 * 3 * 5 * 5).view(12, 3, 5, 5)
    mosaics = compose_mosaics(tiles, 3, 2)
    for image in range(3):
        for row in range(2):
            for column in range(2):
                cell = mosaics[image, :, 5 * row : 5 * row + 5, 5 * column : 5 * column + 5]
                assert torch.equal(cell, tiles[image + 3 * (2 * row + column)])
    assert torch.equal(compose_mosaics(tiles, 12, 1), tiles)


def test_mosaics_of_an_odd_size_are_filled_at_the_border(greys):
    odd = replace(greys, config=replace(greys.config, size=15))
    patches = select(odd, 2, grid=2, difficulty="easy")
    assert patches.images.shape == (2, 3, 15, 15)
    assert torch.equal(patches.images[..., 14], patches.images[..., 13])


@pytest.mark.parametrize("grid", [1, 2])
def test_at_most_one_crop_of_each_image(grid):
    source = digits()
    patches = select_patches(
        source, small_teacher(source), range(10), 4, PatchConfig(grid=grid, pool=30, crops_per_image=3), 0, CPU
    )
    for label in range(10):
        rows = patches.source_index[patches.label == label].flatten()
        assert len(rows.unique()) == len(rows) == 4 * grid * grid
        assert (source.labels("train")[rows] == label).all()


def test_the_best_of_some_crops_stands_for_an_image():
    """Left half black, right half white: of thirty small crops at least one is all white."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[:, SIZE // 2 :] = 255
    settings = {"crop_area": (0.05, 0.05), "difficulty": "easy"}
    assert select(make_source([image]), 1, crops_per_image=30, **settings).images.float().mean() == 255
    single = [select(make_source([image]), 1, seed, crops_per_image=1, **settings) for seed in range(8)]
    assert min(patches.images.float().mean().item() for patches in single) < 100


def test_no_more_than_the_pool_is_looked_at(greys):
    kept = [set(select(greys, 4, pool=4, difficulty=d).source_index.flatten().tolist()) for d in ("easy", "hard")]
    assert kept[0] == kept[1] and len(kept[0]) == 4
    wide = [set(select(greys, 4, pool=9, difficulty=d).source_index.flatten().tolist()) for d in ("easy", "hard")]
    assert wide == [set(EASY_TO_HARD[:4]), set(EASY_TO_HARD[5:])]


def test_a_pool_is_never_smaller_than_what_is_needed(greys):
    assert len(select(greys, 2, pool=1, grid=2).source_index.unique()) == 8


def test_classes_may_be_selected_in_any_grouping():
    source = digits()
    teacher, config = small_teacher(source), PatchConfig(pool=20, crops_per_image=2)
    together = select_patches(source, teacher, range(10), 3, config, 5, CPU)
    parts = [select_patches(source, teacher, classes, 3, config, 5, CPU) for classes in (range(4, 10), range(4))]
    for name, column in vars(together).items():
        joined = torch.cat([vars(parts[1])[name], vars(parts[0])[name]])
        assert torch.equal(column, joined), name


def test_a_whole_crop_is_the_image_at_its_native_size():
    images = [np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8) for seed in range(3)]
    source = make_source(images)
    patches = select(source, 3, crop_area=(1.0, 1.0))
    for patch, (row,) in zip(patches.images, patches.source_index.tolist(), strict=True):
        assert np.array_equal(patch.permute(1, 2, 0).numpy(), images[row])


def test_crops_are_squares_of_the_asked_area_inside_the_image():
    """Each pixel tells its own row and column; enlarged crops keep the values of their borders."""
    rows, columns = np.mgrid[0:64, 0:64].astype(np.uint8)
    image = np.stack((rows, columns, np.zeros_like(rows)), axis=2)
    source = make_source([image] * 40)
    patches = select(source, 40, crop_area=(0.05, 0.2), crops_per_image=1)
    first, last = patches.images[:, :2, 0, 0].long(), patches.images[:, :2, -1, -1].long()
    sides = last - first + 1
    assert torch.equal(sides[:, 0], sides[:, 1])
    assert bool((first >= 0).all()) and bool((last <= 63).all())
    low, high = round(64 * 0.05**0.5), round(64 * 0.2**0.5)
    assert low <= sides.min() < low + 4 and high - 4 < sides.max() <= high
    assert len(first.unique(dim=0)) > 30


def test_a_class_with_too_few_images_is_named(greys):
    with pytest.raises(SourceError, match=r"class 'grey' has 9 training images, 12 are needed.*--patches.grid 1"):
        select(greys, 3, grid=2)
    with pytest.raises(SourceError, match="class 'grey' has 9 training images, 10 are needed"):
        random_images(greys, range(1), 10, 0)


def test_random_images_are_whole_images_without_repetition():
    source = digits()
    patches = random_images(source, range(10), 6, 0)
    rows = patches.source_index.flatten()
    assert patches.source_index.shape == (60, 1) and len(rows.unique()) == 60
    assert torch.equal(patches.images, source.pixels("train", rows.tolist()))
    assert (source.labels("train")[rows] == patches.label.numpy()).all()
    assert not torch.equal(random_images(source, range(10), 6, 1).source_index, patches.source_index)
