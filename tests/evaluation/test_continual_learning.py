"""Classes in steps: DM's orders, views and labels of seen classes alone, accuracies of these, kills, refusals."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.mistakes import names_all, refused
from fixtures.runs import STUDENT, copy_artifact, files_of, run_and_die, work_of

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.artifact.recorded_teachers import load_recorded_teachers
from fadrm_hf.cli import main
from fadrm_hf.config import RelabelConfig, SourceConfig, StudentConfig
from fadrm_hf.config.datasets import resolve_source
from fadrm_hf.data.sources import load_source
from fadrm_hf.evaluation.continual_learning import classes_seen, of_classes
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.protocol import resolve_protocol

WORDS = ("--steps=3", "--orders=2", "--num_seeds=1", "--epochs=2")


def command(artifact: Path, *words: str) -> list[str]:
    return ["continual-learning", str(artifact), *WORDS, *words]


def table(artifact: Path, labels: str = "soft") -> Path:
    return artifact.parent / f"continual-run-fadrm-{labels}-timm_resnet10_narrow-3steps"


def steps_of(artifact: Path) -> list[dict]:
    return json.loads(Path(f"{table(artifact)}.json").read_text())["steps"]


@pytest.fixture(scope="module")
def learned(finished, tmp_path_factory):
    """The artifact after three steps in each of two orders."""
    artifact = copy_artifact(finished, tmp_path_factory.mktemp("learned"))
    assert main(command(artifact)) == 0
    return artifact


@pytest.mark.parametrize(("num_classes", "num_steps"), [(100, 10), (200, 5), (10, 4)])
def test_classes_arrive_in_the_orders_of_dm(num_classes, num_steps):
    for order in range(3):
        np.random.seed(order)
        expected = np.random.permutation(num_classes).tolist()
        seen = classes_seen(num_classes, num_steps, order)
        sizes = [len(classes) for classes in seen]
        assert all(set(classes) == set(expected[:size]) for classes, size in zip(seen, sizes, strict=True))
        assert all(list(classes) == sorted(classes) for classes in seen)
        arriving = np.diff([0, *sizes])
        assert sizes[-1] == num_classes and arriving.max() - arriving.min() <= 1


def test_views_and_labels_are_of_the_seen_classes_alone(finished):
    """By running statistics a teacher says the same of a view whatever it is shown with."""
    distilled, classes = load_distilled(finished), (1, 4, 7)
    views = RelabelConfig(batch_size=6, accumulation=1, batch_statistics=False, flip_probability=0.0)
    protocol = resolve_protocol(distilled, StudentConfig(student=STUDENT, epochs=2, relabel=views))
    part = of_classes(distilled, protocol, classes)
    (teacher,) = load_recorded_teachers(finished, read_manifest(finished), torch.device("cpu"))
    batches = list(part.batches(range(2)))
    assert len(batches) == 2
    for batch in batches:
        assert sorted(batch.labels.tolist()) == [0, 0, 1, 1, 2, 2]
        assert set(batch.mix_labels.tolist()) <= {0, 1, 2} and batch.mix_shares.max() > 0
        with torch.no_grad():
            expected = teacher.module(batch.images)[:, list(classes)]
        torch.testing.assert_close(batch.logits, expected, rtol=1e-4, atol=1e-4)
    originals = {
        image.numpy().tobytes() for image in distilled.images[torch.isin(distilled.labels, torch.tensor(classes))]
    }
    assert {image.numpy().tobytes() for image in part.images} == originals


def test_accuracies_are_shares_of_the_test_images_of_the_seen_classes(learned):
    source = load_source(resolve_source(SourceConfig(name="digits", size=16)))
    counts = np.bincount(source.labels("test"))
    for number, step in enumerate(steps_of(learned), start=1):
        assert (step["step"], step["num_classes"]) == (number, (4, 7, 10)[number - 1])
        assert len(step["top1"]["values"]) == 2
        for order, accuracy in enumerate(step["top1"]["values"]):
            correct = accuracy * counts[list(classes_seen(10, 3, order)[number - 1])].sum()
            assert correct == pytest.approx(round(correct), abs=1e-3) and 0 < accuracy <= 1


def test_the_table_has_mean_and_deviation_of_every_step(learned):
    steps, text = steps_of(learned), Path(f"{table(learned)}.md").read_text()
    with open(f"{table(learned)}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for step, row in zip(steps, rows, strict=True):
        values = step["top1"]["values"]
        mean, std = np.mean(values), np.std(values, ddof=1)
        assert (float(row["top1_mean"]), float(row["top1_std"])) == pytest.approx((mean, std), abs=1e-5)
        assert f"| {step['step']} | {step['num_classes']} | {100 * mean:.1f} ± {100 * std:.1f} |" in text
    by_order = np.mean([step["top1"]["values"] for step in steps], axis=0)
    assert f"| all | mean over steps | {100 * by_order.mean():.1f} ± {100 * by_order.std(ddof=1):.1f} |" in text
    assert "2 orders of the classes and 1 network for each" in " ".join(text.split())
    assert "teachers that label them know all classes" in text


def test_killed_it_goes_on_and_ends_like_an_undisturbed_one(learned, finished, tmp_path):
    artifact = copy_artifact(finished, tmp_path)
    assert run_and_die(command(artifact), "*/continual-*-training.safetensors", 3) == -9
    known = {path.name: path.stat().st_ino for path in work_of(artifact).glob("continual-????????????????.json")}
    assert len(known) == 2
    assert main(command(artifact)) == 0
    assert steps_of(artifact) == steps_of(learned)
    assert {name: (work_of(artifact) / name).stat().st_ino for name in known} == known, "not measured again"
    before = files_of(work_of(artifact))
    assert len(before) == 7 and not [name for name in before if name.endswith(".safetensors")], "log and accuracies"
    assert main(command(artifact)) == 0
    assert files_of(work_of(artifact)) == before


def test_hard_labels_need_no_teacher(finished, tmp_path, place, capsys):
    artifact = copy_artifact(finished, tmp_path)
    manifest = json.loads((artifact / "fadrm.json").read_text())
    for name in [name for name in manifest["files"] if name.startswith("teachers/")]:
        (artifact / name).unlink()
    assert main(command(artifact, "--labels=hard", "--orders=1", "--epochs=1")) == 0
    assert "know all classes" not in Path(f"{table(artifact, 'hard')}.md").read_text()
    assert main(command(artifact, "--orders=1", "--epochs=1")) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--steps=1"], ["steps must be from 2 to 10", "--steps"]),
        (["--steps=11"], ["steps must be from 2 to 10, the number of classes, got 11"]),
        (["--orders=0"], ["orders must be at least 1", "--orders"]),
        (["--student=timm/resnet19"], ["unknown student 'timm/resnet19'", "--student"]),
        (["--epochs=0"], ["epochs must be at least 1"]),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(finished, place, capsys, words, expected):
    copy_artifact(finished, place)
    names_all(refused(capsys, place, "continual-learning", "run", *words), *expected)
