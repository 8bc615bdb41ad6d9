"""The number of an artifact, measured again: the same here, within sigma elsewhere, refused if a byte was changed."""

import json
import math
import uuid
from pathlib import Path

import numpy as np
import pytest
from fixtures.runs import EPOCHS, IMAGES, LABELS, STUDENT, copy_artifact, files_of, run_and_die

from fadrm_hf.artifact.location import LocalFolder
from fadrm_hf.artifact.manifest import refresh_files
from fadrm_hf.cli import main
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.results import record_result
from fadrm_hf.publishing.reproduce import Reproduction, choose_result, other_machine, parse_tolerance, pooled_sigma
from fadrm_hf.runtime.files import write_json

pytestmark = pytest.mark.numerical

RESULT = "distilled-soft-fadrm-timm_resnet10_narrow.json"
FILE = f"results/{RESULT}"


@pytest.fixture(scope="module")
def measured(finished, tmp_path_factory):
    """The run with its result: two seeds."""
    artifact = copy_artifact(finished, tmp_path_factory.mktemp("measured"))
    assert main(["train-student", str(artifact), "--num_seeds=2"]) == 0
    return artifact


@pytest.fixture
def run(measured, place):
    """The run in the folder of work, to be changed."""
    return copy_artifact(measured, place)


@pytest.fixture
def published(hub, measured):
    """The run on the Hub, under a name that no cache knows; and its commit."""
    name = f"alice/digits-{uuid.uuid4().hex[:12]}"
    return name, hub.put(name, files_of(measured))


def stored(artifact):
    return json.loads((artifact / FILE).read_text())


def with_top1(result, shift, **changes):
    """The same result with another accuracy, which agrees with itself."""
    values = [round(value + shift, 6) for value in result["top1"]["values"]]
    return result | {"top1": result["top1"] | {"mean": float(np.mean(values)), "values": values}} | changes


def shown(capsys):
    captured = capsys.readouterr()
    return captured.out, " ".join(captured.err.split())


# From end to end


def test_from_the_hub_alone_the_same_machine_gives_the_same_number(hub, published, measured, place, capsys):
    name, commit = published
    assert main(["reproduce", name]) == 0
    out, _ = shown(capsys)
    mean, std = (stored(measured)["top1"][key] for key in ("mean", "std"))
    assert f"{name}@{commit}: {FILE}" in out
    assert f"expected: top-1 {mean:.2%} ± {std:.2%} (2 seeds)\nobtained: top-1 {mean:.2%} ± {std:.2%} (2 seeds)" in out
    assert "sigma is what one student's accuracy varies by" in out and "what 500 test images leave uncertain" in out
    assert "difference: +0.00 points = +0.00 sigma" in out and "tolerance 2 sigma\nreproduced\n" in out
    obtained = json.loads((place / "runs" / name.replace("/", "--") / FILE).read_text())
    assert obtained["reproduction"]["difference"] == 0.0 and obtained["reproduction"]["reproduced"] is True
    assert (obtained["reproduction"]["of"], obtained["reproduction"]["tolerance"]) == (FILE, "2 sigma")
    assert obtained["top1"] == stored(measured)["top1"] and obtained["settings"] == stored(measured)["settings"]
    assert obtained["artifact"] == {"repository": name, "revision": commit}
    assert obtained["command"] == f"fadrm-hf reproduce {name}"


def test_an_artifact_in_a_folder_keeps_its_own_result(run, place, capsys):
    before = files_of(run)
    assert main(["reproduce", "run", "--num_seeds=1"]) == 0
    assert files_of(run) == before
    obtained = json.loads((place / "run.reproduced" / FILE).read_text())
    assert obtained["num_seeds"] == 1 and obtained["top1"]["values"] == stored(run)["top1"]["values"][:1]
    assert "obtained: top-1" in shown(capsys)[0]
    assert main(["reproduce", "run", f"--output={run}"]) == 2
    assert "would be replaced" in shown(capsys)[1]


@pytest.mark.parametrize(
    ("tolerance", "code"), [("2sigma", 1), ("{below:.3f}points", 1), ("{above:.3f}points", 0), ("99 sigma", 0)]
)
def test_what_is_beyond_the_tolerance_fails(run, place, capsys, tolerance, code):
    first, second = stored(run)["top1"]["values"]
    difference = first - (first + second) / 2 - 0.1  # what the first seed alone is away from both and a tenth
    points = 100 * abs(difference)
    tolerance = tolerance.format(below=points - 0.5, above=points + 0.5)
    record_result(run, with_top1(stored(run), 0.1))
    assert main(["reproduce", "run", "--num_seeds=1", f"--tolerance={tolerance}", "--result", FILE]) == code
    out, _ = shown(capsys)
    assert ("\nreproduced\n" in out, "\nnot reproduced: " in out) == (code == 0, code == 1)
    verdict = json.loads((place / "run.reproduced" / FILE).read_text())["reproduction"]
    assert verdict["reproduced"] is (code == 0) and verdict["difference"] == pytest.approx(difference)


def test_a_reproduction_that_was_interrupted_goes_on(run, place):
    assert run_and_die(["reproduce", "run"], "*soft-seed1.safetensors", 2) == -9
    assert main(["reproduce", "run"]) == 0
    log = [json.loads(line) for line in (place / "run.reproduced.work/log.jsonl").read_text().splitlines()]
    assert sum("loss" in line for line in log) < 4 * EPOCHS, "what was done is not done again"
    assert json.loads((place / "run.reproduced" / FILE).read_text())["reproduction"]["difference"] == 0.0


def test_a_result_of_labels_made_on_the_fly_is_reproduced_by_the_teachers(run, place):
    assert main(["train-student", "run", "--num_seeds=1", "--epochs=1", "--online", "--name=online"]) == 0
    assert main(["reproduce", "run", "--result=distilled-soft-online-timm_resnet10_narrow"]) == 0
    (path,) = (place / "run.reproduced/results").glob("*.json")
    obtained = json.loads(path.read_text())
    assert obtained["label_codec"] == "none" and obtained["reproduction"]["difference"] == 0.0


def test_a_result_of_another_protocol_is_reproduced_by_its_settings(run, place):
    protocol = Path(__file__).parent.parent.parent / "recipes/configs/protocols/hald.yaml"
    assert main(["train-student", "run", "--config", str(protocol), "--student", STUDENT, "--num_seeds=1"]) == 0
    result = json.loads((run / "results/distilled-soft-hald-timm_resnet10_narrow.json").read_text())
    assert (result["settings"]["hard_phase"], result["settings"]["label_smoothing"]) == ([0.25, 0.75], 0.8)
    assert main(["reproduce", "run", "--result=distilled-soft-hald-timm_resnet10_narrow"]) == 0
    (path,) = (place / "run.reproduced/results").glob("*.json")
    assert json.loads(path.read_text())["reproduction"]["difference"] == 0.0


# Nothing is trained on what was changed


def is_refused(capsys, place, *arguments):
    """What is said of a call that must end before anything is written."""
    before = files_of(place)
    assert main(["reproduce", *arguments]) == 2
    out, err = shown(capsys)
    assert files_of(place) == before and "student" not in out
    return err


@pytest.mark.parametrize("file", [IMAGES, LABELS, FILE])
def test_a_changed_byte_on_the_hub_is_refused_before_training(hub, published, place, capsys, file):
    name, _ = published
    size = len(hub.files(name)[file])
    hub.corrupt(name, file, size // 2)
    said = is_refused(capsys, place, name)
    assert file in said and "SHA-256" in said and "nothing was trained" in said


def test_a_changed_manifest_is_refused(run, place, capsys):
    text = (run / "fadrm.json").read_text()
    (run / "fadrm.json").write_text(text.replace('"method": "fadrm"', '"method": "fadrn"', 1))
    assert "fadrm.json is not as it was written" in is_refused(capsys, place, "run")


@pytest.mark.parametrize("tolerance", ["2", "sigma", "2 percent", "-1sigma", "1e3points", ""])
def test_a_tolerance_that_is_none_is_named(run, place, capsys, tolerance):
    said = is_refused(capsys, place, "run", f"--tolerance={tolerance}")
    assert "tolerance must be like '2sigma' or '1.5points'" in said and repr(tolerance) in said


def test_too_few_seeds_are_refused(run, place, capsys):
    assert "num_seeds must be at least 1" in is_refused(capsys, place, "run", "--num_seeds=0")


def test_another_number_of_test_images_is_refused(run, place, capsys):
    record_result(run, stored(run) | {"num_test_images": 499})
    said = is_refused(capsys, place, "run")
    assert "499 test images" in said and "digits has 500" in said and "--source.name" in said


def test_settings_of_a_newer_version_are_refused(run, place, capsys):
    result = stored(run)
    record_result(run, result | {"settings": result["settings"] | {"warmup": 5}})
    said = is_refused(capsys, place, "run")
    assert "warmup" in said and "pip install -U" in said


# Which result


def test_without_a_fitting_result_those_there_are_are_named(run, finished, place, capsys):
    said = is_refused(capsys, place, "run", "--student=timm/resnet18")
    assert "no results" in said and "timm/resnet18" in said and FILE in said and "--result" in said
    assert "its results are: none" in is_refused(capsys, place, str(finished))
    said = is_refused(capsys, place, "run", "--result=distilled-soft-fadrm-timm_resnet18")
    assert "unknown result" in said and FILE in said


def file_result(run, name, **changes):
    """Put a result there under a name of its own."""
    write_json(run / "results" / name, stored(run) | changes)
    refresh_files(run)


def test_the_artifacts_own_protocol_and_its_authors_result_come_first(run):
    settings = stored(run)["settings"] | {"name": "hald"}
    file_result(run, "distilled-soft-hald-timm_resnet10_narrow.json", protocol="hald", settings=settings)
    file_result(run, "distilled-soft-fadrm-timm_resnet10_narrow-0123abcd.json", contributed=True)
    file_result(run, "whole-hard-fadrm-timm_resnet10_narrow.json", images="whole", labels="hard")
    assert choose_result(LocalFolder(run))[0] == FILE
    assert choose_result(LocalFolder(run), name="distilled-soft-hald-timm_resnet10_narrow")[1]["protocol"] == "hald"
    with pytest.raises(ConfigError, match="whole images, which are not in this artifact"):
        choose_result(LocalFolder(run), name="results/whole-hard-fadrm-timm_resnet10_narrow.json")


def test_a_result_of_labels_that_are_stored_in_another_way_is_not_this_artifacts(run):
    record_result(run, stored(run) | {"label_codec": "int4"})
    with pytest.raises(ConfigError, match="no results"):
        choose_result(LocalFolder(run))
    with pytest.raises(ConfigError, match="stored as int4, this artifact has them as float16"):
        choose_result(LocalFolder(run), name=FILE)
    record_result(run, {key: value for key, value in stored(run).items() if key != "label_codec"})
    assert choose_result(LocalFolder(run))[0] == FILE, "a result of an older version does not say"


# What is compared


def top1(values, num_test_images=1000):
    return {"top1": {"values": values}, "num_test_images": num_test_images}


@pytest.mark.parametrize(
    "samples", [([0.5, 0.7, 0.6], [0.4, 0.55]), ([0.1, 0.9], [0.2]), ([0.3, 0.4], [0.9, 0.1, 0.2])]
)
def test_sigma_is_the_scatter_about_both_means(samples):
    variances, freedom = [np.var(s, ddof=1) if len(s) > 1 else 0.0 for s in samples], [len(s) - 1 for s in samples]
    expected = math.sqrt(sum(f * v for f, v in zip(freedom, variances, strict=True)) / sum(freedom))
    assert pooled_sigma(*samples, 10**9) == pytest.approx(expected, rel=1e-9)


def test_sigma_is_never_less_than_the_test_set_allows():
    assert pooled_sigma([0.5], [0.5], 10_000) == pytest.approx(0.005)
    assert pooled_sigma([0.2, 0.2], [0.2], 400) == pytest.approx(math.sqrt(0.2 * 0.8 / 400))
    assert pooled_sigma([0.0], [0.0], 100) == 0.0
    assert Reproduction(top1([0.0]), top1([0.0]), parse_tolerance("0sigma")).holds


@pytest.mark.parametrize(
    ("difference", "tolerance", "holds"),
    [(0.0299, "3sigma", True), (0.0301, "3sigma", False), (-0.0299, "3sigma", True), (-0.0301, "3sigma", False),
     (0.0301, "3.1 points", True), (0.0301, "3points", False), (0.0, "0points", True), (-0.001, "0points", False)],
)  # fmt: skip
def test_the_tolerance_counts_in_both_directions(difference, tolerance, holds):
    expected, obtained = top1([0.49, 0.51, 0.50]), top1([value + difference for value in (0.49, 0.51, 0.50)], 10**9)
    comparison = Reproduction(expected, obtained, parse_tolerance(tolerance))
    assert comparison.sigma == pytest.approx(0.01)
    assert comparison.holds is holds and comparison.verdict()["reproduced"] is holds


def test_another_machine_is_named():
    there = {"machine": {"cpu": "A", "gpu": "H200"}, "versions": {"torch": "2.6.0", "timm": "1.0.15"}}
    here = {
        "machine": {"cpu": "A", "gpu": None, "capability": "AVX2"},
        "versions": {"torch": "2.7.0", "timm": "1.0.15"},
    }
    assert other_machine(there, here) == [
        "gpu H200 there, none here",
        "capability not recorded there, AVX2 here",
        "torch 2.6.0 there, 2.7.0 here",
    ]
    assert other_machine(there, there) == []
