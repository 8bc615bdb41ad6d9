"""What a network sees of images, against the library's own way to its last features and against layers by hand."""

import pytest
import timm
import torch
import torchvision
from fixtures.small import Network, digits
from torch import nn

import fadrm_hf.networks.small_images  # noqa: F401 (registers the small networks)
from fadrm_hf.errors import ScoreError
from fadrm_hf.evaluation.information import FeatureNetwork, Information
from fadrm_hf.evaluation.scores import feature_entropy, pixel_entropy

pytestmark = pytest.mark.numerical

IMAGES = torch.rand(7, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def shown_to(network: nn.Module) -> FeatureNetwork:
    return FeatureNetwork("it", network, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), has_taught=False)


@pytest.mark.parametrize("architecture", ["resnet10_narrow", "vit_tiny_patch16_224"])
def test_features_of_timms_networks_are_those_before_the_classifier(architecture):
    options = {"img_size": 16, "patch_size": 4, "depth": 2} if "vit" in architecture else {}
    network = timm.create_model(architecture, num_classes=10, **options).train()
    found = shown_to(network).features_of(IMAGES)
    assert network.training
    with torch.inference_mode():
        expected = network.eval().forward_head(network.forward_features(IMAGES), pre_logits=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_features_are_what_the_last_layer_sees_whatever_its_name():
    torch.manual_seed(0)
    network = Network().eval()
    found = shown_to(network).features_of(IMAGES)
    torch.testing.assert_close(network.head(found), network(IMAGES))
    shuffled = torchvision.models.shufflenet_v2_x0_5(num_classes=10).eval()
    torch.testing.assert_close(shuffled.fc(shown_to(shuffled).features_of(IMAGES)), shuffled(IMAGES))


@pytest.mark.parametrize("network", [nn.Sequential(nn.Conv2d(3, 5, 16), nn.Flatten()), nn.Linear(16, 4)])
def test_a_network_without_a_linear_classifier_is_refused(network):
    with pytest.raises(ScoreError, match="it does not end with a linear classifier"):
        shown_to(network).features_of(IMAGES)


def test_a_network_normalises_by_its_own_constants():
    source = digits()
    images = source.pixels("train", range(60))  # more than it looks at at once
    network = Network().eval()
    normalising = FeatureNetwork("it", network, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), has_taught=False)
    seen = Information.of(images, normalising, bins=32)
    colours = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]]).view(2, 1, 3, 1, 1)
    expected = shown_to(network).features_of((images / 255 - colours[0]) / colours[1])
    torch.testing.assert_close(seen.features, expected)
    torch.testing.assert_close(seen.feature_entropy, feature_entropy(expected), rtol=1e-5, atol=1e-6)
    assert torch.equal(seen.pixel_entropy, pixel_entropy(images, 32))
