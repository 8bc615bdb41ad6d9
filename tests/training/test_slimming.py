"""Network slimming: fewer channels, the same outputs; the penalty; which channels; the whole of it on an artifact."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from fixtures.mistakes import names_all, refused
from fixtures.runs import copy_artifact, run_and_die, work_of
from timm.models.vgg import VGG
from torch import nn
from torchvision.models import vgg as torchvision_vgg

import fadrm_hf.networks.small_images  # noqa: F401 (registers the small VGGs)
from fadrm_hf.cli import main
from fadrm_hf.errors import StudentError
from fadrm_hf.evaluation.network_slimming import multiply_adds, usual_student
from fadrm_hf.training.slimming import SlimmingPhase, channels_to_keep, find_chain, remove_channels

pytestmark = pytest.mark.numerical

STUDENT = "timm/vgg11_bn_narrow"
WORDS = (f"--student={STUDENT}", "--num_seeds=2", "--epochs=2", "--scale_penalty=0.01")


def of_timm() -> nn.Module:
    return VGG([6, "M", 10, 8, "M"], num_classes=3, norm_layer=nn.BatchNorm2d, mlp_ratio=1 / 256)


def of_torchvision() -> nn.Module:
    with torch.device("meta"):  # its classifier has a hundred million weights
        network = torchvision_vgg.VGG(nn.Sequential(), num_classes=3, init_weights=False)
    network.features = torchvision_vgg.make_layers([6, "M", 10, "M", 8], batch_norm=True)
    network.classifier = nn.Sequential(nn.Linear(8 * 49, 12), nn.ReLU(), nn.Linear(12, 3))
    return network


NETWORKS = {
    "vgg11_bn_narrow": lambda: timm.create_model("vgg11_bn_narrow", num_classes=3),
    "timm": of_timm,
    "torchvision": of_torchvision,
}


@pytest.fixture(params=NETWORKS)
def network(request) -> nn.Module:
    """In float64, as if it had been trained: no norm does nothing."""
    torch.manual_seed(0)
    made = NETWORKS[request.param]().double().eval()
    for norm in find_chain(made, request.param).norms:
        for values, least in ((norm.weight, -1.0), (norm.bias, -1.0), (norm.running_mean, -0.3)):
            nn.init.uniform_(values, least, 1.0)
        nn.init.uniform_(norm.running_var, 0.2, 2.0)
    return made


def masked(network: nn.Module, kept: list[torch.Tensor]) -> nn.Module:
    """The whole network in place, with scale and shift of the channels that are not kept at zero."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm, rows in zip(norms, kept, strict=True):
        gone = [row for row in range(norm.num_features) if row not in rows.tolist()]
        with torch.no_grad():
            norm.weight[gone] = 0.0
            norm.bias[gone] = 0.0
    return network


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.95])
def test_a_smaller_network_gives_what_the_masked_one_gives(network, ratio):
    kept = channels_to_keep([norm.weight for norm in find_chain(network, "it").norms], ratio)
    small = remove_channels(network, kept)
    widths = [len(rows) for rows in kept]
    assert find_chain(small, "it").widths == widths and sum(widths) < sum(find_chain(network, "it").widths)
    images = torch.randn((4, 3, 16, 16), dtype=torch.float64)
    with torch.no_grad():
        given, whole = small(images), network(images)
        expected = masked(network, kept)(images)
    torch.testing.assert_close(given, expected, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(whole, expected)
    convolutions = [layer for layer in small.modules() if isinstance(layer, nn.Conv2d)][: len(widths)]
    for layer, inputs, outputs in zip(convolutions, [3, *widths], widths, strict=False):
        assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels) == (outputs, inputs)
    small.train()(images).sum().backward()  # it trains on


def test_nothing_is_taken_out_of_the_network_itself(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    remove_channels(network, channels_to_keep([norm.weight for norm in find_chain(network, "it").norms], 0.5))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_parameters_are_those_of_the_channels_that_are_left():
    network = timm.create_model("vgg11_bn_narrow", num_classes=10)
    kept = [torch.arange(width) for width in (3, 5, 7, 2, 4, 6, 1, 9)]
    widths = [3, *(len(rows) for rows in kept)]
    pairs = pairwise(widths)
    expected = sum(9 * before * after + 3 * after for before, after in pairs) + 9 * 10 + 10
    small = remove_channels(network, kept)
    assert sum(parameter.numel() for parameter in small.parameters()) == expected
    assert (small.num_features, small.head_hidden_size) == (9, 9)


def test_multiply_adds_are_those_of_every_place_of_every_map(network):
    """A multiplication for each weight at each place, counted by hand from what each layer gives."""
    small = remove_channels(
        network, channels_to_keep([norm.weight for norm in find_chain(network, "it").norms], 0.5)
    ).eval()
    for module in (network, small):
        counted = []

        def count(layer: nn.Module, _: object, given: torch.Tensor, counted: list[int] = counted) -> None:
            counted.append(layer.weight.numel() * (given.shape[2] * given.shape[3] if given.ndim == 4 else 1))

        layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        handles = [layer.register_forward_hook(count) for layer in layers]
        with torch.no_grad():
            module(torch.zeros(1, 3, 16, 16, dtype=torch.float64))
        for handle in handles:
            handle.remove()
        assert multiply_adds(module.float(), 16) == sum(counted) > 0


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.9])
def test_the_least_scales_of_all_layers_go(ratio):
    rng = np.random.default_rng(0)
    scales = [rng.normal(0, spread, width) for spread, width in ((1.0, 12), (0.05, 20), (2.0, 8))]
    ranks = np.abs(np.concatenate(scales)).argsort()
    gone = set(ranks[: int(ratio * 40)].tolist())
    for scale, rows, first in zip(scales, channels_to_keep(list(map(torch.tensor, scales)), ratio), (0, 12, 32),
                                  strict=True):  # fmt: skip
        expected = [row for row in range(len(scale)) if first + row not in gone]
        assert rows.tolist() == (expected or [int(np.abs(scale).argmax())])


def test_of_equal_scales_a_share_goes_and_no_layer_is_lost():
    kept = channels_to_keep([torch.ones(4), torch.ones(4)], 0.75)
    assert [rows.tolist() for rows in kept] == [[0], [2, 3]]


def test_the_penalty_is_that_of_the_loss_once_a_step():
    """Two passes a step; the reference has the norm in the loss and one pass."""
    torch.manual_seed(0)
    images, labels = torch.randn(6, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])

    def trained(is_reference: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        network = timm.create_model("vgg11_bn_narrow", num_classes=3).double().eval()  # images do not see each other
        optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        if not is_reference:
            SlimmingPhase(scale_penalty=0.2).penalise(optimiser, network, "it")
        for _ in range(3):
            optimiser.zero_grad()
            if is_reference:
                norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
                penalty = torch.stack([norm.weight.abs().sum() for norm in norms]).sum()
                (F.cross_entropy(network(images), labels) + 0.2 * penalty).backward()
            else:
                for part in (slice(0, 3), slice(3, 6)):
                    (F.cross_entropy(network(images[part]), labels[part]) / 2).backward()
            optimiser.step()
        return network.state_dict()

    expected, found = trained(True), trained(False)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet10_narrow", "alexnet_small", "convnet3"])
def test_what_is_no_chain_with_batchnorm_is_refused(name):
    with pytest.raises(StudentError, match="cannot be slimmed, expected a chain of convolutions with BatchNorm"):
        find_chain(timm.create_model(name, num_classes=3), f"timm/{name}")


def test_the_usual_student_is_the_papers_where_images_are_large():
    assert usual_student(224) == "timm/vgg11_bn" and usual_student(32) == "timm/vgg11_bn_small"
    with torch.device("meta"):
        assert len(find_chain(timm.create_model("vgg11_bn"), "it").widths) == 8


# On an artifact


def table(artifact: Path, ratio: str = "0.5") -> Path:
    return artifact.parent / f"slim-run-fadrm-soft-timm_vgg11_bn_narrow-{ratio}"


def values_of(artifact: Path, ratio: str = "0.5") -> dict:
    return json.loads(Path(f"{table(artifact, ratio)}.json").read_text())


@pytest.fixture(scope="module")
def slim_run(finished, tmp_path_factory):
    artifact = copy_artifact(finished, tmp_path_factory.mktemp("slim"))
    assert main(["slim", str(artifact), *WORDS]) == 0
    return artifact


def test_half_of_the_channels_are_gone_and_the_table_says_so(slim_run):
    values = values_of(slim_run)
    assert [seed["seed"] for seed in values["seeds"]] == [0, 1]
    for seed in values["seeds"]:
        before, after = (seed["widths"][when] for when in ("before", "after"))
        assert before == [8, 16, 32, 32, 64, 64, 64, 64]
        assert sum(before) // 2 <= sum(after) <= sum(before) // 2 + 7 and min(after) >= 1
        widths = [3, *after]
        count = sum(9 * one * other + 3 * other for one, other in pairwise(widths)) + 10 * after[-1] + 10
        assert seed["parameters"] == {"before": 145_898, "after": count}
    with open(f"{table(slim_run)}.csv", newline="") as file:
        rows = {row["stage"]: row for row in csv.DictReader(file)}
    text = Path(f"{table(slim_run)}.md").read_text()
    for stage, title in (("trained", "trained, with the penalty"), ("tuned", "trained again")):
        accuracies = [seed["top1"][stage] for seed in values["seeds"]]
        mean, std = np.mean(accuracies), np.std(accuracies, ddof=1)
        assert (float(rows[stage]["top1_mean"]), float(rows[stage]["top1_std"])) == pytest.approx(
            (mean, std), abs=1e-5
        )
        assert f"| {title} |" in text and f" {100 * mean:.1f} ± {100 * std:.1f} |" in text
    assert "the 50 % of" in text and "2 seeds" in text
    left = "; ".join(", ".join(map(str, seed["widths"]["after"])) for seed in values["seeds"])
    assert f"layer: 8, 16, 32, 32, 64, 64, 64, 64; remaining, by seed: {left}.\n" in text


def test_without_penalty_and_pruning_it_is_what_train_student_trains(finished, tmp_path):
    artifact = copy_artifact(finished, tmp_path)
    words = (f"--student={STUDENT}", "--num_seeds=1", "--epochs=2")
    assert main(["slim", str(artifact), *words, "--ratio=0", "--scale_penalty=0", "--tuning_epochs=1"]) == 0
    (seed,) = values_of(artifact, "0")["seeds"]
    assert seed["parameters"]["before"] == seed["parameters"]["after"]
    assert seed["top1"]["trained"] == seed["top1"]["pruned"]
    assert main(["train-student", str(artifact), *words]) == 0
    (result,) = (artifact / "results").glob("*vgg11_bn_narrow.json")
    assert json.loads(result.read_text())["top1"]["values"] == [round(seed["top1"]["trained"], 6)]


def test_a_control_is_slimmed_alike_and_the_table_says_what_the_images_are_worth(finished, tmp_path):
    artifact = copy_artifact(finished, tmp_path)
    words = (f"--student={STUDENT}", "--num_seeds=1", "--epochs=1")
    assert main(["slim", str(artifact), *words, "--control=random_real"]) == 0
    values, text = values_of(artifact), Path(f"{table(artifact)}.md").read_text()
    with open(f"{table(artifact)}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["images"] for row in rows] == ["FADRM, 2 per class"] * 3 + ["Random real images, 2 per class"] * 3
    control = artifact.with_name("run.random_real")
    assert json.loads((control / "fadrm.json").read_text())["method"] == "random_real"
    assert main(["slim", str(control), *words, f"--table={tmp_path / 'alone'}"]) == 0  # trained again, by itself
    alone = json.loads((tmp_path / "alone.json").read_text())["seeds"]
    (own,), (held_against,), (again,) = values["seeds"], values["control"]["seeds"], alone
    assert {**held_against, "seconds": 0} == {**again, "seconds": 0}
    worth = own["top1"]["tuned"] - again["top1"]["tuned"]  # of one seed no spread is known
    assert f"differs from the control's by {100 * worth:+.1f} points" in text
    before = Path(f"{table(artifact)}.json").read_text()
    assert main(["slim", str(artifact), *words, f"--control={control}"]) == 0
    after = Path(f"{table(artifact)}.json").read_text()
    assert json.loads(before)["control"] == json.loads(after)["control"], "an artifact by its name does as well"


def test_killed_in_the_second_training_it_goes_on_and_ends_alike(slim_run, finished, tmp_path):
    artifact = copy_artifact(finished, tmp_path)
    assert run_and_die(["slim", str(artifact), *WORDS], "*/slim-*-tuning.safetensors") == -9
    assert main(["slim", str(artifact), *WORDS]) == 0
    again, undisturbed = (values_of(place)["seeds"] for place in (artifact, slim_run))
    for one, other in zip(again, undisturbed, strict=True):
        del one["seconds"], other["seconds"]
        assert one == other
    left = sorted(work_of(artifact).iterdir())
    assert [file.suffix for file in left if file.name.startswith("slim-")] == [".json", ".json"]
    before = {file: file.stat().st_ino for file in left}
    assert main(["slim", str(artifact), *WORDS]) == 0
    assert {file: file.stat().st_ino for file in before} == before, "not measured again"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--ratio=1"], ["ratio must be a share of the channels in [0, 1), got 1"]),
        (["--scale_penalty=-0.1"], ["scale_penalty must be in [0, 1), got -0.1"]),
        (["--tuning_epochs=0"], ["tuning_epochs must be at least 1, got 0"]),
        (["--tuning_epochs=9"], ["9 epochs were requested", "labels for 4"]),
        (["--control=nowhere"], ["nowhere"]),
        (["--student=resnet10_narrow"], ["'timm/resnet10_narrow' cannot be slimmed", "--student"]),
        (["--student=timm/vgg11_bm"], ["unknown student 'timm/vgg11_bm'", "vgg11_bn"]),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(finished, place, capsys, words, expected):
    copy_artifact(finished, place)
    names_all(refused(capsys, place, "slim", "run", f"--student={STUDENT}", *words), *expected)
