"""The page of results is what its generator makes, and what is a cell of the paper on it has the paper's settings."""

import json
import re
import runpy
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from fadrm_hf.config import StudentConfig
from fadrm_hf.config.datasets import PRESETS, WHOLE_DATASET, resolve
from fadrm_hf.errors import ArtifactError
from fadrm_hf.evaluation.results_page import render_results_page
from fadrm_hf.evaluation.results_pictures import Picture, find_pictures
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.pipeline.run import recipe_of

ROOT = Path(__file__).parent.parent.parent
CONFIGS = ROOT / "recipes/configs"
TEST_IMAGES = {"cifar100": 10_000, "imagenet1k": 50_000}
SCORES = {"mean": 0.6712, "std": 0.0034, "values": [0.667, 0.671, 0.674]}
RTX_4090 = "NVIDIA GeForce RTX 4090"


def row(dataset: str, method: str = "fadrm", *words: str, student: str = "timm/resnet18", gpu: str = RTX_4090) -> dict:
    """A row of a table as `compare` and `ablate` file it, of the paper's run at 10 images per class.

    It is made from the configuration by the parser of commands, and not as the page makes what it compares with."""
    run = parse_run(["--config", str(CONFIGS / dataset / f"{method}_ipc10.yaml"), *words])
    run = resolve(replace(run, student=StudentConfig(student=student)))
    run = replace(run, method=run.method.resolve(run.source.size))
    num_images = run.ipc * PRESETS[dataset].num_classes
    return {
        "artifact": f"{method}-{dataset}",
        "recipe": recipe_of(run),
        "source_record": {"name": run.source.name, "fingerprint": "0", "revision": "0123456789abcdef"},
        "stages": {"recover": {"seconds": 0.5 * num_images, "peak_memory_bytes": 3_100_000_000}},
        "machine": {"gpu": gpu},
        "result": {
            "protocol": "fadrm",
            "student": student,
            "images": "distilled",
            "labels": "soft",
            "label_codec": "float16",
            "epochs": run.student.epochs,
            "num_images": num_images,
            "settings": json.loads(json.dumps(asdict(run.student))),
            "num_seeds": 3,
            "num_test_images": TEST_IMAGES[dataset],
            "top1": SCORES,
        },
    }


def page_of(folder: Path, *rows: dict, table: str = "methods") -> str:
    (folder / "measured.json").write_text(json.dumps({table: list(rows)}))
    return render_results_page(folder, CONFIGS)


def measured(page: str) -> list[list[str]]:
    """Every line of the paper's tables that has a number of ours, as cells."""
    tables = page.partition("## Smaller experiments")[0]
    lines = [line for line in tables.splitlines() if line.startswith("| ") and ".json)" in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def smaller(page: str) -> list[list[str]]:
    lines = [line for line in page.partition("## Smaller experiments")[2].splitlines() if ".json)" in line]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]


OURS = "67.1 ± 0.3 (3 seeds, fadrm, epoch 1000, [json](measured.json))"


# The committed page


def test_the_committed_page_is_what_the_committed_results_make(tmp_path):
    shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.png", "TABLES.md"))
    runpy.run_path(str(ROOT / "recipes/results_page.py"))["main"](tmp_path / "results")
    made = (tmp_path / "results/TABLES.md").read_text("utf-8")
    assert made == (ROOT / "results/TABLES.md").read_text("utf-8"), "make results"
    assert [
        file for file in re.findall(r"\]\((\S+?\.(?:json|png))\)", made) if not (ROOT / "results" / file).exists()
    ] == []


def test_every_table_is_there_with_nothing_measured_where_nothing_is_on_file(tmp_path):
    page = render_results_page(tmp_path, CONFIGS)
    heads = [int(number) for number in re.findall(r"^## Table (\d)", page, re.MULTILINE)]
    assert heads == [1, 2, 2, 3, 4, 5, 6, 7]
    cells = page.count("not measured")
    assert f"**0 of {cells} cells are measured.**" in page and cells > 180
    assert "There are none." in page and measured(page) == []


# A cell appears


@pytest.mark.parametrize("table", ["methods", "cells"])
def test_a_result_with_the_published_settings_is_the_cell(tmp_path, table):
    page = page_of(tmp_path, row("cifar100"), table=table)
    found = measured(page)
    assert [line[:3] + line[6:8] for line in found[:1]] == [["CIFAR-100", "10", "ResNet-18", "67.4", OURS]]
    assert [line[3:6] for line in found[1:]] == [["k = 3", "61.5", OURS]], "Table 6 has the same run"
    assert "**2 of" in page and smaller(page) == []


def test_a_copy_of_a_run_folder_counts_too(tmp_path):
    small = ROOT / "results/fadrm-cifar100-ipc5-small"
    manifest, published = json.loads((small / "fadrm.json").read_text()), row("cifar100", "fadrm_plus")
    manifest |= {"config": published["recipe"], "method": "fadrm_plus", "ipc": 10, "label_epochs": 1000}
    manifest["source"] |= {"name": "uoft-cs/cifar100", "revision": "0123456789abcdef"}
    folder = tmp_path / "plus/results"
    folder.mkdir(parents=True)
    (tmp_path / "plus/fadrm.json").write_text(json.dumps(manifest))
    (folder / "resnet50.json").write_text(json.dumps(row("cifar100", "fadrm_plus", student="timm/resnet50")["result"]))
    (line,) = measured(render_results_page(tmp_path, CONFIGS))
    ours = OURS.replace("measured.json", "plus/results/resnet50.json")
    assert line[:3] + line[8:] == ["CIFAR-100", "10", "ResNet-50", "67.4", ours]


def test_another_architecture_of_table_2(tmp_path):
    (line,) = measured(page_of(tmp_path, row("imagenet1k", "fadrm_plus", student="timm/densenet121", gpu="H200")))
    assert (
        line[0] == "DenseNet-121" and line[4] == "55.4" and line[5].startswith("67.1 ± 0.3 (3 seeds, fadrm, epoch 300")
    )


def test_ablations_are_of_the_patches_that_their_table_is_of(tmp_path):
    one, two = (row("imagenet1k", "fadrm", f"--patches.grid={grid}", "--method.alpha=0.9") for grid in (1, 2))
    (line,) = measured(page_of(tmp_path, one | {"artifact": "one"}, two))
    assert line[3:5] == ["α = 0.9", "45.7"] and line[6] == "0.47" and line[7] == "0.50 ([json](measured.json))"
    k = row("imagenet1k", "fadrm", "--patches.grid=2", "--method.num_residuals=2", "--method.sizes=[200,224,224]")
    (line,) = measured(page_of(tmp_path, k))
    assert line[3:5] == ["k = 2", "47.6"]


def test_costs_are_those_of_the_papers_gpu(tmp_path):
    found = measured(page_of(tmp_path, row("imagenet1k")))
    link = "([json](measured.json))"
    (costs,) = [line for line in found if line[0] == "FADRM"]
    assert costs == ["FADRM", "0.47", f"0.50 {link}", "2.9", f"3.1 {link}"]
    elsewhere = measured(page_of(tmp_path, row("imagenet1k", gpu="NVIDIA H200")))
    assert [line for line in elsewhere if line[0] == "FADRM"] == [] and len(elsewhere) == len(found) - 1


def test_a_bound_of_the_whole_dataset(tmp_path):
    recipe = asdict(replace(WHOLE_DATASET, flip_probability=0.5, num_workers=8))
    result = row("cifar100")["result"] | {
        "protocol": "squeeze", "images": "whole", "labels": "hard", "epochs": 300, "num_images": 50_000,
        "settings": recipe,
        "source": {"name": "uoft-cs/cifar100", "revision": "0123", "preset": "cifar100", "size": 32},
    }  # fmt: skip
    file = tmp_path / "whole-cifar100/whole-hard-squeeze-timm_resnet18.json"
    file.parent.mkdir()
    file.write_text(json.dumps(result))
    (line,) = measured(render_results_page(tmp_path, CONFIGS))
    assert line[:3] == ["CIFAR-100", "ResNet-18", "78.9"] and "squeeze, epoch 300" in line[3]
    file.write_text(json.dumps(result | {"settings": recipe | {"cutmix": False}}))
    page = render_results_page(tmp_path, CONFIGS)
    assert measured(page) == [] and smaller(page)[0][-1] == "squeeze.cutmix: false, not true"


def test_of_several_the_one_with_most_seeds_is_shown_and_one_seed_has_no_spread(tmp_path):
    one = row("cifar100") | {"artifact": "one"}
    one["result"] = one["result"] | {"num_seeds": 1, "top1": {"mean": 0.9, "std": 0.0, "values": [0.9]}}
    assert "| 90.0 (1 seed, fadrm" in page_of(tmp_path, one)
    assert [line[7] for line in measured(page_of(tmp_path, one, row("cifar100")))[:1]] == [OURS]


# What is smaller never is the paper's cell


def words(*given: str) -> Callable[[], dict]:
    return lambda: row("cifar100", "fadrm", *given)


def result(**given: Any) -> Callable[[], dict]:
    return lambda: (made := row("cifar100")) | {"result": made["result"] | given}


def settings(**given: Any) -> Callable[[], dict]:
    made = row("cifar100")
    return lambda: made | {"result": made["result"] | {"settings": made["result"]["settings"] | given}}


@pytest.mark.parametrize(
    ("reduced", "reason"),
    [
        (words("--method.iterations=500"), "method.iterations: 500, not 2000"),
        (words("--method.num_residuals=2", "--method.sizes=[32,32,32]", "--method.alpha=0.4"), "method.alpha: 0.4"),
        (words("--teachers.names=[squeeze/resnet18_narrow]"), "teachers.names"),
        (words("--squeeze.epochs=8"), "squeeze.epochs: 8, not 50"),
        (words("--recover.precision=bf16"), "recover.precision: bf16, not fp16"),
        (words("--recover.batch_size=10"), "recover.batch_size: 10, not 100"),
        (words("--patches.difficulty=easy"), "patches.difficulty: easy, not medium"),
        (words("--relabel.epochs=300"), "relabel.epochs: 300, not 1000"),
        (words("--relabel.batch_statistics=false"), "relabel.batch_statistics: false, not true"),
        (words("--relabel.codec=int4"), "relabel.codec: int4, not float16"),
        (words("--source.test_split=test[:500]"), "source.test_split: test[:500], not test"),
        (words("--ipc=9"), "ipc: 9, not 10"),
        (words("--source.size=16", "--method.sizes=null"), "source.size: 16, not 32"),
        (result(num_test_images=500), "test images: 500, not 10000"),
        (result(num_images=100), "images: 100, not 1000"),
        (result(label_codec="int4"), "labels: soft int4, not soft float16"),
        (result(labels="hard"), "labels: hard float16, not soft float16"),
        (result(images="random_real"), "the paper has no such row"),
        (lambda: row("cifar100", student="timm/resnet18_narrow"), "timm/resnet18_narrow, not timm/resnet18"),
        (settings(epochs=100), "student.epochs: 100, not 1000"),
        (settings(lr=0.01), "student.lr: 0.01, not 0.001"),
        (settings(name="rd3"), "student.name: rd3, not fadrm"),
        (lambda: row("cifar100") | {"source_record": {"revision": None}}, "source: uoft-cs/cifar100, not uoft-cs"),
        (words("--source.name=path/to/cifar100"), "source: path/to/cifar100, not uoft-cs/cifar100 at a commit"),
    ],
)
def test_what_is_reduced_is_listed_apart_with_the_reason(tmp_path, reduced, reason):
    page = page_of(tmp_path, reduced())
    assert measured(page) == []
    (line,) = smaller(page)
    assert line[0] == "CIFAR-100" and reason in line[-1]


def test_what_decides_nothing_makes_no_difference(tmp_path):
    idle = ("--seed=5", "--recover.form=plain", "--squeeze.num_workers=0", "--teachers.min_accuracy=0", "--output=x",
            "--source.train_split=null", "--source.image_column=null", "--statistics.images_per_class=5")  # fmt: skip
    assert len(measured(page_of(tmp_path, row("cifar100", "fadrm", *idle)))) == 2


def test_what_others_have_sent_and_what_failed_is_not_ours(tmp_path):
    sent, failed = row("cifar100"), row("cifar100") | {"artifact": "failed", "result": None}
    sent["result"] = sent["result"] | {"contributed": True}
    page = page_of(tmp_path, sent, failed)
    assert (measured(page), smaller(page)) == ([], [])


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "measured.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"measured\.json is damaged .* remove it"):
        render_results_page(tmp_path, CONFIGS)


# Its pictures


def compared(method: str, ipc: int, top1: float, teacher: str = "0", seeds: int = 3) -> dict:
    """A row as `compare` files it, with the numbers that it draws."""
    made = row("cifar100", method, f"--ipc={ipc}")
    return made | {
        "artifact": f"{method}-{ipc}-{teacher}",
        "method": method,
        "title": method,
        "student": made["result"]["student"],
        "num_seeds": seeds,
        "top1_mean": top1,
        "top1_std": 0.01,
        "distillation_seconds": 10.0,
        "teacher_records": [{"sha256": teacher * 64}],
    }


def comparison(folder: Path, name: str, ipc: int, *rows: dict) -> None:
    (folder / name).write_text(json.dumps({"source": "cifar100", "ipc": ipc, "methods": list(rows)}))


def along(folder: Path) -> list[Picture]:
    return [picture for picture in find_pictures(folder) if picture.file.startswith("images-per-class")]


def test_tables_of_several_images_per_class_make_one_picture(tmp_path):
    comparison(tmp_path, "ten.json", 10, compared("fadrm", 10, 0.4), compared("fadrm_plus", 10, 0.45))
    assert along(tmp_path) == []
    comparison(tmp_path, "one.json", 1, compared("fadrm", 1, 0.2), compared("fadrm_plus", 1, 0.21))
    (picture,) = along(tmp_path)
    assert picture.file == "images-per-class-cifar100-fadrm-timm-resnet18.png"
    assert picture.sources == ("one.json", "ten.json")
    assert "(1, 10)" in picture.shows and picture.shows.endswith("FADRM, FADRM+")
    page = render_results_page(tmp_path, CONFIGS, find_pictures(tmp_path))
    assert f"![{picture.shows}]({picture.file})" in page and "[one.json](one.json), [ten.json](ten.json)" in page


def test_what_differs_in_more_than_images_per_class_is_no_series(tmp_path):
    comparison(tmp_path, "ten.json", 10, compared("fadrm", 10, 0.4))
    comparison(tmp_path, "one.json", 1, compared("fadrm", 1, 0.2, teacher="1"))
    assert along(tmp_path) == []
    other = compared("fadrm", 1, 0.2)
    comparison(tmp_path, "one.json", 1, other | {"result": other["result"] | {"protocol": "rd3"}})
    assert along(tmp_path) == []


def test_a_line_has_the_same_teachers_from_end_to_end(tmp_path):
    comparison(tmp_path, "ten.json", 10, compared("fadrm", 10, 0.3))
    comparison(tmp_path, "one.json", 1, compared("fadrm", 1, 0.2))
    (alone,) = along(tmp_path)
    more = compared("fadrm", 10, 0.5, seeds=5)
    comparison(tmp_path, "three.json", 10, more | {"teacher_records": [{"sha256": each * 64} for each in "012"]})
    (beside,) = along(tmp_path)
    assert (beside.sources, beside.draw()) == (("one.json", "ten.json"), alone.draw())


def test_of_two_tables_of_the_same_the_one_with_more_seeds_is_drawn(tmp_path):
    comparison(tmp_path, "a.json", 10, compared("fadrm", 10, 0.4, seeds=1))
    comparison(tmp_path, "b.json", 10, compared("fadrm", 10, 0.5, seeds=3))
    comparison(tmp_path, "c.json", 1, compared("fadrm", 1, 0.2))
    (both,) = along(tmp_path)
    (tmp_path / "a.json").unlink()
    (better,) = along(tmp_path)
    assert both.draw() == better.draw()


def test_the_whole_dataset_is_a_line_of_the_picture(tmp_path):
    comparison(tmp_path, "ten.json", 10, compared("fadrm", 10, 0.4))
    comparison(tmp_path, "one.json", 1, compared("fadrm", 1, 0.2))
    (without,) = along(tmp_path)
    bound = row("cifar100")["result"] | {
        "images": "whole", "labels": "hard", "protocol": "squeeze",
        "source": {"name": "uoft-cs/cifar100", "revision": "0123", "preset": "cifar100", "size": 32},
    }  # fmt: skip
    file = tmp_path / "whole-cifar100/whole-hard-squeeze-timm_resnet18.json"
    file.parent.mkdir()
    file.write_text(json.dumps(bound))
    (with_bound,) = along(tmp_path)
    assert with_bound.draw() != without.draw()
    file.write_text(json.dumps(bound | {"student": "timm/resnet50"}))
    (other_student,) = along(tmp_path)
    assert other_student.draw() == without.draw()


def test_the_committed_pictures_are_drawn_from_committed_files_and_told_in_words():
    pictures = find_pictures(ROOT / "results")
    assert {"compare-cifar10-fadrm.png", "label-codecs-fadrm-cifar100-ipc5-small.png"} <= {p.file for p in pictures}
    for picture in pictures:
        assert (ROOT / "results" / picture.file).is_file(), "make results"
        assert all((ROOT / "results" / source).is_file() for source in picture.sources)
        assert len(picture.shows) > 40 and len({picture.file, picture.title, picture.shows}) == 3


def test_every_committed_picture_is_shown_on_a_page():
    shown = "".join(page.read_text() for page in (ROOT / "results").rglob("*.md"))
    left_behind = [path.name for path in (ROOT / "results").glob("*.png") if path.name not in shown]
    assert not left_behind, "pictures of tables that were replaced; remove them"
