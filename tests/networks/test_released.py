"""Untrained networks: what the papers' released code builds, and the weights that it begins with."""

from itertools import pairwise

import pytest
import timm
import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

from fadrm_hf.networks.students import create_student

pytestmark = pytest.mark.numerical

# Parameters of the released networks with a hundred classes, counted in their code: Jiacheng8/FADRM @ f445e38,
# shaoshitong/EDC @ 80116a7; ResNet-18 is that of both.
RELEASED = {
    "timm/resnet18": 11_220_132,
    "torchvision/resnet18": 11_220_132,
    "torchvision/mobilenet_v2": 2_412_212,
    "timm/densenet121": 7_048_548,
    "timm/mobilenetv2_050": 812_836,
    "timm/shufflenet_v2_x0_5_1x1_stem": 443_716,
}


def built(name: str, size: int, implementation: str = "released") -> nn.Module:
    torch.manual_seed(0)
    return create_student(name, 100, size, implementation).train()


def last_norms(network: nn.Module) -> list[torch.Tensor]:
    """The weights of the last BatchNorm layer of each residual branch of a ResNet-18."""
    return [block.bn2.weight for layer in (network.layer1, network.layer2) for block in layer]


@pytest.mark.parametrize("name", RELEASED)
def test_small_networks_are_those_of_the_released_code(name: str) -> None:
    network = built(name, 32)
    assert sum(parameter.numel() for parameter in network.parameters()) == RELEASED[name]
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 100)
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 100)


def test_the_mobilenet_of_fadrm_projects_its_shortcuts_and_has_no_relu6() -> None:
    network = built("torchvision/mobilenet_v2", 32)
    assert not any(isinstance(layer, nn.ReLU6) for layer in network.modules())
    widths = [32, 16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
    blocks = list(network.layers)[1:-1]
    assert [block.layers[0][0].in_channels for block in blocks] == widths[:-1]
    strided = {3, 6, 13}  # blocks from 24 to 32, 32 to 64 and 96 to 160 channels halve the map
    kinds = [type(block.shortcut) for block in blocks]
    changes = [before != after for before, after in pairwise(widths)]
    assert kinds == [
        type(None) if index in strided else nn.Identity if not changes[index] else Conv2dNormActivation
        for index in range(17)
    ]


def test_the_mobilenet_of_edc_halves_the_image_at_once() -> None:
    network = built("timm/mobilenetv2_050", 32)
    assert network.layers[0](torch.zeros(1, 3, 32, 32)).shape == (1, 16, 16, 16)
    assert sum(block.shortcut is not None for block in list(network.layers)[1:-1]) == 10
    assert network.fc.weight.std().item() == pytest.approx(0.01, rel=0.05) and not network.fc.bias.any()


def test_the_shufflenet_of_edc_begins_with_single_pixels() -> None:
    network = built("timm/shufflenet_v2_x0_5_1x1_stem", 32)
    assert network.conv1(torch.zeros(1, 3, 32, 32)).shape == (1, 24, 32, 32)
    assert network.conv1[0].kernel_size == (1, 1)


def test_the_densenet_of_fadrm_begins_without_a_norm() -> None:
    network = built("timm/densenet121", 32)
    images = torch.randn(2, 3, 32, 32)
    first, *_ = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    seen: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    network(images)
    torch.testing.assert_close(seen[0], network.features.conv0(images))


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18"])
@pytest.mark.parametrize("size", [32, 224])
def test_no_residual_branch_of_a_released_resnet_starts_at_zero(name: str, size: int) -> None:
    assert all(weight.eq(1).all() for weight in last_norms(built(name, size)))
    zeros = [not weight.any() for weight in last_norms(built(name, size, "library"))]
    assert zeros == [name.startswith("timm")] * 4


def test_small_resnets_start_with_torchs_weights_and_large_ones_with_torchvisions() -> None:
    """Uniform within 1 / sqrt(fan in); normal with sqrt(2 / fan out)."""
    small = built("timm/resnet18", 32).layer2[0].conv2.weight.detach()
    bound = 1 / (128 * 9) ** 0.5
    assert small.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert small.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    for name in ("timm/resnet18", "torchvision/resnet18"):
        large = built(name, 224).layer2[0].conv2.weight.detach()
        assert large.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
        assert (large.abs() > 3 * large.std()).float().mean().item() == pytest.approx(0.0027, rel=0.3)  # it is normal


@pytest.mark.parametrize(
    ("name", "size", "twin"),
    [
        ("resnet18", 32, "resnet18_small_stem"),
        ("resnet18", 96, "resnet18"),
        ("mobilenetv2_100", 32, "mobilenetv2_100_small_stem"),
    ],
)
def test_the_network_of_the_library_is_timms_to_the_bit(name: str, size: int, twin: str) -> None:
    ours = built(f"timm/{name}", size, "library").state_dict()
    torch.manual_seed(0)
    timms = timm.create_model(twin, num_classes=100).state_dict()
    assert ours.keys() == timms.keys() and all(tensor.equal(timms[key]) for key, tensor in ours.items())
