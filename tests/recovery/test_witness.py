"""FADRM a second time: Algorithm 1 and Eq. 5-10 in plain torch and float64, beside the library's own whole recovery.

What the witness takes of the library is the patches it begins with and the views that were drawn. Losses, statistics,
views of pixels, Adam, schedule, projection and residuals are its own.
"""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fixtures.small import digits, small_teacher

from fadrm_hf.config import RecoverConfig
from fadrm_hf.data.views import BatchViews
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.recover import Recovery
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

SIZES, BUDGET, ALPHA = (12, 16, 12, 16), 14, 0.4  # three residuals; segments of 3, 3, 3 and 5 iterations
CONFIG = RecoverConfig(flip_probability=0.5, max_roll=3, crop_area=(0.2, 1.0))


@pytest.fixture(scope="module")
def world():
    """One patch of each digit, and a teacher with BatchNorm that has seen a few hundred."""
    source = digits()
    rows = [int((source.labels("train") == label).argmax()) for label in range(10)]
    return source, small_teacher(source), source.normalise(source.pixels("train", rows))


def library(world, form, dtype):
    """The images of the method itself, and the losses of each segment's last iteration."""
    source, teacher, patches = world
    module, config, seen = teacher.module.to(dtype), replace(CONFIG, form=form), []
    with open_matchers([teacher], config, torch.device("cpu")) as matchers:
        rng, labels = generator(0, "witness"), torch.arange(10)
        recovery = Recovery(matchers, labels, source, config, BUDGET, rng, lambda done, losses: seen.append(losses))
        method = FADRM(alpha=ALPHA, iterations=BUDGET, num_residuals=3, sizes=SIZES)
        images = method.recover(patches.to(dtype), recovery)
    module.float()
    return images.double(), [(losses["ce"], losses["bn"]) for losses in seen]


def witness(world):
    source, teacher, patches = world
    network, rng = teacher.module.double(), generator(0, "witness")
    mean, std = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (source.config.mean, source.config.std))
    patches = patches.double()
    images, done, seen = resample(patches, SIZES[0]), 0, []  # line 1, Eq. 5
    for segment, size in enumerate(SIZES):
        budget = BUDGET // 4 if segment < 3 else BUDGET - 3 * (BUDGET // 4)  # lines 1 and 9
        views = BatchViews.draw(budget, size, CONFIG.crop_area, 0.5, 3, rng)
        first, second = torch.zeros_like(images), torch.zeros_like(images)  # Adam begins anew with each segment
        for step in range(budget):
            images.requires_grad_()
            shown = view_of(images, views.crop[step].tolist(), bool(views.flip[step]), views.roll[step].tolist())
            entropy, distance = losses_of(network, shown)
            (gradient,) = torch.autograd.grad(entropy + 0.01 * distance, images)
            rate = 0.25 * (1 + math.cos(math.pi * done / BUDGET)) / 2
            first, second = 0.5 * first + 0.5 * gradient, 0.9 * second + 0.1 * gradient**2
            unbiased = first / (1 - 0.5 ** (step + 1)), second / (1 - 0.9 ** (step + 1))
            images = images.detach() - rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
            images = images.maximum(-mean / std).minimum((1 - mean) / std)
            done += 1
        seen.append((entropy.item(), distance.item()))
        if segment < 3:  # lines 6 and 7, Eq. 6, 9 and 10
            size = SIZES[segment + 1]
            images = ALPHA * resample(images, size) + (1 - ALPHA) * resample(patches, size)
    network.float()
    return images, seen


def resample(images, size):
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)


def view_of(images, box, is_flipped, shifts):
    """A crop enlarged to the whole, mirrored, rolled: one for the whole batch."""
    top, left, height, width = box
    shown = resample(images[:, :, top : top + height, left : left + width], images.shape[-1])
    shown = shown.flip(3) if is_flipped else shown
    return torch.cat([shown[:, :, -shifts[0] :], shown[:, :, : -shifts[0]]], 2).roll(shifts[1], 3)


def losses_of(network, shown):
    """Cross-entropy and the divergence of BatchNorm's inputs, with the network's layers one after the other."""
    distance, maps = 0.0, shown
    for factor, convolution, norm in ((10.0, network.conv1, network.bn1), (1.0, network.conv2, network.bn2)):
        maps = F.conv2d(maps, convolution.weight, convolution.bias, stride=2, padding=1)
        mean = maps.mean((0, 2, 3))
        centred = maps - mean[:, None, None]
        distance = distance + factor * ((mean - norm.running_mean) ** 2).sum().sqrt()
        distance = distance + factor * (((centred**2).mean((0, 2, 3)) - norm.running_var) ** 2).sum().sqrt()
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        maps = ((maps - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]).relu()
    logits = maps.mean((2, 3)) @ network.head.weight.T + network.head.bias
    return (logits.logsumexp(1) - logits.diagonal()).mean(), distance


@pytest.fixture(scope="module")
def expected(world):
    return witness(world)


def test_the_plain_form_is_the_witness_to_rounding(world, expected):
    """In float64, but for logits and statistics, which the library rounds to float32 before their losses."""
    images, losses = library(world, "plain", torch.float64)
    difference = (images - expected[0]).abs()
    assert difference.median() < 1e-7
    # Where a gradient is near zero, Adam takes its sign, and rounding decides it.
    assert (difference > 1e-4).double().mean() < 1e-3
    torch.testing.assert_close(losses, expected[1], rtol=1e-4, atol=0)


def test_the_fast_form_is_the_witness_in_float32(world, expected):
    images, losses = library(world, "eager", torch.float32)
    difference = (images - expected[0]).abs()
    assert difference.median() < 1e-4
    assert (difference > 0.05).double().mean() < 0.02
    torch.testing.assert_close(losses, expected[1], rtol=1e-2, atol=0)


def test_it_would_notice_what_is_left_out(world, expected):
    """Each part of the algorithm moves the images by far more than the forms differ by."""
    source, teacher, patches = world
    changes = [{"alpha": 0.5}, {"num_residuals": 2, "sizes": (12, 16, 16)}, {"sizes": (16, 16, 16, 16)}]
    configs = [{"first_bn_multiplier": 1.0}, {"betas": (0.9, 0.999)}, {"statistics_weight": 0.02}]
    for method_change, config_change in [(c, {}) for c in changes] + [({}, c) for c in configs]:
        config = replace(CONFIG, form="plain", **config_change)
        settings = {"alpha": ALPHA, "iterations": BUDGET, "num_residuals": 3, "sizes": SIZES} | method_change
        with open_matchers([teacher], config, torch.device("cpu")) as matchers:
            rng, labels = generator(0, "witness"), torch.arange(10)
            recovery = Recovery(matchers, labels, source, config, BUDGET, rng, lambda done, losses: None)
            images = FADRM(**settings).recover(patches, recovery)
        assert (images.double() - expected[0]).abs().median() > 1e-3, (method_change, config_change)
