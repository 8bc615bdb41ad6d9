"""Copies of test images are found, other images are not: real digits, and an independent distance in float64."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources import load_source
from fadrm_hf.evaluation import leakage
from fadrm_hf.evaluation.leakage import (
    MAX_OF_CONTRAST,
    THRESHOLD,
    NearDuplicate,
    copies_of_test_images,
    find_near_duplicates,
)

pytestmark = pytest.mark.numerical


@pytest.fixture(scope="module")
def digits():
    """Training and test digits at 32 px, (n, 3, 32, 32) uint8."""
    source = load_source(SourceConfig("digits", size=32))
    return source.pixels("train", range(1297)), source.pixels("test", range(500))


def photographs(num: int, size: int, seed: int = 0) -> torch.Tensor:
    """Smooth scenes of pale colours with fine texture, (num, 3, size, size) uint8; no two are alike."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(num):
        coarse = (rng.uniform(20, 220, (5, 5, 1)) + rng.uniform(-20, 20, (5, 5, 3))).astype(np.uint8)
        scene = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), dtype=float)
        made.append((scene + rng.normal(0, 8, (size, size, 1))).clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def encoded_again(images: torch.Tensor, quality: int = 75) -> torch.Tensor:
    made = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
        made.append(torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1))
    return torch.stack(made)


def brute_force(images: torch.Tensor, test: torch.Tensor) -> dict[int, tuple[int, float, bool]]:
    """Row -> nearest copy, by the definition, a pair at a time in float64 with numpy."""
    found = {}
    for row, image in enumerate(images.numpy().astype(np.float64)):
        for index, other in enumerate(test.numpy().astype(np.float64)):
            for mirrored in (False, True):
                a, b = image - image.mean(), (other[..., ::-1] if mirrored else other) - other.mean()
                distance = np.sqrt(np.mean((a - b) ** 2))
                is_near = distance <= THRESHOLD and distance < MAX_OF_CONTRAST * max(a.std(), b.std())
                if is_near and (row not in found or distance < found[row][1]):
                    found[row] = (index, distance, mirrored)
    return found


def test_different_real_digits_are_no_copies(digits):
    images, test = digits
    assert find_near_duplicates(images, [test]) == []


@pytest.mark.parametrize("size", [24, 32, 75, 160])
def test_exact_mirrored_brightened_and_encoded_copies_are_found(size):
    test = photographs(40, size)
    others = photographs(6, size, seed=1)
    copies = [test[3], test[11].flip(2), test[20].clamp_max(235) + 20, encoded_again(test[30:31])[0]]
    found = find_near_duplicates(torch.stack([*others, *copies]), test.split(16))
    assert [(d.row, d.test_index, d.mirrored) for d in found] == [
        (6, 3, False),
        (7, 11, True),
        (8, 20, False),
        (9, 30, False),
    ]
    assert found[0].distance == found[1].distance == 0.0
    assert 0 < found[3].distance <= THRESHOLD


def test_the_copies_are_those_of_the_definition_in_float64(digits):
    """Noise of many strengths around both limits, so that some copies lie just inside and some just outside."""
    train, test = digits
    noise = torch.randn((60, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    strength = torch.linspace(0, 20, 60)[:, None, None, None]
    scale = torch.tensor([1.0, 0.5, 0.1]).repeat(20)[:, None, None, None]  # of low contrast: the second limit holds
    test = torch.cat([test[:60].float() * scale, test[60:80].float()]).byte()
    images = (test[:60].float() + strength * scale.sqrt() * noise).round().clamp(0, 255).byte()
    images = torch.cat([images, train[:20]])
    expected = brute_force(images, test)
    assert 10 < len(expected) < 60
    found = find_near_duplicates(images, test.split(33))
    assert {d.row: (d.test_index, d.mirrored) for d in found} == {r: (i, m) for r, (i, _, m) in expected.items()}
    for duplicate in found:
        assert duplicate.distance == pytest.approx(expected[duplicate.row][1], abs=1e-9)


def test_two_clear_skies_are_no_copies():
    sky = torch.linspace(0, 12, 32)[:, None].expand(3, 32, 32)
    skies = torch.stack([120 + sky, 180 - sky, torch.full((3, 32, 32), 90.0)]).round().byte()
    assert find_near_duplicates(skies[:1], [skies[1:]]) == []
    assert find_near_duplicates(skies[2:], [skies[2:]]) == []  # of one colour: nothing that could be a copy


def test_the_threshold_is_in_grey_levels():
    test = photographs(3, 32)
    image = test[1].float()
    image[:, ::2] += 4
    image[:, 1::2] -= 4
    image = image.clamp(0, 255).byte()[None]
    (found,) = find_near_duplicates(image, [test], threshold=5.0)
    assert (found.row, found.test_index) == (0, 1)
    assert found.distance == pytest.approx(4.0, abs=0.3)
    assert find_near_duplicates(image, [test], threshold=3.0) == []


def test_no_images_or_no_test_images_have_no_copies():
    images = photographs(2, 16)
    assert find_near_duplicates(images, []) == []
    assert find_near_duplicates(images[:0], [images]) == []
    assert find_near_duplicates(images, [images[:0], images[:1]]) == [NearDuplicate(0, 0, 0.0)]


def test_of_millions_of_pairs_none_is_looked_at_alone_without_need(monkeypatch):
    """Products of matrices tell them apart, which is why a thousand images against ten thousand take seconds."""
    images = photographs(250, 32).repeat(4, 1, 1, 1)
    test = photographs(500, 32, seed=2)
    compared = []
    monkeypatch.setattr(leakage, "_compare", lambda *pair: compared.append(pair) or (0.0, 0.0))
    assert find_near_duplicates(images, [test] * 4) == []
    assert compared == []
    find_near_duplicates(images, [images[:1]])
    assert len(compared) == 4, "the four copies of one image"


def test_images_are_compared_with_every_test_image_of_a_source():
    source = load_source(SourceConfig("digits", size=16))
    images = torch.cat([source.pixels("train", [0, 1]), source.pixels("test", [499, 3])])
    found = copies_of_test_images(images, source)
    assert [(near.row, near.test_index, near.distance) for near in found if near.row >= 2] == [
        (2, 499, 0.0),
        (3, 3, 0.0),
    ]
    assert found == find_near_duplicates(images, [source.pixels("test", range(500))])
