import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from fixtures.small_digits import HALF, RECIPE, small_digits
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetForImageClassification

from fadrm_hf.config import TeacherConfig
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ClassMapError, TeacherError
from fadrm_hf.networks.model_directory import model_config, write_model_directory
from fadrm_hf.networks.teachers.squeeze import measure_accuracy, new_network
from fadrm_hf.networks.teachers.teacher import (
    Teacher,
    align_teacher,
    default_bar,
    load_teacher,
    prepare_teachers,
    save_teacher,
    weights_sha256,
)
from fadrm_hf.runtime.progress import QUIET

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
NAME = "squeeze/resnet10_narrow"


@pytest.fixture(scope="module")
def source() -> Source:
    return small_digits()


@pytest.fixture(scope="module")
def teachers_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="module")
def teacher(source: Source, teachers_dir: Path) -> Teacher:
    return prepare_teachers(TeacherConfig((NAME,)), RECIPE, source, teachers_dir, 0, QUIET, CPU)[0]


@pytest.fixture(scope="module")
def folder(teacher: Teacher) -> Path:
    assert teacher.folder is not None
    return teacher.folder


def prepare(source: Source, folder: Path, **settings: Any) -> Teacher:
    config = TeacherConfig((f"timm/local-dir:{folder}",), **settings)
    return prepare_teachers(config, RECIPE, source, folder.parent, 0, QUIET, CPU)[0]


def edited(folder: Path, target: Path, order: list[int] | None = None, **changes: Any) -> Path:
    """A copy of a model directory with its classes in another order (indices may repeat), or other settings."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    config["pretrained_cfg"] |= changes
    if order is not None:
        weights = load_file(target / "model.safetensors")
        save_file(
            {name: value[order] if name.startswith("fc.") else value for name, value in weights.items()},
            target / "model.safetensors",
        )
        repeated = [f"{config['label_names'][index]}{'x' * order[:at].count(index)}" for at, index in enumerate(order)]
        config |= {"label_names": repeated, "num_classes": len(order)}
        config["pretrained_cfg"]["num_classes"] = len(order)
    (target / "config.json").write_text(json.dumps(config))
    return target


def some_images(source: Source) -> torch.Tensor:  # (20, 3, 16, 16) normalised as the source
    return source.normalise(source.pixels("test", range(20)))


def test_a_squeezed_teacher_is_frozen_measured_and_travels(source: Source, teacher: Teacher) -> None:
    assert not teacher.module.training
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    assert teacher.name == NAME
    assert teacher.class_map == source.class_map
    assert teacher.accuracy is not None
    assert teacher.accuracy > default_bar(10)
    assert teacher.travels
    assert teacher.revision is None


def test_a_squeezed_teacher_is_found_again(source: Source, teacher: Teacher, teachers_dir: Path) -> None:
    again = prepare_teachers(TeacherConfig((NAME, NAME)), RECIPE, source, teachers_dir, 0, QUIET, CPU)
    assert [one.sha256 for one in again] == [teacher.sha256] * 2
    assert len(list(teachers_dir.iterdir())) == 1


def test_the_accuracy_is_that_of_a_plain_loop(source: Source, teacher: Teacher) -> None:
    labels = torch.from_numpy(source.labels("test"))
    with torch.no_grad():
        guesses = teacher.module(source.normalise(source.pixels("test", range(len(labels))))).argmax(1)
    expected = (guesses == labels).double().mean().item()
    assert measure_accuracy(teacher.module, source) == pytest.approx(expected, abs=1e-12)
    assert teacher.accuracy == pytest.approx(expected, abs=1e-12)


def test_another_class_order_is_refused_and_named(source: Source, folder: Path, tmp_path: Path) -> None:
    moved = edited(folder, tmp_path / "moved", [1, 0, 2, 3, 4, 5, 6, 7, 9, 8])
    with pytest.raises(ClassMapError, match=r"\[1, 0, 2, 3, 4, 5, 6, 7, 9, 8\].*--teachers\.class_order mend"):
        prepare(source, moved, class_order="refuse")


@pytest.mark.parametrize("order", [[3, 1, 4, 0, 5, 9, 2, 6, 8, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 5, 6]])
def test_another_class_order_is_mended(
    source: Source, teacher: Teacher, folder: Path, tmp_path: Path, order: list[int]
) -> None:
    moved = edited(folder, tmp_path / "moved", order)
    mended = prepare(source, moved)  # the default
    images = some_images(source)
    as_it_is = load_teacher(mended.name).module(images)
    assert torch.equal(mended.module(images), as_it_is[:, [order.index(label) for label in range(10)]])
    torch.testing.assert_close(mended.module(images), teacher.module(images))
    assert mended.accuracy == teacher.accuracy
    assert mended.class_map is not None
    assert len(mended.class_map) == len(order)


def test_more_classes_than_the_source_are_refused_until_mended(source: Source, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ClassMapError, match=r"then 2 more.*mend"):
        prepare(source, edited(folder, tmp_path / "more", [*range(10), 0, 1]), class_order="refuse")


def test_fewer_classes_than_the_source_are_refused(source: Source, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ClassMapError, match="has 8 classes, expected the 10 of 'digits'"):
        prepare(source, edited(folder, tmp_path / "fewer", list(range(8))), class_order="mend")


def test_names_that_cannot_be_matched_are_refused(source: Source, folder: Path, tmp_path: Path) -> None:
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    letters = replace(source, class_map=ClassMap(words, words))
    foreign = edited(folder, tmp_path / "foreign")
    config = json.loads((foreign / "config.json").read_text())
    config["label_names"] = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
    (foreign / "config.json").write_text(json.dumps(config))
    with pytest.raises(ClassMapError, match=r"cannot be matched.*'zero'"):
        prepare(letters, foreign)


def test_a_teacher_without_class_names_is_left_to_the_gate(source: Source, folder: Path, tmp_path: Path) -> None:
    nameless = edited(folder, tmp_path / "nameless")
    config = json.loads((nameless / "config.json").read_text())
    del config["label_names"]
    (nameless / "config.json").write_text(json.dumps(config))
    assert prepare(source, nameless).class_map is None


def test_another_normalisation_is_mended(source: Source, teacher: Teacher, folder: Path, tmp_path: Path) -> None:
    own = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    loaded = load_teacher(f"timm/local-dir:{edited(folder, tmp_path / 'other', **own)}")
    pixels = source.pixels("test", range(20))
    mean, std = (torch.tensor(own[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    expected = loaded.module((pixels / 255 - mean) / std)
    aligned = align_teacher(loaded, source)
    torch.testing.assert_close(aligned.module(source.normalise(pixels)), expected, rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in aligned.module.parameters())
    assert aligned.sha256 == teacher.sha256


def test_the_gate_refuses_an_untrained_teacher(source: Source, tmp_path: Path) -> None:
    network = new_network(source, "resnet10_narrow", RECIPE, 0)
    config = model_config(network, "resnet10_narrow", source.class_map, source.config)
    write_model_directory(network, config, tmp_path / "raw")
    with pytest.raises(TeacherError, match=r"below the bar of 30\.0%.*--teachers\.min_accuracy"):
        prepare(source, tmp_path / "raw")
    assert prepare(source, tmp_path / "raw", min_accuracy=0.0).accuracy is not None


@pytest.mark.parametrize(("num_classes", "bar"), [(2, 0.5), (10, 0.3), (100, 0.2), (1000, 0.2)])
def test_the_default_bar(num_classes: int, bar: float) -> None:
    assert default_bar(num_classes) == pytest.approx(bar)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("keras/resnet18", r"unknown teacher family 'keras'"),
        ("timm", r"'timm' names no model"),
        ("timm/resnet18.tv_in2k", r"unknown timm model.*did you mean 'resnet18\.tv_in1k'"),
        ("timm/local-dir:/nowhere", r"/nowhere is no model directory"),
        ("torchvision/resnet81", r"unknown torchvision model 'resnet81'; did you mean"),
        ("squeeze/resnet81", r"unknown architecture 'resnet81'; did you mean"),
    ],
)
def test_bad_names_are_refused_before_any_training(source: Source, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        prepare_teachers(TeacherConfig((NAME, name)), RECIPE, source, tmp_path / "teachers", 0, QUIET, CPU)
    assert not (tmp_path / "teachers").exists()


def test_an_image_size_that_a_teacher_does_not_take_is_refused(source: Source, tmp_path: Path) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    large = replace(source.config, size=224)
    write_model_directory(vit, model_config(vit, "vit_tiny_patch16_224", source.class_map, large), tmp_path / "vit")
    with pytest.raises(TeacherError, match=r"does not take images of 16x16 pixels.*--source\.size"):
        prepare(source, tmp_path / "vit")


def test_a_saved_teacher_is_the_same_teacher(source: Source, teacher: Teacher, tmp_path: Path) -> None:
    name = save_teacher(teacher, tmp_path / "copy")
    assert name == f"timm/local-dir:{tmp_path / 'copy'}"
    copy = align_teacher(load_teacher(name), source)
    assert copy.sha256 == teacher.sha256
    assert torch.equal(copy.module(some_images(source)), teacher.module(some_images(source)))


def test_the_hash_covers_names_shapes_and_bytes() -> None:
    layer = torch.nn.Linear(2, 2)
    before = weights_sha256(layer)
    assert weights_sha256(layer) == before
    with torch.no_grad():
        layer.weight[0, 0] += 1e-3
    assert weights_sha256(layer) != before
    assert weights_sha256(torch.nn.Sequential(layer)) != weights_sha256(layer)


def transformers_directory(folder: Path, labels: list[str], processor: bool = True) -> ResNetForImageClassification:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], id2label=dict(enumerate(labels)), num_labels=10
    )
    model = ResNetForImageClassification(config).eval()
    model.save_pretrained(folder)
    if processor:
        constants = {"image_mean": HALF, "image_std": HALF, "image_processor_type": "ConvNextImageProcessor"}
        (folder / "preprocessor_config.json").write_text(json.dumps(constants))
    return model


def test_transformers_directories_load(source: Source, tmp_path: Path) -> None:
    labels = [str(9 - digit) for digit in range(10)]
    model = transformers_directory(tmp_path / "m", labels)
    teacher = load_teacher(f"transformers/{tmp_path / 'm'}")
    assert teacher.class_map is not None
    assert teacher.class_map.names == tuple(labels)
    assert (teacher.mean, teacher.std, teacher.travels) == (HALF, HALF, True)
    images = some_images(source)
    assert torch.equal(teacher.module(images), model(images).logits)
    mended = align_teacher(teacher, source, "mend")
    assert torch.equal(mended.module(images), model(images).logits.flip(1))
    copy = load_teacher(save_teacher(teacher, tmp_path / "copy"))
    assert copy.sha256 == teacher.sha256


def test_transformers_reads_a_squeezed_teacher(source: Source, teacher: Teacher, folder: Path) -> None:
    wrapped = load_teacher(f"transformers/{folder}")
    assert wrapped.class_map == teacher.class_map
    assert (wrapped.mean, wrapped.std) == (HALF, HALF)
    torch.testing.assert_close(wrapped.module(some_images(source)), teacher.module(some_images(source)))


def test_placeholder_labels_are_no_names(tmp_path: Path) -> None:
    transformers_directory(tmp_path / "m", [f"LABEL_{index}" for index in range(10)])
    assert load_teacher(f"transformers/{tmp_path / 'm'}").class_map is None


def test_a_model_that_does_not_say_its_normalisation_is_refused(tmp_path: Path) -> None:
    transformers_directory(tmp_path / "m", list("0123456789"), processor=False)
    with pytest.raises(TeacherError, match="does not say how its images are normalised"):
        load_teacher(f"transformers/{tmp_path / 'm'}")


@pytest.mark.parametrize("family", ["transformers/", "timm/local-dir:"])
def test_pickled_weights_are_refused(tmp_path: Path, family: str) -> None:
    model = transformers_directory(tmp_path / "m", list("0123456789"))
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(TeacherError, match="no safetensors weights, and pickled ones are not read"):
        load_teacher(f"{family}{tmp_path / 'm'}")


def test_torchvision_weights_carry_the_wordnet_ids(tmp_path: Path) -> None:
    weights = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    network = torchvision.models.shufflenet_v2_x0_5().eval()
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    try:
        (tmp_path / "checkpoints").mkdir()
        torch.save(network.state_dict(), tmp_path / "checkpoints" / weights.url.rpartition("/")[2])
        teacher = load_teacher("torchvision/shufflenet_v2_x0_5")
    finally:
        torch.hub.set_dir(before)
    assert teacher.sha256 == weights_sha256(network)
    assert teacher.class_map is not None
    assert (teacher.class_map.ids[0], teacher.class_map.names[0]) == ("n01440764", "tench")
    assert not teacher.travels
    with pytest.raises(TeacherError, match="fetched by its name"):
        save_teacher(teacher, tmp_path / "copy")
