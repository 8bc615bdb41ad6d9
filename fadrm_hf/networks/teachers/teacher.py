"""Frozen teachers by name, aligned with the source (its normalisation, its class order), above an accuracy bar.

A name says where a teacher comes from:

    timm/resnet18.tv_in1k           timm's own weights, from the Hub
    timm/hf-hub:org/name[@rev]      a timm model directory on the Hub
    timm/local-dir:PATH             a timm model directory on disk, such as squeeze writes
    torchvision/shufflenet_v2_x1_0  torchvision's IMAGENET1K_V1 weights
    transformers/org/name or PATH   any AutoModelForImageClassification
    squeeze/ARCHITECTURE            trained on the source first (`fadrm_hf.networks.teachers.squeeze`)

Only safetensors are read from the Hub and from disk, and no code comes with a model.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fadrm_hf.config import Colour, SqueezeConfig, TeacherConfig
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import TeacherError, unknown
from fadrm_hf.networks.small_images import architecture_for
from fadrm_hf.networks.teachers import families
from fadrm_hf.networks.teachers.alignment import (
    AlignedNetwork,
    SourceDescription,
    class_selection,
    describe_selection,
    renormalisation,
)
from fadrm_hf.networks.teachers.squeeze import (
    measure_accuracy,
    new_network,
    require_architecture,
    squeeze,
    squeeze_fingerprint,
)
from fadrm_hf.runtime.progress import Reporter

FAMILIES = ("timm", "torchvision", "transformers", "squeeze")


@dataclass(frozen=True, eq=False)
class Teacher:
    """A frozen network, and where it came from.

    As loaded it takes images normalised by `mean` and `std`; `align_teacher` makes it take the source's, in the
    source's class order.
    """

    name: str  # as it was requested
    module: nn.Module  # in evaluation mode, fp32, without gradients: (B, 3, S, S) -> (B, C) logits
    class_map: ClassMap | None  # the classes that it names, if it does
    mean: Colour  # of channels, on pixels in [0, 1], in its training
    std: Colour
    sha256: str  # hash of its weights (`weights_sha256`)
    revision: str | None = None  # the Hub commit it was read from
    accuracy: float | None = None  # top-1 on test images of the source, once measured
    folder: Path | None = None  # the model directory it was read from
    travels: bool = False  # whether it must go with the artifact, since no reader could fetch it by its name
    # Where teachers vote (CV-DD): its accuracy, a fraction, on training images of the source held out for it.
    vote: float | None = None


def vote_weights(votes: Tensor, temperature: float) -> Tensor:
    """Return (K,) weights with sum 1: softmax(vote / temperature), votes in per cent (CV-DD, arXiv 2501.07575).

    Args:
        votes: (K,) fractions in [0, 1].
        temperature: How little votes matter; 10 for labels, 5 for recovery (Jiacheng8/CV-DD @ 24097e9).
    """
    return (100.0 * votes.double() / temperature).softmax(dim=0).float()


def weights_sha256(module: nn.Module) -> str:
    """Return the SHA-256 over the ordered names, number formats, shapes and bytes of the state dict."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_teacher(name: str, device: torch.device | None = None) -> Teacher:
    """Load the teacher of that name as its authors published it, not yet aligned with the source.

    Args:
        name: See the head of this module; not `squeeze/...`, which needs a source.
        device: Where to put it; the CPU when not given.

    Raises:
        TeacherError: unknown name, no safetensors weights or broken ones, or the Hub cannot be reached.
    """
    family, rest = split_name(name)
    loaders = {
        "timm": families.load_timm,
        "torchvision": families.load_torchvision,
        "transformers": families.load_transformers,
    }
    if family not in loaders:
        raise TeacherError(f"teacher {name!r} is trained on a source: use prepare_teachers")
    loaded = loaders[family](rest)
    module = loaded.module.to(device or torch.device("cpu"), torch.float32).eval().requires_grad_(False)
    broken = [key for key, value in module.state_dict().items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise TeacherError(
            f"the weights of teacher {name!r} are not finite ({broken[0]}), expected numbers; fetch or train it "
            "again, or set --teachers.names"
        )
    return Teacher(
        name=name,
        module=module,
        class_map=loaded.class_map,
        mean=loaded.mean,
        std=loaded.std,
        sha256=weights_sha256(module),
        revision=loaded.revision,
        folder=loaded.folder,
        travels=loaded.folder is not None and loaded.revision is None,
    )


def split_name(name: str) -> tuple[str, str]:
    """Family and the rest of a teacher's name."""
    family, _, rest = name.partition("/")
    if family not in FAMILIES:
        raise TeacherError(f"{unknown('teacher family', family, FAMILIES)}, in {name!r}; set --teachers.names")
    if not rest:
        raise TeacherError(f"teacher {name!r} names no model; give e.g. 'timm/resnet18.tv_in1k' to --teachers.names")
    return family, rest


def check_names(names: Sequence[str], size: int) -> None:
    """Refuse unknown families and architectures, before anything is read; name the nearest ones."""
    for family, rest in map(split_name, names):
        if family == "squeeze":
            require_architecture(rest, size)


def public_name(name: str) -> str:
    """Return `name` without the folders of this machine, as a manifest or recipe may hold it."""
    prefix, marker, path = name.partition("local-dir:")
    if marker:
        return f"{prefix}{marker}{Path(path).name}"
    family, _, rest = name.partition("/")
    return f"{family}/{Path(rest).name}" if Path(rest).is_absolute() else name


def local_name(name: str, folder: Path) -> str:
    """Return the name by which the copy in `folder` of the teacher `name` is loaded."""
    return f"{'transformers/' if name.startswith('transformers/') else 'timm/local-dir:'}{folder}"


def prepare_teachers(
    config: TeacherConfig,
    squeeze_config: SqueezeConfig,
    source: Source,
    teachers_dir: Path,
    seed: int,
    reporter: Reporter,
    device: torch.device,
    check: Callable[[str, nn.Module], None] | None = None,
) -> list[Teacher]:
    """Load all teachers of a run, or train them: aligned with the source and above the bar.

    Every name is checked, and every teacher that exists is aligned and measured, before any training starts.

    Args:
        config: Names, bar and what to do about another class order.
        squeeze_config: The recipe of `squeeze/...` teachers, resolved.
        source: The real images.
        teachers_dir: Where squeezed teachers are kept.
        seed: Seed of the run.
        reporter: Reports the accuracy of each teacher.
        device: Where they run.
        check: Called with name and network; raises for one that this run cannot use. Called for untrained ones, too.

    Raises:
        TeacherError: an unknown name, a failed training, or an accuracy below the bar.
        ClassMapError: other classes than the source's, or in another order.
    """
    split = {name: split_name(name) for name in config.names}
    squeezed = {name: architecture for name, (family, architecture) in split.items() if family == "squeeze"}
    for name, architecture in squeezed.items():
        network = new_network(source, architecture, squeeze_config, seed).to(device).eval()
        _require_size(name, network, source)
        if check:
            check(name, network)

    def admit(teacher: Teacher) -> Teacher:
        if check:
            check(teacher.name, teacher.module)
        aligned = align_teacher(teacher, source, config.class_order)
        selected = getattr(aligned.module, "classes", None)
        if selected is not None and teacher.class_map is not None:
            chosen = describe_selection(teacher.class_map, source.class_map, selected.tolist())
            reporter.say(f"teacher {teacher.name}: {chosen}")
        return _gate(aligned, source, config, seed, reporter)

    teachers = {name: admit(load_teacher(name, device)) for name in split if name not in squeezed}
    for name, architecture in squeezed.items():
        folder = squeezed_folder(source, architecture, squeeze_config, teachers_dir, seed)
        squeeze(source, architecture, squeeze_config, folder, seed, reporter, device)
        teachers[name] = admit(replace(load_teacher(f"timm/local-dir:{folder}", device), name=name))
    return [teachers[name] for name in config.names]


def squeezed_folder(source: Source, architecture: str, config: SqueezeConfig, teachers_dir: Path, seed: int) -> Path:
    """Return the folder of the teacher squeezed from this source with this recipe."""
    fingerprint = squeeze_fingerprint(source, architecture, config, seed)
    name = architecture_for(architecture, source.size, config.implementation)
    return teachers_dir / f"{name}-{fingerprint[:8]}"


def align_teacher(teacher: Teacher, source: SourceDescription, class_order: str = "mend") -> Teacher:
    """Make a teacher take images normalised as the source's and give logits in the source's class order.

    With `class_order` "mend" the source's classes are selected from a teacher that has more, or in another order.

    Raises:
        ClassMapError: other classes than the source's, or another order and `class_order` is "refuse".
        TeacherError: it does not take images of the source's size.
    """
    num_logits = _require_size(teacher.name, teacher.module, source)
    selection = class_selection(teacher.name, teacher.class_map, num_logits, source, class_order)
    mean, std = source.config.mean, source.config.std
    if selection is None and (mean, std) == (teacher.mean, teacher.std):
        return teacher
    scale, shift = renormalisation(mean, std, teacher.mean, teacher.std)
    classes = None if selection is None else torch.tensor(selection)
    device = next(teacher.module.parameters()).device
    return replace(teacher, module=AlignedNetwork(teacher.module, scale, shift, classes).to(device).eval())


@torch.no_grad()
def require_size(name: str, module: nn.Module, size: int, remedy: str) -> int:
    """Refuse a network that does not take images of `size` pixels, with a remedy; return its number of logits."""
    device = next(module.parameters()).device
    try:
        logits: Tensor = module(torch.zeros(1, 3, size, size, device=device))
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        message = f"teacher {name!r} does not take images of {size}x{size} pixels ({reason}){remedy}"
        raise TeacherError(message) from error
    return logits.shape[1]


def _require_size(name: str, module: nn.Module, source: SourceDescription) -> int:
    remedy = "; set --source.size to the size it was trained with, or choose another teacher"
    return require_size(name, module, source.config.size, remedy)


def save_teacher(teacher: Teacher, folder: Path) -> str:
    """Copy a teacher's model directory, and return the name by which `load_teacher` reads the copy."""
    if teacher.folder is None:
        raise TeacherError(f"teacher {teacher.name!r} has no model directory to copy: it is fetched by its name")
    folder.mkdir(parents=True, exist_ok=True)
    for file in (path for pattern in families.MODEL_FILES for path in teacher.folder.glob(pattern)):
        shutil.copyfile(file, folder / file.name)
    return local_name(teacher.name, folder)


def default_bar(num_classes: int) -> float:
    """Return the least accuracy of a teacher where none is set: three times chance, at least 0.2, at most 0.5."""
    return min(0.5, max(3 / num_classes, 0.2))


def _gate(teacher: Teacher, source: Source, config: TeacherConfig, seed: int, reporter: Reporter) -> Teacher:
    accuracy = measure_accuracy(teacher.module, source, config.gate_images, seed, name=teacher.name)
    bar = default_bar(len(source.class_map)) if config.min_accuracy is None else config.min_accuracy
    split = "training (they stand in for test images)" if source.tests_on_training else "test"
    if accuracy < bar:
        raise TeacherError(
            f"teacher {teacher.name!r} classifies {accuracy:.1%} of {split} images of {source.config.name!r} "
            f"correctly, below the bar of {bar:.1%}; choose a better teacher, train one with "
            f"--teachers.names squeeze/resnet18, or lower --teachers.min_accuracy"
        )
    named = "" if teacher.class_map else "; it names no classes, so only this accuracy speaks for their order"
    reporter.say(f"teacher {teacher.name}: {accuracy:.1%} of {split} images correct{named}")
    return replace(teacher, accuracy=accuracy)
