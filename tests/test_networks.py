import pytest
import timm
import torch
import torchvision
from torch import nn

from fadrm_hf import networks

NAMES = sorted(networks.default_cfgs)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_is_built_by_timm_with_the_classes_asked_for(name: str) -> None:
    network = timm.create_model(name, num_classes=7).eval()
    size = network.pretrained_cfg["input_size"][-1]
    with torch.no_grad():
        assert network(torch.zeros(2, 3, size, size)).shape == (2, 7)
        assert network.forward_features(torch.zeros(1, 3, size, size)).shape[1] == network.num_features
    network.reset_classifier(3)
    assert network.get_classifier().out_features == 3


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(("_small_stem", "_narrow"))])
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
        ("mobilenet_v2", 32, "mobilenetv2_100_small_stem"),
        ("mobilenet_v2", 224, "mobilenetv2_100"),
        ("efficientnet_b0", 32, "efficientnet_b0"),
        ("resnet10_narrow", 16, "resnet10_narrow"),
        ("resnet18_small_stem", 32, "resnet18_small_stem"),
    ],
)
def test_small_sizes_take_the_small_stem(name: str, size: int, expected: str) -> None:
    assert networks.architecture_for(name, size) == expected


def test_features_report_the_reduction_they_have() -> None:
    network = timm.create_model("resnet18_small_stem", features_only=True).eval()
    sides = [feature.shape[-1] for feature in network(torch.zeros(1, 3, 32, 32))]
    assert [32 // reduction for reduction in network.feature_info.reduction()] == sides


def test_batchnorm_layers_are_the_published_ones() -> None:
    count = sum(isinstance(layer, nn.BatchNorm2d) for layer in timm.create_model("resnet18_small_stem").modules())
    assert count == 20
