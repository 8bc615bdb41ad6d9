"""Curves in a real tracker, read back from its files, against the run's log and results."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fixtures.runs import EPOCHS, RECIPE, copy_artifact, files_of, work_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fadrm_hf.cli import main
from fadrm_hf.networks.schedules import cosine

ITERATIONS = 8


def curves_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every curve that is not about speed."""
    events = EventAccumulator(str(folder), {"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.endswith("images/s")]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def logged(work: Path, stage: str, metric: str) -> list[tuple[int, float]]:
    """The same by the run's own log."""
    lines = map(json.loads, (work / "log.jsonl").read_text().splitlines())
    return [(line["units"], pytest.approx(line[metric], rel=1e-6)) for line in lines if line["stage"] == stage]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory) -> Path:
    """A run whose losses went to TensorBoard: two images of each digit, with a teacher of its own."""
    output = tmp_path_factory.mktemp("tracked") / "run"
    own = [
        "--method=fadrm",
        f"--method.iterations={ITERATIONS}",
        "--method.sizes=[12,16,12,16]",
        "--tracker=tensorboard",
    ]
    assert main(["distill", *RECIPE, *own, "--output", str(output)]) == 0
    return output


def test_teachers_and_recovery_are_followed(tracked):
    curves, work = curves_of(work_of(tracked) / "curves/run"), work_of(tracked)
    (teacher,) = tracked.with_name("teachers").glob("resnet10_narrow-*")
    assert curves[f"squeeze/{teacher.name}/loss"] == logged(work, "squeeze", "loss")
    assert [step for step, _ in curves[f"squeeze/{teacher.name}/lr"]] == [1, 2]
    for term in ("ce", "bn"):
        points = logged(work, "recover", term)
        assert curves[f"recover/{term}"] == points and len(points) > 3
    assert max(step for step, _ in curves["recover/ce"]) == 3 * ITERATIONS * 2  # shards of 4, 4 and 2 classes, twice


def test_the_artifact_does_not_depend_on_it(tracked, finished):
    assert not (work_of(finished) / "curves").exists(), "no tracker is on by itself"
    assert not any("events" in name for name in files_of(tracked))
    recipe = "recipe.yaml"
    assert (tracked / recipe).read_bytes() == (finished / recipe).read_bytes()


def test_each_seed_of_a_student_is_a_curve(tracked, tmp_path, capsys):
    artifact = copy_artifact(tracked, tmp_path)
    assert main(["train-student", str(artifact), "--num_seeds=2", "--lr=0.01", "--tracker=tensorboard", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    curves = curves_of(Path(document["paths"]["curves"]) / "run")
    settings = document["result"]["settings"]
    for seed, top1 in enumerate(document["result"]["top1"]["values"]):
        start = f"student soft/seed {seed}"
        assert [step for step, _ in curves[f"{start}/loss"]] == list(range(1, EPOCHS + 1))
        assert curves[f"{start}/top1"][-1] == (EPOCHS, pytest.approx(top1))
        rates = [cosine(0.01, epoch, settings["eta"] * EPOCHS) for epoch in range(EPOCHS)]
        assert [value for _, value in curves[f"{start}/lr"]] == pytest.approx(rates, rel=1e-5)


def in_trackio(place: Path) -> str:
    """What Trackio's file of our project holds of the run "run"."""
    with sqlite3.connect(place / "trackio/fadrm-hf.db") as database:
        rows = database.execute("select metrics from metrics where run_name = 'run' order by step").fetchall()
    return "\n".join(points.decode() for (points,) in rows)


def in_wandb(place: Path) -> str:
    """What W&B would send; its records are readable between bytes that are not."""
    (file,) = place.glob("wandb/offline-run-*/run-*.wandb")
    text = file.read_bytes().decode("latin-1")
    assert "fadrm-hf" in text and "\x03run" in text, "a project, and a name of three letters"
    return text


@pytest.mark.parametrize(("tracker", "recorded"), [("trackio", in_trackio), ("wandb", in_wandb)])
def test_runs_share_a_project_by_their_own_names_and_results_stay_alone(finished, place, tracker, recorded):
    """The real trackers, which talk to people as they start, as they finish, and as Python ends."""
    if find_spec(tracker) is None:
        pytest.skip(f"needs the package {tracker}: pip install {tracker}")
    shutil.copytree(finished, place / "run")
    command = [sys.executable, "-m", "fadrm_hf.cli", "train-student", "run", "--num_seeds=1", f"--tracker={tracker}"]
    offline = os.environ | {"WANDB_MODE": "offline", "TRACKIO_DIR": str(place / "trackio")}
    ended = subprocess.run([*command, "--json"], cwd=place, env=offline, capture_output=True, text=True, check=True)
    document = json.loads(ended.stdout)
    assert document["paths"]["curves"] == f"{tracker}, project fadrm-hf, run run"
    points = recorded(place)
    assert points.count("student soft/seed 0/loss") >= EPOCHS
    assert str(document["result"]["top1"]["values"][0]) in points
    ended = subprocess.run([*command, "--quiet"], cwd=place, env=offline, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")


@pytest.mark.parametrize(
    ("tracker", "expected"),
    [
        ("comet_ml", ["--tracker comet_ml", "not installed", "pip install comet_ml", "tensorboard"]),
        ("tensorbord", ["'tensorbord'", "did you mean 'tensorboard'", "--tracker"]),
    ],
)
@pytest.mark.parametrize("command", ["distill", "train-student"])
def test_a_tracker_that_there_is_not_is_refused_before_anything_is_done(
    finished, place, capsys, command, tracker, expected
):
    shutil.copytree(finished, place / "run")
    before = files_of(place)
    words = ["run"] if command == "train-student" else [*RECIPE, "--output=other"]
    assert main([command, *words, "--tracker", tracker]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert [word for word in expected if word not in message] == []
    assert files_of(place) == before


def test_a_tracker_that_cannot_write_is_refused_before_anything_is_trained(finished, place, capsys):
    shutil.copytree(finished, place / "run")
    (place / "run.work").mkdir()
    (place / "run.work/curves").write_text("a file")
    before = files_of(place)
    assert main(["train-student", "run", "--tracker=tensorboard"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "--tracker tensorboard does not start (FileExistsError" in message and "run.work/curves" in message
    assert files_of(place) == before
