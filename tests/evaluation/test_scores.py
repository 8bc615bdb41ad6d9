"""What an accuracy is worth, against definitions written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fadrm_hf.errors import ScoreError
from fadrm_hf.evaluation.scores import (
    augmentation_robust_score,
    compression_ratio,
    cosine_distance,
    effective_number,
    feature_entropy,
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
    pixel_entropy,
)
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

FRACTION = st.floats(0.0, 1.0)


def test_hlr_and_ior_are_differences_of_fractions():
    assert hard_label_recovery(0.9, 0.3) == pytest.approx(0.6)
    assert improvement_over_random(0.7, 0.5) == pytest.approx(0.2)


@given(FRACTION, FRACTION, FRACTION, FRACTION, FRACTION)
def test_lrs_is_its_closed_form_within_0_and_1(whole, distilled_hard, distilled, random, weight):
    hlr, ior = hard_label_recovery(whole, distilled_hard), improvement_over_random(distilled, random)
    score = label_robust_score(ior, hlr, weight)
    a = weight * (distilled - random) - (1 - weight) * (whole - distilled_hard)
    assert score == pytest.approx((math.exp(a) - 1 / math.e) / (math.e - 1 / math.e), abs=1e-12)
    assert -1e-12 <= score <= 1 + 1e-12


def test_lrs_ends_at_0_and_1_and_grows_with_what_is_better():
    assert label_robust_score(-1.0, 1.0) == pytest.approx(0.0, abs=1e-12)
    assert label_robust_score(1.0, -1.0) == pytest.approx(1.0)
    assert label_robust_score(0.3, 0.4) > label_robust_score(0.2, 0.4) > label_robust_score(0.2, 0.5)


@given(FRACTION, FRACTION, FRACTION, FRACTION, FRACTION)
def test_ars_is_its_closed_form_within_0_and_1(distilled, random, plain_distilled, plain_random, weight):
    augmented, unaugmented = distilled - random, plain_distilled - plain_random
    score = augmentation_robust_score(augmented, unaugmented, weight)
    b = weight * augmented + (1 - weight) * unaugmented
    assert score == pytest.approx((math.exp(b) - 1 / math.e) / (math.e - 1 / math.e), abs=1e-12)
    assert -1e-12 <= score <= 1 + 1e-12


def test_the_robust_scores_by_hand():
    """Published weights: a = 0.5 * 0.1 - 0.5 * 0.5 = -0.2 and b = 0.5 * 0.1 + 0.5 * 0.04 = 0.07."""
    assert label_robust_score(0.1, 0.5) == pytest.approx(0.19182, abs=1e-5)
    assert augmentation_robust_score(0.1, 0.04) == pytest.approx(0.29979, abs=1e-5)
    assert label_robust_score(0.0, 0.0) == augmentation_robust_score(0.0, 0.0)  # 1 / (e + 1): neither gain nor loss
    assert label_robust_score(0.0, 0.0) == pytest.approx(1 / (math.e + 1))


def test_a_ratio_of_sizes():
    assert compression_ratio(50_000, 500) == 100.0
    assert compression_ratio(10, 40) == 0.25


def pixels(*shape):
    return torch.randint(0, 256, shape, generator=generator(0, "pixels"), dtype=torch.uint8)


@pytest.mark.parametrize("bins", [256, 10, 1])
def test_pixel_entropy_against_pillow_and_numpy(bins):
    """70 images, which is more than are looked at together."""
    images = pixels(70, 3, 9, 8) // torch.arange(1, 71).to(torch.uint8)[:, None, None, None]
    expected = []
    for image in images:
        grey = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")).astype(int)
        shares = np.bincount(grey.flatten() * bins // 256, minlength=bins) / grey.size
        expected.append(-sum(share * math.log2(share) for share in shares if share))
    np.testing.assert_allclose(pixel_entropy(images, bins).numpy(), expected, atol=1e-12)


def test_pixel_entropy_at_its_bounds():
    flat, ramp = torch.full((1, 3, 16, 16), 77, dtype=torch.uint8), torch.arange(256).to(torch.uint8)
    assert pixel_entropy(flat).item() == 0.0
    assert pixel_entropy(ramp.view(1, 1, 16, 16).expand(1, 3, 16, 16)).item() == pytest.approx(8.0)


def test_feature_entropy_against_closed_forms():
    features = torch.zeros(5, 8)
    features[0, 3] = 2.5  # one feature alone
    features[1] = 7.0  # all alike
    features[2, :4] = torch.tensor([1.0, -1.0, 1.0, -1.0])  # four, whatever the sign
    features[3, :2] = torch.tensor([3.0, 1.0])
    quarters = 0.75 * math.log2(4 / 3) + 0.25 * math.log2(4)
    np.testing.assert_allclose(feature_entropy(features).numpy(), [0.0, 3.0, 2.0, quarters, 0.0], atol=1e-12)


def test_diversity_against_a_loop_over_pairs():
    features = torch.randn((12, 5), generator=generator(0, "features"))
    labels = torch.tensor([0, 1, 2] * 3 + [0, 0, 3])  # class 3 has one image
    distances, numbers = [], []
    for label in range(4):
        rows = features[labels == label].double().numpy()
        cosines = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in rows] for b in rows])
        pairs = [1 - cosines[i, j] for i in range(len(rows)) for j in range(i)]
        distances += [sum(pairs) / len(pairs)] if pairs else []
        values = [value for value in np.linalg.eigvalsh(cosines / len(rows)) if value > 1e-12]
        numbers.append(math.exp(-sum(value * math.log(value) for value in values)))
    assert cosine_distance(features, labels) == pytest.approx(sum(distances) / 3)
    assert effective_number(features, labels) == pytest.approx(sum(numbers) / 4)


def test_copies_count_once_and_what_has_nothing_in_common_counts_each():
    labels = torch.zeros(4, dtype=torch.long)
    same, different = torch.ones(4, 6) * torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.eye(4)
    assert effective_number(same, labels) == pytest.approx(1.0) and cosine_distance(same, labels) == pytest.approx(0.0)
    assert effective_number(different, labels) == pytest.approx(4.0)
    assert cosine_distance(different, labels) == pytest.approx(1.0)
    assert effective_number(different, torch.arange(4)) == pytest.approx(1.0)  # one image a class
    assert effective_number(torch.zeros(4, 6), labels) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: label_robust_score(0.1, 0.2, 1.5), "weight is 1.5, expected a fraction"),
        (lambda: augmentation_robust_score(0.1, 0.2, -0.1), "weight is -0.1, expected a fraction"),
        (lambda: compression_ratio(10, 0), "10 and 0, expected positive"),
        (lambda: pixel_entropy(torch.zeros(1, 3, 4, 4)), r"torch.float32 \(1, 3, 4, 4\), expected uint8"),
        (lambda: pixel_entropy(pixels(1, 3, 4, 4), 257), "bins is 257, expected 1 to 256"),
        (lambda: feature_entropy(torch.tensor([[1.0, math.nan]])), r"\(1, 2\) with values that are not finite"),
        (lambda: cosine_distance(torch.eye(3), torch.arange(3)), "needs two images of a class"),
        (lambda: effective_number(torch.empty(0, 4), torch.empty(0)), "0 images"),
    ],
)
def test_what_is_not_defined_is_refused(ask, said):
    with pytest.raises(ScoreError, match=said):
        ask()
