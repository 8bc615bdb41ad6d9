"""Measured statistics against plain loops over images in float64, and the life of their files."""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from accelerate import PartialState
from fixtures.gathering import gather_as
from fixtures.runs import PROCESSES
from fixtures.small import Network, small_teacher
from fixtures.small_digits import RECIPE, small_digits
from torch import Tensor, nn

from fadrm_hf.config import Matching, SqueezeConfig, StatisticsConfig
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import RunFolderError, SourceError
from fadrm_hf.networks.layers import matched_layers
from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.networks.teachers.teacher import weights_sha256
from fadrm_hf.recovery.matching.distance import MatchedStatistics
from fadrm_hf.recovery.matching.gathering import StatisticsPass, block_side
from fadrm_hf.recovery.matching.image_moments import mean_and_variance, sums_over_images
from fadrm_hf.recovery.matching.real_views import ClassViews
from fadrm_hf.recovery.matching.targets import Targets
from fadrm_hf.runtime.progress import QUIET, Reporter, Task
from fadrm_hf.runtime.tensor_files import save_tensors

pytestmark = pytest.mark.numerical

WHOLE = StatisticsConfig(augment=False, patch_side=4)


@pytest.fixture(scope="module")
def source() -> Source:
    return small_digits(120, 20)


@pytest.fixture(scope="module")
def teacher(source: Source) -> Teacher:
    return named(small_teacher(source, steps=3))


def named(teacher: Teacher) -> Teacher:
    return replace(teacher, sha256=weights_sha256(teacher.module))


def untrained(name: str) -> Teacher:
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=10, img_size=16).eval().requires_grad_(False)
    return Teacher(f"timm/{name}", module, None, (0.5,) * 3, (0.5,) * 3, weights_sha256(module))


def pass_of(
    teacher: Teacher, source: Source, config: StatisticsConfig = WHOLE, convolutions: bool = True,
    classes: bool = True, seed: int = 0,
) -> StatisticsPass:  # fmt: skip
    matching = Matching(convolutions=convolutions, category=0.5 if classes else 0.0)
    return StatisticsPass(teacher, source, config, RECIPE, matching, seed)


def gather(
    teacher: Teacher, source: Source, folder: Path, config: StatisticsConfig = WHOLE, convolutions: bool = True,
    classes: bool = True, seed: int = 0, state: PartialState | None = None, reporter: Reporter = QUIET,
) -> dict[str, Targets]:  # fmt: skip
    state = state or PartialState(cpu=True)
    return pass_of(teacher, source, config, convolutions, classes, seed).gather(folder, state, reporter)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def maps_of(network: Network, source: Source, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What every layer of the small network is given, (n, C, H, W) float64, worked out by hand."""
    exact = copy.deepcopy(network).double()
    images = source.normalise(source.pixels("train", rows.tolist())).double()
    with torch.no_grad():
        first = exact.conv1(images)
        second = torch.relu(exact.bn1(first))
        maps = {"conv1": images, "bn1": first, "conv2": second, "bn2": exact.conv2(second)}
    return {name: value.numpy() for name, value in maps.items()}


def channels_by_hand(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return maps.mean((0, 2, 3)), maps.var((0, 2, 3))


def blocks_by_hand(maps: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    corners = itertools.product(range(0, maps.shape[2], side), range(0, maps.shape[3], side))
    blocks = [maps[:, :, top : top + side, left : left + side] for top, left in corners]
    return np.array([block.mean() for block in blocks]), np.array([block.var() for block in blocks])


def assert_near(found: Tensor | None, expected: np.ndarray) -> None:
    assert found is not None and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_statistics_are_those_of_all_positions_of_all_images(teacher: Teacher, source: Source, tmp_path: Path) -> None:
    measured = gather(teacher, source, tmp_path)
    assert list(measured) != [] and set(measured) == {"conv1", "bn1", "conv2", "bn2"}
    labels = source.labels("train")
    for label, rows in [(None, np.arange(len(labels)))] + [(k, np.flatnonzero(labels == k)) for k in range(10)]:
        for name, maps in maps_of(teacher.module, source, rows).items():
            targets = measured[name]
            goals = [(targets.channels, channels_by_hand(maps))]
            if name.startswith("conv"):
                assert targets.blocks is not None
                goals.append((targets.blocks, blocks_by_hand(maps, 4)))
            else:
                assert targets.blocks is None
            for goal, (mean, var) in goals:
                assert_near(goal.mean if label is None else goal.class_mean[label], mean)
                assert_near(goal.var if label is None else goal.class_var[label], var)


def test_the_released_class_variance_lacks_what_differs_between_images(
    teacher: Teacher, source: Source, tmp_path: Path
) -> None:
    released = gather(teacher, source, tmp_path, replace(WHOLE, class_variance="images"))
    whole = gather(teacher, source, tmp_path)
    rows = np.flatnonzero(source.labels("train") == 7)
    for name, maps in maps_of(teacher.module, source, rows).items():
        assert_near(released[name].class_var[7], maps.var((2, 3)).mean(0))
        assert (released[name].class_var <= whole[name].class_var + 1e-6).all()
        assert torch.equal(released[name].class_mean, whole[name].class_mean)
        assert torch.equal(released[name].var, whole[name].var)
    blocks = np.array([blocks_by_hand(maps_of(teacher.module, source, rows[[i]])["conv1"], 4)[1]
                       for i in range(len(rows))])  # fmt: skip
    assert_near(released["conv1"].class_block_var[7], blocks.mean(0))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6])
def test_the_released_global_variance_is_what_random_batches_have_on_average(batch_size: int) -> None:
    images = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))  # 5 positions each
    moments = torch.stack([images.mean(1, keepdim=True), images.square().mean(1, keepdim=True)])
    batches = [images[list(rows)] for rows in itertools.combinations(range(6), batch_size)]
    expected = torch.stack([batch.var(correction=0) for batch in batches]).mean()
    sums, count = sums_over_images(moments), torch.tensor([6.0], dtype=torch.float64)
    mean, var = mean_and_variance(sums, count, "batches", batch_size)
    torch.testing.assert_close(mean.squeeze(), images.mean())
    torch.testing.assert_close(var.squeeze(), expected)


def test_settings_of_variances_reach_the_targets(teacher: Teacher, source: Source, tmp_path: Path) -> None:
    batches = replace(WHOLE, global_variance="batches", batch_size=2)
    released, whole = (gather(teacher, source, tmp_path, config) for config in (batches, WHOLE))
    assert (released["conv2"].var < whole["conv2"].var).all()
    assert (released["conv2"].block_var < whole["conv2"].block_var).all()
    torch.testing.assert_close(released["conv2"].class_var, whole["conv2"].class_var)


def test_real_images_are_at_no_distance_from_their_own_statistics(source: Source, tmp_path: Path) -> None:
    """The whole way round: what is gathered is what `MatchedStatistics` compares with."""
    teacher = untrained("convnet3_narrow")
    config = replace(WHOLE, images_per_class=4)
    measured = gather(teacher, source, tmp_path, config)
    assert set(measured) == {layer.name for layer in matched_layers(teacher.module)}
    (images, places), = ClassViews(source, range(10), config, RECIPE, 0)  # fmt: skip
    matching = Matching(convolutions=True, category=0.5)

    def distance(views: Tensor) -> float:
        statistics = MatchedStatistics(teacher.module, matching, 1.0, measured, block_side(config, 16))
        statistics.begin(places, torch.Generator())
        teacher.module(views)
        loss = float(statistics.loss())
        statistics.close()
        return loss

    assert distance(images) < 1e-3
    assert distance(images.roll(4, 0)) > 0.1, "the statistics of another class are at some"


@pytest.mark.parametrize(
    ("name", "convolutions", "classes", "layers"),
    [
        ("resnet10_narrow", False, False, 0),
        ("resnet10_narrow", True, False, 12),
        ("resnet10_narrow", False, True, 12),
        ("resnet10_narrow", True, True, 24),
        ("alexnet_small", False, False, 5),
        ("convnet3_narrow", False, False, 6),
    ],
)
def test_what_is_measured_depends_on_what_the_network_keeps(
    name: str, convolutions: bool, classes: bool, layers: int, source: Source, tmp_path: Path
) -> None:
    settings = {} if name.startswith("resnet") else {"img_size": 16}
    module = timm.create_model(name, num_classes=10, **settings).eval()
    teacher = Teacher(name, module, None, (0.5,) * 3, (0.5,) * 3, weights_sha256(module))
    config = replace(WHOLE, images_per_class=2)
    measured = gather(teacher, source, tmp_path, config, convolutions, classes)
    matched = {layer.name: layer for layer in matched_layers(module, convolutions)}
    assert len(measured) == layers and set(measured) <= set(matched)
    for name, targets in measured.items():
        assert (targets.class_mean is not None) == classes
        assert (targets.block_mean is not None) == (convolutions and matched[name].kind == "conv")
    expected = pass_of(teacher, source, config, convolutions, classes).num_bytes
    if layers == 0:
        assert expected == 0 and list(tmp_path.iterdir()) == []
    else:
        tensors = sum(tensor.nbytes for targets in measured.values() for tensor in targets.tensors().values())
        assert expected == tensors < only_file(tmp_path).stat().st_size


@pytest.mark.parametrize("squeeze", [RECIPE, replace(RECIPE, crop="resized", flip_probability=0.5)])
def test_views_depend_on_neither_batches_nor_ranges(squeeze: SqueezeConfig, source: Source) -> None:
    together = views(source, squeeze)
    assert together.shape == (50, 3, 16, 16)
    alone = [views(source, squeeze, range(label, label + 1), batch_size=2) for label in range(10)]
    assert torch.equal(torch.cat(alone), together)
    assert not torch.equal(together, views(source, squeeze, augment=False))


def test_views_are_mirrored_as_often_as_training_images(source: Source) -> None:
    mirrored = views(source, replace(RECIPE, padding=0, flip_probability=1.0))
    assert torch.equal(mirrored, views(source, RECIPE, augment=False).flip(-1))


def views(
    source: Source, squeeze: SqueezeConfig, classes: range = range(10), batch_size: int = 64, augment: bool = True
) -> Tensor:
    config = StatisticsConfig(images_per_class=5, batch_size=batch_size, augment=augment)
    return torch.cat([images for images, _ in ClassViews(source, classes, config, squeeze, 3)])


def test_a_second_run_reads_what_the_first_has_measured(teacher: Teacher, source: Source, tmp_path: Path) -> None:
    first = gather(teacher, source, tmp_path)
    before = only_file(tmp_path).stat()
    again = gather(teacher, source, tmp_path)
    after = only_file(tmp_path).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    for name, targets in first.items():
        for field_name, tensor in targets.tensors().items():
            assert torch.equal(tensor, getattr(again[name], field_name))


def test_every_other_pass_has_a_file_of_its_own(teacher: Teacher, source: Source, tmp_path: Path) -> None:
    other = named(small_teacher(source, seed=1, steps=3, module=Network()))
    few = replace(WHOLE, images_per_class=2)
    gather(teacher, source, tmp_path, few)
    gather(teacher, source, tmp_path, few, seed=1)
    gather(teacher, source, tmp_path, few, classes=False)
    gather(teacher, source, tmp_path, replace(few, augment=True))
    gather(other, source, tmp_path, few)
    gather(teacher, small_digits(110, 20), tmp_path, few)
    assert len(list(tmp_path.iterdir())) == 6


def test_statistics_of_another_teacher_or_source_are_refused(teacher: Teacher, source: Source, tmp_path: Path) -> None:
    few = replace(WHOLE, images_per_class=2)
    gather(teacher, source, tmp_path / "ours", few)
    ours = only_file(tmp_path / "ours")
    others = {"teacher": (untrained("alexnet_small"), source), "source": (teacher, small_digits(110, 20))}
    for key, (their_teacher, their_source) in others.items():
        folder = tmp_path / key
        gather(their_teacher, their_source, folder, few)
        ours.write_bytes(only_file(folder).read_bytes())
        with pytest.raises(RunFolderError, match=rf"another pass \(it differs in .*{key}.*remove the file"):
            gather(teacher, source, ours.parent, few)


@pytest.mark.parametrize("damage", ["empty", "cut", "nameless", "foreign"])
def test_a_damaged_file_is_refused(damage: str, teacher: Teacher, source: Source, tmp_path: Path) -> None:
    few = replace(WHOLE, images_per_class=2)
    gather(teacher, source, tmp_path, few)
    path = only_file(tmp_path)
    if damage == "nameless":
        save_tensors(path, {"mean": torch.zeros(1)})
    elif damage == "foreign":
        save_tensors(path, {"mean": torch.zeros(1)}, {"identity": "{"})
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else -8])
    with pytest.raises(RunFolderError, match=r"empty or damaged.*remove the file and they are gathered again"):
        gather(teacher, source, tmp_path, few)
    path.unlink()
    assert gather(teacher, source, tmp_path, few)


def test_a_class_without_images_is_refused(teacher: Teacher, source: Source, tmp_path: Path) -> None:
    others = np.flatnonzero(source.labels("train") != 3)
    with pytest.raises(SourceError, match="class '3' has no training image"):
        gather(teacher, replace(source, train=source.train.select(others)), tmp_path)


class Stopped(Reporter):
    """Reports as always, and is interrupted after the third unit."""

    @contextmanager
    def stage(self, name: str, total: int, images: int = 0) -> Iterator[Task]:
        yield StoppedTask(name, total, images)


class StoppedTask(Task):
    done = 0

    def advance(self, units: int = 1, **metrics: float) -> None:
        self.done += units
        if self.done == 3:
            raise KeyboardInterrupt


def test_an_interrupted_pass_goes_on_and_ends_with_the_same_bits(
    teacher: Teacher, source: Source, tmp_path: Path
) -> None:
    gather(teacher, source, tmp_path / "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        gather(teacher, source, tmp_path / "stopped", reporter=Stopped(quiet=True))
    (work,) = (tmp_path / "stopped").iterdir()
    assert sorted(path.stem for path in work.glob("*.safetensors")) == ["00000-00000", "00001-00001", "00002-00002"]
    (work / "00001-00001.safetensors").write_bytes(b"")  # half a file: it is measured again
    log = tmp_path / "log.jsonl"
    gather(teacher, source, tmp_path / "stopped", reporter=Reporter(log, quiet=True))
    assert len(log.read_text().splitlines()) == 8, "two of ten classes were there"
    assert only_file(tmp_path / "stopped").read_bytes() == only_file(tmp_path / "undisturbed").read_bytes()


def test_several_processes_make_the_same_bits_as_one(teacher: Teacher, source: Source, tmp_path: Path) -> None:
    gather(teacher, source, tmp_path / "one")
    arguments = (3, teacher, source, WHOLE, tmp_path / "three")
    processes = [PROCESSES.Process(target=gather_as, args=(index, *arguments)) for index in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert only_file(tmp_path / "three").read_bytes() == only_file(tmp_path / "one").read_bytes()


def test_batches_matter_to_rounding_alone(teacher: Teacher, source: Source, tmp_path: Path) -> None:
    large, small = (gather(teacher, source, tmp_path, replace(WHOLE, batch_size=size)) for size in (256, 5))
    for name, targets in large.items():
        for part, tensor in targets.tensors().items():
            torch.testing.assert_close(tensor, small[name].tensors()[part], rtol=1e-5, atol=1e-6)


class Repeating(nn.Module):
    """Uses one convolution twice, and another never."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.idle = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3)
        self.head = nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(images)).mean((2, 3)))


def test_a_layer_used_twice_has_seen_both_inputs_and_an_idle_one_none(source: Source, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Repeating().eval().requires_grad_(False)
    teacher = Teacher("repeating", module, None, (0.5,) * 3, (0.5,) * 3, weights_sha256(module))
    measured = gather(teacher, source, tmp_path)
    assert set(measured) == {"conv"}
    images = source.normalise(source.pixels("train", range(len(source.train))))
    seen = torch.cat([images, F.conv2d(images, module.conv.weight, module.conv.bias, padding=1)]).double()
    assert_near(measured["conv"].mean, seen.numpy().mean((0, 2, 3)))
    assert_near(measured["conv"].var, seen.numpy().var((0, 2, 3)))


@pytest.mark.parametrize(("size", "given", "side"), [(32, None, 4), (64, None, 4), (224, None, 16), (32, 8, 8)])
def test_blocks_have_the_released_side_unless_another_is_given(size: int, given: int | None, side: int) -> None:
    assert block_side(StatisticsConfig(patch_side=given), size) == side


@pytest.mark.parametrize(
    ("name", "layers", "megabytes"),
    [  # EDC's networks: 391 layers and 813 MB, which its release keeps in 391 files for each class
        ("resnet18", 40, 71.8),
        ("mobilenetv2_100", 104, 267.4),
        ("efficientnet_b0", 130, 405.6),
        ("shufflenet_v2_x0_5", 112, 59.6),
        ("alexnet", 5, 8.8),
    ],
)
def test_what_imagenets_classes_take_is_known_beforehand(
    name: str, layers: int, megabytes: float, source: Source
) -> None:
    names = tuple(str(index) for index in range(1000))
    imagenet = replace(source, class_map=ClassMap(names, names), config=replace(source.config, size=224))
    network = torchvision.models.alexnet() if name == "alexnet" else timm.create_model(name)
    teacher = Teacher(name, network.eval(), None, (0.5,) * 3, (0.5,) * 3, "")
    assert len(matched_layers(network, convolutions=True)) == layers
    expected = pass_of(teacher, imagenet, StatisticsConfig()).num_bytes
    assert expected / 1e6 == pytest.approx(megabytes, abs=0.1)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 4, "depth": 2, "global_pool": "avg"}),
        ("convnext_atto", {"patch_size": 1, "depths": (1, 1, 1, 1)}),
    ],
)
def test_transformers_and_convnexts_are_measured_by_their_norms(
    name: str, settings: dict[str, Any], source: Source, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=10, **settings).eval().requires_grad_(False)
    few = replace(source, train=source.train.select(range(40)))
    teacher = Teacher(name, module, None, (0.5,) * 3, (0.5,) * 3, weights_sha256(module))
    measured = gather(teacher, few, tmp_path, convolutions=False, classes=False)
    norms = [layer for layer in matched_layers(module) if layer.kind == "norm"]
    assert norms and {norm.name for norm in norms} <= set(measured)
    for norm in norms:
        (channels,) = norm.layer.normalized_shape
        assert measured[norm.name].mean.shape == (channels,)
        assert measured[norm.name].blocks is None
