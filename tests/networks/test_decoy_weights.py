"""Whatever is in a model directory, and whatever its files say, nothing pickled is opened."""

import contextlib
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from transformers import ResNetConfig, ResNetForImageClassification

from fadrm_hf.errors import TeacherError
from fadrm_hf.networks.teachers.teacher import load_teacher, require_size

HALF = [0.5] * 3
WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"


class Payload:
    """What a pickle does when it is read."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("executed",)


_opened: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open":
        _opened.append(str(arguments[0]))


sys.addaudithook(_note)


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """Every file that Python opens in the block."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


@pytest.fixture(scope="module")
def timms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "m"
    network = timm.create_model("resnet10_narrow", num_classes=10)
    pixels = {"mean": HALF, "std": HALF, "input_size": (3, 16, 16)}
    save_for_hf(network, folder, {}, data_config=pixels, safe_serialization=True)
    with_config(folder, model_args={})  # so that transformers reads it, too
    return folder


@pytest.fixture(scope="module")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "m"
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=10)
    ResNetForImageClassification(config).save_pretrained(folder)
    constants = {"image_mean": HALF, "image_std": HALF, "image_processor_type": "ConvNextImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(constants))
    return folder


def with_config(folder: Path, **values: Any) -> None:
    document = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(document | values))


def renamed(*names: str) -> Callable[[Path], None]:
    """Weights in files of other names; the first is safetensors, the others are pickled."""

    def apply(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / names[0])
        for name in names[1:]:
            (folder / name).write_bytes(pickle.dumps(Payload()))

    return apply


def sharded(shard: str) -> Callable[[Path], None]:
    """An index whose shard is another file."""

    def apply(folder: Path) -> None:
        names = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).rename(folder / "x.safetensors")
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, shard)}))
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
        (folder.parent / "outside.safetensors").write_bytes((folder / "x.safetensors").read_bytes())
        (folder.parent / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))

    return apply


def argument(name: str) -> Callable[[Path], None]:
    """An argument of the network's that names a pickled file."""

    def apply(folder: Path) -> None:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
        file = str(folder / "pytorch_model.bin")
        value = {"file": file, "source": "", "url": ""} if name.startswith("pretrained_cfg") else file
        with_config(folder, model_args={name: value})

    return apply


def linked(folder: Path) -> None:
    """Weights that are a link to a pickled file."""
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("pytorch_model.bin")


def of_another_folder(folder: Path) -> None:
    """An architecture that is a model directory with weights of its own."""
    shutil.copytree(folder, folder.with_name("other"))
    renamed("zzz.safetensors", "pytorch_model.bin")(folder.with_name("other"))
    with_config(folder, architecture=f"local-dir:{folder.with_name('other')}")


def adapted(folder: Path) -> None:
    """An adapter, which takes its network from elsewhere."""
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Payload()))
    with_config(folder, transformers_weights="adapter_model.bin")


DECOYS = {
    "only pickled weights": lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"),
    "a pipe": lambda folder: ((folder / WEIGHTS).unlink(), os.mkfifo(folder / WEIGHTS)),
    **{
        f"{safe} beside {unsafe}": renamed(safe, unsafe)
        for safe in ("zzz.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
        for unsafe in ("pytorch_model.bin", "model.pth", "a.pth.tar", "weights.pkl", "pytorch_model.BIN")
    },
    **{f"argument {name}": argument(name) for name in ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")},
    **{f"shard {name}": sharded(name) for name in ("pytorch_model.bin", "../pytorch_model.bin", "/dev/zero")},
    "shard outside": sharded("../outside.safetensors"),
    "linked": linked,
    "another folder": of_another_folder,
    "adapter": adapted,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["timm/local-dir:", "transformers/", "transformers/ of timm"])
@pytest.mark.parametrize("case", DECOYS)
def test_nothing_pickled_is_opened(case, family, timms, transformers, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "m"
    shutil.copytree(transformers if family == "transformers/" else timms, folder)
    DECOYS[case](folder)
    is_refused = case != "adapter" or family != "timm/local-dir:"  # timm knows no adapters
    refusal = pytest.raises(TeacherError, match=r"safetensors|config\.json") if is_refused else nullcontext()
    with opened_files() as files, refusal:
        load_teacher(f"{family.removesuffix(' of timm')}{folder}")
    unsafe = {".bin", ".pth", ".tar", ".pkl", ".BIN"}
    assert not [file for file in files if Path(file).suffix in unsafe or Path(file).parent.name == "other"]
    assert not list(tmp_path.rglob("executed"))


@pytest.mark.parametrize("family", ["timm/local-dir:", "transformers/"])
def test_pickled_files_beside_the_weights_are_left_alone(family, timms, tmp_path) -> None:
    shutil.copytree(timms, tmp_path / "m")
    for name in ("pytorch_model.bin", "optimizer.pt", "scheduler.pkl"):
        (tmp_path / "m" / name).write_bytes(pickle.dumps(Payload()))
    with opened_files() as files:
        teacher = load_teacher(f"{family}{tmp_path / 'm'}")
    assert torch.isfinite(teacher.module(torch.zeros(1, 3, 16, 16))).all()
    assert not [file for file in files if Path(file).suffix in (".bin", ".pt", ".pkl")]


def test_shards_of_safetensors_are_read(transformers, tmp_path) -> None:
    shutil.copytree(transformers, tmp_path / "m")
    state = load_file(tmp_path / "m" / WEIGHTS)
    (tmp_path / "m" / WEIGHTS).unlink()
    save_file(state, tmp_path / "m/model-00001-of-00001.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(state, "model-00001-of-00001.safetensors")}
    (tmp_path / "m" / INDEX).write_text(json.dumps(index))
    assert load_teacher(f"transformers/{tmp_path / 'm'}").sha256 == load_teacher(f"transformers/{transformers}").sha256


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["timm/local-dir:", "transformers/", "transformers/ of timm"])
@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 10**18},
        {"model_args": {"width": 10**18}},
        {"depths": [10**18, 1]},
        {"hidden_sizes": [10**401]},
        {"pretrained_cfg": 3},
        {"label_names": ["\ud800"] * 10},
        {"model_args": {"drop_rate": [[]]}, "dropout": [[]]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_network_larger_than_its_weights_or_of_other_kinds_is_refused(
    changes, family, timms, transformers, tmp_path
) -> None:
    """Before it is built, which would take all memory, or for ever."""
    shutil.copytree(transformers if family == "transformers/" else timms, tmp_path / "m")
    with_config(tmp_path / "m", **changes)
    name = f"{family.removesuffix(' of timm')}{tmp_path / 'm'}"
    is_odd = family == "transformers/" and not {"num_classes", "depths", "hidden_sizes"} & changes.keys()
    with (
        contextlib.suppress(TeacherError) if is_odd else pytest.raises(TeacherError, match=r"config\.json|take images")
    ):
        require_size(name, load_teacher(name).module, 16, "")
