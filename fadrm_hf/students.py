"""Untrained students by name: `timm/ARCHITECTURE` or `torchvision/ARCHITECTURE`."""

import timm
import torch
import torchvision
from torch import nn

from fadrm_hf.errors import StudentError, unknown
from fadrm_hf.networks import architecture_for, size_arguments, small_variant

# The architectures of the papers' tables; every other classifier of timm and torchvision works too.
DESCRIPTIONS = {
    "timm/resnet18": "ResNet-18, the student of every table",
    "timm/resnet50": "ResNet-50 (Table 1)",
    "timm/resnet101": "ResNet-101 (Table 1)",
    "timm/efficientnet_b0": "EfficientNet-B0, cross-architecture tables",
    "timm/mobilenetv2_100": "MobileNetV2, cross-architecture tables",
    "timm/shufflenet_v2_x0_5": "ShuffleNetV2 of half width, cross-architecture tables",
    "timm/swin_tiny_patch4_window7_224": "Swin-T, the transformer of the cross-architecture tables (224 px)",
    "timm/wide_resnet50_2": "Wide ResNet-50-2, cross-architecture tables",
    "timm/densenet121": "DenseNet-121, cross-architecture tables",
    "timm/densenet169": "DenseNet-169, cross-architecture tables",
    "timm/densenet201": "DenseNet-201, cross-architecture tables",
    "timm/convnet3": "ConvNet of 3 blocks with InstanceNorm, the small student of dataset condensation",
    "timm/convnet3_bn": "ConvNet of 3 blocks with BatchNorm, RDED's small student at 32 px",
    "timm/convnet4_bn": "ConvNet of 4 blocks with BatchNorm, RDED's small student at 64 px",
    "timm/alexnet_small": "AlexNet for small images, without normalisation",
    "timm/wrn16_2": "WRN-16-2, a teacher of G-VBSM and EDC at 32 and 64 px",
    "timm/convnet3_narrow": "ConvNet of 3 blocks of 32 channels (0.02 M parameters), for demos on a CPU",
    "timm/resnet18_narrow": "ResNet-18 of 16 to 128 channels (0.7 M parameters), for demos on a CPU",
    "timm/resnet10_narrow": "ResNet-10 of 16 to 128 channels (0.3 M parameters), for demos on a CPU",
}


def list_students() -> dict[str, str]:
    """The students of the papers' tables and of the demo, with a line on each."""
    return dict(DESCRIPTIONS)


def create_student(name: str, num_classes: int, size: int) -> nn.Module:
    """An untrained student; its weights come from torch's global random state.

    Args:
        name: `timm/ARCHITECTURE` or `torchvision/ARCHITECTURE`.
        num_classes: Number of logits.
        size: Side of the images; 64 px or less use the small-stem twin where `fadrm_hf.networks` has one.

    Returns:
        (B, 3, size, size) normalised -> (B, num_classes) logits.

    Raises:
        StudentError: unknown name, or an architecture that cannot take images of this size.
    """
    library, architecture = _split(name)
    twin = architecture_for(architecture, size)
    if library == "torchvision" and twin != small_variant(architecture):
        return torchvision.models.get_model(architecture, num_classes=num_classes)
    try:
        return timm.create_model(twin, num_classes=num_classes, **size_arguments(twin, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise _unfit(name, size, error) from error


def check_student(name: str, num_classes: int, size: int) -> None:
    """Refuse a student that cannot be trained, before anything long is started.

    Args:
        name: `timm/ARCHITECTURE` or `torchvision/ARCHITECTURE`.
        num_classes: Number of logits.
        size: Side of the images.

    Raises:
        StudentError: unknown name, or an architecture that does not turn images of this size into that many logits.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        student = create_student(name, num_classes, size).eval()
        try:
            logits = student(torch.zeros(1, 3, size, size))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise _unfit(name, size, error) from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (1, num_classes):
        raise StudentError(
            f"student {name!r} is no classifier: for one image it returns {shape}, expected (1, {num_classes}); "
            "choose another with --student.student (fadrm-hf students lists those of the papers)"
        )


def architecture_of_student(name: str, size: int) -> str:
    """The timm architecture that a student's name stands for at `size` pixels."""
    return architecture_for(_split(name)[1], size)


def _unfit(name: str, size: int, error: Exception) -> StudentError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return StudentError(
        f"student {name!r} cannot take images of {size}x{size} pixels ({reason}); choose another with "
        "--student.student (fadrm-hf students lists those of the papers)"
    )


def _split(name: str) -> tuple[str, str]:
    library, _, architecture = name.partition("/")
    catalogues = {"timm": timm.list_models, "torchvision": _torchvision_models}
    if library not in catalogues:
        raise StudentError(
            f"student {name!r} must be 'timm/ARCHITECTURE' or 'torchvision/ARCHITECTURE', e.g. 'timm/resnet18'; "
            f"set --student.student"
        )
    known = catalogues[library]()
    if architecture not in known:
        message = unknown("student", name, [f"{library}/{entry}" for entry in known])
        raise StudentError(f"{message}; set --student.student")
    return library, architecture


def _torchvision_models() -> list[str]:
    return list(torchvision.models.list_models(module=torchvision.models))
