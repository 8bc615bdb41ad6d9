"""A trained student as a model repository: one folder that timm, transformers and `pipeline` read, with its card.

The folder is the repository: `config.json`, `model.safetensors`, `README.md`. Its network is timm's, or one that
`import fadrm_hf.networks` registers with timm; one of torchvision's is kept as timm's twin of it, where there is one.
"""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.config import SourceConfig
from fadrm_hf.config.architectures import Implementation
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.errors import HubError, RunFolderError, StudentError
from fadrm_hf.hub.publisher import Order, Publisher
from fadrm_hf.hub.remote import LocalFile
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.hub.session import require_login
from fadrm_hf.networks.model_directory import CONFIG, WEIGHTS, model_config, write_model_directory
from fadrm_hf.networks.students import architecture_of_student, create_student
from fadrm_hf.publishing.student_card import PLACEHOLDER, render_student_card
from fadrm_hf.report.card.results import Result
from fadrm_hf.runtime.files import read_json
from fadrm_hf.runtime.run_folder import CARD

_FILES = (CONFIG, WEIGHTS, CARD)
_LARGEST_DIFFERENCE = 1e-4  # between the logits of a network and of its twin in timm


def check_savable(student: str, size: int) -> None:
    """Refuse a student whose weights no reader could load again, before it is trained.

    Args:
        student: `timm/ARCHITECTURE` or `torchvision/ARCHITECTURE`.
        size: Side of the images.

    Raises:
        StudentError: If it is a network of torchvision that timm does not have with the same parameters.
    """
    with torch.random.fork_rng(devices=[]):
        _in_timm(create_student(student, 2, size), student, 2, size)


def check_model_name(repo_id: str) -> None:
    """Refuse what cannot be the name of a model repository.

    Raises:
        HubError: If it is not of the form `ORG/MODEL`.
    """
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repo_id) or ".." in repo_id or "--" in repo_id:
        raise HubError(f"{repo_id!r} is no name of a model repository; expected ORG/MODEL")


def save_student(module: nn.Module, folder: Path, *, result: Result, location: Location, seed: int = 0) -> Path:
    """Write a student's folder; it appears complete or not at all, in place of an earlier student's.

    Args:
        module: The trained network, as `create_student` made it: (B, 3, S, S) normalised -> (B, C) logits.
        folder: Where.
        result: The evaluation it belongs to, as `train_students` returns it.
        location: The artifact it was trained on.
        seed: Which of the evaluation's students it is. The first is the one to publish: to choose the best would be
            to choose on the test images.

    Returns:
        `folder`.

    Raises:
        RunFolderError: If the folder holds something else than a student.
        StudentError: If no reader could load it (`check_savable`), or its weights are not finite.
    """
    _require_free(folder)
    manifest, name = location.manifest, pinned_repository(location)
    size, classes = manifest.pixels.size, _labels(manifest.class_map)
    implementation = result["settings"].get("implementation", "library")
    with torch.random.fork_rng(devices=[]):
        network = _in_timm(module, result["student"], len(classes), size, implementation)
    _require_finite(network)
    architecture = architecture_of_student(result["student"], size, implementation)
    record = {
        "student": result["student"],
        "seed": seed,
        "top1": result["top1"]["values"][seed],
        "artifact": None if name is None else {"repository": name.id, "revision": name.revision},
    }
    config = model_config(network, architecture, classes, _images(manifest)) | {"fadrm": record}
    card = render_student_card(architecture, manifest, result, name, seed, _num_parameters(network))
    write_model_directory(network, config, folder, {CARD: card.encode()})
    return folder


def push_student(folder: Path, repo_id: str, *, private: bool = False) -> str:
    """Publish a saved student as a model repository, or as the next version of one, in a single commit.

    Args:
        folder: What `save_student` wrote.
        repo_id: `ORG/MODEL`; made if need be.
        private: Whether only its owner sees it, if it is new.

    Returns:
        The repository's page.

    Raises:
        HubError: If nobody is logged in, the Hub refuses, or the repository holds something else than a student.
        RunFolderError: If the folder is no student's.
    """
    check_model_name(repo_id)
    publisher = Publisher(require_login())
    files = _contents(folder, repo_id)
    remote = publisher.look(repo_id, "model")
    order = Order(repo_id, files, "model", private=private and remote.commit is None)
    publisher.publish(publisher.decide(order, remote))
    return f"{publisher.api.endpoint}/{repo_id}"


def _contents(folder: Path, repo_id: str) -> dict[str, LocalFile]:
    """Return the repository's files by name; the card names the repository."""
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing or not _is_student(folder):
        raise RunFolderError(
            f"{folder} is no saved student{f': it lacks {missing[0]}' if missing else ''}; write one with"
            " fadrm-hf train-student ARTIFACT --save_student DIR"
        )
    card = (folder / CARD).read_text(encoding="utf-8").replace(PLACEHOLDER, repo_id)
    return {CARD: LocalFile.of(card.encode())} | {name: LocalFile.of(folder / name) for name in (CONFIG, WEIGHTS)}


def _require_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or _is_student(folder))):
        raise RunFolderError(f"{folder} holds something else than a student; choose another folder or delete it")


def _is_student(folder: Path) -> bool:
    """Return whether a folder holds what `save_student` writes, and nothing else."""
    config = read_json(folder / CONFIG)
    record = config.get("fadrm") if isinstance(config, dict) else None
    is_alone = {path.name for path in folder.iterdir()} <= {*_FILES}
    return isinstance(record, dict) and "student" in record and is_alone


@torch.no_grad()
def _in_timm(
    module: nn.Module, student: str, num_classes: int, size: int, implementation: Implementation = "released"
) -> Any:
    """Return the network as timm builds it: itself, or timm's twin of torchvision's with the same weights."""
    if hasattr(module, "pretrained_cfg"):
        return module
    architecture = architecture_of_student(student, size, implementation)
    if not timm.is_model(architecture):
        raise _not_in_timm(student, "timm has no such network")
    twin = create_student(f"timm/{architecture}", num_classes, size)
    try:
        twin.load_state_dict(module.state_dict())
    except RuntimeError as error:
        raise _not_in_timm(student, "timm's network of this name has other parameters") from error
    was_training, device = module.training, next(module.parameters()).device
    images = torch.randn(2, 3, size, size)
    expected = module.eval()(images.to(device)).cpu()
    module.train(was_training)
    if not torch.allclose(twin.eval()(images), expected, rtol=_LARGEST_DIFFERENCE, atol=_LARGEST_DIFFERENCE):
        raise _not_in_timm(student, "timm's network of this name computes something else")
    return twin


def _not_in_timm(student: str, reason: str) -> StudentError:
    return StudentError(
        f"student {student!r} can be trained, but not saved so that timm and transformers read it ({reason}); choose"
        " one of timm's with --student.student, or leave out --save_student and --push_student"
    )


def _require_finite(network: nn.Module) -> None:
    broken = [name for name, value in network.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise StudentError(f"the student's weights are not finite ({broken[0]}); train it again with a lower --lr")


def _labels(classes: ClassMap) -> ClassMap:
    """Return the classes as answers of a classifier: by name, with the id where two share a name."""
    counts = Counter(classes.names)
    pairs = zip(classes.ids, classes.names, strict=True)
    labels = tuple(name if counts[name] == 1 else f"{name} ({identity})" for identity, name in pairs)
    return ClassMap(labels, labels)


def _images(manifest: Manifest) -> SourceConfig:
    """Return size and normalisation of the student's images."""
    source = manifest.settings("source", SourceConfig)
    mean, std = ((values[0], values[1], values[2]) for values in (manifest.pixels.mean, manifest.pixels.std))
    return replace(source, size=manifest.pixels.size, mean=mean, std=std)


def _num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
