"""What an accuracy is worth, against definitions written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fadrm_hf.randomness import generator
from fadrm_hf.scores import (
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
    predict,
    summarise,
    topk_accuracy,
)

FRACTION = st.floats(0.0, 1.0)


@pytest.mark.parametrize("k", [1, 3, 5, 20])
def test_topk_accuracy_against_a_loop(k):
    rng = generator(0, "test")
    logits, labels = torch.randn((50, 7), generator=rng), torch.randint(0, 7, (50,), generator=rng)
    right = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        right += sum(value > row[label] for value in row) < k
    assert topk_accuracy(logits, labels, k) == right / 50
    assert topk_accuracy(logits, labels, 7) == 1.0


def test_summarise_gives_the_sample_deviation():
    summary = summarise([0.5, 0.6, 0.7])
    assert summary["mean"] == pytest.approx(0.6)
    assert summary["std"] == pytest.approx(math.sqrt((0.01 + 0 + 0.01) / 2))
    assert summary["values"] == [0.5, 0.6, 0.7]
    assert summarise([0.25]) == {"mean": 0.25, "std": 0.0, "values": [0.25]}


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


@pytest.mark.parametrize("training", [True, False])
def test_predictions_are_those_of_eval_mode_whatever_the_batches(training):
    torch.manual_seed(0)
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).train(training)
    inputs = torch.randn(10, 4)
    logits = predict(module, inputs.split(3))
    assert module.training is training and not logits.requires_grad
    torch.testing.assert_close(logits, module.eval()(inputs).detach())
