"""What a run is said to cost, against what it costs; the command's table and document."""

import json
from types import SimpleNamespace

import pytest
import torch
from fixtures.runs import FADRM, RECIPE

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.cli import main
from fadrm_hf.config import PatchConfig
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.pipeline.distill import check_run
from fadrm_hf.pipeline.estimate import estimate
from fadrm_hf.pipeline.timing import time_units
from fadrm_hf.pipeline.untrained import teachers_like
from fadrm_hf.recovery.memory import peak_tensor_bytes
from fadrm_hf.recovery.patches.starting import num_candidates, starting_images

CPU = torch.device("cpu")


def estimated(*arguments: str, **settings):
    run, source = check_run(parse_run([*RECIPE, *arguments]))
    return estimate(run, source, CPU, budget=0.05, **settings)


@pytest.fixture(scope="module")
def of_two_images(tmp_path_factory):
    """The recipe of the tests, before anything of it is there."""
    folder = tmp_path_factory.mktemp("estimate") / "run"
    return estimated(*FADRM, f"--output={folder}")


def test_time_is_that_of_a_unit_whatever_the_number(monkeypatch):
    now = 0.0
    monkeypatch.setattr("fadrm_hf.pipeline.timing.time", SimpleNamespace(perf_counter=lambda: now))

    def step(units: int) -> int:
        nonlocal now
        now += 0.002 * units
        return units

    timing = time_units(step, 40, CPU, budget=0.05)
    assert 2 < timing.units <= 40
    assert timing.seconds == pytest.approx(0.002)
    assert time_units(lambda units: 1, 1, CPU, budget=0.01).units == 1


def test_every_stage_is_counted_and_the_whole_is_their_sum(of_two_images):
    stages, total = of_two_images.stages, of_two_images.total
    assert list(stages) == ["teachers", "patches", "recover", "relabel", "package", "students"]
    assert all(stages[name].seconds > 0 and stages[name].memory_bytes > 0 for name in stages if name != "package")
    assert total.seconds == pytest.approx(sum(stage.seconds for stage in stages.values()))
    assert total.memory_bytes > of_two_images.resident_bytes > 10**7
    assert of_two_images.untrained == ("squeeze/resnet10_narrow",)
    assert (of_two_images.batch, of_two_images.num_processes) == (4, 1)  # ranges of four classes
    assert of_two_images.largest_batch == pytest.approx(of_two_images.largest_batch_alone, rel=0.2)


def test_disk_is_what_the_run_leaves_behind(of_two_images, finished):
    pixels, labels = 20 * 3 * 16**2, read_manifest(finished).bytes.soft_labels
    assert of_two_images.stages["patches"].disk_bytes == of_two_images.stages["recover"].disk_bytes == pixels
    assert of_two_images.stages["relabel"].disk_bytes == pytest.approx(labels, rel=0.8)  # the file has a head besides
    (weights,) = finished.parent.glob("teachers/*/model.safetensors")
    assert of_two_images.stages["teachers"].disk_bytes == pytest.approx(weights.stat().st_size, rel=0.05)


def test_a_teacher_that_is_there_is_not_trained_again(finished):
    found = estimated(*FADRM, f"--output={finished.with_name('other')}", with_students=False)
    assert found.untrained == ()
    assert found.stages["teachers"].seconds == 0.0
    assert "students" not in found.stages


def test_processes_share_memory_and_work(of_two_images, tmp_path):
    shared = estimated(*FADRM, f"--output={tmp_path / 'run'}", num_processes=3, with_students=False)
    assert shared.free_bytes < 0.5 * of_two_images.free_bytes
    assert shared.largest_batch < 0.5 * shared.largest_batch_alone
    assert shared.stages["relabel"].disk_bytes == of_two_images.stages["relabel"].disk_bytes


def test_a_method_without_recovery_has_no_batch(tmp_path):
    found = estimated("--method=random_real", f"--output={tmp_path / 'run'}", with_students=False)
    assert list(found.stages) == ["teachers", "patches", "relabel", "package"]
    assert (found.batch, found.largest_batch) == (0, None)


@pytest.mark.parametrize("method", ["rded", "el2n"])
def test_memory_of_scoring_is_that_of_batches_not_of_the_whole_class(tmp_path, method):
    """Few candidates are timed; a hundred are scored."""
    words = [f"--method={method}", "--patches.pool=100", f"--output={tmp_path / 'run'}"]
    run, source = check_run(parse_run([*RECIPE, *words]))
    said = estimate(run, source, CPU, budget=1e-6, with_students=False).stages["patches"]
    (teacher,), _ = teachers_like(run, source, CPU)
    arguments = (run.method.init, source, teacher, range(1), run.ipc, run.patches, run.seed, CPU)
    starting_images(*arguments)
    needed = peak_tensor_bytes(lambda: starting_images(*arguments), CPU)
    assert int(said.timed.split()[0]) < 10, said.timed
    assert needed / 1.5 < said.memory_bytes < 1.5 * needed


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("patches", 300), ("el2n", 500), ("pca", 500), ("graded", 500), ("random_images", 50), ("noise", 0)],
)
def test_candidates_are_the_images_that_are_looked_at(kind, expected):
    assert num_candidates(kind, 50, PatchConfig(pool=300), 500) == expected
    if kind == "patches":
        assert num_candidates(kind, 50, PatchConfig(pool=300, grid=2), 150) == 150


def test_statistics_that_teachers_do_not_keep_are_a_stage(tmp_path):
    found = estimated(
        "--method=edc",
        "--method.iterations=8",
        "--teachers.names=[squeeze/resnet10_narrow,squeeze/convnet1]",
        "--relabel.num_teachers=1",
        "--recover.batch_size=4",
        f"--output={tmp_path / 'run'}",
        with_students=False,
    )
    assert found.stages["statistics"].seconds > 0
    assert found.stages["statistics"].disk_bytes > 0
    assert found.stages["recover"].seconds > 0


def test_the_command_shows_a_table_and_gives_every_figure(tmp_path, capsys):
    output = tmp_path / "run"
    own = ["--json", "--budget=0.05", "--processes=2", "--no_students"]
    assert main(["estimate", *RECIPE, *FADRM, f"--output={output}", *own]) == 0
    document, shown = capsys.readouterr()
    for word in ("recover", "in all", "2 processes", "largest recover.batch_size", "squeeze/resnet10_narrow"):
        assert word in shown
    record = json.loads(document)["result"]
    assert set(record["stages"]) == {"teachers", "patches", "recover", "relabel", "package"}
    assert record["num_processes"] == 2
    assert record["total"]["seconds"] > record["stages"]["recover"]["seconds"]
    assert not output.exists() and not output.with_name("run.work").exists()  # nothing is begun


def test_a_busy_machine_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fadrm_hf.pipeline.estimate.busy_share", lambda: 0.83)
    words = [*RECIPE, *FADRM, "--budget=0.01", "--no_students", f"--output={tmp_path / 'run'}"]
    assert main(["estimate", *words]) == 0
    assert "other work was using 83% of this machine's cores" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--processes=0"], "processes"),
        (["--processes=two"], "'two'"),
        (["--budget=0"], "budget"),
        (["--recover.batchsize=4"], "batchsize"),
        (["--method=fadrn"], "fadrm"),
    ],
)
def test_what_distill_would_refuse_is_refused(arguments, named, capsys):
    assert main(["estimate", *RECIPE, *arguments]) == 2
    assert named in capsys.readouterr().err
