from dataclasses import fields, replace

import pytest

from fadrm_hf.config import RecoverConfig, RelabelConfig, RunConfig, SourceConfig, SqueezeConfig, StudentConfig
from fadrm_hf.config.datasets import PRESETS, find_preset, resolve, resolve_squeeze
from fadrm_hf.config.protocols import SETTINGS, nearest, student_defaults
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.fadrm import FADRM

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def run_of(name: str = "digits", ipc: int = 10, student: str = "timm/resnet18", **configs: object) -> RunConfig:
    return RunConfig(
        output="out",
        ipc=ipc,
        method=FADRM(),
        source=configs.pop("source", SourceConfig(name=name)),
        student=configs.pop("student_config", StudentConfig(student=student)),
        **configs,
    )


@pytest.mark.parametrize(
    ("name", "num_classes", "size", "mean", "std"),
    [
        ("cifar10", 10, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("cifar100", 100, 32, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        ("tiny_imagenet", 200, 64, *IMAGENET),
        ("imagenette", 10, 224, *IMAGENET),
        ("imagewoof", 10, 224, *IMAGENET),
        ("imagenet100", 100, 224, *IMAGENET),
        ("imagenet1k", 1000, 224, *IMAGENET),
        ("imagenet21k_p", 10450, 224, (0, 0, 0), (1, 1, 1)),
    ],
)
def test_constants_of_the_literature(name, num_classes, size, mean, std):
    preset = PRESETS[name]
    assert (preset.num_classes, preset.size, preset.mean, preset.std) == (num_classes, size, mean, std)


@pytest.mark.parametrize(
    ("name", "epochs", "batch_size", "lr", "crop"),
    [
        ("cifar100", 50, 128, 0.1, "pad"),  # Table 10
        ("tiny_imagenet", 150, 64, 0.1, "pad"),  # Table 12
        ("imagenette", 300, 128, 0.01, "resized"),  # Table 14
        ("imagewoof", 50, 128, 0.1, "resized"),  # Table 16
    ],
)
def test_teacher_recipes_of_the_paper(name, epochs, batch_size, lr, crop):
    recipe = PRESETS[name].squeeze
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.crop) == (epochs, batch_size, lr, crop)
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 1e-4)


# Tables 11, 13, 15, 17 and 18, read setting by setting as the paper prints them: (dataset, student, IPC).
TABLES = {
    "cifar100": {"S1": "50:1 18:50 50:50", "S2": "18:10 50:10", "S3": "101:1 101:10 101:50", "S4": "18:1"},
    "tiny_imagenet": {"S1": "18:50", "S2": "18:1 18:10", "S3": "50:50 101:50", "S4": "50:1 101:1 50:10 101:10"},
    "imagenette": {"S2": "101:50", "S3": "18:10 50:10 50:50", "S4": "18:1 50:1 101:1 101:10 18:50"},
    "imagewoof": {"S1": "101:1", "S2": "18:50", "S3": "18:10 50:10 50:50 101:50", "S4": "18:1 50:1 101:10"},
    "imagenet1k": {"S1": "18:50 50:50", "S2": "18:1 18:10 50:10 101:10", "S3": "101:50", "S4": "50:1 101:1"},
}


@pytest.mark.parametrize("name", TABLES)
def test_student_settings_of_the_paper(name):
    for setting, cells in TABLES[name].items():
        for depth, ipc in (cell.split(":") for cell in cells.split()):
            values = student_defaults("fadrm", name, f"timm/resnet{depth}", int(ipc))
            assert (values["lr"], values["eta"]) == SETTINGS[setting]
    assert sum(len(cells.split()) for cells in TABLES[name].values()) == 9


def test_settings_of_table_9():
    assert SETTINGS == {"S1": (1e-3, 1), "S2": (1e-3, 2), "S3": (5e-4, 1), "S4": (5e-4, 2)}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=str)
def test_every_preset_is_complete(preset):
    assert all(getattr(preset.squeeze, item.name) is not None for item in fields(preset.squeeze))
    assert min(preset.std) > 0
    assert set(preset.label_epochs) == {1, 10, 50}
    assert preset.max_roll < preset.size / 2
    assert not preset.gated or preset.licence_link


@pytest.mark.parametrize(
    ("source", "preset"),
    [
        ("digits", "digits"),
        ("uoft-cs/cifar10", "cifar10"),
        ("cifar10", "cifar10"),
        ("cifar100", "cifar100"),
        ("uoft-cs/cifar100", "cifar100"),
        ("zh-plus/tiny-imagenet", "tiny_imagenet"),
        ("frgfm/imagenette", "imagenette"),
        ("frgfm/imagewoof", "imagewoof"),
        ("clane9/imagenet-100", "imagenet100"),
        ("ILSVRC/imagenet-1k", "imagenet1k"),
        ("../data/cifar10", "cifar10"),
        ("../data/cifar100/", "cifar100"),
        ("../data/imagenette160", "imagenette"),
        ("data/imagewoof2-160", "imagewoof"),
        ("data/tiny-imagenet-200", "tiny_imagenet"),
        ("data\\cifar-100-python", "cifar100"),
        ("../digits-of-mine", None),
        ("cifar1000", None),
        ("my/cats", None),
    ],
)
def test_find_preset(source, preset):
    found = find_preset(source)
    assert (found and found.name) == preset


@pytest.mark.parametrize(
    ("ipc", "expected"), [(1, 1), (2, 1), (3, 1), (4, 10), (10, 10), (22, 10), (23, 50), (200, 50)]
)
def test_nearest_is_on_a_logarithmic_scale(ipc, expected):
    assert nearest({1: 1, 10: 10, 50: 50}, ipc) == expected


@pytest.mark.parametrize("name", ["digits", "uoft-cs/cifar100", "some/birds"])
def test_resolve_leaves_nothing_open_but_what_the_data_tells(name):
    run = resolve(run_of(name))
    left = [item.name for config in (run.squeeze, run.recover, run.relabel, run.student) for item in fields(config)
            if getattr(config, item.name) is None]  # fmt: skip
    as_they_are = ["stored_epochs", "num_teachers", "ema", "batch_size", "accumulation", "relabel", "hard_phase"]
    assert left == ["batch_size"] * (name == "some/birds") + as_they_are, (
        "None means all of them, none, or as labelled"
    )
    assert None not in (run.source.size, run.source.mean, run.source.std, run.source.licence)
    assert resolve(run) == run


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_teacher_is_trained_by_every_value_of_its_presets_recipe(name):
    """Also by those that are open nowhere else: a setting with a default would hide what the preset says."""
    preset = PRESETS[name]
    assert resolve_squeeze(SqueezeConfig(), SourceConfig(name="x", preset=name)) == preset.squeeze


def test_resolve_keeps_what_is_given():
    given = run_of(
        "cifar10",
        source=SourceConfig("cifar10", size=40, mean=(0.1, 0.1, 0.1)),
        squeeze=SqueezeConfig(epochs=3, weight_decay=5e-4),
        recover=RecoverConfig(max_roll=1),
        relabel=RelabelConfig(epochs=7),
        student_config=StudentConfig(lr=0.5),
    )
    run = resolve(given)
    assert (run.source.size, run.source.mean, run.source.preset) == (40, (0.1, 0.1, 0.1), "cifar10")
    assert (run.squeeze.epochs, run.squeeze.weight_decay, run.squeeze.batch_size) == (3, 5e-4, 128)
    assert (run.recover.max_roll, run.relabel.epochs) == (1, 7)
    assert (run.student.lr, run.student.eta, run.student.epochs) == (0.5, 1.0, 7)
    assert run.teachers.min_accuracy is None


def test_resolve_of_an_unknown_source_assumes_a_photograph():
    run = resolve(run_of("some/birds"))
    assert (run.source.size, run.source.mean, run.source.std) == (224, *IMAGENET)
    assert (run.recover.max_roll, run.recover.flip_probability) == (32, 0.5)
    assert replace(run.squeeze) == PRESETS["imagewoof"].squeeze
    assert (run.relabel.epochs, run.student.lr, run.student.eta) == (300, *SETTINGS["S2"])


def test_the_roll_follows_the_size_that_is_used():
    assert resolve(run_of(source=SourceConfig("my/birds", size=64))).recover.max_roll == 4
    assert resolve(run_of(source=SourceConfig("frgfm/imagenette", size=64))).recover.max_roll == 4
    assert resolve(run_of("frgfm/imagenette")).recover.max_roll == 32


def test_digits_are_never_mirrored():
    run = resolve(run_of("digits"))
    flips = (run.squeeze.flip_probability, run.recover.flip_probability, run.relabel.flip_probability)
    assert flips == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "student", "ipc", "setting"),
    [
        ("cifar100", "timm/resnet18", 1, "S4"),
        ("cifar100", "timm/resnet18.tv_in1k", 100, "S1"),
        ("frgfm/imagenette", "torchvision/resnet101", 10, "S4"),
        ("frgfm/imagenette", "timm/mobilenetv2_100", 1, "S2"),
        ("digits", "timm/resnet18", 1, "S2"),
    ],
)
def test_student_setting_of_a_run(name, student, ipc, setting):
    run = resolve(run_of(name, ipc, student))
    assert (run.student.lr, run.student.eta) == SETTINGS[setting]


@pytest.mark.parametrize(
    ("name", "ipc", "epochs"),
    [
        ("cifar100", 1, 1000),
        ("cifar100", 50, 1000),
        ("zh-plus/tiny-imagenet", 1, 1000),
        ("zh-plus/tiny-imagenet", 10, 300),
        ("ILSVRC/imagenet-1k", 1, 300),
    ],
)
def test_label_epochs_of_the_paper(name, ipc, epochs):
    run = resolve(run_of(name, ipc))
    assert run.relabel.epochs == run.student.epochs == epochs


def test_a_named_preset_is_used_and_an_unknown_one_refused():
    assert resolve(run_of(source=SourceConfig("my/copy", preset="cifar10"))).source.size == 32
    with pytest.raises(ConfigError, match=r"unknown preset 'cifar-10'; did you mean 'cifar10'.*--source.preset"):
        resolve(run_of(source=SourceConfig("my/copy", preset="cifar-10")))
