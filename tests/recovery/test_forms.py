"""The forms of recovery: plain as the published loop computes it, eager, and compiled. All have the same results."""

import json
from dataclasses import replace

import pytest
import torch
from fixtures.runs import RECIPE, distill
from fixtures.small import digits, small_teacher

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.artifact.reading import read_images
from fadrm_hf.cli import main
from fadrm_hf.config import RecoverConfig, RunConfig, SourceConfig
from fadrm_hf.config.datasets import resolve
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.recover import Recovery
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

CONFIG = RecoverConfig(flip_probability=0.5, max_roll=2, crop_area=(0.3, 1.0))
FORMS = ("plain", "eager", "compiled")


def recovered(form, device="cpu", num_teachers=2, iterations=9):
    """Images after two stretches of iterations, whose optimisers start anew."""
    source = digits()
    teachers = [small_teacher(source, seed) for seed in range(num_teachers)]
    rows = [int((source.labels("train") == label).argmax()) for label in range(10)]
    images = source.normalise(source.pixels("train", rows)).to(device)
    config, labels = replace(CONFIG, form=form), torch.arange(10, device=device)
    with open_matchers(teachers, config, torch.device(device)) as matchers:
        rng = generator(0, "test")
        recovery = Recovery(matchers, labels, source, config, iterations, rng, lambda done, losses: None)
        for budget in (iterations // 2, iterations - iterations // 2):
            images = recovery.optimise(images, budget)
    return images.cpu()


@pytest.fixture(scope="module")
def plain():
    return recovered("plain")


@pytest.mark.parametrize("form", FORMS[1:])
def test_images_are_those_of_the_plain_form(form, plain):
    difference = (recovered(form) - plain).abs()
    # Adam divides by the root of tiny second moments, which amplifies fp32 rounding on a few pixels.
    assert difference.median() < 1e-4
    assert (difference > 0.05).double().mean() < 0.02


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
def test_images_of_a_gpu_are_those_of_a_cpu(form, monkeypatch):
    """Enough iterations for each teacher's step to be captured after two, and then replayed."""
    launches, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: launches.append(graph) or replay(graph))
    difference = (recovered(form, "cuda", iterations=120) - recovered("plain", iterations=120)).abs()
    assert difference.median() < 1e-2
    assert len(launches) == (120 - 2 * 2 if form == "compiled" else 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An artifact of each form, and what students make of it."""
    folder = tmp_path_factory.mktemp("forms")
    arguments = ("--method.iterations=24", "--relabel.epochs=30", "--student.epochs=30", "--student.num_seeds=2")
    spelled = {"plain": ("--plain",), "eager": ("--recover.form=eager",), "compiled": ("--recover.form", "compiled")}
    found = {}
    for form, how in spelled.items():
        run = distill(folder / form, *arguments, *how)
        assert main(["train-student", str(run)]) == 0
        (result,) = [json.loads(path.read_text()) for path in (run / "results").glob("*soft*.json")]
        found[form] = run, result["top1"]["mean"]
    return found


def test_a_run_says_in_which_form_it_was_recovered(runs):
    assert {form: read_manifest(run).config["recover"]["form"] for form, (run, _) in runs.items()} == {
        form: form for form in FORMS
    }


@pytest.mark.parametrize("form", FORMS[1:])
def test_whole_recoveries_agree_and_so_do_their_students(form, runs):
    (plain, expected), (other, accuracy) = runs["plain"], runs[form]
    images = [read_images(run)[0].int() for run in (plain, other)]
    assert ((images[0] - images[1]).abs() <= 2).double().mean() > 0.9
    assert abs(accuracy - expected) < 0.06, f"{accuracy} and {expected}"  # two students of 500 test images: 2 sigma


@pytest.mark.parametrize("method", ["edc", "g_vbsm"])
def test_the_plain_form_refuses_statistics_that_it_does_not_know(method, tmp_path, capsys):
    names = "--teachers.names=[squeeze/resnet10_narrow, squeeze/convnet3_narrow]"
    arguments = ["distill", *RECIPE, names, f"--method={method}", "--plain", "--output", str(tmp_path / "run")]
    assert main(arguments) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "recover.form is 'plain'" in message and "--recover.form eager" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "iterations", "given", "form"),
    [(16, 8, None, "eager"), (32, 255, None, "eager"), (32, 256, None, "compiled"), (224, 2000, None, "compiled"),
     (224, 2000, "eager", "eager"), (16, 8, "compiled", "compiled"), (32, 1000, "plain", "plain")],
)  # fmt: skip
def test_what_is_optimised_for_long_is_compiled_unless_another_form_is_asked_for(size, iterations, given, form):
    source = SourceConfig(name="digits", size=size)
    run = RunConfig(
        source=source, ipc=1, method=FADRM(iterations=iterations), recover=RecoverConfig(form=given), output="run"
    )
    assert resolve(run).recover.form == form
