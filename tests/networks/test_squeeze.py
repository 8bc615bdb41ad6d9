import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from fixtures.small_digits import HALF, RECIPE, small_digits
from safetensors.torch import load_file

from fadrm_hf.data.sources import Source
from fadrm_hf.errors import RunFolderError, TeacherError
from fadrm_hf.networks.teachers.squeeze import new_network, squeeze, squeeze_fingerprint
from fadrm_hf.networks.teachers.training_views import (
    TrainingViews,
    crop_box,
    cutmix,
    pad_crop,
    pixels_in_memory,
    resized_crop,
)
from fadrm_hf.runtime.progress import QUIET, Reporter, Task
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")


class KilledTask(Task):
    """Stops the training after its second epoch, when its checkpoint is written."""

    def advance(self, units: int = 1, **metrics: float) -> None:
        super().advance(units, **metrics)
        if self._units == 2:
            raise KeyboardInterrupt


class KillingReporter(Reporter):
    @contextmanager
    def stage(self, name: str, total: int, images: int = 0) -> Iterator[Task]:
        yield KilledTask(name, total, images)


@pytest.fixture(scope="module")
def source() -> Source:
    return small_digits(200, 50)


@pytest.fixture(scope="module")
def trained(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squeeze") / "teacher"
    return squeeze(source, "resnet10_narrow", RECIPE, folder, 0, QUIET, CPU)


def test_a_killed_training_ends_with_the_same_bits(source: Source, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    with pytest.raises(KeyboardInterrupt):
        squeeze(source, "resnet10_narrow", RECIPE, folder, 0, KillingReporter(quiet=True), CPU)
    assert not folder.exists()
    squeeze(source, "resnet10_narrow", RECIPE, folder, 0, QUIET, CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]
    assert (folder / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert (folder / "config.json").read_bytes() == (trained / "config.json").read_bytes()


def test_workers_do_not_change_the_weights(source: Source, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    alone = squeeze(source, "resnet10_narrow", recipe, tmp_path / "alone", 0, QUIET, CPU)
    helped = squeeze(source, "resnet10_narrow", replace(recipe, num_workers=2), tmp_path / "helped", 0, QUIET, CPU)
    assert (alone / "model.safetensors").read_bytes() == (helped / "model.safetensors").read_bytes()


def test_the_seed_changes_the_weights(source: Source, trained: Path, tmp_path: Path) -> None:
    other = squeeze(source, "resnet10_narrow", RECIPE, tmp_path / "other", 1, QUIET, CPU)
    first, second = (load_file(folder / "model.safetensors")["fc.weight"] for folder in (trained, other))
    assert not torch.equal(first, second)


def test_a_finished_teacher_is_used_again(source: Source, trained: Path) -> None:
    before = (trained / "model.safetensors").stat().st_mtime_ns
    assert squeeze(source, "resnet10_narrow", RECIPE, trained, 0, QUIET, CPU) == trained
    assert (trained / "model.safetensors").stat().st_mtime_ns == before


def test_another_teachers_folder_is_refused(source: Source, trained: Path) -> None:
    with pytest.raises(RunFolderError, match="something other than this teacher"):
        squeeze(source, "resnet10_narrow", RECIPE, trained, 1, QUIET, CPU)


def test_the_directory_says_what_the_teacher_is(source: Source, trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    assert config["architecture"] == "resnet10_narrow"
    assert config["label_names"] == list(source.class_map.ids)
    assert config["pretrained_cfg"]["mean"] == list(source.config.mean or ())
    assert config["pretrained_cfg"]["input_size"] == [3, 16, 16]
    assert config["fadrm"]["source_fingerprint"] == source.fingerprint
    assert 0 <= config["fadrm"]["accuracy"] <= 1


def test_plain_timm_loads_a_squeezed_timm_architecture(source: Source, tmp_path: Path) -> None:
    folder = squeeze(source, "mobilenetv3_small_050", replace(RECIPE, epochs=1), tmp_path / "t", 0, QUIET, CPU)
    program = (
        "import sys, timm, torch; torch.set_num_threads(1)\n"
        f"model = timm.create_model('local-dir:{folder}', pretrained=True).eval()\n"
        f"head = timm.create_model('local-dir:{folder}', pretrained=True, num_classes=3)\n"
        "assert model.num_classes == 10 and head.num_classes == 3\n"
        "assert list(model.pretrained_cfg['mean']) == [0.5, 0.5, 0.5]\n"
        "assert 'fadrm_hf' not in sys.modules\n"
        "print(model(torch.linspace(-1, 1, 768).view(1, 3, 16, 16)).sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.isfinite(torch.tensor(float(done.stdout)))


def test_a_diverging_training_says_what_to_lower(source: Source, tmp_path: Path) -> None:
    recipe = replace(RECIPE, lr=1e20)
    with pytest.raises(TeacherError, match=r"became (nan|inf) in epoch 1.*lower --squeeze\.lr \(now 1e\+20\)"):
        squeeze(source, "resnet10_narrow", recipe, tmp_path / "t", 0, QUIET, CPU)
    assert not (tmp_path / "t").exists()


def test_an_unknown_architecture_is_refused_with_a_hint(source: Source, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"unknown architecture 'resnet10_narow'; did you mean 'resnet10_narrow'"):
        squeeze(source, "resnet10_narow", RECIPE, tmp_path / "t", 0, QUIET, CPU)


def test_an_epoch_shows_every_image_once(source: Source) -> None:
    recipe = replace(RECIPE, padding=0, batch_size=64)
    views = TrainingViews(source, pixels_in_memory(source, recipe), recipe, 0, 0)
    labels = torch.cat([views[step][1] for step in range(len(views))])
    assert torch.equal(labels.sort().values, torch.from_numpy(source.labels("train")).sort().values)


def test_pad_crop_cuts_one_window_of_each_image() -> None:
    images = torch.randint(256, (8, 3, 12, 12), dtype=torch.uint8, generator=generator(0, "test"))
    crops = pad_crop(images, 2, generator(1, "test"))
    padded = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    padded[:, :, 2:-2, 2:-2] = images
    windows = padded.unfold(2, 12, 1).unfold(3, 12, 1)  # (8, 3, 5, 5, 12, 12)
    found = [(windows[i] == crops[i][:, None, None]).all(-1).all(-1).all(0).nonzero().tolist() for i in range(8)]
    assert all(len(places) == 1 for places in found)
    assert len({tuple(places[0]) for places in found}) > 1


def test_resized_crops_stay_inside_and_keep_their_proportions() -> None:
    boxes = [crop_box(60, 100, generator(0, "test", index)) for index in range(200)]
    assert min(min(top, left) for top, left, _, _ in boxes) >= 0
    assert all(top + height <= 60 and left + width <= 100 for top, left, height, width in boxes)
    assert all(0.07 <= height * width / 6000 <= 1 and 0.7 <= width / height <= 1.4 for _, _, height, width in boxes)
    assert crop_box(4, 400, generator(0, "test")) == (0, 0, 4, 400)
    image = torch.full((3, 60, 100), 7, dtype=torch.uint8)
    assert torch.equal(resized_crop(image, 32, generator(0, "test")), torch.full((3, 32, 32), 7, dtype=torch.uint8))


def test_large_images_are_cropped_at_their_own_size(source: Source) -> None:
    large = replace(source, config=replace(source.config, size=96))
    recipe = replace(RECIPE, crop="resized", flip_probability=0.5)
    assert pixels_in_memory(large, recipe) is None
    images, labels = TrainingViews(large, None, recipe, 0, 0)[0]
    assert images.shape == (32, 3, 96, 96)
    assert images.dtype == torch.float32
    assert labels.shape == (32,)


def test_classes_of_mixed_views_have_the_shares_of_their_pixels() -> None:
    """Each view is filled with its class, so its pixels can be counted."""
    labels = torch.tensor([0, 1, 2, 3, 3, 1])
    views = labels[:, None, None, None].expand(6, 3, 16, 16).to(torch.uint8)
    shares = set()
    for seed in range(20):
        mixed, targets = cutmix(views, labels, 5, generator(seed, "test"))
        counted = torch.stack([(mixed[:, 0] == label).float().mean((1, 2)) for label in range(5)], dim=1)
        torch.testing.assert_close(targets, counted)
        shares |= set(targets[0].tolist())
    assert len(shares) > 10, "boxes differ"
    assert views.equal(labels[:, None, None, None].expand_as(views).to(torch.uint8)), "what is given stays as it was"


def test_a_training_with_cutmix_is_another_and_leaves_older_ones_what_they_are(
    source: Source, trained: Path, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, epochs=1, cutmix=True)
    images, targets = TrainingViews(source, pixels_in_memory(source, recipe), recipe, 0, 0)[0]
    plain, labels = TrainingViews(source, pixels_in_memory(source, RECIPE), RECIPE, 0, 0)[0]
    assert targets.shape == (32, 10) and not images.equal(plain)
    torch.testing.assert_close(targets.sum(1), torch.ones(32))
    assert (targets.gather(1, labels[:, None]) > 0).all()
    folder = squeeze(source, "resnet10_narrow", recipe, tmp_path / "teacher", 0, QUIET, CPU)
    assert json.loads((folder / "config.json").read_text())["fadrm"]["recipe"]["cutmix"] is True
    changes = [{}, {"cutmix": True}, {"optimiser": "adam"}, {"warmup_epochs": 1}, {"schedule": "constant"},
               {"implementation": "library"}]  # fmt: skip
    recipes = [replace(RECIPE, **change) for change in changes]
    assert len({squeeze_fingerprint(source, "resnet10_narrow", each, 0) for each in recipes}) == len(changes)
    # As version 0.1 computed it, before there were these settings.
    key = [source.fingerprint, source.class_map.hash, {"size": 16, "mean": HALF, "std": HALF}, "resnet10_narrow",
           {"epochs": 4, "batch_size": 32, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "crop": "pad",
            "padding": 1, "flip_probability": 0.0}, 0]  # fmt: skip
    assert (
        squeeze_fingerprint(source, "resnet10_narrow", recipes[-1], 0)
        == hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    )


@pytest.mark.parametrize(
    ("optimiser", "schedule", "factors"),
    [
        ("adam", "constant", [1.0] * 21),
        ("sgd", "cosine", [0.01 + 0.99 * step / 7 for step in range(7)]
         + [0.5 + 0.5 * math.cos(math.pi * step / 14) for step in range(14)]),
    ],
)  # fmt: skip
def test_other_papers_teachers_are_trained_by_other_rules(
    source: Source, tmp_path: Path, optimiser: str, schedule: str, factors: list[float]
) -> None:
    """By an independent loop: Adam with coupled decay at a constant rate; a linear warm-up before the cosine."""
    warmup = 0 if schedule == "constant" else 1
    recipe = replace(RECIPE, epochs=3, lr=0.01, optimiser=optimiser, schedule=schedule, warmup_epochs=warmup)
    folder = squeeze(source, "resnet10_narrow", recipe, tmp_path / "teacher", 0, QUIET, CPU)
    network = new_network(source, "resnet10_narrow", recipe, 0).to(memory_format=torch.channels_last)
    kind = torch.optim.Adam if optimiser == "adam" else partial(torch.optim.SGD, momentum=0.9)
    optimizer = kind(network.parameters(), lr=0.01, weight_decay=1e-4)
    batches = [batch for epoch in range(3) for batch in TrainingViews(source, None, recipe, 0, epoch)]
    for factor, (images, labels) in zip(factors, batches, strict=True):
        optimizer.param_groups[0]["lr"] = 0.01 * factor
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    trained = load_file(folder / "model.safetensors")
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, rtol=1e-3, atol=1e-4)
