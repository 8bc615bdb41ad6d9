from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.networks import small_images as networks
from fadrm_hf.networks.convnets import WideBlock
from fadrm_hf.networks.layers import matched_layers
from fadrm_hf.networks.model_directory import model_config, write_model_directory
from fadrm_hf.networks.students import check_student
from fadrm_hf.networks.teachers import load_teacher

pytestmark = pytest.mark.numerical

NAMES = sorted(networks.default_cfgs)
CONVNETS = [name for name in NAMES if networks.default_cfgs[name].default.first_conv == "layers.0"]


@pytest.mark.parametrize("name", NAMES)
def test_every_network_is_built_by_timm_with_the_classes_asked_for(name: str) -> None:
    network = timm.create_model(name, num_classes=7).eval()
    size = network.pretrained_cfg["input_size"][-1]
    with torch.no_grad():
        assert network(torch.zeros(2, 3, size, size)).shape == (2, 7)
        assert network.forward_features(torch.zeros(1, 3, size, size)).shape[1] == network.num_features
    network.reset_classifier(3)
    assert network.get_classifier().out_features == 3
    assert networks.is_registered_here(name)


@pytest.mark.parametrize(
    "name",
    [name for name in NAMES if name.endswith(("_small_stem", "_narrow")) and "vgg" not in name],  # VGG leaves a pixel
)
def test_small_image_networks_reduce_32_pixels_only_eightfold(name: str) -> None:
    network = timm.create_model(name, num_classes=2).eval()
    with torch.no_grad():
        assert network.forward_features(torch.zeros(1, 3, 32, 32)).shape[-2:] == (4, 4)


@pytest.mark.parametrize(("name", "millions"), [("resnet10_narrow", 0.31), ("resnet18_narrow", 0.70)])
def test_narrow_networks_are_as_small_as_they_say(name: str, millions: float) -> None:
    parameters = sum(parameter.numel() for parameter in timm.create_model(name, num_classes=10).parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("name", ["resnet18_small_stem", "densenet121_small_stem", "mobilenetv2_100_small_stem"])
def test_only_the_stem_differs_from_timms_network(name: str) -> None:
    ours = timm.create_model(name, num_classes=5).state_dict()
    timms = timm.create_model(name.removesuffix("_small_stem"), num_classes=5).state_dict()
    stem = timm.models.get_pretrained_cfg(name).first_conv + ".weight"
    assert list(ours) == list(timms)
    assert all(ours[key].shape == timms[key].shape for key in ours if key != stem)
    assert ours[stem].shape[-2:] == (3, 3)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0"])
def test_shufflenet_is_torchvisions(name: str) -> None:
    torchvisions = torchvision.models.get_model(name).eval()
    ours = timm.create_model(name).eval()
    ours.load_state_dict(torchvisions.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), torchvisions(images))


def test_shufflenet_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="in_chans 3"):
        timm.create_model("shufflenet_v2_x0_5", in_chans=1)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("resnet18", 32, "resnet18_small_stem"),
        ("resnet18", 64, "resnet18_small_stem"),
        ("resnet18", 65, "resnet18"),
        ("mobilenet_v2", 32, "mobilenetv2_100_small"),
        ("mobilenetv2_050", 64, "mobilenetv2_050_small"),
        ("densenet121", 32, "densenet121_small"),
        ("densenet121", 65, "densenet121"),
        ("mobilenet_v2", 224, "mobilenetv2_100"),
        ("efficientnet_b0", 32, "efficientnet_b0"),
        ("resnet10_narrow", 16, "resnet10_narrow"),
        ("convnet3", 64, "convnet3"),
        ("resnet18_small_stem", 32, "resnet18_small_stem"),
    ],
)
def test_small_sizes_take_the_small_stem(name: str, size: int, expected: str) -> None:
    assert networks.architecture_for(name, size) == expected


@pytest.mark.parametrize(("name", "twin"), [("mobilenet_v2", "mobilenetv2_100"), ("densenet121", "densenet121")])
def test_the_network_of_the_library_is_its_small_stem(name: str, twin: str) -> None:
    assert networks.architecture_for(name, 32, "library") == f"{twin}_small_stem"
    assert networks.architecture_for(name, 224, "library") == twin


def test_features_report_the_reduction_they_have() -> None:
    network = timm.create_model("resnet18_small_stem", features_only=True).eval()
    sides = [feature.shape[-1] for feature in network(torch.zeros(1, 3, 32, 32))]
    assert [32 // reduction for reduction in network.feature_info.reduction()] == sides


def test_batchnorm_layers_are_the_published_ones() -> None:
    count = sum(isinstance(layer, nn.BatchNorm2d) for layer in timm.create_model("resnet18_small_stem").modules())
    assert count == 20


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("convnet3", 320_010),  # the number that dataset condensation gives for its ConvNet at ten classes
        ("convnet3_bn", 320_010),
        ("convnet3_narrow", 24_714),
        ("alexnet_small", 1_872_202),
        ("vgg11_bn_small", 9_231_114),  # VGG-11's convolutions, a norm each, 512 x 10 in place of its classifier
        ("wrn16_2", 691_674),  # 0.7 M (arXiv 1605.07146, Table 4)
    ],
)
def test_networks_of_the_small_image_literature_are_as_large_as_published(name: str, parameters: int) -> None:
    network = timm.create_model(name, num_classes=10)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_a_convnet_is_what_its_blocks_compute() -> None:
    network = timm.create_model("convnet3_narrow", num_classes=4).double().eval()
    weights = {name: value.detach() for name, value in network.state_dict().items()}
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    maps = images
    for first in (0, 4, 8):
        maps = F.conv2d(maps, weights[f"layers.{first}.weight"], weights[f"layers.{first}.bias"], padding=1)
        var, mean = torch.var_mean(maps, (2, 3), correction=0, keepdim=True)
        scale, shift = (weights[f"layers.{first + 1}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
        maps = torch.relu((maps - mean) / (var + 1e-5).sqrt() * scale + shift)
        maps = (maps[..., ::2, ::2] + maps[..., 1::2, ::2] + maps[..., ::2, 1::2] + maps[..., 1::2, 1::2]) / 4
    expected = maps.flatten(1) @ weights["fc.weight"].T + weights["fc.bias"]
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected)


def test_a_wide_residual_block_adds_the_projection_of_its_activated_input() -> None:
    block = WideBlock(3, 5, 2).eval()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        active = torch.relu(images / (1 + 1e-5) ** 0.5)  # a new BatchNorm layer divides by its epsilon alone
        inner = torch.relu(block.conv1(active) / (1 + 1e-5) ** 0.5)
        torch.testing.assert_close(block(images), block.shortcut(active) + block.conv2(inner))
        kept = WideBlock(3, 3, 1).eval()
        nn.init.zeros_(kept.conv2.weight)
        assert torch.equal(kept(images), images)


@pytest.mark.parametrize("name", CONVNETS)
@pytest.mark.parametrize("size", [16, 64])
def test_convnets_are_made_for_the_size_of_the_images(name: str, size: int) -> None:
    check_student(f"timm/{name}", 5, size)


@pytest.mark.parametrize("name", ["convnet3", "alexnet_small", "wrn16_2"])
def test_convnets_take_images_of_another_size_too(name: str) -> None:
    network = timm.create_model(name, num_classes=5, **networks.size_arguments(name, 16)).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 12, 12)).shape == (1, 5)


def test_a_saved_convnet_of_another_size_is_read_again(tmp_path: Path) -> None:
    network = timm.create_model("convnet3_narrow", num_classes=10, **networks.size_arguments("convnet3_narrow", 16))
    source = SourceConfig(size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    classes = ClassMap(tuple("0123456789"), tuple("0123456789"))
    write_model_directory(network, model_config(network, "convnet3_narrow", classes, source), tmp_path / "model")
    again = load_teacher(f"timm/local-dir:{tmp_path / 'model'}").module
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again(images), network.eval()(images))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("convnet3", {"conv": 3, "norm": 3}),
        ("convnet3_bn", {"bn": 3}),
        ("alexnet_small", {"conv": 5}),
        ("wrn16_2", {"bn": 13}),
    ],
)
def test_what_is_matched_in_them(name: str, kinds: dict[str, int]) -> None:
    assert Counter(layer.kind for layer in matched_layers(timm.create_model(name))) == kinds
