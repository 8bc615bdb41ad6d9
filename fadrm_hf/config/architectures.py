"""The architectures of the papers' tables: how each is called for short, what it is, how large, and where it occurs.

Any other classifier of timm and torchvision is a student by its full name, `timm/NAME` or `torchvision/NAME`.
"""

from dataclasses import dataclass
from typing import Literal

# Whose network is built where they differ: "released" as the papers' code builds it and draws its first weights;
# "library" as timm or torchvision does, of which timm starts every residual branch of a ResNet at zero.
Implementation = Literal["released", "library"]

# Where an architecture occurs as a student.
_T1, _T2 = "FADRM Table 1", "FADRM Table 2"  # arXiv 2506.24125
_EDC, _DC, _RDED, _G_VBSM = "EDC Table 2", "dataset condensation", "RDED", "G-VBSM"
_DEMO, _SLIM = "demos on a CPU", "EDC's network slimming"


@dataclass(frozen=True)
class Architecture:
    """One student of the tables.

    Attributes:
        name: Short name, which stands for `student` wherever a student is named.
        student: Full name, by which results are filed.
        title: As papers print it.
        parameters: With 1,000 classes at 224 px; of a network for small images, with ten classes at 32 px.
        occurs: Tables and papers whose student it is.
        has_small_stem: Whether images of 64 px or less get the twin whose stem does not shrink them.
        is_small: Whether it is made for small images.
    """

    name: str
    student: str
    title: str
    parameters: int
    occurs: tuple[str, ...]
    has_small_stem: bool = False
    is_small: bool = False

    @property
    def measured_at(self) -> tuple[int, int]:
        """Return the number of classes and the side of the images for which `parameters` holds."""
        return (10, 32) if self.is_small else (1000, 224)


# Parameters are those of timm and torchvision. FADRM Table 2 prints 39.6 M for EfficientNet-B0, which has 5.3 M.
_TABLE = (
    Architecture("resnet18", "timm/resnet18", "ResNet-18", 11_689_512, (_T1, _T2, _EDC), True),
    Architecture("resnet50", "timm/resnet50", "ResNet-50", 25_557_032, (_T1, _T2, _EDC), True),
    Architecture("resnet101", "timm/resnet101", "ResNet-101", 44_549_160, (_T1, _T2, _EDC), True),
    Architecture("efficientnet_b0", "timm/efficientnet_b0", "EfficientNet-B0", 5_288_548, (_T2, _EDC)),
    Architecture("mobilenetv2", "timm/mobilenetv2_100", "MobileNetV2", 3_504_872, (_T2, _EDC), True),
    Architecture("shufflenetv2_x0_5", "timm/shufflenet_v2_x0_5", "ShuffleNetV2-0.5x", 1_366_792, (_T2, _EDC), True),
    Architecture("swin_tiny", "timm/swin_tiny_patch4_window7_224", "Swin-Tiny", 28_288_354, (_T2, _EDC)),
    Architecture("wrn50_2", "timm/wide_resnet50_2", "Wide ResNet-50-2", 68_883_240, (_T2,)),
    Architecture("densenet121", "timm/densenet121", "DenseNet-121", 7_978_856, (_T2,), True),
    Architecture("densenet169", "timm/densenet169", "DenseNet-169", 14_149_480, (_T2,)),
    Architecture("densenet201", "timm/densenet201", "DenseNet-201", 20_013_928, (_T2,)),
    Architecture("deit_tiny", "timm/deit_tiny_patch16_224", "DeiT-Tiny", 5_717_416, (_EDC,)),
    Architecture("convnext_tiny", "timm/convnext_tiny", "ConvNeXt-Tiny", 28_589_128, (_EDC,)),
    Architecture("vgg11_bn", "timm/vgg11_bn", "VGG-11-BN", 132_868_840, (_SLIM,)),
    Architecture("convnet3", "timm/convnet3", "ConvNet-3", 320_010, (_DC, _G_VBSM), is_small=True),
    Architecture("convnet3_bn", "timm/convnet3_bn", "ConvNet-3, BatchNorm", 320_010, (_RDED,), is_small=True),
    Architecture("convnet4_bn", "timm/convnet4_bn", "ConvNet-4, BatchNorm", 452_490, (_RDED,), is_small=True),
    Architecture("alexnet_small", "timm/alexnet_small", "AlexNet for small images", 1_872_202, (_DC,), is_small=True),
    Architecture(
        "vgg11_bn_small", "timm/vgg11_bn_small", "VGG-11-BN, small images", 9_231_114, (_SLIM,), is_small=True
    ),
    Architecture("vgg11_bn_narrow", "timm/vgg11_bn_narrow", "VGG-11-BN, narrow", 145_898, (_DEMO,), is_small=True),
    Architecture("wrn16_2", "timm/wrn16_2", "WRN-16-2", 691_674, (_G_VBSM, "EDC"), is_small=True),
    Architecture("convnet3_narrow", "timm/convnet3_narrow", "ConvNet-3, narrow", 24_714, (_DEMO,), is_small=True),
    Architecture("resnet18_narrow", "timm/resnet18_narrow", "ResNet-18, narrow", 701_466, (_DEMO,), is_small=True),
    Architecture("resnet10_narrow", "timm/resnet10_narrow", "ResNet-10, narrow", 308_826, (_DEMO,), is_small=True),
)
ARCHITECTURES = {architecture.name: architecture for architecture in _TABLE}
_BY_STUDENT = {architecture.student: architecture for architecture in _TABLE}
# torchvision spells some of them otherwise, and builds the same networks.
_BY_STUDENT |= {
    f"torchvision/{other}": ARCHITECTURES[name]
    for name, other in {
        **{name: name for name in ("resnet18", "resnet50", "resnet101", "efficientnet_b0", "vgg11_bn")},
        **{name: name for name in ("densenet121", "densenet169", "densenet201", "convnext_tiny")},
        "mobilenetv2": "mobilenet_v2",
        "shufflenetv2_x0_5": "shufflenet_v2_x0_5",
        "swin_tiny": "swin_t",
        "wrn50_2": "wide_resnet50_2",
    }.items()
}


def full_name(student: str) -> str:
    """Return the full name of a short name; any other name is returned as it is."""
    return ARCHITECTURES[student].student if student in ARCHITECTURES else student


def find_architecture(student: str) -> Architecture | None:
    """Find the table's entry for a student, by its short or full name in either library, if there is one."""
    return _BY_STUDENT.get(full_name(student))


def list_students() -> dict[str, str]:
    """Return the students of the papers' tables and of the demo by full name, with a line on each."""
    return {architecture.student: _describe(architecture) for architecture in _TABLE}


def _describe(architecture: Architecture) -> str:
    classes, size = architecture.measured_at
    parts = [
        f"{architecture.name}: {architecture.title}",
        f"{architecture.parameters / 1e6:.3g} M parameters ({classes:,} classes, {size} px)",
        *(["3x3 stem up to 64 px"] if architecture.has_small_stem else []),
        ", ".join(architecture.occurs),
    ]
    return "; ".join(parts)
