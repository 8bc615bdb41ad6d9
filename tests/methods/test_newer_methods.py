"""LPLD: what it publishes, and its objective against a direct formula in float64."""

import pytest
import torch
from fixtures.plain_matching import channel_statistics, measured, network, seen

from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.lpld import LPLD
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.recovery.matching.matching import MatchedStatistics
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.shards import recovery_shards

pytestmark = pytest.mark.numerical


def run_of(method, dataset, ipc=10):
    return parse_run([f"--method={method}", f"--source.name={dataset}", f"--ipc={ipc}"])


def images(num, seed):
    return torch.randn((num, 3, 9, 9), dtype=torch.float64, generator=generator(seed, "newer"))


def test_lpld_matches_a_class_to_its_own_statistics_and_to_no_others():
    module, labels = network(), torch.arange(4).repeat_interleave(5)
    targets = measured(module, images(20, 0) + 0.4 * labels.view(-1, 1, 1, 1), labels, 4)
    watch = MatchedStatistics(module, LPLD().matching, 10.0, targets)
    watch.begin(torch.full((6,), 2), generator(0, "unused"))
    batch = images(6, 1).requires_grad_()
    module(batch)
    found = watch.loss()
    expected, maps = 0.0, seen(network(), batch)[1]
    for factor, name in ((10.0, "1"), (1.0, "4")):
        mean, var = channel_statistics(maps[name])
        goal = targets[name].class_mean[2], targets[name].class_var[2]
        expected = expected + factor * ((goal[0] - mean).norm() + (goal[1] - var).norm())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, batch, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("dataset", "iterations", "lr", "weight", "batch_size", "epochs", "stored", "cutmix"),
    [
        ("imagenet1k", 4000, 0.25, 0.01, 128, 300, 8, True),
        ("tiny_imagenet", 4000, 0.1, 0.05, 64, 100, 3, False),
        ("imagenet21k_p", 2000, 0.05, 0.25, 32, 300, 8, False),
        ("cifar100", 4000, 0.25, 0.01, 128, 300, 8, True),
    ],
)
def test_published_settings_of_lpld(dataset, iterations, lr, weight, batch_size, epochs, stored, cutmix):
    run = run_of("lpld", dataset, 50)
    assert (run.method.iterations, run.method.starts_from, run.method.category) == (iterations, "noise", 1.0)
    assert (run.recover.lr, run.recover.bn_weight, run.recover.first_bn_weight) == (lr, weight, 10.0)
    assert (run.relabel.batch_size, run.relabel.accumulation, run.relabel.batch_statistics) == (batch_size, 1, False)
    assert (run.relabel.epochs, run.relabel.stored_epochs, run.relabel.cutmix) == (epochs, stored, cutmix)
    assert (run.student.batch_size, run.student.accumulation, run.student.name) == (batch_size, 1, "sre2l")


def test_a_batch_of_lpld_is_a_class():
    shards = recovery_shards(10, 50, run_of("lpld", "imagenette", 50).recover)
    assert [(shard.classes, shard.num_images) for shard in shards] == [(range(k, k + 1), 50) for k in range(10)]


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"method\.category must be a fraction in \[0, 1\], got 1\.5"):
        LPLD(category=1.5)
