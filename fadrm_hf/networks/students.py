"""Untrained students by name: `timm/ARCHITECTURE`, `torchvision/ARCHITECTURE`, or a short name of the tables'."""

from functools import cache

import timm
import torch
import torchvision
from torch import nn

from fadrm_hf.config.architectures import ARCHITECTURES, Implementation, full_name
from fadrm_hf.errors import StudentError, unknown
from fadrm_hf.networks.small_images import architecture_for, create_network

_USUAL_SIZES = (16, 32, 64, 96, 128, 160, 224)  # pixels; those that a refusal names
_REFUSALS = (RuntimeError, ValueError, AssertionError, ArithmeticError)  # of networks that a size does not fit
_CHOOSE = "choose another with --student.student (fadrm-hf students lists those of the papers)"


def create_student(name: str, num_classes: int, size: int, implementation: Implementation = "released") -> nn.Module:
    """Create an untrained student; its weights come from torch's global random state.

    Args:
        name: `timm/ARCHITECTURE`, `torchvision/ARCHITECTURE`, or a short name (`fadrm_hf.config.architectures`).
        num_classes: Number of logits.
        size: Side of the images; 64 px or less use the twin where `fadrm_hf.networks.small_images` has one.
        implementation: Whose network it is where the papers' released code and the library differ.

    Returns:
        (B, 3, size, size) normalised -> (B, num_classes) logits.

    Raises:
        StudentError: unknown name, or an architecture that cannot take images of this size.
    """
    library, architecture = _split(name)
    try:
        return create_network(library, architecture, num_classes, size, implementation)
    except _REFUSALS as error:
        raise _unfit(name, num_classes, size, error) from error


@cache  # a comparison asks for each of its runs
def check_student(name: str, num_classes: int, size: int) -> None:
    """Refuse an unknown student, or one that does not turn images of this size into that many logits."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        student = create_student(name, num_classes, size).eval()
        try:
            logits = student(torch.zeros(1, 3, size, size))
        except _REFUSALS as error:
            raise _unfit(name, num_classes, size, error) from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (1, num_classes):
        raise StudentError(
            f"student {name!r} is no classifier: for one image it returns {shape}, expected (1, {num_classes}); "
            f"{_CHOOSE}"
        )


def architecture_of_student(name: str, size: int, implementation: Implementation = "released") -> str:
    """Return the timm architecture that a student's name stands for at `size` pixels."""
    return architecture_for(_split(name)[1], size, implementation)


def count_parameters(name: str, num_classes: int, size: int) -> int:
    """Count the parameters of a student; no memory is taken for them."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return sum(parameter.numel() for parameter in create_student(name, num_classes, size).parameters())


def sizes_of(name: str, num_classes: int = 10) -> list[int]:
    """Return the usual sizes of images, from 16 to 224 px, that a student takes; nothing is computed for it."""
    library, architecture = _split(name)

    def takes(size: int) -> bool:
        try:
            student = create_network(library, architecture, num_classes, size).eval()
            return tuple(student(torch.zeros(1, 3, size, size)).shape) == (1, num_classes)
        except (*_REFUSALS, AttributeError):  # AttributeError: it gives no tensor
            return False

    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        return [size for size in _USUAL_SIZES if takes(size)]


def _unfit(name: str, num_classes: int, size: int, error: Exception) -> StudentError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    sizes = ", ".join(map(str, sizes_of(name, num_classes)))
    return StudentError(
        f"student {name!r} cannot take images of {size}x{size} pixels ({reason}); of the usual sizes it takes "
        f"{sizes or 'none'}: set --source.size to one of them, or {_CHOOSE}"
    )


def _split(name: str) -> tuple[str, str]:
    """Return the library and the architecture of a student's name; refuse an unknown one."""
    library, _, architecture = full_name(name).partition("/")
    if library == "timm":
        architectures = timm.list_models()
    elif library == "torchvision":
        architectures = torchvision.models.list_models(module=torchvision.models)
    else:
        raise StudentError(
            f"student {name!r} must be 'timm/ARCHITECTURE' or 'torchvision/ARCHITECTURE', e.g. 'timm/resnet18', or "
            f"a short name, of {', '.join(ARCHITECTURES)}; set --student.student"
        )
    if architecture not in architectures:
        message = unknown("student", name, [f"{library}/{entry}" for entry in architectures])
        raise StudentError(f"{message}; set --student.student")
    return library, architecture
