"""Evaluations on file: what they are called, what is said of them, what they change in an artifact."""

import json
from dataclasses import asdict

import pytest
from fixtures.runs import copy_artifact, files_of

from fadrm_hf.artifact.location import LocalFolder
from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.config import StudentConfig
from fadrm_hf.evaluation.results import describe_result, find_result, record_result, result_folder, result_name
from fadrm_hf.publishing.verify import verify_artifact
from fadrm_hf.runtime.files import write_json


def summary(mean, std=0.0):
    return {"mean": mean, "std": std, "values": [mean]}


@pytest.fixture
def result():
    return {
        "protocol": "fadrm", "student": "timm/resnet18", "images": "distilled", "labels": "soft", "epochs": 300,
        "top1": summary(0.123), "top5": summary(0.456), "best_epoch_top1": summary(0.2), "num_seeds": 1,
        "seconds": 3.0, "num_images": 20, "num_test_images": 500, "machine": {}, "command": "fadrm-hf train-student",
        "versions": {}, "settings": {},
    }  # fmt: skip


@pytest.mark.parametrize("key", ["images", "labels", "protocol", "student"])
def test_results_of_another_kind_have_another_name(result, key):
    assert result_name(result) == "distilled-soft-fadrm-timm_resnet18"
    assert result_name(result | {key: "other"}) != result_name(result)


def test_a_result_in_one_line(result):
    assert describe_result(result) == (
        "timm/resnet18, soft labels, 300 epochs: top-1 12.3%, top-5 45.6% (last epoch, 1 seed); "
        "best epoch, chosen on the test images: 20.0%"
    )
    several = result | {"num_seeds": 3, "top1": summary(0.123, 0.004), "best_epoch_top1": None}
    assert describe_result(several).endswith("top-1 12.3% ± 0.4%, top-5 45.6% ± 0.0% (last epoch, 3 seeds)")


def test_a_result_is_filed_and_replaced_and_nothing_else_changes(finished, tmp_path, result):
    artifact = copy_artifact(finished, tmp_path)
    before = files_of(artifact)
    path = record_result(artifact, result)
    assert json.loads(path.read_text()) == result
    after = files_of(artifact)
    assert {name for name in before if after[name] != before[name]} == {"README.md", "fadrm.json", "gallery/data.js"}
    assert set(after) - set(before) == {"results/distilled-soft-fadrm-timm_resnet18.json", "assets/accuracy.png"}
    assert verify_artifact(artifact, 0) == []
    assert record_result(artifact, result | {"top1": summary(0.777)}) == path
    assert (
        "| 77.7 |" in (artifact / "README.md").read_text() and "| 12.3 |" not in (artifact / "README.md").read_text()
    )
    assert read_manifest(artifact).config == read_manifest(finished).config
    assert verify_artifact(artifact, 0) == []


def test_a_trial_does_not_take_the_place_of_the_number(finished, tmp_path, result):
    """By the artifact's settings, or with more seeds, it is measured again; by others it is filed beside it."""
    place = result_folder(LocalFolder(copy_artifact(finished, tmp_path)))
    own = asdict(place.location.manifest.settings("student", StudentConfig))
    first, *others = (
        result | {"settings": own | changed, "top1": summary(top1)}
        for changed, top1 in (
            ({"epochs": 1}, 0.1), ({}, 0.2), ({"labels": "hard"}, 0.3), ({"num_seeds": 5}, 0.4),
            ({"epochs": 1}, 0.5), ({"lr": 0.5}, 0.6), ({"num_seeds": own["num_seeds"] - 1}, 0.7),
        )
    )  # fmt: skip
    number = place.add(first)
    for better in others[:3]:
        assert place.add(better) == number and json.loads(number.read_text())["top1"] == better["top1"]
    aside = [place.add(trial) for trial in others[3:]]
    assert json.loads(number.read_text())["top1"] == others[2]["top1"]
    assert len(set(aside)) == 3 and {path.parent for path in aside} == {place.work.path / "results"}
    assert [json.loads(path.read_text())["top1"] for path in aside] == [trial["top1"] for trial in others[3:]]
    assert "| 40.0 |" in (place.folder / "README.md").read_text() and verify_artifact(place.folder, 0) == []
    known = {name: others[3][name] for name in ("protocol", "student", "images", "labels", "epochs", "settings")}
    assert place.find(known) == aside[0]


def test_a_result_is_found_by_what_is_known_before_it_is_measured(result, tmp_path):
    """Settings that are younger than a result had their defaults then; the number of workers decides nothing."""
    on_file = result | {"settings": {"student": "timm/resnet18", "lr": 0.5, "num_workers": 4}}
    write_json(tmp_path / "results/one.json", on_file)
    names = ("protocol", "student", "images", "labels", "epochs", "num_images")
    known = {name: result[name] for name in names} | {"settings": {"lr": 0.5, "precision": "fp32"}}
    assert find_result(tmp_path, known) == tmp_path / "results/one.json"
    for other in (
        {"epochs": 3},
        {"settings": {"lr": 0.4}},
        {"label_codec": "none"},
        {"settings": {"lr": 0.5, "ema": 0.9}},
    ):
        assert find_result(tmp_path, known | other) is None
    write_json(tmp_path / "results/one.json", on_file | {"contributed": True})
    assert find_result(tmp_path, known) is None
    assert find_result(tmp_path / "nowhere", known) is None
