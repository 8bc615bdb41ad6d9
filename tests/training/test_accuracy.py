"""Accuracies against loops, and what they are not defined on."""

import math

import pytest
import torch
from torch import nn

from fadrm_hf.errors import ScoreError
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.training.accuracy import accuracy_of_guesses, predict, summarise, topk_accuracy

pytestmark = pytest.mark.numerical


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


@pytest.mark.parametrize("training", [True, False])
def test_predictions_are_those_of_eval_mode_whatever_the_batches(training):
    torch.manual_seed(0)
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).train(training)
    inputs, rounded = torch.randn(10, 4), set()
    module.register_forward_pre_hook(lambda *_: rounded.add(torch.backends.cudnn.allow_tf32))
    logits = predict(module, inputs.split(3))
    assert rounded == {False}, "a GPU evaluates in fp32, whatever torch is set to"
    assert module.training is training and not logits.requires_grad
    torch.testing.assert_close(logits, module.eval()(inputs).detach())


def test_accuracy_of_guesses_counts_a_label_anywhere_among_them():
    guesses, labels = torch.tensor([[3, 1], [0, 2], [2, 0], [1, 3]]), torch.tensor([1, 1, 2, 0])
    assert accuracy_of_guesses(guesses, labels) == 0.5
    assert accuracy_of_guesses(guesses[:, :1], labels) == 0.25


def test_an_accuracy_of_nothing_is_refused():
    with pytest.raises(ScoreError, match="0 images"):
        accuracy_of_guesses(torch.empty(0, 1), torch.empty(0))
