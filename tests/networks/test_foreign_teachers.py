"""Teachers that others have made: their classes found in the source's, grey ones, and every broken configuration."""

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fixtures.small_digits import HALF, small_digits
from timm.models import save_for_hf
from transformers import ResNetConfig, ResNetForImageClassification

from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ClassMapError, FadrmError, TeacherError
from fadrm_hf.networks.teachers.teacher import align_teacher, load_teacher


@pytest.fixture(scope="module")
def source() -> Source:
    return small_digits()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained timm model directory."""
    network = timm.create_model("resnet10_narrow", num_classes=10)
    return classifier(tmp_path_factory.mktemp("teacher") / "m", network, label_names=list("0123456789"))


def some_images(source: Source) -> torch.Tensor:  # (20, 3, 16, 16) normalised as the source
    return source.normalise(source.pixels("test", range(20)))


def transformers_directory(folder: Path) -> None:
    labels = dict(enumerate("0123456789"))
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], id2label=labels, num_labels=10)
    ResNetForImageClassification(config).save_pretrained(folder)
    constants = {"image_mean": HALF, "image_std": HALF, "image_processor_type": "ConvNextImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(constants))


WNIDS = ("n01440764", "n02102040", "n02979186", "n03000684")
WORDS = ("tench, Tinca tinca", "English springer, English springer spaniel", "cassette player", "chain saw, chainsaw")


def classifier(folder: Path, network: torch.nn.Module, **config: Any) -> Path:
    """A timm model directory."""
    pixels = {"mean": HALF, "std": HALF, "input_size": (3, 16, 16)}
    save_for_hf(network, folder, config, data_config=pixels, safe_serialization=True)
    return folder


def of_classes(source: Source, ids: tuple[str, ...], names: tuple[str, ...] | None = None) -> Source:
    return replace(source, class_map=ClassMap(ids, names or ids))


@pytest.mark.parametrize(
    "own",
    [
        {"label_names": list(WNIDS), "label_descriptions": dict(zip(WNIDS, WORDS, strict=True))},
        {"label_names": list(WNIDS)},
        {"label_names": list(WORDS)},
        {"id2label": {str(place): name for place, name in enumerate(WORDS)}},
        {"labels": list(WORDS)},
        {"labels": {name: place for place, name in enumerate(WORDS)}},
    ],
    ids=["described", "WNIDs", "words", "id2label", "labels", "labels to numbers"],
)
@pytest.mark.parametrize(
    "ours",
    [("n03000684", "n01440764"), ("chain_saw", "tench"), ("Chainsaw", "Tinca Tinca")],
    ids=lambda names: names[0],
)
def test_some_of_a_teachers_classes_are_found_by_wnid_and_by_word(own, ours, source: Source, tmp_path: Path) -> None:
    network = timm.create_model("resnet10_narrow", num_classes=4).eval()
    teacher = load_teacher(f"timm/local-dir:{classifier(tmp_path / 'm', network, **own)}")
    aligned = align_teacher(teacher, of_classes(source, ours))
    images = some_images(source)
    assert torch.equal(aligned.module(images), teacher.module(images)[:, [3, 0]])
    with pytest.raises(ClassMapError, match="class_order mend"):
        align_teacher(teacher, of_classes(source, ours), "refuse")


def test_an_ambiguous_word_is_refused(source: Source, tmp_path: Path) -> None:
    network = timm.create_model("resnet10_narrow", num_classes=3)
    names = ["crane, bird", "crane, machine", "heron"]
    teacher = load_teacher(f"timm/local-dir:{classifier(tmp_path / 'm', network, label_names=names)}")
    with pytest.raises(ClassMapError, match=r"expected the 2 of 'digits'"):
        align_teacher(teacher, of_classes(source, ("crane", "heron")))


def test_a_grey_teacher_is_given_the_luminance(source: Source, tmp_path: Path) -> None:
    network = timm.create_model("resnet10_narrow", num_classes=10, in_chans=1).eval()
    grey = {"mean": [0.4], "std": [0.2], "input_size": (1, 16, 16)}
    save_for_hf(network, tmp_path / "m", {}, data_config=grey, safe_serialization=True, model_args={"in_chans": 1})
    teacher = align_teacher(load_teacher(f"timm/local-dir:{tmp_path / 'm'}"), source)
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    luminance = (pixels / 255 * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(teacher.module(source.normalise(pixels)), network((luminance - 0.4) / 0.2))


@pytest.mark.parametrize("channels", [2, 4])
def test_a_teacher_of_other_channels_is_refused_by_name(channels: int, tmp_path: Path) -> None:
    network = timm.create_model("resnet10_narrow", num_classes=10, in_chans=channels)
    save_for_hf(network, tmp_path / "m", {}, safe_serialization=True, model_args={"in_chans": channels})
    with pytest.raises(TeacherError, match=rf"{channels} channels, expected 3.*squeeze/"):
        load_teacher(f"timm/local-dir:{tmp_path / 'm'}")


ODD: tuple[Any, ...] = (None, -1, True, "x", [], {}, [[1]], 10**401, float("nan"))


def broken(folder: Path, target: Path, path: tuple[str, ...], value: Any, file: str = "config.json") -> Path:
    """A copy of a model directory with one value of its configuration exchanged."""
    shutil.copytree(folder, target)
    document = json.loads((target / file).read_text())
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (target / file).write_text(json.dumps(document))
    return target


def ends_well(name: str, source: Source) -> None:
    """The teacher is loaded and aligned, or refused by an error of ours."""
    with contextlib.suppress(FadrmError):
        align_teacher(load_teacher(name), source)


@pytest.mark.filterwarnings("ignore")  # those of timm and transformers, of configurations that are none
@pytest.mark.parametrize(
    "path",
    [
        *(
            ("pretrained_cfg", key)
            for key in ("mean", "std", "input_size", "num_classes", "label_names", "first_conv")
        ),
        *(
            (key,)
            for key in ("architecture", "num_classes", "pretrained_cfg", "model_args", "label_names", "global_pool")
        ),
        *((key,) for key in ("label_descriptions", "id2label", "labels", "num_features")),
    ],
    ids=lambda path: ".".join(path),
)
def test_every_broken_config_of_timm_is_an_error_of_ours(path, source: Source, folder: Path, tmp_path: Path) -> None:
    for number, value in enumerate(ODD):
        ends_well(f"timm/local-dir:{broken(folder, tmp_path / str(number), path, value)}", source)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "key", ["id2label", "num_channels", "hidden_sizes", "model_type", "layer_type", "architectures"]
)
def test_every_broken_config_of_transformers_is_an_error_of_ours(key: str, source: Source, tmp_path: Path) -> None:
    transformers_directory(tmp_path / "m")
    for number, value in enumerate(ODD):
        ends_well(f"transformers/{broken(tmp_path / 'm', tmp_path / str(number), (key,), value)}", source)


@pytest.mark.parametrize("key", ["image_mean", "image_std", "do_normalize"])
def test_every_broken_preprocessor_is_an_error_of_ours(key: str, source: Source, tmp_path: Path) -> None:
    transformers_directory(tmp_path / "m")
    for number, value in enumerate(ODD):
        folder = broken(tmp_path / "m", tmp_path / str(number), (key,), value, "preprocessor_config.json")
        ends_well(f"transformers/{folder}", source)
    (tmp_path / "m/preprocessor_config.json").write_text("{")
    with pytest.raises(TeacherError, match=r"preprocessor_config\.json is damaged"):
        load_teacher(f"transformers/{tmp_path / 'm'}")


def test_a_decoy_does_not_lead_to_pickled_weights(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m/model.safetensors").rename(tmp_path / "m/zzz.safetensors")
    torch.save({}, tmp_path / "m/pytorch_model.bin")
    with pytest.raises(TeacherError, match="pickled"):
        load_teacher(f"timm/local-dir:{tmp_path / 'm'}")
