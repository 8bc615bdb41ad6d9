"""D_global (Appendix B) and its gradient against a plain formulation in float64."""

import pytest
import torch
from fixtures.plain_matching import network
from torch import nn

from fadrm_hf.networks.moments import channel_moments
from fadrm_hf.recovery.matching.distance import MatchedStatistics
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical


def channel_distance(features, target_mean, target_var):
    """One term of D_global from moments about the target."""
    gap, var = channel_moments(features, target_mean)
    return gap.norm() + (var - target_var).norm()


def plain_distance(features, target_mean, target_var):
    """The published loop's operations, left to autograd."""
    channels = features.shape[1]
    mean = features.mean([0, 2, 3])
    var = features.permute(1, 0, 2, 3).contiguous().reshape(channels, -1).var(1, unbiased=False)
    return torch.norm(var - target_var, 2) + torch.norm(mean - target_mean, 2)


@pytest.mark.parametrize("shape", [(8, 5, 7, 3), (1, 4, 6, 6), (3, 2, 1, 1)])
def test_distance_and_gradient_equal_the_plain_form(shape):
    rng = generator(0, "test")
    features = torch.randn(shape, dtype=torch.float64, generator=rng) * 3 + 1
    mean = torch.randn(shape[1], dtype=torch.float64, generator=rng)
    var = torch.rand(shape[1], dtype=torch.float64, generator=rng) + 0.1
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    value, expected = channel_distance(ours, mean, var), plain_distance(theirs, mean, var)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(2.5 * value, ours)
    (wanted,) = torch.autograd.grad(2.5 * expected, theirs)
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-14)


def test_gradient_of_a_perfect_match_is_zero():
    features = torch.tensor([[[[1.0, -1.0]]]], dtype=torch.float64, requires_grad=True)
    value = channel_distance(features, torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(value, features)
    assert value.item() == 0.0 and torch.equal(gradient, torch.zeros_like(gradient))


def test_half_precision_features_give_float32_statistics():
    features = (torch.randn((4, 3, 8, 8), generator=generator(1, "test")) * 100 + 3000).half()
    mean, var = torch.full((3,), 2990.0), torch.full((3,), 9000.0)
    wide = channel_distance(features.double(), mean.double(), var.double())
    value = channel_distance(features, mean, var)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), wide, rtol=1e-4, atol=0)


def test_first_layer_counts_ten_times_and_only_the_first():
    module = network()
    images = torch.randn((5, 3, 9, 9), dtype=torch.float64, requires_grad=True)
    statistics = MatchedStatistics(module, first_weight=10.0)
    module(images)
    value = statistics.loss()
    statistics.close()
    first = module[0](images)
    second = module[3](module[2](module[1](first)))
    expected = 10.0 * plain_distance(first, module[1].running_mean, module[1].running_var)
    expected = expected + plain_distance(second, module[4].running_mean, module[4].running_var)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


def test_watching_changes_neither_outputs_nor_running_statistics():
    module = network()
    images = torch.randn((5, 3, 9, 9), dtype=torch.float64)
    before = module(images), module[1].running_mean.clone()
    statistics = MatchedStatistics(module)
    assert torch.equal(module(images.requires_grad_()), before[0])
    assert torch.equal(module[1].running_mean, before[1])
    statistics.loss()
    statistics.close()


def test_a_network_with_nothing_to_match_adds_nothing():
    statistics = MatchedStatistics(nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.ReLU()))
    assert statistics.num_layers == 0 and statistics.loss() == 0.0
