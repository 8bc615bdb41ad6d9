"""Every protocol on file on real artifacts: what it resolves to, what it does, and what it refuses."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from fixtures.runs import EPOCHS, STUDENT, copy_artifact, copy_run, distill
from fixtures.tables import rehash

from fadrm_hf.artifact.manifest import parse_settings, read_manifest
from fadrm_hf.cli import main
from fadrm_hf.config import RelabelConfig, StudentConfig
from fadrm_hf.config.protocols import protocol_section
from fadrm_hf.errors import ConfigError, StudentError
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.publishing.received_results import read_evaluation
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.protocol import (
    apply_protocol,
    check_protocol,
    create_optimiser,
    parameter_groups,
    protocol_warnings,
    resolve_protocol,
    soft_loss,
)

FILES = sorted((Path(__file__).parent.parent.parent / "recipes/configs/protocols").glob("*.yaml"))


def on_file(name, **changes):
    (path,) = (path for path in FILES if path.stem == name)
    return parse_settings(yaml.safe_load(path.read_text()) | {"student": STUDENT} | changes, StudentConfig, name)


def resolved(artifact, name, **changes):
    distilled = load_distilled(artifact)
    config = resolve_protocol(distilled, on_file(name, **changes))
    return config, apply_protocol(config, distilled)


def test_the_protocol_of_the_paper_is_the_default():
    assert on_file("fadrm", student="timm/resnet18") == StudentConfig()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_protocol_trains_on_any_artifact(finished, tmp_path, path):
    artifact = copy_artifact(finished, tmp_path)
    options = ["--student", STUDENT, "--num_seeds=1", "--epochs=2"]
    assert main(["train-student", str(artifact), "--config", str(path), *options]) == 0
    (file,) = (artifact / "results").glob(f"*-{path.stem}-*.json")
    result = read_evaluation(file)
    settings = result["settings"]
    open_ones = {name for name, value in settings.items() if value is None}
    assert open_ones <= {"ema", "batch_size", "accumulation", "relabel", "hard_phase"}
    assert (result["protocol"], result["epochs"]) == (path.stem, 2)
    assert settings == json.loads(json.dumps(asdict(parse_settings(settings, StudentConfig, "settings"))))
    if path.stem in ("rded", "rd3"):
        assert result["label_codec"] == "none" and settings["relabel"]["num_teachers"] == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_the_protocols_name_stands_for(path):
    values = parse_settings(yaml.safe_load(path.read_text()), StudentConfig, path.stem)
    assert values == StudentConfig(**protocol_section(path.stem))


def test_a_method_brings_its_protocol_and_another_name_wins():
    own = parse_run(["--method=edc", "--source.name=cifar10"]).student
    assert (own.name, own.loss, own.ema, own.ce_weight, own.schedule) == ("edc", "mse", 0.99, 0.025, None)
    other = parse_run(["--method=edc", "--source.name=cifar10", "--student.name=fadrm"]).student
    assert replace(other, student="timm/resnet18") == StudentConfig()
    one_value = parse_run(["--method=edc", "--source.name=cifar10", "--student.ema=0.9"]).student
    assert one_value == replace(own, ema=0.9)


def test_without_a_name_students_are_trained_by_the_artifacts_own_protocol(finished, tmp_path):
    artifact = copy_artifact(finished, tmp_path)
    manifest = json.loads((artifact / "fadrm.json").read_text())
    manifest["config"]["student"] |= {"name": "edc", "loss": "mse", "ce_weight": 0.025, "ema": 0.9}
    (artifact / "fadrm.json").write_text(json.dumps(manifest))
    rehash(artifact)
    seen = {}
    for name, words in {"edc": [], "hard": ["--name=hard"], "fadrm": ["--name=fadrm", "--epochs=1"]}.items():
        assert main(["train-student", str(artifact), "--num_seeds=1", "--epochs=2", *words]) == 0
        (file,) = (artifact / "results").glob(f"*-{name}-*.json")
        seen[name] = read_evaluation(file)["settings"]
    assert (seen["edc"]["loss"], seen["edc"]["ema"], seen["edc"]["ce_weight"]) == ("mse", 0.9, 0.025)
    assert (seen["hard"]["labels"], seen["hard"]["loss"], seen["hard"]["ema"]) == ("hard", "kl", None)
    assert (seen["fadrm"]["loss"], seen["fadrm"]["epochs"], seen["fadrm"]["student"]) == ("kl", 1, STUDENT)


def test_views_of_its_own_that_are_stored_already_are_not_labelled_again(finished, finished_random_real, tmp_path):
    """RDED's artifact holds labels of RDED's views: its protocol reads them; of other views it makes its own."""
    stored = tmp_path / "run"
    options = ["--relabel.batch_statistics=false", "--relabel.crop_area=[1,1]", "--relabel.batch_size=10"]
    distill(stored, "--method=random_real", *options)
    config, shown = resolved(stored, "rded", epochs=EPOCHS)
    assert config.relabel is None and not shown.redraws and shown.relabel.batch_size == 10
    for changes in ({"epochs": EPOCHS + 1}, {}):  # more epochs than are stored
        assert resolved(stored, "rded", **changes)[0].relabel is not None
    assert resolved(finished_random_real, "rded", epochs=EPOCHS)[0].relabel is not None, "batch statistics"


def test_a_run_may_leave_its_labels_to_its_readers():
    for words in (["--labels", "online"], ["--labels=online"]):
        assert parse_run([*words, "--source.name=digits"]).relabel.codec == "none"


def test_labels_online_is_another_spelling(finished, tmp_path):
    artifact = copy_artifact(finished, tmp_path)
    command = ["train-student", str(artifact), "--student", STUDENT, "--num_seeds=1", "--epochs=1"]
    for words in (["--labels", "online"], ["--labels=online"]):
        assert main([*command, *words]) == 0
        (file,) = (artifact / "results").glob("*.json")
        result = json.loads(file.read_text())
        assert (result["labels"], result["label_codec"]) == ("soft", "none")
        file.unlink()


def test_views_of_its_own_survive_a_manifest():
    config = StudentConfig(name="mine", relabel=RelabelConfig(epochs=3, crop_area=(0.5, 1.0), shuffle_tiles=2))
    plain = json.loads(json.dumps(asdict(config)))
    assert parse_settings(plain, StudentConfig, "student") == config
    newer = plain | {"relabel": plain["relabel"] | {"of_a_newer_version": 1}}
    assert parse_settings(newer, StudentConfig, "student") == config


def test_the_views_of_rd3_follow_the_student_and_the_images(finished, tmp_path):
    config, shown = resolved(finished, "rd3")
    assert config.relabel == shown.relabel and shown.redraws
    expected = {"epochs": 400, "batch_size": 50, "accumulation": 1, "shuffle_tiles": 1, "flip_probability": 0.0}
    assert {name: getattr(config.relabel, name) for name in expected} == expected
    artifact, recipe = copy_artifact(finished, tmp_path), read_manifest(finished).config
    mosaics = rehash(artifact, config=recipe | {"patches": recipe["patches"] | {"grid": 2}})
    assert resolved(mosaics, "rd3")[0].relabel == replace(config.relabel, shuffle_tiles=2)
    assert resolved(rehash(mosaics, method="random_real"), "rd3")[0].relabel == config.relabel


def test_what_is_open_comes_from_the_own_protocol_only_among_protocols_of_one_table(finished, tmp_path):
    recipe = read_manifest(finished).config
    own = rehash(copy_artifact(finished, tmp_path), config=recipe | {"student": recipe["student"] | {"lr": 0.123}})
    assert resolved(own, "fadrm")[0].lr == resolved(own, "hald")[0].lr == 0.123
    assert resolved(own, "edc")[0].lr == resolved(own, "cv_dd")[0].lr == 1e-3
    assert resolved(own, "fadrm", student="timm/resnet18")[0].lr == 1e-3
    assert resolved(own, "edc", lr=0.5)[0].lr == 0.5


def test_the_squared_error_and_the_cross_entropy_by_hand():
    """Two views of three classes: squares are averaged over all six logits, logarithms over the two views."""
    student = torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 0.0]])
    teacher = torch.tensor([[0.0, 0.0, 4.0], [3.0, 0.0, 0.0]])
    labels = torch.tensor([2, 0])
    squares = (1 + 0 + 4 + 9 + 1 + 0) / 6
    logarithms = (math.log(math.e + 1 + math.e**2) - 2 + math.log(2 + 1 / math.e)) / 2
    found = soft_loss(StudentConfig(loss="mse", ce_weight=0.025), student, teacher, labels)
    assert found.item() == pytest.approx(squares + 0.025 * logarithms, rel=1e-6)
    assert soft_loss(StudentConfig(loss="mse"), student, teacher, labels).item() == pytest.approx(squares, rel=1e-6)


def test_the_loss_of_gift_and_its_gradient_by_hand():
    """With t = z/|z| + 0.1 y/|y|, y = 0.9 at the class and 0.1/(C-1) elsewhere: 1 - s.t/(|s||t|), mean over views."""
    student, teacher = (torch.randn((6, 5), generator=generator(seed, "gift"), dtype=torch.float64) for seed in (0, 1))
    labels = torch.tensor([0, 1, 2, 3, 4, 1])
    expected, gradient = 0.0, torch.zeros_like(student)
    for i, (s, z, label) in enumerate(zip(student, teacher, labels.tolist(), strict=True)):
        y = torch.tensor([0.9 if c == label else 0.025 for c in range(5)], dtype=torch.float64)
        t = z / (z @ z).sqrt() + 0.1 * y / (y @ y).sqrt()
        size, goal = (s @ s).sqrt(), (t @ t).sqrt()
        cosine = (s @ t) / (size * goal)
        expected += (1 - cosine.item()) / 6
        gradient[i] = -(t / (size * goal) - cosine * s / size**2) / 6
    student.requires_grad_()
    found = soft_loss(StudentConfig(loss="gift"), student, teacher, labels)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(found, student)[0], gradient, rtol=1e-10, atol=1e-13)
    louder = soft_loss(StudentConfig(loss="gift"), 3.0 * student, 7.0 * teacher, labels)
    assert louder.item() == pytest.approx(expected, rel=1e-12), "only directions count"


def test_the_square_of_the_temperature_scales_the_divergence():
    student, teacher = (torch.randn((5, 4), generator=generator(seed, "test"), dtype=torch.float64) for seed in (0, 1))
    labels = torch.zeros(5, dtype=torch.int64)
    config = StudentConfig(temperature=30.0)
    p, q = ((logits / 30).softmax(1) for logits in (teacher, student))
    expected = (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(soft_loss(config, student, teacher, labels), expected)
    scaled = soft_loss(replace(config, scale_by_temperature=True), student, teacher, labels)
    torch.testing.assert_close(scaled, 900 * expected)


def test_sgd_with_momentum_and_decay_by_hand():
    student = torch.nn.Linear(1, 1)
    with torch.no_grad():
        student.weight.fill_(2.0), student.bias.fill_(3.0)
    config = StudentConfig(optimiser="sgd", lr=0.1, momentum=0.875, weight_decay=0.5)
    optimiser, weight, bias, velocity = create_optimiser(config, student), 2.0, 3.0, [0.0, 0.0]
    for _ in range(3):
        optimiser.zero_grad()
        student(torch.ones(1, 1)).sum().backward()
        optimiser.step()
        velocity = [0.875 * velocity[0] + 1 + 0.5 * weight, 0.875 * velocity[1] + 1]
        weight, bias = weight - 0.1 * velocity[0], bias - 0.1 * velocity[1]
    assert (student.weight.item(), student.bias.item()) == pytest.approx((weight, bias), rel=1e-6)
    assert [group["weight_decay"] for group in parameter_groups(student, 0.5, True)] == [0.5, 0.5]


def test_a_loss_over_all_logits_is_refused_where_some_are_stored(finished, tmp_path):
    run = copy_run(finished, tmp_path)
    recode(run, tmp_path / "top", "top3", None)
    config, shown = resolved(tmp_path / "top", "edc", epochs=2)
    with pytest.raises(StudentError, match=r"'edc' compares all logits.*stores its labels as top3.*--online"):
        check_protocol(config, shown)
    with pytest.raises(StudentError, match=r"student\.loss is 'gift'"):
        check_protocol(replace(config, loss="gift"), shown)
    check_protocol(config, replace(shown, online=True))
    check_protocol(replace(config, labels="hard"), shown)
    check_protocol(*resolved(tmp_path / "top", "fadrm"))


@pytest.mark.parametrize(
    ("name", "wish"), [("rd3", "draws its own views"), ("fadrm", "needs labels made during training")]
)
def test_labels_on_the_fly_need_teachers(finished, tmp_path, name, wish):
    nobody = rehash(copy_artifact(finished, tmp_path), teachers=())
    config, shown = resolved(nobody, name)
    with pytest.raises(StudentError, match=f"{wish}.*names no teachers to label them.*fadrm.yaml"):
        check_protocol(config, replace(shown, online=True))


def test_a_committee_larger_than_the_pool_is_refused(finished):
    views = RelabelConfig(num_teachers=2, flip_probability=0.0)
    config, shown = resolved(finished, "fadrm", relabel=asdict(views))
    with pytest.raises(ConfigError, match=r"num_teachers is 2, expected at most 1"):
        check_protocol(config, shown)


def test_labels_that_no_longer_fit_their_batches_are_spoken_of(finished):
    """They were made in micro-batches of 6 of 12 views."""
    (line,) = protocol_warnings(*resolved(finished, "edc"))
    assert "statistics of 6 views at a time" in line and "'edc' shows them in batches of 25" in line
    assert list(protocol_warnings(*resolved(finished, "fadrm"))) == []
    assert list(protocol_warnings(*resolved(finished, "rd3"))) == []
    assert list(protocol_warnings(*resolved(finished, "edc", labels="hard"))) == []
    config, shown = resolved(finished, "edc")
    assert list(protocol_warnings(config, replace(shown, online=True))) == []


def test_more_epochs_than_labels_are_refused_only_of_stored_views(finished):
    with pytest.raises(StudentError, match=f"9 epochs were requested.*{EPOCHS}"):
        check_protocol(*resolved(finished, "g_vbsm", epochs=9))
    check_protocol(*resolved(finished, "rded", epochs=9))


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"ema": 1.0}, "student.ema"), ({"momentum": 1.0}, "student.momentum"), ({"ce_weight": -1}, "student.ce_weight"),
     ({"batch_size": 1}, "student.batch_size"), ({"accumulation": 0}, "student.accumulation"),
     ({"batch_size": 6, "accumulation": 4}, "student.accumulation"), ({"warmup_epochs": -1}, "student.warmup_epochs")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, named):
    with pytest.raises(ConfigError, match=named):
        StudentConfig(**settings)
