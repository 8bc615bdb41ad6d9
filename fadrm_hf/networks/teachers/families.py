"""Sources of teachers: timm, torchvision and transformers, each read without pickle and without remote code.

torchvision's own weights are the exception: a `.pth` file from the project's site, checked against the hash in its
name and read with `weights_only=True`.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

from fadrm_hf.config import Colour
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.errors import TeacherError, unknown
from fadrm_hf.networks.teachers.alignment import GreyNetwork
from fadrm_hf.runtime import files

_CLASS_KEYS = ("label_names", "id2label", "labels", "classes")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = (".bin", ".pth", ".pt", ".tar", ".pkl", ".ckpt")
_SHARD = re.compile(r"[\w][\w.-]*\.safetensors")
_MAX_CONFIG_BYTES = 16 << 20  # of ImageNet-21k's classes it has 2 MB
# Arguments that are timm's, not a network's: some of them name files and repositories to read.
_OF_TIMM = frozenset(inspect.signature(timm.create_model).parameters) - {"kwargs"}
_LARGEST = 1e6  # of means and deviations; no image has such pixels
# What timm and transformers raise for a configuration that is none of theirs.
_FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    StrictDataclassError,
)
MODEL_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network as its authors published it."""

    module: nn.Module  # (B, 3, S, S) normalised by `mean` and `std` -> (B, C) logits
    class_map: ClassMap | None  # of the logits, if they are named
    mean: Colour  # of channels, on pixels in [0, 1]
    std: Colour
    folder: Path | None = None  # the model directory it was read from
    revision: str | None = None  # the Hub commit of that directory


class LogitsOnly(nn.Module):
    """A transformers classifier as a plain network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        images: Tensor,  # (B, 3, S, S) normalised
    ) -> Tensor:  # (B, C) logits
        """Return the logits of a batch."""
        return cast(Tensor, self.model(pixel_values=images).logits)


def load_timm(name: str) -> LoadedNetwork:
    """Load a timm model: `NAME.TAG`, `hf-hub:ORG/NAME[@REVISION]` or `local-dir:PATH`."""
    if name.startswith("local-dir:"):
        folder, revision = Path(name.removeprefix("local-dir:")).expanduser(), None
        is_official = False
    else:
        repo = name.removeprefix("hf-hub:") if name.startswith("hf-hub:") else _timm_repo(name)
        folder, revision = _fetch(repo)
        is_official = repo.startswith("timm/")
    config = _read_config(folder)
    _require_timm(config, folder)
    class_map = _timm_class_map(config, is_official, folder)
    try:
        module: Any = timm.create_model(f"local-dir:{folder}", pretrained=True)
        constants = {name: module.pretrained_cfg[name] for name in ("mean", "std")}
    except SafetensorError as error:
        raise _damaged(folder / _WEIGHTS, error) from error
    except _FOREIGN as error:
        raise TeacherError(
            f"timm cannot build the model in {folder}: {error}; is its config.json complete? Fetch or save the model "
            "again, or set --teachers.names"
        ) from error
    return _in_colour(
        LoadedNetwork(module, class_map, **_constants(constants, folder), folder=folder, revision=revision)
    )


def load_torchvision(name: str) -> LoadedNetwork:
    """Load a torchvision classifier with the weights IMAGENET1K_V1; the default ones change between versions."""
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise TeacherError(unknown("torchvision model", name, names) + "; set --teachers.names")
    versions = torchvision.models.get_model_weights(name)
    if "IMAGENET1K_V1" not in versions.__members__:
        raise TeacherError(f"torchvision has no IMAGENET1K_V1 weights of {name!r}; choose another, or timm's")
    weights = versions["IMAGENET1K_V1"]
    module = torchvision.models.get_model(name)
    try:
        state = torch.hub.load_state_dict_from_url(weights.url, weights_only=True, check_hash=True, progress=False)
    except (OSError, RuntimeError) as error:
        raise TeacherError(
            f"the weights of 'torchvision/{name}' cannot be fetched from {weights.url}: {error}; connect, or put the "
            f"file into {Path(torch.hub.get_dir()) / 'checkpoints'}"
        ) from error
    module.load_state_dict(state)
    transforms = weights.transforms()
    # All IMAGENET1K weights are in the order of the WordNet ids; torchvision's short names are not unique.
    class_map = ClassMap(tuple(ImageNetInfo().label_names()), tuple(weights.meta["categories"]))
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    return LoadedNetwork(module, class_map, mean, std)


def load_transformers(name: str) -> LoadedNetwork:
    """Load a transformers image classifier: `ORG/NAME[@REVISION]` or a local directory."""
    from transformers import AutoModelForImageClassification  # takes seconds

    path = Path(name).expanduser()
    folder, revision = (path, None) if path.is_dir() else _fetch(name)
    config = _read_config(folder)
    _require_transformers(config, folder)
    constants = _processor_constants(folder, config)
    try:
        model = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
        labels = tuple(str(model.config.id2label[index]) for index in sorted(model.config.id2label))
    except SafetensorError as error:
        raise _damaged(folder / _WEIGHTS, error) from error
    except _FOREIGN as error:
        raise TeacherError(
            f"transformers cannot load an image classifier from {folder}: {error}; fetch or save the model again, or "
            "set --teachers.names"
        ) from error
    is_named = not all(re.fullmatch(r"LABEL_\d+", label) for label in labels)
    class_map = ClassMap(labels, labels) if is_named and len(set(labels)) == len(labels) else None
    return _in_colour(LoadedNetwork(LogitsOnly(model), class_map, **constants, folder=folder, revision=revision))


def _timm_repo(name: str) -> str:
    if not timm.models.is_model_pretrained(name):
        hint = unknown("timm model", name, timm.list_models(pretrained=True))
        raise TeacherError(f"{hint}; set --teachers.names, or train one: --teachers.names squeeze/ARCHITECTURE")
    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise TeacherError(f"timm has no weights of {name!r} on the Hub; choose another tag of this architecture")
    return config.hf_hub_id


def _fetch(repo: str) -> tuple[Path, str]:
    """Return the local copy of a model repository, and its commit."""
    repo_id, _, revision = repo.partition("@")
    try:
        folder = Path(snapshot_download(repo_id, revision=revision or None, allow_patterns=list(MODEL_FILES)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TeacherError(
            f"no model {repo!r} could be read from the Hub or its local cache ({reason}); check its name, your "
            f"connection and, for a private or gated one, `hf auth login`; set --teachers.names"
        ) from error
    return folder, folder.name


def _read_config(folder: Path) -> dict[str, Any]:
    """Return the model's `config.json`; refuse a directory without safetensors weights, or that leads elsewhere."""
    if not (folder / "config.json").exists():
        raise TeacherError(
            f"{folder} is no model directory: expected config.json and model.safetensors in it; set --teachers.names"
        )
    weights = list(folder.glob("*.safetensors"))
    if not weights:
        raise TeacherError(
            f"the model in {folder} has no safetensors weights, and pickled ones are not read; "
            f"convert it: load it where you trust it and call save_pretrained(folder, safe_serialization=True)"
        )
    for file in weights:
        if not file.is_file():
            raise _damaged(file, "it is no regular file")
    config = _read_json(folder / "config.json")
    architecture, arguments = config.get("architecture"), config.get("model_args")
    if ":" in str(architecture):
        raise _damaged(folder / "config.json", f"architecture is {architecture!r:.80}, expected one of timm's")
    if isinstance(arguments, dict) and (given := _OF_TIMM & arguments.keys()):
        raise _damaged(folder / "config.json", f"model_args holds {', '.join(sorted(given))}, expected a network's")
    num_bytes = sum(file.stat().st_size for file in weights)
    for key, number in _whole_numbers({key: value for key, value in config.items() if key != "fadrm"}):
        if number > num_bytes:  # a width, a depth or a number of classes, which is built before weights are looked at
            held = f"{', '.join(file.name for file in weights[:3])} has {num_bytes:,} bytes"
            raise _damaged(folder / "config.json", f"{key} is {number:,}, but {held}: one of them is not what it was")
    return config


def _whole_numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield every whole number in plain data, with the key that it is under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _whole_numbers(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _whole_numbers(inner, key)
    elif type(value) is int:
        yield key, value


def _require_transformers(config: dict[str, Any], folder: Path) -> None:
    """Refuse what transformers would read weights from besides safetensors of this folder."""
    if (folder / "adapter_config.json").exists():
        raise TeacherError(
            f"the model in {folder} is an adapter, whose network is elsewhere; merge the two where you trust them and "
            "call save_pretrained(folder, safe_serialization=True), so that there is a model.safetensors"
        )
    if "transformers_weights" in config:
        raise _damaged(folder / "config.json", f"transformers_weights is set, expected {_WEIGHTS} to be read")
    if (folder / _WEIGHTS).is_file() or not (folder / _INDEX).exists():
        return
    shards = _read_json(folder / _INDEX).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise _damaged(folder / _INDEX, f"weight_map is {shards!r:.80}, expected names of safetensors")
    for name in sorted(set(shards.values())):
        if not (_SHARD.fullmatch(name) and (folder / name).is_file()):
            raise _damaged(folder / _INDEX, f"weight_map names {name!r:.80}, expected safetensors of this folder")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        document = files.parse_json(files.read_regular(file, _MAX_CONFIG_BYTES))
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error
    if not isinstance(document, dict):
        raise _damaged(file, f"it holds {type(document).__name__}, expected an object")
    return document


def _require_timm(config: dict[str, Any], folder: Path) -> None:
    """Refuse a config that describes no network, before it is built."""
    kinds = {"architecture": str, "num_classes": int | None, "pretrained_cfg": dict | None, "model_args": dict | None}
    for key, kind in kinds.items():
        if not isinstance(config.get(key), kind):
            raise _damaged(folder / "config.json", f"{key} is {config.get(key)!r:.80}")
    has_pickled = any(file.suffix.lower() in _PICKLED for file in folder.iterdir())
    if not (folder / _WEIGHTS).is_file() and has_pickled:
        raise TeacherError(
            f"the model in {folder} has pickled weights, of which timm would take the first, and they are not read; "
            f"expected {_WEIGHTS}: load it where you trust it and save it with safe_serialization=True"
        )


def _damaged(file: Path, error: object) -> TeacherError:
    return TeacherError(f"{file} is damaged ({error}); fetch or save the model again, or set --teachers.names")


def _timm_class_map(config: dict[str, Any], is_official: bool, folder: Path) -> ClassMap | None:
    """Return the classes that a timm model directory names; timm's own weights are in the order of their ImageNet."""
    inner = config.get("pretrained_cfg") or {}
    stated = next((one[key] for key in _CLASS_KEYS for one in (config, inner) if one.get(key)), None)
    described = config.get("label_descriptions") or inner.get("label_descriptions")
    if stated is None and is_official:
        subset = infer_imagenet_subset({"num_classes": config.get("num_classes")})
        info = ImageNetInfo(subset) if subset else None
        stated, described = (info.label_names(), info.label_descriptions()) if info else (None, None)
    if stated is None:
        return None
    ids = _ordered(stated, folder)
    if isinstance(described, dict):
        described = [described.get(name, name) for name in ids]
    names = ids if described is None else _ordered(described, folder)
    if len(names) != len(ids):
        raise _damaged(folder / "config.json", f"{len(names)} label_descriptions for {len(ids)} classes")
    return ClassMap(ids, names)


def _ordered(stated: Any, folder: Path) -> tuple[str, ...]:
    """Return the classes of a list, or of a mapping from their numbers or to them."""
    if isinstance(stated, dict) and all(str(key).isdecimal() for key in stated):
        stated = [stated[key] for key in sorted(stated, key=int)]
    elif isinstance(stated, dict) and all(isinstance(value, int) for value in stated.values()):
        stated = sorted(stated, key=stated.__getitem__)
    if not isinstance(stated, list | tuple) or not all(isinstance(name, str | int) for name in stated):
        raise _damaged(folder / "config.json", f"its classes are {stated!r:.80}, expected a list of names")
    return tuple(map(str, stated))


def _processor_constants(folder: Path, config: dict[str, Any]) -> dict[str, Colour]:
    """Return mean and standard deviation with which transformers would prepare images for this model."""
    file = folder / "preprocessor_config.json"
    processor = _read_json(file) if file.is_file() else {}
    if processor.get("do_normalize") is False:
        return {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    timm_constants = config.get("pretrained_cfg") or {}
    if not isinstance(timm_constants, dict):
        raise _damaged(folder / "config.json", f"pretrained_cfg is {timm_constants!r:.80}")
    mean = processor.get("image_mean", timm_constants.get("mean"))
    std = processor.get("image_std", timm_constants.get("std"))
    if mean is None or std is None:
        raise TeacherError(
            f"the model in {folder} does not say how its images are normalised: expected image_mean and image_std in "
            f"preprocessor_config.json; save its image processor there"
        )
    return _constants({"mean": mean, "std": std}, folder)


def _constants(stated: dict[str, Any], folder: Path) -> dict[str, Colour]:
    """Return mean and standard deviation, three each; of a grey network, the one three times."""
    found = {}
    for name, values in stated.items():
        numbers = values if isinstance(values, list | tuple) else [values]
        if not all(type(value) in (int, float) and -_LARGEST < value < _LARGEST for value in numbers):
            raise _damaged(folder / "config.json", f"{name} is {values!r:.80}, expected numbers")
        if len(numbers) not in (1, 3):
            raise TeacherError(
                f"the model in {folder} takes images of {len(numbers)} channels, expected 3 (red, green, blue) or 1 "
                "(grey); choose another, or train one: --teachers.names squeeze/resnet18"
            )
        first, second, third = map(float, (*numbers, *numbers, *numbers)[:3])
        found[name] = (first, second, third)
    if min(found["std"]) <= 0:
        raise _damaged(folder / "config.json", f"std is {found['std']}, expected positive numbers")
    return found


def _in_colour(loaded: LoadedNetwork) -> LoadedNetwork:
    """Return a network that takes three channels: a grey one is given the luminance."""
    first = next((weights for weights in loaded.module.parameters() if weights.ndim == 4), None)
    groups = next((part.groups for part in loaded.module.modules() if isinstance(part, nn.Conv2d)), 1)
    channels = 3 if first is None else first.shape[1] * groups
    if channels not in (1, 3):
        raise TeacherError(
            f"the model in {loaded.folder} takes images of {channels} channels, expected 3 (red, green, blue) or 1 "
            "(grey); choose another, or train one: --teachers.names squeeze/resnet18"
        )
    return replace(loaded, module=GreyNetwork(loaded.module)) if channels == 1 else loaded
