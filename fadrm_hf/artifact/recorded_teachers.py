"""The teachers that an artifact names: noted when it is packaged, loaded again to label its views once more."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fadrm_hf.artifact.manifest import Manifest, TeacherRecord
from fadrm_hf.config import RelabelConfig, SourceConfig
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.errors import ArtifactError, ConfigError, TeacherError
from fadrm_hf.labels.relabel import Labeller, check_labelling
from fadrm_hf.networks.small_images import is_registered_here
from fadrm_hf.networks.teachers import Teacher, align_teacher, load_teacher, local_name, public_name, save_teacher
from fadrm_hf.runtime.files import read_json
from fadrm_hf.runtime.run_folder import MANIFEST, TEACHERS, inner_path


@dataclass(frozen=True)
class _Terms:
    """The source that a teacher is aligned with, as far as a manifest knows it."""

    class_map: ClassMap
    config: SourceConfig


def record_teacher(folder: Path, teacher: Teacher) -> TeacherRecord:
    """Note a teacher, and copy it into the artifact if no reader could fetch it by its name.

    Args:
        folder: The artifact.
        teacher: A teacher of the run.
    """
    path = None
    if teacher.travels and teacher.folder is not None:
        path = f"{TEACHERS}{teacher.folder.name}"
        save_teacher(teacher, folder / path)
    return TeacherRecord(
        name=public_name(teacher.name),
        sha256=teacher.sha256,
        revision=teacher.revision,
        accuracy=teacher.accuracy,
        path=path,
        needs_import=_needs_import(teacher.folder),
        vote=teacher.vote,
    )


def withheld_teachers(manifest: Manifest) -> list[str]:
    """Return the teachers whose weights were left out when the artifact was published, and that no name fetches."""
    return [record.name for record in manifest.teachers if record.path is None and _is_of_one_machine(record)]


def _is_of_one_machine(record: TeacherRecord) -> bool:
    family, _, rest = record.name.partition("/")
    is_folder = "local-dir:" in rest or (family == "transformers" and "/" not in rest)
    return record.revision is None and (family == "squeeze" or is_folder)


def names_of_recorded(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Return the name that loads each teacher: from the artifact if it is there, else as it was."""
    return tuple(
        record.name if record.path is None else local_name(record.name, inner_path(folder, record.path))
        for record in manifest.teachers
    )


def load_recorded_teachers(
    folder: Path, manifest: Manifest, device: torch.device, num_teachers: int | None = None
) -> list[Teacher]:
    """Load the artifact's teachers, in its class order and normalisation, with their votes.

    Args:
        folder: The artifact.
        manifest: What it says of them.
        device: Where they run.
        num_teachers: How many are loaded, from the first on. `None`: all.

    Raises:
        TeacherError: If one cannot be loaded, or its weights are not those that labelled the artifact.
    """
    if withheld := withheld_teachers(manifest):
        raise TeacherError(
            f"the weights of {', '.join(withheld)} are not in {folder}: it was published without them; use its stored "
            "labels, or ask its authors for the weights"
        )
    terms = _Terms(manifest.class_map, manifest.settings("source", SourceConfig))
    recorded = list(zip(manifest.teachers, names_of_recorded(folder, manifest), strict=True))
    teachers = []
    for record, name in recorded[:num_teachers]:
        teacher = load_teacher(name, device)
        if teacher.sha256 != record.sha256:
            raise TeacherError(
                f"teacher {record.name} has other weights (sha256 {teacher.sha256[:12]}...) than the one that "
                f"labelled {folder} ({record.sha256[:12]}...); fetch the artifact, or that teacher's revision, again"
            )
        teachers.append(replace(align_teacher(teacher, terms, "mend"), vote=record.vote))
    return teachers


def check_recorded_labelling(manifest: Manifest, relabel: RelabelConfig) -> None:
    """Refuse labels that the artifact's teachers cannot make, before any of them is loaded.

    Args:
        manifest: What it says of them.
        relabel: How they are to label.

    Raises:
        ConfigError: See `check_labelling`.
    """
    votes = [record.vote for record in manifest.teachers[: relabel.num_teachers]]
    check_labelling(relabel, len(manifest.teachers), None not in votes, manifest.pixels.size)


def recorded_labeller(
    folder: Path, manifest: Manifest, device: torch.device, relabel: RelabelConfig | None = None
) -> Labeller:
    """Load what labelled the artifact, ready to label again.

    Args:
        folder: The artifact.
        manifest: What it says of its teachers and labels.
        device: Where the teachers run.
        relabel: How its teachers are to label, if in another way than they did.

    Raises:
        ArtifactError: If the teachers it names cannot label as it says they did.
        ConfigError: If they cannot label by `relabel`.
        TeacherError: See `load_recorded_teachers`.
    """
    if relabel is None:
        relabel = _recorded_labelling(folder, manifest)
    check_recorded_labelling(manifest, relabel)
    teachers = load_recorded_teachers(folder, manifest, device, relabel.num_teachers)
    source = manifest.settings("source", SourceConfig)
    return Labeller(teachers, relabel, source.mean, source.std, device)


def _recorded_labelling(folder: Path, manifest: Manifest) -> RelabelConfig:
    """Return how the artifact was labelled; refuse it if its teachers cannot have done that."""
    config = manifest.settings("relabel", RelabelConfig)
    try:
        check_recorded_labelling(manifest, config)
    except ConfigError as error:
        raise ArtifactError(
            f"{MANIFEST} of {folder} is damaged, its teachers cannot have made its labels ({error}); fetch the "
            "artifact again"
        ) from error
    return config


def _needs_import(folder: Path | None) -> bool:
    config = read_json(folder / "config.json") if folder else None
    architecture = config.get("architecture") if isinstance(config, dict) else None
    return architecture is not None and is_registered_here(architecture)
