"""The rows every artifact is compared with, from one command."""

import json

import pytest
from fixtures.runs import copy_artifact, copy_run, distill, files_of

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.cli import main
from fadrm_hf.evaluation.baselines import comparison_table
from fadrm_hf.report.card.results import ROWS


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory):
    artifact = copy_artifact(finished, tmp_path_factory.mktemp("compared"))
    assert main(["baselines", str(artifact)]) == 0
    return artifact


def results_of(artifact):
    results = [json.loads(path.read_text()) for path in (artifact / "results").glob("*.json")]
    return {(result["images"], result["labels"]): result for result in results}


def test_every_row_is_measured_under_the_artifacts_protocol(compared, finished):
    results = results_of(compared)
    assert set(results) == set(ROWS)
    for (images, _), result in results.items():
        assert result["student"] == "timm/resnet10_narrow" and result["num_seeds"] == 1
        assert result["num_images"] == (1297 if images == "whole" else 20) and result["num_test_images"] == 500
        assert result["command"] == "fadrm-hf baselines run"
    assert results["distilled", "soft"]["top1"] != results["random_real", "soft"]["top1"]


def test_random_images_get_labels_from_the_same_teacher(compared):
    random = compared.with_name("run.random_real")
    assert [t.sha256 for t in read_manifest(random).teachers] == [t.sha256 for t in read_manifest(compared).teachers]
    assert read_manifest(random).method == "random_real"
    assert main(["verify", str(random)]) == 0


def test_the_card_carries_every_row_and_the_artifact_is_sound(compared):
    card = (compared / "README.md").read_text()
    for kind, result in results_of(compared).items():
        row, more = [line for line in card.splitlines() if line.startswith(f"| {ROWS[kind]} |")]
        assert f"| {100 * result['top1']['mean']:.1f} |" in row and f"| {result['epochs']} | 1 |" in more
    assert main(["verify", str(compared)]) == 0


def test_the_table_is_printed_and_nothing_is_measured_twice(compared, capsys):
    before = files_of(compared)
    assert main(["baselines", str(compared)]) == 0
    assert files_of(compared) == before
    printed, told = capsys.readouterr()
    results = results_of(compared)
    (student,) = {result["student"] for result in results.values()}
    titles, _, top1, seeds, _ = (list(column.cells) for column in comparison_table(compared, student, "fadrm").columns)
    assert titles == list(ROWS.values())
    assert top1 == [f"{100 * results[kind]['top1']['mean']:.1f}" for kind in ROWS]
    assert seeds == ["1"] * len(ROWS)
    places = [printed.index(cell) for cell in top1]
    assert places == sorted(places) and f"{student}: accuracy of the last epoch" in printed
    assert "stages: teachers" in printed
    assert all(
        f" {compared / page}" in told.splitlines()[at] for at, page in ((-3, "README.md"), (-2, "gallery/index.html"))
    )


def test_datasets_whose_runs_lie_side_by_side_do_not_mix(finished, tmp_path):
    """Another recipe's network, trained on everything, is another training."""
    first = copy_run(finished, tmp_path)
    second = distill(tmp_path / "second", "--ipc=1", "--squeeze.epochs=1")
    for artifact in (first, second):
        assert main(["baselines", str(artifact), "--rows=[whole]"]) == 0
    top1 = [results_of(artifact)["whole", "hard"]["top1"] for artifact in (first, second)]
    assert top1[0] != top1[1]
    assert [results_of(artifact)["whole", "hard"]["epochs"] for artifact in (first, second)] == [2, 1]


def test_a_protocol_that_there_is_not_is_refused_before_anything_is_trained(finished, tmp_path, capsys):
    artifact = copy_artifact(finished, tmp_path)
    assert main(["baselines", str(artifact), "--protocol", "unaugmente"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "unknown protocol 'unaugmente'" in message and "'unaugmented'" in message
    assert not artifact.with_name("run.random_real").exists()
