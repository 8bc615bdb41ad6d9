"""Retrieved patches against the score written out in float64, and a run that retrieves."""

import os
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures.runs import FADRM as FADRM_ARGUMENTS
from fixtures.runs import RECIPE, distill, identities, lasting, run_and_die, work_of
from fixtures.small import digits, small_teacher
from torch import nn

from fadrm_hf.artifact.reading import read_images
from fadrm_hf.cli import main
from fadrm_hf.config import PatchConfig
from fadrm_hf.errors import ConfigError, TeacherError
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.recovery.patches.crops import select_patches
from fadrm_hf.recovery.retrieval import Retriever, build_pool, complexity, unit_features
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.tensor_files import load_tensors, save_tensors

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
PATCHES = PatchConfig(pool=12, crops_per_image=2)
RETRIEVE = "--method.retrieval=0.1"


@pytest.fixture(scope="module")
def source():
    return digits()


@pytest.fixture(scope="module")
def teacher(source):
    return small_teacher(source)


@pytest.fixture(scope="module")
def pools(source, teacher, tmp_path_factory):
    """The pools of three classes, and their files."""
    folder = tmp_path_factory.mktemp("pools")
    for label in range(3):
        save_tensors(folder / f"{label}.safetensors", build_pool(source, teacher, label, 2, PATCHES, 0, CPU))
    return [folder / f"{label}.safetensors" for label in range(3)]


def plain_complexity(image):
    """Of (3, S, S) float64: blurred axis by axis; central differences within, one-sided ones at the ends."""
    weights = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    weights /= weights.sum()
    energy = 0.0
    for channel in image:
        for axis in (0, 1):
            width = [(3, 3) if axis == other else (0, 0) for other in (0, 1)]
            padded = np.pad(channel, width, mode="reflect")
            channel = sum(
                weight * np.take(padded, range(shift, shift + channel.shape[axis]), axis)
                for shift, weight in enumerate(weights)
            )
        along, across = np.gradient(channel)
        energy = energy + along**2 + across**2
    return energy.var()


def plain_features(module, image):
    """Of (3, S, S) float64: the pooled activations of `fixtures.small.Network`, of length 1."""
    features = torch.relu(module.bn1(module.conv1(image[None])))
    features = torch.relu(module.bn2(module.conv2(features))).mean((2, 3))[0]
    return features / features.square().sum().sqrt()


@pytest.fixture(scope="module")
def plain_scores(source, pools):
    """Of an image of a class, by weight: the score of each of the class's patches."""
    module = small_teacher(source).module.double()
    patches = [source.normalise(load_tensors(pool)["images"]).double() for pool in pools]
    features = [torch.stack([plain_features(module, patch) for patch in of_class]) for of_class in patches]
    complexities = [torch.tensor([plain_complexity(patch.numpy()) for patch in of_class]) for of_class in patches]

    def scores(image, label, weight):
        distance = (plain_features(module, image) - features[label]).square().sum(1)
        return (1 - weight) * distance + weight * complexities[label]

    return scores


def test_complexity_is_that_of_the_equation():
    images = torch.randn((4, 3, 16, 16), generator=generator(0, "test"))
    expected = [plain_complexity(image) for image in images.double().numpy()]
    torch.testing.assert_close(complexity(images), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)


def test_an_even_slope_is_simple_and_an_edge_is_not():
    slope = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    inside = complexity(slope[..., 8:56])  # an even slope but for the mirrored border
    edge = complexity(torch.where(slope > 0, 1.0, -1.0))
    assert complexity(torch.zeros(1, 3, 16, 16)).item() == 0.0
    assert 100 * inside < edge


@pytest.mark.parametrize("size", [16, 12])
def test_the_patch_with_the_least_score_is_taken(source, teacher, pools, plain_scores, size):
    """For images of a reduced resolution too, which the teacher sees at their full size."""
    labels = [0, 0, 1, 1, 2, 2]
    images = torch.randn((6, 3, size, size), generator=generator(1, "test"))
    full = F.interpolate(images, size=(16, 16), mode="bilinear") if size != 16 else images
    choices = {}
    for weight in (0.0, 0.1, 0.5, 1.0):
        patches = Retriever(teacher, source, [pools[label] for label in labels], weight)(images)
        rows = zip(labels, full.double(), strict=True)
        choices[weight] = [int(plain_scores(image, label, weight).argmin()) for label, image in rows]
        expected = [load_tensors(pools[k])["images"][row] for k, row in zip(labels, choices[weight], strict=True)]
        assert torch.equal(patches, source.normalise(torch.stack(expected)))
    assert choices[0.0] != choices[1.0], "the weight decides"
    assert choices[1.0][::2] == choices[1.0][1::2], "the simplest patch of a class is the same for all images"
    assert len(set(choices[0.1])) > 1


def test_a_patch_of_the_pool_finds_itself(source, teacher, pools):
    images = source.normalise(load_tensors(pools[1])["images"])
    assert torch.equal(Retriever(teacher, source, [pools[1]] * len(images), 0.0)(images), images)


def test_the_pool_begins_with_the_patches_that_images_start_from(source, teacher):
    pool = build_pool(source, teacher, 4, 3, PATCHES, 0, CPU)
    patches = select_patches(source, teacher, range(4, 5), 3, PATCHES, 0, CPU)
    assert torch.equal(pool["images"][:3], patches.images)
    assert {name: len(values) for name, values in pool.items()} == {"images": 12, "features": 12, "complexity": 12}
    torch.testing.assert_close(pool["features"].norm(dim=1), torch.ones(12))


def test_a_pool_is_as_large_as_its_class_and_holds_mosaics_where_patches_are_mosaics(source, teacher):
    num = int((source.labels("train") == 4).sum())
    few = PatchConfig(pool=10_000, crops_per_image=1)
    assert len(build_pool(source, teacher, 4, 1, few, 0, CPU)["images"]) == num
    mosaics = PatchConfig(pool=12, crops_per_image=1, grid=2)
    assert len(build_pool(source, teacher, 4, 1, mosaics, 0, CPU)["images"]) == 3
    assert len(build_pool(source, teacher, 4, 5, mosaics, 0, CPU)["images"]) == 5


def test_a_network_without_a_linear_layer_is_refused():
    convolutional = nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(TeacherError, match=r"no linear layer.*--method\.retrieval null"):
        unit_features(convolutional, torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_a_weight_outside_its_range_is_refused(weight):
    with pytest.raises(ConfigError, match=r"method\.retrieval must be a weight in \[0, 1\]"):
        FADRM(retrieval=weight)


class Recorder:
    """A GRADSTEP that adds one, and a retrieval that notes what it was asked for."""

    def __init__(self):
        self.asked = []

    def optimise(self, images, iterations):
        return images + 1.0

    def retrieve(self, images):
        self.asked.append(images)
        return torch.full((2, 3, 16, 16), float(len(self.asked)))


def test_each_residual_is_the_patch_that_the_optimised_images_retrieve():
    recorder = Recorder()
    start = torch.zeros((2, 3, 16, 16))
    method = FADRM(alpha=0.75, iterations=3, num_residuals=2, sizes=(12, 16, 16), retrieval=0.1)
    result = method.recover(start, recorder)
    first, second = recorder.asked
    assert torch.equal(first, torch.full((2, 3, 12, 12), 1.0))
    assert torch.equal(second, torch.full((2, 3, 16, 16), 0.75 * 1.0 + 0.25 * 1.0 + 1.0))
    assert torch.equal(result, torch.full((2, 3, 16, 16), 0.75 * 2.0 + 0.25 * 2.0 + 1.0))


@pytest.fixture(scope="module")
def retrieving(finished, tmp_path_factory):
    """A run like `finished` that retrieves, by the same teacher."""
    folder = tmp_path_factory.mktemp("retrieving")
    shutil.copytree(finished.with_name("teachers"), folder / "teachers")
    return distill(folder / "run", RETRIEVE)


def test_killed_a_run_goes_on_and_makes_lost_pools_again_with_the_same_bits(retrieving, tmp_path):
    run, lost = tmp_path / "run", ("pools/00002.safetensors", "pools/00008.safetensors")
    shutil.copytree(retrieving.with_name("teachers"), tmp_path / "teachers")
    command = ["distill", *RECIPE, *FADRM_ARGUMENTS, RETRIEVE, "--output", str(run)]
    assert run_and_die(command, "*/recovered/*.safetensors", 3) == -9
    kept = {name: identity for name, identity in identities(work_of(run)).items() if name not in lost}
    assert len([name for name in kept if name.startswith("pools/")]) == 8
    (work_of(run) / lost[0]).unlink()
    os.truncate(work_of(run) / lost[1], 100)
    assert main(command) == 0
    assert kept.items() <= identities(work_of(run)).items(), "no finished shard is computed twice"
    assert lasting(run) == lasting(retrieving)
    assert main(["verify", str(run)]) == 0


def test_what_is_retrieved_changes_images_and_without_it_there_are_no_pools(finished, retrieving):
    assert not torch.equal(read_images(retrieving)[0], read_images(finished)[0])
    assert not (work_of(finished) / "pools").exists()
