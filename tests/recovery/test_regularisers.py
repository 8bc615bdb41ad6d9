"""Priors, densification and flatness against closed forms, numpy and plain loops in float64."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.small import digits, small_teacher

from fadrm_hf.config import RecoverConfig
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.g_vbsm import GVBSM
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.recover import Recovery
from fadrm_hf.recovery.regularisers import Densification, EuclideanNorm, Flatness, Step, TotalVariation
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical


def step_of(images, labels=None, logits=None, look=lambda x: x, predict=lambda x: x.flatten(1)):
    """An iteration that shows the images as they are."""
    labels = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
    return Step(images, images, labels, predict(look(images)) if logits is None else logits, look, predict)


def views(num, size=8, seed=0):
    return torch.randn((num, 3, size, size), dtype=torch.float64, generator=generator(seed, "views"))


def test_priors_of_hand_made_images():
    images = torch.zeros((2, 1, 3, 4), dtype=torch.float64)
    images[0, 0, 1] = torch.tensor([2.0, 2.0, 5.0, 5.0])  # rows differ by (2 2 5 5) twice, columns by 3 once
    expected = (math.sqrt(2 * (4 + 4 + 25 + 25)) + 3.0) / 2  # the second image is flat
    assert TotalVariation(0.5)(step_of(images)).item() == pytest.approx(0.5 * expected, rel=1e-12)
    assert EuclideanNorm(0.1)(step_of(images)).item() == pytest.approx(0.1 * math.sqrt(58) / 2, rel=1e-12)


def softmax(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def divergence(images, temperature, goal_images=None):
    """KL of one class by numpy: the flatter distribution is that of `goal_images`, which stay where they are."""

    def spectrum(x):
        flat = x.reshape(len(x), -1)
        return np.linalg.eigvalsh(flat @ flat.T)

    goal = softmax(spectrum(images if goal_images is None else goal_images) / temperature)
    eigenvalues = spectrum(images)
    log_q = eigenvalues - eigenvalues.max()
    log_q = log_q - np.log(np.exp(log_q).sum())
    return float((goal * (np.log(goal) - log_q)).sum())


def near_images(num=5, spread=0.05):
    """Images of one class, the eigenvalues of which are within a few units of each other."""
    return views(num) * spread


def test_densification_is_the_divergence_of_spectra_summed_over_classes():
    images = torch.cat((near_images(), 2.0 * near_images()))
    labels = torch.tensor([3] * 5 + [7] * 5)
    expected = divergence(images[:5].numpy(), 4.0) + divergence(images[5:].numpy(), 4.0)
    assert expected > 0.01
    value = Densification(weight=0.5)(step_of(images, labels))
    assert value.item() == pytest.approx(0.5 * expected, rel=1e-9)


def test_densification_has_no_gradient_through_its_goal():
    images = near_images().requires_grad_()
    (gradient,) = torch.autograd.grad(Densification()(step_of(images)), images)
    fixed, width = images.detach().numpy(), 1e-5
    for place in [(0, 0, 0, 0), (2, 1, 3, 5), (4, 2, 7, 7)]:
        ends = []
        for sign in (1, -1):
            moved = fixed.copy()
            moved[place] += sign * width
            ends.append(divergence(moved, 4.0, fixed))
        assert gradient[place].item() == pytest.approx((ends[0] - ends[1]) / (2 * width), rel=1e-5, abs=1e-9)


def test_densification_evens_the_spectrum():
    images = near_images().requires_grad_()
    before = divergence(images.detach().numpy(), 4.0)
    for _ in range(20):
        (gradient,) = torch.autograd.grad(Densification()(step_of(images)), images)
        images = (images - 0.01 * gradient).detach().requires_grad_()
    assert divergence(images.detach().numpy(), 4.0) < 0.9 * before


def test_densification_of_float32_images_is_that_of_float64():
    """Eigenvalues of 50,000 that differ by a few: in float32 their differences have one or two digits."""
    first, second = torch.linalg.qr(torch.randn((3072, 2), dtype=torch.float64, generator=generator(0, "basis")))[0].T
    second = second + 4e-5 * first
    images = (5e4**0.5 * torch.stack((first, second))).view(2, 3, 32, 32).float().requires_grad_()
    value = Densification()(step_of(images))
    expected = divergence(images.detach().double().numpy(), 4.0)
    assert value.dtype == torch.float32 and expected > 0.1
    assert value.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(value, images)
    assert bool(torch.isfinite(gradient).all()) and bool((gradient != 0).any())


def test_densification_of_equal_images_is_finite_and_treats_them_alike():
    images = (0.1 * views(1)).repeat(4, 1, 1, 1).requires_grad_()
    value = Densification()(step_of(images))
    assert value.item() == pytest.approx(divergence(images.detach().numpy(), 4.0), rel=1e-9)
    (gradient,) = torch.autograd.grad(value, images)
    torch.testing.assert_close(gradient, gradient[:1].expand_as(gradient), rtol=0, atol=1e-10)


def test_a_class_of_one_image_adds_nothing():
    images = near_images(3).requires_grad_()
    value = Densification()(step_of(images, torch.arange(3)))
    (gradient,) = torch.autograd.grad(value, images)
    assert value.item() == 0.0 and not bool(gradient.any())


def test_large_views_are_pooled_first():
    images = 0.05 * views(4, size=64)
    pooled = images.unflatten(3, (32, 2)).unflatten(2, (32, 2)).mean((3, 5))
    assert Densification()(step_of(images)).item() == pytest.approx(divergence(pooled.numpy(), 4.0), rel=1e-9)


def test_what_is_not_finite_is_refused_as_diverged_and_not_by_the_eigenvalues():
    source = digits()
    teacher = small_teacher(source, steps=2)
    start, labels = torch.zeros((4, 3, 16, 16)), torch.zeros(4, dtype=torch.int64)
    start[1, 0, 5, 5] = torch.nan
    config = RecoverConfig(flip_probability=0.0, max_roll=2)
    with open_matchers([teacher], config, torch.device("cpu")) as matchers:
        recovery = Recovery(matchers, labels, source, config, 2, generator(0, "test"), lambda done, losses: None)
        with pytest.raises(ConfigError, match="recovery diverged before iteration 2"):
            GVBSM(iterations=2).recover(start, recovery)


def kl(first, second):
    """Of two rows of logits."""
    p, q = first.softmax(1), second.softmax(1)
    return (p * (p / q).log()).sum(1)


@pytest.mark.parametrize("reverse", [False, True])
def test_flatness_follows_the_moving_average_of_the_images(reverse):
    weights = torch.randn((5, 27), dtype=torch.float64, generator=generator(0, "weights"))

    def look(images):
        return images.flip(3)

    def predict(images):
        return images.flatten(1) @ weights.T

    path = [views(4, 3, seed) for seed in range(4)]
    flatness, memory = Flatness(0.25, 0.9, 4.0, reverse), {}
    average = path[0]
    for images in path:
        pixels = images.clone().requires_grad_()
        step = step_of(pixels, logits=predict(look(pixels)), look=look, predict=predict)
        value = flatness(replace(step, memory=memory))
        here, there = predict(look(images)) / 4.0, predict(look(average)) / 4.0
        expected = kl(there, here).mean() / 5 if reverse else kl(here, there).mean()
        assert value.item() == pytest.approx(0.25 * expected.item(), rel=1e-9, abs=1e-12)
        (gradient,) = torch.autograd.grad(value, pixels)
        probe = images.clone().requires_grad_()
        logits = predict(look(probe)) / 4.0
        plain = kl(there, logits).mean() / 5 if reverse else kl(logits, there).mean()
        (wanted,) = torch.autograd.grad(0.25 * plain, probe)
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)
        average = 0.9 * average + 0.1 * images


def test_flatness_of_the_first_iteration_is_zero_and_every_shard_has_its_own():
    images = views(4, 3)
    flatness, first = Flatness(), step_of(images)
    assert flatness(first).item() == pytest.approx(0.0, abs=1e-12)
    later = step_of(3.0 * images)
    assert flatness(replace(later, memory=first.memory)).item() > 0.01
    assert flatness(later).item() == pytest.approx(0.0, abs=1e-12)
