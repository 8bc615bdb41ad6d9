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

from fadrm_hf.config import PatchConfig
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.errors import SourceError
from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.recovery.patches.crops import order_by_difficulty, select_patches
from fadrm_hf.recovery.patches.mosaics import compose_mosaics
from fadrm_hf.recovery.patches.noise import noise_start
from fadrm_hf.recovery.patches.patches import random_images
from fadrm_hf.recovery.patches.starting import images_needed, starting_images
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

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


class Observer(nn.Module):
    """Logits that favour class 0 where the middle is bright; keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        bright = images.mean((1, 2, 3))
        return torch.stack((bright, torch.zeros_like(bright)), dim=1)


@pytest.mark.parametrize("grid", [1, 2])
def test_rded_step_by_step(grid):
    """Crops of S / grid, normalised, padded with zeros, scored; the lowest of each image; ascending; dealt out."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 40, 3), np.uint8) for _ in range(9)]
    plain = make_source(images)
    source = replace(plain, config=replace(plain.config, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)))
    observer = Observer()
    patches = select_patches(
        source, replace(prefers_bright(source), module=observer), range(1), 2,
        PatchConfig(difficulty="easy", grid=grid, crops_per_image=3, crop_area=(0.05, 1.0)), 0, CPU,
    )  # fmt: skip
    side = SIZE // grid
    margin = (SIZE - side) // 2
    seen = torch.cat(observer.seen).double().view(9, 3, 3, SIZE, SIZE)
    middle = seen[..., margin : margin + side, margin : margin + side]
    assert torch.equal(seen.abs().sum((3, 4)), middle.abs().sum((3, 4))), "the padding is zero after normalisation"
    cross_entropy = torch.log1p(torch.exp(-seen.mean((2, 3, 4))))  # -log(e^b / (e^b + 1))
    best = [min(range(3), key=lambda crop: cross_entropy[image, crop]) for image in range(9)]
    ranked = sorted(range(9), key=lambda image: cross_entropy[image, best[image]])
    mean, std = (torch.tensor(c, dtype=torch.float64).view(3, 1, 1) for c in (source.config.mean, source.config.std))
    for number, mosaic in enumerate(patches.images):
        for cell in range(grid**2):
            image = ranked[number + 2 * cell]
            y, x = side * (cell // grid), side * (cell % grid)
            expected = (middle[image, best[image]] * std + mean) * 255
            assert (mosaic[:, y : y + side, x : x + side] - expected).abs().max() < 1e-3
    rows = np.array([[ranked[number + 2 * cell] for cell in range(grid**2)] for number in range(2)])
    order = torch.randperm(9, generator=generator(0, "patch-pool", 0)).numpy()
    assert patches.source_index.tolist() == order[rows].tolist()


def test_crops_of_a_photograph_are_uniform_in_area_up_to_its_largest_square():
    """As if what does not fit were drawn again: of 2:1 images no more than half, and rarely exactly that."""
    rows, columns = np.mgrid[0:64, 0:128].astype(np.uint8)
    source = make_source([np.stack((rows, columns, np.zeros_like(rows)), axis=2)] * 200)
    patches = select(source, 200, crop_area=(0.1, 1.0), crops_per_image=1)
    sides = patches.images[:, 1, 0, -1].long() - patches.images[:, 1, 0, 0].long() + 1
    area = sides.double() ** 2 / (64 * 128)
    assert 0.09 < area.min() < 0.12 and 0.45 < area.max() <= 0.5
    assert abs(area.mean() - 0.3) < 0.03 and (sides == 64).sum() < 10


def test_noise_is_normal_and_belongs_to_its_place():
    starts = torch.stack([noise_start(label, index, 32, 0) for label in range(4) for index in range(4)])
    assert starts.dtype == torch.float32 and starts.shape == (16, 3, 32, 32)
    assert abs(starts.mean()) < 0.02 and abs(starts.std() - 1) < 0.02
    assert len(starts.flatten(1).unique(dim=0)) == 16
    assert torch.equal(noise_start(2, 3, 32, 0), starts[11])
    assert not torch.equal(noise_start(2, 3, 32, 1), starts[11])


def test_noise_is_recorded_as_pixels_that_show_no_source_row():
    source = digits()
    patches = starting_images("noise", source, None, range(2, 5), 2, PatchConfig(flip_probability=1.0), 0, CPU)
    assert patches.label.tolist() == [2, 2, 3, 3, 4, 4] and patches.ipc_index.tolist() == [0, 1] * 3
    assert patches.source_index.shape == (6, 0) and patches.source_index.dtype == torch.int64
    mean, std = (torch.tensor(c, dtype=torch.float64).view(3, 1, 1) for c in (source.config.mean, source.config.std))
    for image, label, index in zip(patches.images, patches.label, patches.ipc_index, strict=True):
        exact = (noise_start(int(label), int(index), source.size, 0).double() * std + mean).clamp(0, 1) * 255
        assert (image - exact).abs().max() <= 0.5 + 1e-4
    assert images_needed("noise", 10, PatchConfig(grid=2)) == 0


def test_pixels_survive_normalisation():
    source = digits()
    pixels = torch.arange(256).to(torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    assert torch.equal(source.to_pixels(source.normalise(pixels)), pixels)
    beyond = torch.tensor([-100.0, 100.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    assert source.to_pixels(beyond)[:, 0].flatten().tolist() == [0, 255]


@pytest.mark.parametrize("kind", ["patches", "random_images", "el2n", "pca", "graded"])
def test_mirrors_are_a_coin_per_image(kind):
    source = digits()
    teacher = small_teacher(source)
    settings = {"grid": 2, "pool": 20, "crops_per_image": 2}

    def start(probability, classes=range(5)):
        config = PatchConfig(flip_probability=probability, **settings)
        return starting_images(kind, source, teacher, classes, 4, config, 0, CPU)

    plain, half, full = start(0.0), start(0.5), start(1.0)
    assert torch.equal(full.images, plain.images.flip(3))
    flipped = [not torch.equal(a, b) for a, b in zip(half.images, plain.images, strict=True)]
    assert any(0 < sum(flipped[first : first + 4]) < 4 for first in range(0, 20, 4)), "one coin for a whole class"
    for place, is_flipped in enumerate(flipped):
        assert torch.equal(half.images[place], (full if is_flipped else plain).images[place])
        rows, mirrored = plain.source_index[place].tolist(), half.source_index[place].tolist()
        swapped = [rows[1], rows[0], rows[3], rows[2]] if len(rows) == 4 else rows
        assert mirrored == (swapped if is_flipped else rows)
    assert torch.equal(start(0.5, range(3, 5)).images, half.images[12:])


@pytest.mark.parametrize("kind", ["patches", "random_images"])
def test_starting_images_by_name_are_those_of_their_function(kind):
    source = digits()
    teacher, config = small_teacher(source), PatchConfig(pool=20, crops_per_image=2)
    direct = {
        "patches": lambda: select_patches(source, teacher, range(4), 3, config, 5, CPU),
        "random_images": lambda: random_images(source, range(4), 3, 5),
    }[kind]()
    named = starting_images(kind, source, teacher, range(4), 3, config, 5, CPU)
    assert all(torch.equal(vars(direct)[name], column) for name, column in vars(named).items())
