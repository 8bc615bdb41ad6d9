"""Frozen teachers in their fast form, against hooks and autograd on the networks as their authors wrote them."""

import copy
import operator
from typing import NamedTuple

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import fx, nn

from fadrm_hf import networks  # noqa: F401  registers the small networks
from fadrm_hf.config import Matching
from fadrm_hf.networks.fused.convolution import FrozenConv2d
from fadrm_hf.networks.fused.geometry import Geometry
from fadrm_hf.networks.fused.normalisation import FrozenNorm2d
from fadrm_hf.networks.fused.tracing import freeze
from fadrm_hf.recovery.matching.distance import MatchedStatistics

pytestmark = pytest.mark.numerical

# Convolutions, BatchNorm layers, and the activations that follow one of these directly.
TEACHERS = {
    "resnet18": (20, 20, 17),
    "resnet50": (53, 53, 49),
    "densenet121": (120, 121, 121),
    "mobilenetv2_100": (52, 52, 35),
    "shufflenet_v2_x0_5": (56, 56, 37),
    "efficientnet_b0": (81, 49, 33),
    "wide_resnet50_2": (53, 53, 49),
    "vgg11_bn": (10, 8, 8),
}


def seasoned(module):
    """The network in float64 with statistics and parameters that no layer is born with."""
    torch.manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0.0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.1)
    return module.double().eval().requires_grad_(False)


def teacher(name):
    torch.manual_seed(0)
    narrow = {"mlp_ratio": 0.05} if name.startswith("vgg") else {}  # its head has 100 M weights, and nothing new
    return seasoned(timm.create_model(name, num_classes=7, **narrow))


def fast(module):
    return freeze(copy.deepcopy(module).to(memory_format=torch.channels_last), compiles=True)


class Coverage(NamedTuple):
    """How much of a network is in its fast form: convolutions and BatchNorm layers of how many, and activations."""

    traced: bool
    convolutions: tuple[int, int]
    norms: tuple[int, int]
    activations: int

    @property
    def is_full(self):
        return self.traced and all(fast == all_of_them for fast, all_of_them in (self.convolutions, self.norms))


def coverage(module):
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    fused = [layer for layer in norms if isinstance(layer, FrozenNorm2d)]
    frozen = sum(isinstance(layer, FrozenConv2d) for layer in convolutions)
    activations = sum(layer.activation != "none" for layer in fused)
    return Coverage(
        isinstance(module, fx.GraphModule), (frozen, len(convolutions)), (len(fused), len(norms)), activations
    )


def plain_loss(module, images):
    """Cross-entropy and D_global from hooks and plain moments."""
    terms = []

    def watch(layer, inputs):
        (maps,) = inputs
        mean, var = maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)
        weight = 1.0 if terms else 10.0
        terms.append(weight * ((mean - layer.running_mean).norm() + (var - layer.running_var).norm()))

    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    handles = [layer.register_forward_pre_hook(watch) for layer in layers]
    logits = module(images)
    for handle in handles:
        handle.remove()
    return F.cross_entropy(logits, torch.arange(len(images)) % 7) + 0.01 * sum(terms)


def fast_loss(network, watch, images):
    return F.cross_entropy(network(images), torch.arange(len(images)) % 7) + 0.01 * watch.loss()


def assert_same_gradient(module, images, tolerance=1e-10, network=None):
    network = network or fast(module)
    watch = MatchedStatistics(network)
    pixels = [images.detach().clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2)]
    losses = plain_loss(module, pixels[0]), fast_loss(network, watch, pixels[1])
    watch.close()
    torch.testing.assert_close(losses[1], losses[0], rtol=tolerance, atol=0)
    expected, found = (torch.autograd.grad(loss, x)[0] for loss, x in zip(losses, pixels, strict=True))
    assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("name", TEACHERS)
def test_teachers_are_covered_and_their_gradients_are_those_of_the_plain_form(name):
    module = teacher(name)
    convolutions, norms, activations = TEACHERS[name]
    network = fast(module)
    found = coverage(network)
    assert found.is_full
    assert found.convolutions == (convolutions, convolutions) and found.norms == (norms, norms)
    assert found.activations == activations
    assert_same_gradient(module, torch.randn((2, 3, 64, 64), dtype=torch.float64), network=network)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (3, 3, 37, 37), (2, 3, 33, 47)], ids=["one image", "odd", "oblong"])
@pytest.mark.parametrize("name", ["resnet18_small_stem", "densenet121_small_stem", "mobilenetv2_100_small_stem"])
def test_odd_shapes(name, shape):
    assert_same_gradient(teacher(name), torch.randn(shape, dtype=torch.float64))


def test_images_need_not_be_contiguous():
    images = torch.randn((33, 3, 33, 2), dtype=torch.float64).permute(3, 1, 0, 2)
    assert not images.is_contiguous() and not images.is_contiguous(memory_format=torch.channels_last)
    assert_same_gradient(teacher("resnet18_small_stem"), images)


@pytest.mark.parametrize(("precision", "cosine"), [("fp32", 0.9999), ("bf16", 0.9)])
def test_gradients_of_single_precision_point_the_same_way(precision, cosine):
    module = teacher("resnet18_small_stem")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    network = copy.deepcopy(module).to(dtype)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.float()
    network = freeze(network.to(memory_format=torch.channels_last), compiles=True)
    watch = MatchedStatistics(network)
    images = torch.randn((4, 3, 32, 32), dtype=torch.float64)
    exact, rounded = images.clone().requires_grad_(), images.to(dtype).requires_grad_()
    (expected,) = torch.autograd.grad(plain_loss(module, exact), exact)
    loss = F.cross_entropy(network(rounded).float(), torch.arange(4)) + 0.01 * watch.loss()
    (found,) = torch.autograd.grad(loss, rounded)
    assert F.cosine_similarity(found.double().flatten(), expected.flatten(), dim=0) > cosine
    if precision == "fp32":
        assert (found - expected).norm() < 1e-2 * expected.norm()


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (14, 17)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(7, 2, 3), (3, 1, 1), (3, 2, 1), (5, 2, 0), (4, 2, 1), (1, 1, 0)]
)
def test_the_gradient_of_a_first_convolution(kernel, stride, padding, size):
    layer = nn.Conv2d(3, 8, kernel, stride, padding).double().requires_grad_(False)
    images = torch.randn((2, 3, *size), dtype=torch.float64)
    expected, found = images.clone().requires_grad_(), images.clone().requires_grad_()
    outputs = layer(expected)
    grad = torch.randn_like(outputs)
    outputs.backward(grad)
    FrozenConv2d(layer)(found).backward(grad)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [(1, 1, 0, 1, 1), (1, 2, 0, 1, 1), (3, 1, 1, 1, 2), (3, 2, 1, 1, 1), (3, 4, 1, 2, 4), (4, 3, 2, 1, 1),
     (7, 2, 3, 1, 1)],
)  # fmt: skip
@pytest.mark.parametrize("size", [(14, 14), (15, 17)])
def test_the_gradient_of_a_gpu_is_that_of_autograd(kernel, stride, padding, dilation, groups, size):
    """A transposed convolution, which on a GPU spares two copies of the gradient; the same to the last bit."""
    layer = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups).double().requires_grad_(False)
    images = torch.randn((2, 4, *size), dtype=torch.float64, requires_grad=True)
    outputs = layer(images)
    grad = torch.randn_like(outputs)
    (expected,) = torch.autograd.grad(outputs, images, grad)
    geometry = Geometry(layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, groups)
    assert torch.equal(geometry.transposed_gradient(grad, images.shape), expected)


def test_the_layers_keep_their_names_and_order():
    module = teacher("densenet121")
    names = [name for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d | nn.Conv2d)]
    kept = [name for name, layer in fast(module).named_modules() if isinstance(layer, nn.BatchNorm2d | nn.Conv2d)]
    assert kept == names


def test_without_gradients_the_outputs_are_the_same_and_nothing_is_gathered():
    module = teacher("mobilenetv2_100")
    network = fast(module)
    watch = MatchedStatistics(network)
    images = torch.randn((2, 3, 64, 64), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), module(images), rtol=1e-10, atol=1e-10)
    assert watch.loss() == 0


class Stubborn(nn.Module):
    """Control flow that depends on values, an addition in place, and an activation that is not known."""

    def __init__(self):
        super().__init__()
        self.first, self.bn1 = nn.Conv2d(3, 6, 3, padding="same"), nn.BatchNorm2d(6)
        self.second, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, groups=2, dilation=1), nn.BatchNorm2d(6)
        self.third = nn.Conv2d(6, 8, 3, stride=2, padding=1, padding_mode="reflect")
        self.bn3, self.act, self.head = nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Linear(8, 7)

    def forward(self, images):
        maps = F.mish(self.bn1(self.first(images)))
        if maps.shape[0] > 0 and float(maps.detach().sum()) < float("inf"):
            maps = operator.iadd(self.bn2(self.second(maps)), maps)
        return self.head(self.act(self.bn3(self.third(maps))).mean((2, 3)))


def test_what_cannot_be_traced_is_exchanged_layer_by_layer():
    module = seasoned(Stubborn())
    found = coverage(fast(module))
    assert not found.traced and not found.is_full
    assert found.convolutions == (1, 3) and found.norms == (3, 3)
    assert_same_gradient(module, torch.randn((3, 3, 12, 12), dtype=torch.float64))


def test_a_part_that_cannot_be_traced_leaves_the_rest_traced():
    module = seasoned(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), Stubborn()))
    found = coverage(fast(module))
    assert found.traced and found.activations == 1
    assert_same_gradient(module, torch.randn((3, 3, 12, 12), dtype=torch.float64))


def test_statistics_of_convolutions_and_averages_go_on_with_the_fast_form():
    module = seasoned(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 7)))
    values = []
    for network in (module, fast(module)):
        watch = MatchedStatistics(network, Matching(momentum=0.7))
        watch.begin(torch.arange(2), torch.Generator())
        for step in range(3):
            images = torch.full((2, 3, 12, 12), 0.1 * step, dtype=torch.float64).requires_grad_()
            network(images)
            values.append(watch.loss())
        watch.close()
    torch.testing.assert_close(torch.stack(values[3:]), torch.stack(values[:3]), rtol=1e-12, atol=0)


def test_a_torchvision_network_with_activations_in_place():
    module = seasoned(torchvision.models.mobilenet_v2(num_classes=7))
    assert coverage(fast(module)).is_full
    assert_same_gradient(module, torch.randn((2, 3, 64, 64), dtype=torch.float64))
