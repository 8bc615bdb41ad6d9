"""Published numbers: those that are printed, cell by cell, where the papers lie beside the repository."""

import re
from pathlib import Path

import pytest

from fadrm_hf.architectures import ARCHITECTURES
from fadrm_hf.presets import PRESETS
from fadrm_hf.published import published_accuracies, published_bound

TEXTS = sorted((Path(__file__).resolve().parents[2] / "shared/seeds").glob("00[01]_*.txt"))
PRINTED = {"CIFAR-100": "cifar100", "Tiny-ImageNet": "tiny_imagenet", "ImageNette": "imagenette",
           "ImageWoof": "imagewoof", "ImageNet-1k": "imagenet1k"}  # fmt: skip
RESNETS = ("resnet18", "resnet50", "resnet101")
needs_the_paper = pytest.mark.skipif(not TEXTS, reason="the paper's text is not beside the repository")


def cells(line: str) -> list[str]:
    return [re.sub("</?b>", "", cell).replace("–", "-").strip() for cell in line.split("\t")]


def as_printed(published) -> list[str]:
    return [f"{100 * published[name].accuracy:.1f}" if name in published else "-"
            for name in ("rded", "edc", "cv_dd", "fadrm", "fadrm_plus")]  # fmt: skip


@needs_the_paper
@pytest.mark.parametrize("path", TEXTS, ids=["poster", "paper"])
def test_table_1_is_transcribed(path):
    lines = [cells(line) for line in path.read_text("utf-8").splitlines() if "\t" in line]
    dataset, seen = "", 0
    for line in lines:
        dataset = PRINTED.get(line[0], "" if line[0] else dataset)
        if dataset and re.match(r"\d+ \(", line[1]):
            found = [as_printed(published_accuracies(dataset, name, int(line[1].split()[0]))) for name in RESNETS]
            assert [cell for row in found for cell in row] == line[2:]
            seen += 1
        elif dataset and line[1] == "Whole Dataset":
            printed = [value for value in line[2:] if value][:3]  # the paper's text repeats the last
            assert [f"{100 * published_bound(dataset, name).accuracy:.1f}" for name in RESNETS] == printed
            seen += 1
    assert seen == 20


@needs_the_paper
@pytest.mark.parametrize("path", TEXTS, ids=["poster", "paper"])
def test_table_2_is_transcribed(path):
    titles = {"ResNet18": "resnet18", "Wide ResNet50-2": "wrn50_2"} | {
        architecture.title.replace("-", "", 1) if name.startswith(("res", "dense")) else architecture.title: name
        for name, architecture in ARCHITECTURES.items()
    }
    seen = {}
    for line in path.read_text("utf-8").splitlines():
        found = re.search(r"(?:^|\t)([A-Z][\w .-]+?) \[\d+\]\t[\d.]+M\t(.+)", line)
        if found:
            seen[titles[found[1]]] = cells(found[2])
    assert len(seen) == 11
    for name, printed in seen.items():
        values = as_printed(published_accuracies("imagenet1k", name, 10))
        if (name, path.name[:3]) == ("resnet18", "001"):
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
    assert published_bound("imagewoof", "resnet50").accuracy == pytest.approx(0.778)
    assert published_bound("imagewoof", "densenet121") is published_bound("digits", "resnet18") is None
    assert set(PRINTED.values()) <= set(PRESETS)
