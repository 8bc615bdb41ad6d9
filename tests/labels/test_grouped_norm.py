"""One pass over many micro-batches against a pass for each, by BatchNorm layers in training mode."""

import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

import fadrm_hf.networks.small_images  # noqa: F401 - registers the small-image architectures
from fadrm_hf.labels.grouped_norm import use_group_statistics
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

SIZES = ([8, 8], [8, 9], [4, 4, 4, 3, 4, 4, 5], [7])


def random_batchnorm(network, seed=0):
    """Affine parameters and running statistics that are not those of an untrained layer."""
    rng = generator(seed, "test")
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for value, low in ((layer.weight, 0.5), (layer.bias, -0.5), (layer.running_mean, -1.0)):
                value.data.copy_(torch.rand(value.shape, generator=rng) + low)
    return network.eval().requires_grad_(False)


def pass_by_pass(network, images, sizes):
    """The definition: one forward pass for each group, BatchNorm in training mode, all else as it is."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.train()
    return torch.cat([network(group) for group in images.split(sizes)])


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False, eps=1e-3), BatchNormAct2d(6), nn.BatchNorm3d(6)],
    ids=["plain", "not affine", "with activation", "another kind"],
)
def test_each_group_is_normalised_by_itself(layer, sizes, at_once):
    layer = copy.deepcopy(layer)
    shape = (sum(sizes), 6, 5, 4, 3) if isinstance(layer, nn.BatchNorm3d) else (sum(sizes), 6, 5, 4)
    network = nn.Sequential(layer if layer.affine is False else random_batchnorm(layer)).double().eval()
    images = 3 * torch.randn(shape, dtype=torch.float64, generator=generator(1, "test")) + 5
    expected = pass_by_pass(network, images, sizes)
    before = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
    grouping = use_group_statistics(network, at_once)
    grouping.sizes = sizes
    torch.testing.assert_close(network(images), expected, rtol=1e-12, atol=1e-12)
    after = {name.replace(".layer", ""): value for name, value in network.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "running statistics must not drift"


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    "architecture",
    ["resnet18_small_stem", "densenet121_small_stem", "mobilenetv2_100_small_stem", "shufflenet_v2_x0_5_small_stem"],
)
def test_networks_see_many_groups_as_one_by_one(architecture, at_once):
    torch.manual_seed(0)
    network = random_batchnorm(timm.create_model(architecture, num_classes=10)).double()
    images = torch.randn((11, 3, 16, 16), dtype=torch.float64, generator=generator(2, "test"))
    expected = pass_by_pass(network, images, [4, 4, 3])
    whole = pass_by_pass(network, images, [11])
    grouping = use_group_statistics(network, at_once)
    grouping.sizes = [4, 4, 3]
    torch.testing.assert_close(network(images), expected, rtol=1e-9, atol=1e-9)
    assert (whole - expected).abs().max() > 1e-3, "groups make a difference"


@pytest.mark.parametrize("at_once", [False, True])
def test_statistics_of_half_precision_are_full(at_once):
    """2,048 values around 100: their sum of squares is beyond fp16, and bf16 would lose their variance."""
    network = nn.Sequential(nn.BatchNorm2d(2)).eval()
    images = (torch.randn((8, 2, 16, 16), generator=generator(3, "test")) + 100).bfloat16()
    expected = pass_by_pass(network, images.float(), [4, 4])
    use_group_statistics(network, at_once).sizes = [4, 4]
    torch.testing.assert_close(network(images).float(), expected, rtol=2.0**-7, atol=1e-3)
