"""Rankings of architectures: correlations against scipy, an artifact and its source, what is on file, refusals."""

import csv
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from fixtures.mistakes import names_all, refused
from fixtures.runs import copy_artifact
from PIL import Image
from scipy import stats

from fadrm_hf.cli import main
from fadrm_hf.commands.options.training import SMALL_ARCHITECTURES
from fadrm_hf.errors import ScoreError
from fadrm_hf.evaluation.architecture_search import chance_of, correlations
from fadrm_hf.evaluation.scores import kendall_correlation, ranks, spearman_correlation
from fadrm_hf.networks.students import check_student

ARCHITECTURES = ("resnet10_narrow", "convnet3_narrow", "vgg11_bn_narrow")
NAMES = [f"timm/{name}" for name in ARCHITECTURES]
ON_IT = ("--num_seeds=2", "--epochs=3")
ON_ALL = ("--squeeze.epochs=1", "--squeeze.batch_size=64")
TABLE = "rank-architectures-run-fadrm-soft"
WORDS = ("rank-architectures", "run", f"--architectures=[{','.join(ARCHITECTURES)}]", *ON_IT, *ON_ALL)


@pytest.mark.parametrize("num_values", [1000, 4])
@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_scipys_with_and_without_ties(num_values, seed):
    first, second = np.random.default_rng(seed).integers(0, num_values, (2, 12))
    assert (len(set(first)) < 12) == (num_values == 4)
    given = (first.tolist(), second.tolist())
    assert spearman_correlation(*given) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert kendall_correlation(*given) == pytest.approx(stats.kendalltau(first, second).statistic)
    assert ranks(given[0]).tolist() == stats.rankdata(first).tolist()


@pytest.mark.parametrize("lists", [([1.0], [2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0, 2.0], [1.0, 2.0, 3.0])])
def test_an_order_of_nothing_has_no_correlation(lists):
    for measure in (spearman_correlation, kendall_correlation, chance_of):
        with pytest.raises(ScoreError, match="expected two lists of the same length whose values are not all equal"):
            measure(*lists)


@pytest.mark.parametrize("second", [(0, 1, 2, 3, 4), (0, 2, 1, 4, 3), (1, 1, 2, 0, 3)])
def test_chance_is_the_share_of_all_orders(second):
    first = [0.1, 0.2, 0.3, 0.4, 0.5]
    rho = stats.spearmanr(first, second).statistic
    every = [stats.spearmanr(order, second).statistic for order in itertools.permutations(first)]
    exact = np.mean(np.array(every) >= rho - 1e-9)
    assert chance_of(first, [float(value) for value in second]) == pytest.approx(exact, abs=0.02)


def test_what_is_not_defined_is_left_out():
    """Two architectures that are equally good on the whole dataset, and in one of two seeds on the distilled one."""
    rows = [
        {"distilled_mean": mean, "whole_mean": 0.5, "distilled_values": values, "whole_values": [0.4, 0.6]}
        for mean, values in ((0.2, [0.3, 0.1]), (0.25, [0.3, 0.2]))
    ]
    found = correlations(rows)
    assert (found["spearman"], found["kendall"], found["chance"]) == (None, None, None)
    assert found["by_seed"] == {"spearman": [None, None], "kendall": [None, None]}


@pytest.mark.parametrize("name", SMALL_ARCHITECTURES)
def test_there_are_ten_small_architectures_or_more_for_small_images(name):
    assert len(set(SMALL_ARCHITECTURES)) >= 10
    for size in (16, 32):
        check_student(name, 10, size)


@pytest.fixture(scope="module")
def searched(finished, tmp_path_factory):
    """A folder in which one of the architectures had been trained on either side by commands of their own."""
    folder = tmp_path_factory.mktemp("search")
    copy_artifact(finished, folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        assert main(["cross-architecture", "run", "--students=[convnet3_narrow]", *ON_IT]) == 0
        assert main(["whole-dataset", "--source.name=digits", "--source.size=16", "--students=[convnet3_narrow]",
                     "--num_seeds=2", *ON_ALL]) == 0  # fmt: skip
        assert main([*WORDS]) == 0
    return folder


def values_of(folder: Path) -> dict:
    return json.loads((folder / f"{TABLE}.json").read_text())


def sides(folder: Path, student: str) -> tuple[Path, Path]:
    """The results of an architecture on the artifact and on everything."""
    name = student.replace("/", "_")
    distilled = folder / f"run/results/distilled-soft-fadrm-{name}.json"
    return distilled, folder / f"runs/whole-digits/whole-hard-squeeze-{name}.json"


def test_what_other_commands_have_measured_is_used_again(searched):
    for student in NAMES:
        first_words = [json.loads(path.read_text())["command"].split()[1] for path in sides(searched, student)]
        asked = ["cross-architecture", "whole-dataset"] if "convnet" in student else ["rank-architectures"] * 2
        assert first_words == asked


def test_the_table_is_of_the_results_on_file_and_its_correlations_are_scipys(searched):
    found = values_of(searched)
    assert [row["student"] for row in found["architectures"]] == NAMES
    results = [[json.loads(path.read_text()) for path in sides(searched, student)] for student in NAMES]
    means = np.array([[result["top1"]["mean"] for result in pair] for pair in results])
    with open(searched / f"{TABLE}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for column, side in enumerate(("distilled", "whole")):
        assert [float(row[f"{side}_mean"]) for row in rows] == pytest.approx(means[:, column].tolist())
        places = stats.rankdata(-means[:, column])
        assert [float(row[f"{side}_rank"]) for row in rows] == places.tolist()
    measures = {"spearman": stats.spearmanr, "kendall": stats.kendalltau}
    text = (searched / f"{TABLE}.md").read_text()
    for name, measure in measures.items():
        expected = measure(*means.T).statistic
        assert found["correlations"][name] == pytest.approx(expected) and f"| {expected:.3f} |" in text
        by_seed = [
            measure(*np.array([[result["top1"]["values"][seed] for result in pair] for pair in results]).T).statistic
            for seed in range(2)
        ]
        assert found["correlations"]["by_seed"][name] == pytest.approx(by_seed)
    assert f"]({TABLE}.png)" in text and "2 seeds" in text
    with Image.open(io.BytesIO((searched / f"{TABLE}.png").read_bytes())) as picture:
        assert picture.format == "PNG" and min(picture.size) > 300


def test_nothing_is_measured_twice(searched, monkeypatch):
    monkeypatch.chdir(searched)
    before = {path: path.stat().st_ino for student in NAMES for path in sides(searched, student)}
    rows = values_of(searched)["architectures"]
    assert main([*WORDS]) == 0
    assert {path: path.stat().st_ino for path in before} == before
    assert values_of(searched)["architectures"] == rows


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--architectures=[resnet18,wrn16_2]"], ["architectures must be at least 3", "--architectures"]),
        (["--architectures=[resnet18,wrn16_2,timm/resnet18]"], ["architectures must be a list without repetitions"]),
        (["--architectures=[resnet18,wrn16_2,resnet19]"], ["resnet19", "--architectures"]),
        (["--architectures=[resnet18,wrn16_2,torchvision/shufflenet_v2_x1_5]"], ["none of timm's", "--architectures"]),
        (["--student=resnet18"], ["--student names one student", "--architectures '[A,B,C]'"]),
        (["--squeeze.lr=0"], ["squeeze.lr must be positive"]),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(finished, place, capsys, words, expected):
    copy_artifact(finished, place)
    names_all(refused(capsys, place, "rank-architectures", "run", *words), *expected)
