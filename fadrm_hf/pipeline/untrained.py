"""Teachers as a run's, before they exist: untrained networks of the same architecture, which cost as much per step."""

from pathlib import Path

import timm
import torch
import torchvision
from torch import nn

from fadrm_hf.config import RunConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.networks.teachers import Teacher, align_teacher, load_teacher
from fadrm_hf.networks.teachers.squeeze import new_network
from fadrm_hf.networks.teachers.teacher import split_name, squeezed_folder
from fadrm_hf.runtime.run_folder import RunFolder


def folder_of(name: str, run: RunConfig, source: Source) -> Path:
    """Return the folder in which a run keeps its teacher `squeeze/...` once it is trained."""
    architecture, kept = split_name(name)[1], RunFolder(run.output).trained_teachers
    return squeezed_folder(source, architecture, run.squeeze, kept, run.seed)


def untrained_names(run: RunConfig, source: Source) -> list[str]:
    """Return the teachers `squeeze/...` of a run that are missing, each once."""
    names = [name for name in dict.fromkeys(run.teachers.names) if split_name(name)[0] == "squeeze"]
    return [name for name in names if not folder_of(name, run, source).exists()]


def teachers_like(run: RunConfig, source: Source, device: torch.device) -> tuple[list[Teacher], list[str]]:
    """Load the run's teachers that are on this disk, and build untrained ones for all others; nothing is fetched.

    Args:
        run: A resolved run.
        source: Its source.
        device: Where to put them.

    Returns:
        The teachers, each with a vote of 1, and the names of those that are untrained.

    Raises:
        TeacherError: A name means nothing.
    """
    replaced: list[str] = []
    known: dict[str, Teacher] = {}
    for name in dict.fromkeys(run.teachers.names):
        module = _untrained(name, run, source)
        if module is None:
            family = split_name(name)[0]
            kept = f"timm/local-dir:{folder_of(name, run, source)}" if family == "squeeze" else name
            known[name] = align_teacher(load_teacher(kept, device), source, run.teachers.class_order)
            continue
        replaced.append(name)
        mean, std = source.config.mean, source.config.std
        frozen = module.to(device).eval().requires_grad_(False)
        known[name] = Teacher(name, frozen, None, mean, std, sha256="untrained", vote=1.0)
    return [known[name] for name in run.teachers.names], replaced


def _untrained(name: str, run: RunConfig, source: Source) -> nn.Module | None:
    """Build a network in place of one that would have to be trained or fetched; `None` for one that is here."""
    family, rest = split_name(name)
    num_classes = len(source.class_map)
    if family == "squeeze":
        return None if folder_of(name, run, source).exists() else new_network(source, rest, run.squeeze, run.seed)
    if family == "torchvision":
        module: nn.Module = torchvision.models.get_model(rest, num_classes=num_classes)
        return module
    if family == "timm" and ":" not in rest:
        module = timm.create_model(rest.partition(".")[0], num_classes=num_classes)
        return module
    return None
