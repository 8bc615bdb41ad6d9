"""The values of published protocols that differ between datasets, students and images per class.

A protocol is a file in `recipes/configs/protocols/`. Where its paper or its released code has several values for one
setting, the file says `null` and the value is found here. Numbers are the papers' (FADRM's tables: "T"), or, where
marked, those of released code: FADRM (Jiacheng8/FADRM @ f445e38), CV-DD (Jiacheng8/CV-DD @ 24097e9), RDED
(LINs-lab/RDED @ 3f6453d), SRe2L and CDA (VILA-Lab/SRe2L @ 8d00cba), G-VBSM (shaoshitong/G_VBSM_Dataset_Condensation @
1ed80b0), EDC (shaoshitong/EDC @ 80116a7).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fadrm_hf.config.layers import Layer
from fadrm_hf.config.relabel import RelabelConfig

Value = TypeVar("Value")

SETTINGS = {"S1": (1e-3, 1.0), "S2": (1e-3, 2.0), "S3": (5e-4, 1.0), "S4": (5e-4, 2.0)}  # T9: learning rate, η
DEFAULT_SETTING = "S2"  # the commonest cell of T11-T18 at IPC 10
_IPCS = (1, 10, 50)
# The tables that give a setting to each cell of these datasets; of students they have these three. The other students
# of Table 2 have the default here, which is that of all three on ImageNet-1k at IPC 10, Table 2's only cells.
_TABLES = {"cifar100": 11, "tiny_imagenet": 13, "imagenette": 15, "imagewoof": 17, "imagenet1k": 18}
_TABULATED = ("resnet18", "resnet50", "resnet101")


@dataclass(frozen=True)
class Rule:
    """Values that hold under conditions; an empty condition always holds.

    Args:
        values: Fields of `StudentConfig`.
        datasets: Names of presets.
        students: Beginnings of architecture names, e.g. "efficientnet" for "efficientnet_b0".
        ipcs: Images per class, of 1, 10 and 50, that are nearest to the artifact's.
    """

    values: Mapping[str, Any]
    datasets: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    ipcs: tuple[int, ...] = ()

    def holds(self, dataset: str | None, architecture: str, ipc: int) -> bool:
        """Return whether the values are those of a student of this architecture on this dataset."""
        is_student = any(architecture == name or architecture.startswith(f"{name}_") for name in self.students)
        return (
            (not self.datasets or dataset in self.datasets)
            and (not self.students or is_student)
            and (not self.ipcs or ipc in self.ipcs)
        )


def _cells(dataset: str, resnet18: str, resnet50: str, resnet101: str) -> tuple[Rule, ...]:
    """Return the settings of the three students on a dataset; each argument lists those at IPC 1, 10 and 50."""
    rows = {"resnet18": resnet18.split(), "resnet50": resnet50.split(), "resnet101": resnet101.split()}
    return tuple(
        Rule(dict(zip(("lr", "eta"), SETTINGS[cell], strict=True)), (dataset,), (student,), (ipc,))
        for student, cells in rows.items()
        for ipc, cell in zip(_IPCS, cells, strict=True)
    )


_SMALL = ("digits", "cifar10", "cifar100", "tiny_imagenet")  # images of 64 px or less
_MOSAICS = RelabelConfig(
    batch_statistics=False, crop_area=(0.5, 1.0), codec="none", num_teachers=1, shuffle_tiles=2
)  # RDED: a crop is as large as a tile
_SINGLE_CROPS = RelabelConfig(batch_statistics=False, crop_area=(1.0, 1.0), codec="none", num_teachers=1)
_CROPS = RelabelConfig(batch_size=128, accumulation=1, cutmix=False, codec="none")  # with flips
_AS_THEY_ARE = RelabelConfig(crop_area=(1.0, 1.0), flip_probability=0.0, cutmix=False, codec="none")

# The FADRM paper's settings, and what every other protocol begins from. Later rules win.
_BASE = Rule(
    {
        "lr": SETTINGS[DEFAULT_SETTING][0],
        "eta": SETTINGS[DEFAULT_SETTING][1],
        "schedule": "cosine",
        "warmup_epochs": 0,
        "optimiser": "adamw",
        "momentum": 0.9,
        "weight_decay": 0.01,
        "decay_everything": False,
        "temperature": 20.0,
        "scale_by_temperature": False,
        "ce_weight": 0.0,
    }
)
_FADRM = (
    *_cells("cifar10", "S1 S1 S1", "S1 S1 S1", "S3 S3 S3"),  # CV-DD's code; not in the FADRM paper
    *_cells("cifar100", "S4 S2 S1", "S1 S2 S1", "S3 S3 S3"),  # T11
    *_cells("tiny_imagenet", "S2 S2 S1", "S4 S4 S3", "S4 S4 S3"),  # T13
    *_cells("imagenette", "S4 S3 S4", "S4 S3 S3", "S4 S4 S2"),  # T15; code: none for ResNet-101 at IPC 10
    *_cells("imagewoof", "S4 S3 S2", "S4 S3 S3", "S1 S4 S3"),  # T17
    *_cells("imagenet100", "S2 S2 S1", "S4 S2 S1", "S4 S2 S3"),  # not in the paper: as ImageNet-1k
    *_cells("imagenet1k", "S2 S2 S1", "S4 S2 S1", "S4 S2 S3"),  # T18
    Rule({"lr": 1e-3, "eta": 1.0}, ("imagenet21k_p",), ("resnet18", "resnet50", "resnet101")),  # CDA's code
)
_RULES: dict[str, tuple[Rule, ...]] = {
    "fadrm": _FADRM,
    "fadrm_released": (  # Jiacheng8/FADRM @ f445e38, validate/train_fkd.py, where it differs from the paper's tables
        *_FADRM,
        Rule({"lr": 5e-3, "eta": 1.0}, ("imagewoof",), ("resnet50",), (10,)),
        Rule({"lr": 3.5e-3, "eta": 2.0}, ("imagenet1k",), ("resnet101",), (1,)),
    ),
    "cv_dd": (  # code
        *_cells("cifar10", "S1 S1 S1", "S1 S1 S1", "S3 S3 S3"),
        *_cells("cifar100", "S1 S2 S1", "S1 S2 S1", "S3 S3 S3"),
        *_cells("tiny_imagenet", "S2 S1 S2", "S1 S1 S1", "S4 S4 S4"),
        *_cells("imagenette", "S4 S3 S4", "S4 S1 S3", "S4 S4 S2"),
        *_cells("imagenet1k", "S2 S2 S1", "S2 S2 S1", "S2 S2 S4"),
    ),
    "rded": (  # code; students that are not named have a rate of 0 there
        Rule({"relabel": _MOSAICS, "batch_size": 50, "accumulation": 1}),
        Rule({"relabel": _SINGLE_CROPS}, _SMALL),
        Rule({"batch_size": 10}, ipcs=(1,)),
        Rule({"batch_size": 100}, ipcs=(50,)),
        Rule({"batch_size": 20}, ("cifar100", "imagenet100", "imagenet1k"), ipcs=(1,)),
        Rule({"batch_size": 100}, ("cifar100", "imagenet100", "imagenet1k"), ipcs=(10,)),
        Rule({"batch_size": 200}, ("cifar100", "imagenet100", "imagenet1k"), ipcs=(50,)),
        Rule({"batch_size": 100}, ("tiny_imagenet",)),
        Rule({"lr": 5e-4}, students=("vgg11",)),
        Rule({"lr": 2e-3}, students=("efficientnet",)),
        Rule({"lr": 2.5e-3}, students=("mobilenet", "mobilenetv2")),
        Rule({"lr": 1e-4}, students=("alexnet", "vit", "swin")),
        Rule({"lr": 2e-3, "batch_size": 25}, ("cifar100",), ("convnet3",)),
    ),
    "sre2l": (  # code; ImageNet-1k's are also those of datasets that it has not
        Rule({"eta": 1.0, "batch_size": 1024, "accumulation": 2}),
        Rule(
            {"optimiser": "sgd", "lr": 0.2, "weight_decay": 1e-4, "warmup_epochs": 5, "scale_by_temperature": True}
            | {"batch_size": 256, "accumulation": 1},
            ("tiny_imagenet",),  # 100 epochs
        ),
        Rule(
            {"temperature": 30.0, "decay_everything": True, "batch_size": 128, "accumulation": 1},
            ("digits", "cifar10", "cifar100"),  # CIFAR-100, 400 epochs, and as it those that the code has not
        ),
    ),
    "g_vbsm": (  # code
        Rule({"eta": 1.0, "ce_weight": 0.1, "batch_size": 1024, "accumulation": 1}),  # ImageNet-1k, 300 epochs
        Rule({"accumulation": 4}, students=("resnet50", "resnet101")),
        Rule({"ce_weight": 0.1, "batch_size": 100, "accumulation": 2}, ("tiny_imagenet",)),  # 100 epochs
        Rule({"ce_weight": 0.15, "batch_size": 100, "accumulation": 1}, ("digits", "cifar10")),  # 1000 epochs
        Rule({"ce_weight": 0.15, "batch_size": 64, "accumulation": 1}, ("cifar100",)),  # 1000 epochs
        Rule({"weight_decay": 0.0}, ("digits", "cifar10")),
        Rule({"optimiser": "sgd", "lr": 0.1, "weight_decay": 5e-4}, ("cifar100", "tiny_imagenet")),
    ),
    "edc": (  # paper; its code trains on CIFAR-100 and Tiny-ImageNet by SGD, 0.1, momentum 0.875, decay 5e-4
        Rule({"eta": 2.0, "batch_size": 100, "accumulation": 1}),  # ImageNet-1k, 300 epochs
        Rule({"lr": 1e-4}, students=("swin",)),
        Rule({"schedule": "ssrs", "batch_size": 50}, ("imagenette", "imagewoof", "cifar100")),  # 1000 epochs
        Rule({"schedule": "steps", "batch_size": 25}, ("digits", "cifar10")),  # 1000 epochs
    ),
}


# Where a protocol is not FADRM's, whatever the dataset; `None` is found in the table above. Its file says the same.
_SECTIONS: dict[str, dict[str, Any]] = {
    "hard": {"labels": "hard"},
    "unaugmented": {"relabel": _AS_THEY_ARE},
    "coreset": {  # arXiv 2502.06434, "hard labels"
        "labels": "hard",
        "epochs": 300,
        "lr": 1e-3,
        "eta": 1.0,
        "batch_size": 128,
        "accumulation": 1,
        "relabel": _CROPS,
    },
    "cda": {"epochs": 300, "lr": 1e-3, "eta": 1.0, "batch_size": 128, "accumulation": 1},  # appendix
    "hald": {"hard_phase": (0.25, 0.75), "label_smoothing": 0.8},
    "rded": {"epochs": 300, "eta": 2.0, "accumulation": 1},
    "sre2l": dict.fromkeys(
        ("warmup_epochs", "optimiser", "weight_decay", "decay_everything", "temperature", "scale_by_temperature")
    ),
    "g_vbsm": {"optimiser": None, "weight_decay": None, "loss": "mse", "ce_weight": None},
    "edc": {"eta": 2.0, "schedule": None, "loss": "mse", "ce_weight": 0.025, "ema": 0.99, "accumulation": 1},
    "rd3": {
        "epochs": 400,
        "lr": 1e-3,
        "eta": 2.0,
        "batch_size": 50,
        "accumulation": 1,
        "relabel": replace(_MOSAICS, batch_size=50, accumulation=1),
    },
}

PROTOCOLS = tuple(sorted({*_RULES, *_SECTIONS}))


def protocol_section(protocol: str) -> dict[str, Any]:
    """Return a protocol's fields of `StudentConfig` that differ from the defaults, its name among them.

    Args:
        protocol: Its name; an unknown one has FADRM's values.
    """
    return {"name": protocol} | _SECTIONS.get(protocol, {})


def table_of(protocol: str) -> str:
    """Return the protocol whose table fills a protocol's open values: its own, or FADRM's for any other name."""
    return protocol if protocol in _RULES else "fadrm"


def student_defaults(protocol: str, dataset: str | None, student: str, ipc: int) -> dict[str, Any]:
    """Return a protocol's values for what it leaves open, as fields of `StudentConfig`.

    Args:
        protocol: Its name; an unknown one has FADRM's values.
        dataset: Name of the source's preset, if it has one.
        student: E.g. `timm/resnet18.tv_in1k`.
        ipc: Images per class.
    """
    architecture = _architecture(student)
    known = nearest(dict(zip(_IPCS, _IPCS, strict=True)), ipc)
    values: dict[str, Any] = {}
    for rule in (_BASE, *_RULES[table_of(protocol)]):
        if rule.holds(dataset, architecture, known):
            values |= rule.values
    return values


def student_fillings(protocol: str, dataset: str | None, student: str, ipc: int) -> Iterator[Layer]:
    """Yield the values of a protocol for what it leaves open, with the table that a learning rate comes from.

    Args:
        protocol: Its name; an unknown one has FADRM's values.
        dataset: Name of the source's preset, if it has one.
        student: E.g. `timm/resnet18.tv_in1k`.
        ipc: Images per class.
    """
    values = {f"student.{name}": value for name, value in student_defaults(protocol, dataset, student, ipc).items()}
    rate = {name: values.pop(name) for name in ("student.lr", "student.eta")}
    origin = f"protocol {table_of(protocol)}"
    cell = describe_setting(rate["student.lr"], rate["student.eta"], dataset, student, ipc)
    yield Layer(f"{origin}, {cell}" if table_of(protocol) == "fadrm" else origin, rate)
    yield Layer(origin, values)


def describe_setting(lr: float, eta: float, dataset: str | None, student: str, ipc: int) -> str:
    """Describe a learning rate and η as the paper names them: `S2 (Table 18)` where it sets them for this very cell.

    Args:
        lr: Learning rate.
        eta: Slow-down of the schedule.
        dataset: Name of the source's preset, if it has one.
        student: E.g. `timm/resnet18`.
        ipc: Images per class.

    Returns:
        `S2` for cells that no table has, and other values written out.
    """
    named = {values: name for name, values in SETTINGS.items()}
    if (lr, eta) not in named:
        return f"lr {lr:g}, η {eta:g}"
    in_table = dataset in _TABLES and _architecture(student) in _TABULATED and ipc in _IPCS
    published = student_defaults("fadrm", dataset, student, ipc)
    is_cell = in_table and (published["lr"], published["eta"]) == (lr, eta)
    return f"{named[lr, eta]} (Table {_TABLES[str(dataset)]})" if is_cell else named[lr, eta]


def _architecture(student: str) -> str:
    return student.rpartition("/")[2].partition(".")[0]


def nearest(by_ipc: Mapping[int, Value], ipc: int) -> Value:
    """Return the value of the IPC that is nearest on a logarithmic scale."""
    return by_ipc[min(by_ipc, key=lambda known: abs(math.log(known / ipc)))]
