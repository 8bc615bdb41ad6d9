"""What a classifier is given, whatever its layer is called and wherever the network lists it."""

import pytest
import torch
import torchvision
from fixtures.small import Network
from torch import nn

from fadrm_hf.errors import TeacherError
from fadrm_hf.networks.features import features_before_last_linear, last_linear

IMAGES = torch.randn((4, 3, 16, 16))


@pytest.mark.parametrize("network", [Network(), torchvision.models.shufflenet_v2_x0_5(num_classes=10)])
def test_the_classifier_makes_the_logits_of_the_features(network):
    network.eval().requires_grad_(False)
    features = features_before_last_linear(network, IMAGES)
    assert torch.equal(last_linear(network, IMAGES)(features), network(IMAGES))
    assert not any(layer._forward_pre_hooks for layer in network.modules())


class TwoHeads(nn.Module):
    """Lists a head that it does not use behind its classifier."""

    def __init__(self):
        super().__init__()
        self.classifier, self.auxiliary = nn.Linear(3, 5), nn.Linear(3, 5)

    def forward(self, images):
        return self.classifier(images.mean((2, 3)))


def test_the_order_of_calls_decides_and_not_that_of_layers():
    network = TwoHeads()
    assert last_linear(network, IMAGES) is network.classifier
    assert torch.equal(features_before_last_linear(network, IMAGES), IMAGES.mean((2, 3)))


def test_a_network_without_a_linear_layer_is_refused():
    with pytest.raises(TeacherError, match="no linear layer"):
        features_before_last_linear(nn.Sequential(nn.Conv2d(3, 5, 16), nn.Flatten()), IMAGES)
