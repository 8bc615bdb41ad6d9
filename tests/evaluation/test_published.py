"""Published numbers: those that are printed, cell by cell, where the papers' texts are at hand."""

import re

import pytest
from fixtures.real import real_path

from fadrm_hf.config.architectures import ARCHITECTURES
from fadrm_hf.config.datasets import PRESETS
from fadrm_hf.evaluation.published import (
    find_ablation,
    published_ablations,
    published_accuracies,
    published_whole_dataset,
)

PRINTED = {"CIFAR-100": "cifar100", "Tiny-ImageNet": "tiny_imagenet", "ImageNette": "imagenette",
           "ImageWoof": "imagewoof", "ImageNet-1k": "imagenet1k"}  # fmt: skip
RESNETS = ("resnet18", "resnet50", "resnet101")


@pytest.fixture
def text(name) -> str:
    """The plain text of the paper, or of its poster."""
    return real_path(f"papers/fadrm-{name}.txt").read_text("utf-8")


def cells(line: str) -> list[str]:
    return [re.sub("</?b>", "", cell).replace("–", "-").strip() for cell in line.split("\t")]


def as_printed(published) -> list[str]:
    return [f"{100 * published[name].accuracy:.1f}" if name in published else "-"
            for name in ("rded", "edc", "cv_dd", "fadrm", "fadrm_plus")]  # fmt: skip


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["poster", "paper"])
def test_table_1_is_transcribed(text):
    lines = [cells(line) for line in text.splitlines() if "\t" in line]
    dataset, seen = "", 0
    for line in lines:
        dataset = PRINTED.get(line[0], "" if line[0] else dataset)
        if dataset and re.match(r"\d+ \(", line[1]):
            found = [as_printed(published_accuracies(dataset, name, int(line[1].split()[0]))) for name in RESNETS]
            assert [cell for row in found for cell in row] == line[2:]
            seen += 1
        elif dataset and line[1] == "Whole Dataset":
            printed = [value for value in line[2:] if value][:3]  # the paper's text repeats the last
            assert [f"{100 * published_whole_dataset(dataset, name).accuracy:.1f}" for name in RESNETS] == printed
            seen += 1
    assert seen == 20


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["poster", "paper"])
def test_table_2_is_transcribed(name, text):
    titles = {"ResNet18": "resnet18", "Wide ResNet50-2": "wrn50_2"} | {
        architecture.title.replace("-", "", 1) if name.startswith(("res", "dense")) else architecture.title: name
        for name, architecture in ARCHITECTURES.items()
    }
    seen = {}
    for line in text.splitlines():
        found = re.search(r"(?:^|\t)([A-Z][\w .-]+?) \[\d+\]\t[\d.]+M\t(.+)", line)
        if found:
            seen[titles[found[1]]] = cells(found[2])
    assert len(seen) == 11
    for student, printed in seen.items():
        values = as_printed(published_accuracies("imagenet1k", student, 10))
        if (student, name) == ("resnet18", "paper"):
            assert printed[3] == "50.0", "of 2x2 patches, where the poster and Table 1 have those of 1x1"
            printed[3] = "50.9"
        assert [*values[:3], values[4]] == printed


def test_numbers_are_fractions_with_their_source_and_only_of_cells_that_there_are():
    found = published_accuracies("imagenet1k", "timm/swin_tiny_patch4_window7_224", 10)
    assert {name: (each.accuracy, each.source) for name, each in found.items()} == {
        "rded": (0.292, "FADRM, Table 2"),
        "edc": (0.383, "FADRM, Table 2"),
        "fadrm_plus": (0.391, "FADRM, Table 2"),
    }
    assert published_accuracies("imagenet1k", "torchvision/swin_t", 50)["edc"].source == "EDC, Table 2"
    assert published_accuracies("cifar100", "resnet18", 1)["fadrm"].accuracy == pytest.approx(0.318)
    for dataset, student, ipc in (
        ("cifar100", "resnet18", 5), ("cifar10", "resnet18", 10), (None, "resnet18", 10),
        ("cifar100", "swin_tiny", 10), ("imagenet1k", "resnet10_narrow", 10), ("imagenet1k", "timm/vgg19", 10),
    ):  # fmt: skip
        assert published_accuracies(dataset, student, ipc) == {}
    assert published_whole_dataset("imagewoof", "resnet50").accuracy == pytest.approx(0.778)
    assert published_whole_dataset("imagewoof", "densenet121") is published_whole_dataset("digits", "resnet18") is None
    assert set(PRINTED.values()) <= set(PRESETS)


# Tables 2 (left) to 6


def lines_between(first: str, last: str) -> list[list[str]]:
    """The lines of a table in the paper's text, as cells of plain text."""
    text = real_path("papers/fadrm-paper.txt").read_text("utf-8")
    part = text[text.index(first) : text.index(last)]
    plain = re.sub(r"<math>.*?</math>", lambda found: found[0].replace("\\alpha", "alpha"), part)
    return [[re.sub("<[^>]+>", "", cell).strip() for cell in line.split("\t")] for line in plain.splitlines() if line]


def numbers(cells: list[str]) -> list[float]:
    return [float(re.sub(r"[^\d.]", "", cell)) for cell in cells]


def of(table: str, method: str, *values: str) -> list[list[float]]:
    """What is transcribed of a method, in the order of the table, accuracies in percent."""
    rows = [each for each in published_ablations(table) if each.method == method]
    in_percent = [{**vars(each), "accuracy": each.accuracy and round(100 * each.accuracy, 2)} for each in rows]
    return [[each[value] for value in values] for each in in_percent]


@pytest.mark.real_data
def test_the_costs_of_table_2_are_transcribed():
    printed = lines_between("Method\tTime Cost", "Swin-Tiny [21]\t")[1:]
    names = ("sre2l_pp", "fadrm", "g_vbsm", "cv_dd", "edc", "fadrm_plus")
    for name, line in zip(names, printed, strict=True):
        assert of("2", name, "seconds", "gigabytes") == [numbers(line[1:3])]


@pytest.mark.real_data
def test_table_3_is_transcribed():
    one, two = (numbers(line[1:]) for line in lines_between("\tIPC=10\t\tIPC=50", "Table 3:")[2:])
    assert of("3", "fadrm", "accuracy") == [[one[0]], [one[2]], [two[0]], [two[2]]]
    assert of("3", "fadrm_plus", "accuracy") == [[one[1]], [one[3]], [two[1]], [two[3]]]
    settings = [(each.changed["patches.grid"], each.ipc) for each in published_ablations("3")]
    assert settings == [(1, 10), (1, 10), (1, 50), (1, 50), (2, 10), (2, 10), (2, 50), (2, 50)]


@pytest.mark.real_data
def test_table_4_is_transcribed():
    rows = [numbers(line[1:]) for line in lines_between("ResNet-18 (Student)", "Table 4:")]
    for place, name in enumerate(("fadrm", "fadrm_plus", "sre2l_pp", "g_vbsm")):
        printed = [[row[2 * place + without] for row in rows] for without in (0, 1)]
        assert of("4", name, "accuracy", "milliseconds", "gigabytes") == printed
    assert [each.changed["recover.precision"] for each in published_ablations("4")] == ["fp16", "fp32"] * 4


@pytest.mark.real_data
def test_table_5_is_transcribed():
    printed = lines_between("FADRM (W/O ARC + W/O MRO)", "Table 5:")
    assert of("5", "fadrm", "accuracy", "seconds") == [numbers(line[1:3]) for line in printed]
    assert of("5", "fadrm_plus", "accuracy", "seconds") == [numbers(line[4:6]) for line in printed]
    alphas = [each.changed for each in published_ablations("5") if each.method == "fadrm"]
    assert alphas[:2] == [{"method.num_residuals": 0}, {"method.alpha": 1.0}]
    named = [float(re.search(r"= ([\d.]+)", line[0])[1]) for line in printed[2:]]
    assert [each["method.alpha"] for each in alphas[2:]] == named


@pytest.mark.real_data
def test_table_6_is_transcribed():
    head, first, second = lines_between("$k$\t1\t2", "Table 6:")
    left = [each for each in published_ablations("6") if "method.num_residuals" in each.changed]
    right = [each for each in published_ablations("6") if "method.sizes" in each.changed]
    assert [each.changed["method.num_residuals"] for each in left] == numbers(head[1:7]) * 2
    assert [100 * each.accuracy for each in left] == pytest.approx(numbers(first[1:7]) + numbers(second[1:7]))
    assert [each.dataset for each in left] == ["imagenet1k"] * 6 + ["cifar100"] * 6
    assert [each.changed["method.sizes"] for each in right] == [(size, 224, size, 224) for size in numbers(head[8:])]
    assert [100 * each.accuracy for each in right] == pytest.approx(numbers(first[8:]))
    assert [each.seconds for each in right] == numbers(second[8:])


def test_an_ablation_is_found_by_what_it_changes_of_the_same_data_if_there_is_one():
    k = {"method.num_residuals": 2}
    assert find_ablation("fadrm", "cifar100", 10, k).accuracy == 0.609
    assert find_ablation("fadrm", "cifar10", 10, k).accuracy == find_ablation("fadrm", None, 1, k).accuracy == 0.476
    assert find_ablation("fadrm", "imagenet1k", 50, {"patches.grid": 2}).accuracy == 0.598
    assert find_ablation("fadrm", "cifar100", 40, {"patches.grid": 2}).ipc == 50
    assert find_ablation("fadrm_plus", "imagenet1k", 10, k) is None
    assert find_ablation("fadrm", "imagenet1k", 10, {}) is None
    assert find_ablation("fadrm", "imagenet1k", 10, {"method.alpha": 0.3}) is None
