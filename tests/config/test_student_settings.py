"""The values that published protocols set per dataset, student and images per class; cell by cell as published."""

import pytest

from fadrm_hf.config import StudentConfig, filled
from fadrm_hf.config.datasets import PRESETS
from fadrm_hf.config.protocols import SETTINGS, describe_setting, nearest, student_defaults, table_of

PROTOCOLS = ("fadrm", "cv_dd", "rded", "sre2l", "g_vbsm", "edc")

# The learning rate and η of CV-DD's scripts, IPC 1, 10 and 50.
CV_DD = {
    ("cifar10", "resnet101"): ((5e-4, 1), (5e-4, 1), (5e-4, 1)),
    ("cifar100", "resnet50"): ((1e-3, 1), (1e-3, 2), (1e-3, 1)),
    ("tiny_imagenet", "resnet18"): ((1e-3, 2), (1e-3, 1), (1e-3, 2)),
    ("tiny_imagenet", "resnet101"): ((5e-4, 2), (5e-4, 2), (5e-4, 2)),
    ("imagenette", "resnet18"): ((5e-4, 2), (5e-4, 1), (5e-4, 2)),
    ("imagenette", "resnet50"): ((5e-4, 2), (1e-3, 1), (5e-4, 1)),
    ("imagenette", "resnet101"): ((5e-4, 2), (5e-4, 2), (1e-3, 2)),
    ("imagenet1k", "resnet18"): ((1e-3, 2), (1e-3, 2), (1e-3, 1)),
    ("imagenet1k", "resnet101"): ((1e-3, 2), (1e-3, 2), (5e-4, 2)),
}


@pytest.mark.parametrize(("dataset", "student"), CV_DD)
def test_cv_dd(dataset, student):
    found = [student_defaults("cv_dd", dataset, f"timm/{student}", ipc) for ipc in (1, 10, 50)]
    assert tuple((values["lr"], values["eta"]) for values in found) == CV_DD[dataset, student]


@pytest.mark.parametrize(
    ("dataset", "sizes"),
    [("cifar10", (10, 50, 100)), ("imagenette", (10, 50, 100)), ("cifar100", (20, 100, 200)),
     ("imagenet1k", (20, 100, 200)), ("tiny_imagenet", (100, 100, 100)), (None, (10, 50, 100))],
)  # fmt: skip
def test_batches_of_rded(dataset, sizes):
    found = [student_defaults("rded", dataset, "timm/resnet18", ipc)["batch_size"] for ipc in (1, 10, 50)]
    assert tuple(found) == sizes


@pytest.mark.parametrize(
    ("student", "lr"),
    [("timm/resnet18", 1e-3), ("torchvision/vgg11", 5e-4), ("timm/efficientnet_b0", 2e-3),
     ("timm/mobilenetv2_100", 2.5e-3), ("torchvision/mobilenet_v2", 2.5e-3), ("torchvision/alexnet", 1e-4),
     ("torchvision/vit_b_16", 1e-4), ("torchvision/swin_v2_t", 1e-4), ("timm/convnext_tiny", 1e-3)],
)  # fmt: skip
def test_learning_rates_of_rded(student, lr):
    assert student_defaults("rded", "imagenet1k", student, 10)["lr"] == lr


def test_views_of_rded_are_of_a_tiles_size_where_images_have_tiles():
    large, small = (student_defaults("rded", name, "timm/resnet18", 10)["relabel"] for name in (None, "cifar10"))
    assert (large.crop_area, large.shuffle_tiles) == ((0.5, 1.0), 2)
    assert (small.crop_area, small.shuffle_tiles) == ((1.0, 1.0), 1)
    assert all(not views.batch_statistics and views.num_teachers == 1 and views.cutmix for views in (large, small))


@pytest.mark.parametrize(
    ("protocol", "dataset", "expected"),
    [
        ("sre2l", "imagenet1k", {"optimiser": "adamw", "lr": 1e-3, "eta": 1, "batch_size": 1024, "accumulation": 2}),
        ("sre2l", "tiny_imagenet", {"optimiser": "sgd", "lr": 0.2, "momentum": 0.9, "weight_decay": 1e-4}),
        ("sre2l", "tiny_imagenet", {"batch_size": 256, "warmup_epochs": 5, "scale_by_temperature": True}),
        ("sre2l", "cifar100", {"temperature": 30, "decay_everything": True, "batch_size": 128, "warmup_epochs": 0}),
        ("g_vbsm", "imagenet1k", {"ce_weight": 0.1, "batch_size": 1024, "accumulation": 1, "weight_decay": 0.01}),
        ("g_vbsm", "cifar10", {"ce_weight": 0.15, "batch_size": 100, "weight_decay": 0, "optimiser": "adamw"}),
        ("g_vbsm", "cifar100", {"ce_weight": 0.15, "batch_size": 64, "optimiser": "sgd", "lr": 0.1}),
        ("g_vbsm", "tiny_imagenet", {"ce_weight": 0.1, "batch_size": 100, "accumulation": 2, "weight_decay": 5e-4}),
        ("edc", "imagenet1k", {"schedule": "cosine", "batch_size": 100, "lr": 1e-3, "eta": 2}),
        ("edc", "cifar100", {"schedule": "ssrs", "batch_size": 50, "optimiser": "adamw"}),
        ("edc", "cifar10", {"schedule": "steps", "batch_size": 25}),
    ],
)
def test_what_differs_between_datasets(protocol, dataset, expected):
    values = student_defaults(protocol, dataset, "timm/resnet18", 10)
    assert {name: values[name] for name in expected} == expected


def test_what_differs_between_students():
    assert student_defaults("g_vbsm", "imagenet1k", "timm/resnet50", 10)["accumulation"] == 4
    assert student_defaults("edc", "imagenet1k", "timm/swin_tiny_patch4_window7_224", 10)["lr"] == 1e-4


@pytest.mark.parametrize("protocol", [*PROTOCOLS, "mine"])
@pytest.mark.parametrize("dataset", [*PRESETS, None])
def test_nothing_is_left_open(protocol, dataset):
    for ipc in (1, 7, 200):
        values = student_defaults(protocol, dataset, "timm/resnet18.tv_in1k", ipc)
        config = filled(StudentConfig(name=protocol), **values)
        assert config.lr and config.eta and values.keys() >= {"optimiser", "weight_decay", "temperature"}


def test_other_names_have_the_values_of_fadrm():
    assert (table_of("mine"), table_of("hald"), table_of("edc")) == ("fadrm", "fadrm", "edc")
    mine, fadrm = (student_defaults(name, "imagewoof", "timm/resnet101", 1) for name in ("mine", "fadrm"))
    assert mine == fadrm and (mine["lr"], mine["eta"]) == SETTINGS["S1"]


def test_a_narrow_twin_has_its_architectures_values_and_another_depth_has_not():
    wanted = student_defaults("fadrm", "imagenette", "timm/resnet18", 10)
    assert student_defaults("fadrm", "imagenette", "timm/resnet18_narrow", 10) == wanted
    assert student_defaults("fadrm", "imagenette", "timm/resnet10_narrow", 10) != wanted
    assert student_defaults("fadrm", "imagenette", "timm/resnet18", nearest({1: 4, 10: 12}, 9)) == wanted


@pytest.mark.parametrize(
    ("dataset", "student", "ipc", "expected"),
    [("cifar100", "timm/resnet101", 10, "S3 (Table 11)"), ("tiny_imagenet", "timm/resnet18", 50, "S1 (Table 13)"),
     ("imagenette", "timm/resnet101", 10, "S4 (Table 15)"), ("imagewoof", "timm/resnet50", 10, "S3 (Table 17)"),
     ("imagenet1k", "torchvision/resnet101", 1, "S4 (Table 18)"), ("imagenet1k", "timm/swin_tiny", 10, "S2"),
     ("imagenet1k", "timm/resnet18", 20, "S2"), ("cifar10", "timm/resnet18", 10, "S1"),
     (None, "timm/resnet18", 10, "S2")],
)  # fmt: skip
def test_a_setting_is_named_with_the_table_that_gives_it_to_the_cell(dataset, student, ipc, expected):
    values = student_defaults("fadrm", dataset, student, ipc)
    assert describe_setting(values["lr"], values["eta"], dataset, student, ipc) == expected
    assert describe_setting(0.1, 1.0, dataset, student, ipc) == "lr 0.1, η 1"


def test_a_setting_that_is_not_the_cells_is_not_said_to_be():
    assert describe_setting(*SETTINGS["S1"], "cifar100", "timm/resnet101", 10) == "S1"
