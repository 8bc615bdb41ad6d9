"""What runs by one word on the command line, beside the numbers of papers and released scripts.

The numbers here were read in the papers and the scripts, not in the library. Tables are those of arXiv 2506.24125
(FADRM); repositories are VILA-Lab/SRe2L @ 8d00cba with zeyuanyin/tiny-imagenet, Jiacheng8/CV-DD @ 24097e9,
shaoshitong/G_VBSM_Dataset_Condensation @ 1ed80b0 and Jiacheng8/FADRM @ f445e38.
"""

from typing import Any

import pytest

from fadrm_hf.cli import main
from fadrm_hf.commands.call import Call
from fadrm_hf.config import RunConfig
from fadrm_hf.config.layers import section_values

SOURCES = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "tiny_imagenet": "zh-plus/tiny-imagenet",
    "imagenette": "frgfm/imagenette",
    "imagewoof": "frgfm/imagewoof",
    "imagenet1k": "ILSVRC/imagenet-1k",
}
SGD = {"squeeze.optimiser": "sgd", "squeeze.momentum": 0.9, "squeeze.schedule": "cosine"}
SRE2L_TINY = SGD | {
    "squeeze.epochs": 50, "squeeze.lr": 0.2, "squeeze.weight_decay": 1e-4, "squeeze.batch_size": 256,
    "squeeze.warmup_epochs": 5, "squeeze.crop": "resized",
}  # fmt: skip
CV_DD_CIFAR = {
    "squeeze.epochs": 200, "squeeze.lr": 1e-3, "squeeze.weight_decay": 1e-4, "squeeze.batch_size": 512,
    "squeeze.optimiser": "adam", "squeeze.schedule": "cosine", "squeeze.crop": "pad", "squeeze.padding": 4,
}  # fmt: skip
CV_DD_TINY = SGD | {"squeeze.epochs": 50, "squeeze.lr": 0.01, "squeeze.weight_decay": 1e-4, "squeeze.batch_size": 128}
CV_DD_NETTE = SGD | {"squeeze.epochs": 300, "squeeze.lr": 0.01, "squeeze.batch_size": 64, "squeeze.crop": "resized"}
G_VBSM_CIFAR = {
    "squeeze.lr": 0.05, "squeeze.weight_decay": 0.0, "squeeze.batch_size": 64, "squeeze.schedule": "constant",
    "squeeze.optimiser": "sgd", "squeeze.momentum": 0.9,
}  # fmt: skip
SMALL_POOL = tuple(
    f"squeeze/{name}" for name in ("resnet18", "convnet3", "mobilenetv2_050", "wrn16_2", "shufflenet_v2_x0_5_1x1_stem")
)
CDA_STUDENT = {  # appendix of arXiv 2311.18838
    "student.name": "cda", "student.optimiser": "adamw", "student.lr": 1e-3, "student.weight_decay": 0.01,
    "student.batch_size": 128, "student.accumulation": 1, "student.schedule": "cosine", "student.eta": 1.0,
    "student.epochs": 300, "student.temperature": 20.0, "student.scale_by_temperature": False,
    "relabel.batch_size": 128, "relabel.accumulation": 1, "relabel.batch_statistics": False,
}  # fmt: skip
CORESET = {  # arXiv 2502.06434
    "student.name": "coreset", "student.labels": "hard", "student.optimiser": "adamw", "student.lr": 1e-3,
    "student.weight_decay": 0.01, "student.batch_size": 128, "student.accumulation": 1, "student.eta": 1.0,
}  # fmt: skip

PUBLISHED: list[tuple[str, str, int, dict[str, Any]]] = [
    # Teachers: METHODS of each paper; FADRM's are Tables 10, 12, 14 and 16.
    ("fadrm", "cifar100", 10, SGD | {"squeeze.epochs": 50, "squeeze.lr": 0.1, "squeeze.batch_size": 128,
                                     "squeeze.weight_decay": 1e-4}),
    ("fadrm", "tiny_imagenet", 10, SGD | {"squeeze.epochs": 150, "squeeze.lr": 0.1, "squeeze.batch_size": 64}),
    ("fadrm", "imagenette", 10, SGD | {"squeeze.epochs": 300, "squeeze.lr": 0.01, "squeeze.batch_size": 128}),
    ("fadrm", "imagewoof", 10, SGD | {"squeeze.epochs": 50, "squeeze.lr": 0.1, "squeeze.batch_size": 128}),
    ("sre2l", "cifar100", 50, SGD | {"squeeze.epochs": 200, "squeeze.lr": 0.1, "squeeze.weight_decay": 5e-4,
                                     "squeeze.batch_size": 128, "squeeze.crop": "pad", "squeeze.padding": 4,
                                     "source.mean": (0.4914, 0.4822, 0.4465),
                                     "source.std": (0.2023, 0.1994, 0.2010)}),
    ("sre2l", "tiny_imagenet", 50, SRE2L_TINY),
    ("cda", "tiny_imagenet", 50, SRE2L_TINY),
    *((method, dataset, 10, values)
      for method in ("sre2l_pp", "cv_dd")
      for dataset, values in (("cifar10", CV_DD_CIFAR), ("cifar100", CV_DD_CIFAR), ("tiny_imagenet", CV_DD_TINY),
                              ("imagenette", CV_DD_NETTE))),
    ("g_vbsm", "cifar10", 10, G_VBSM_CIFAR | {"squeeze.epochs": 5, "teachers.names": SMALL_POOL}),
    ("g_vbsm", "cifar100", 10, G_VBSM_CIFAR | {"squeeze.epochs": 50, "teachers.names": SMALL_POOL}),
    ("g_vbsm", "tiny_imagenet", 50, {"squeeze.epochs": 50, "squeeze.lr": 0.1, "squeeze.weight_decay": 0.0,
                                     "squeeze.batch_size": 128, "squeeze.padding": 8, "squeeze.schedule": "cosine"}),
    ("edc", "cifar10", 10, G_VBSM_CIFAR | {"squeeze.epochs": 10, "relabel.num_teachers": 8}),  # its Table 19
    ("edc", "cifar100", 10, {"relabel.num_teachers": 5}),
    # Students.
    ("cda", "imagenet1k", 50, CDA_STUDENT),
    ("cda", "tiny_imagenet", 50, CDA_STUDENT),
    ("el2n", "imagenet1k", 10, CORESET | {"student.epochs": 300}),
    ("pca", "cifar10", 10, CORESET),
    ("fadrm", "imagewoof", 10, {"student.name": "fadrm", "student.lr": 5e-4, "student.eta": 1.0}),  # Table 17
    # Table 8, "Batch Size": 100 or 10 (if C < 100); the labels' batches of ten classes are the released scripts'.
    ("fadrm", "imagenet1k", 10, {"recover.batch_size": 100, "relabel.batch_size": 16}),
    ("fadrm", "imagenette", 10, {"recover.batch_size": 10, "relabel.batch_size": 10}),
    ("fadrm_plus", "imagewoof", 1, {"recover.batch_size": 10, "relabel.batch_size": 10}),
    ("fadrm_plus", "imagewoof", 10, {"relabel.batch_size": 16}),
    # RDED's batches are those of the nearest of three scripts, for labels and for students.
    *(("rded", "cifar100", ipc, {"relabel.batch_size": size, "student.batch_size": size})
      for ipc, size in ((1, 20), (5, 100), (10, 100), (30, 200), (50, 200))),
]  # fmt: skip
RELEASED: list[tuple[str, str, int, dict[str, Any]]] = [
    ("fadrm", "imagenette", 50, {"recover.lr": 0.05, "method.iterations": 2000, "relabel.batch_size": 10}),
    ("fadrm", "tiny_imagenet", 50, {"recover.lr": 0.01, "method.iterations": 1000, "method.num_residuals": 1,
                                    "relabel.batch_statistics": False, "relabel.epochs": 300}),
    ("fadrm", "cifar100", 50, {"recover.lr": 0.25, "method.iterations": 2000, "method.num_residuals": 3,
                               "relabel.batch_statistics": True, "relabel.epochs": 1000}),
    ("fadrm_plus", "imagenet1k", 1, {"teachers.names": ("timm/resnet18.tv_in1k", "torchvision/mobilenet_v2",
                                                        "torchvision/shufflenet_v2_x1_0", "torchvision/alexnet")}),
    ("fadrm_plus", "tiny_imagenet", 1, {"teachers.names": ("squeeze/resnet18", "squeeze/shufflenet_v2_x0_5",
                                                           "squeeze/mobilenet_v2"), "relabel.epochs": 300}),
    ("fadrm_plus", "imagenette", 50, {"recover.lr": 0.25, "relabel.batch_size": 10}),
    ("sre2l", "imagenet1k", 50, {"recover.lr": 0.25, "method.iterations": 4000}),  # its settings are the scripts'
]  # fmt: skip
STUDENTS = [  # Jiacheng8/FADRM @ f445e38, validate/train_fkd.py, beside Tables 17 and 18
    ("imagewoof", 10, "timm/resnet50", (5e-4, 1.0), (5e-3, 1.0)),
    ("imagenet1k", 1, "timm/resnet101", (5e-4, 2.0), (3.5e-3, 2.0)),
    ("imagenet1k", 1, "timm/resnet50", (5e-4, 2.0), (5e-4, 2.0)),
]


def run_of(method: str, dataset: str, ipc: int, *words: str) -> dict[str, Any]:
    """The resolved run of a command line, by dotted name."""
    arguments = [f"--method={method}", f"--source.name={SOURCES[dataset]}", f"--ipc={ipc}", *words]
    run: RunConfig = Call("distill", tuple(arguments)).request.resolved().run
    sections = ("source", "teachers", "squeeze", "patches", "recover", "relabel", "student", "method")
    return {key: value for name in sections for key, value in section_values(name, getattr(run, name)).items()}


@pytest.mark.parametrize(("method", "dataset", "ipc", "numbers"), PUBLISHED)
def test_one_word_runs_what_is_published(method: str, dataset: str, ipc: int, numbers: dict[str, Any]) -> None:
    run = run_of(method, dataset, ipc)
    assert {name: run[name] for name in numbers} == numbers


@pytest.mark.parametrize(("method", "dataset", "ipc", "numbers"), RELEASED)
def test_two_words_run_what_was_released(method: str, dataset: str, ipc: int, numbers: dict[str, Any]) -> None:
    run = run_of(method, dataset, ipc, "--settings=released")
    assert {name: run[name] for name in numbers} == numbers


@pytest.mark.parametrize(("dataset", "ipc", "student", "paper", "released"), STUDENTS)
def test_students_of_the_released_scripts(
    dataset: str, ipc: int, student: str, paper: tuple[float, float], released: tuple[float, float]
) -> None:
    for words, expected in (((), paper), (("--settings=released",), released)):
        run = run_of("fadrm", dataset, ipc, f"--student.student={student}", *words)
        assert (run["student.lr"], run["student.eta"]) == expected


def test_a_value_of_ones_own_wins_over_the_scripts() -> None:
    run = run_of("fadrm", "tiny_imagenet", 50, "--settings=released", "--recover.lr=0.1", "--student.name=fadrm")
    assert (run["recover.lr"], run["student.name"], run["method.iterations"]) == (0.1, "fadrm", 1000)


@pytest.mark.parametrize("words", [("--recover.crop=pad",), ("--recover.crop_area=[0.5,1]",)])
def test_cda_refuses_the_crops_that_its_curriculum_decides(words: tuple[str, ...], capsys) -> None:
    assert main(["distill", "--method=cda", "--source.name=digits", *words]) == 2
    assert "--method.least_area" in capsys.readouterr().err
