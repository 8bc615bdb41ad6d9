"""`make gpu`, rehearsed: every program that it starts, on the smallest of networks, and what it leaves behind."""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from fixtures.runs import RECIPE, ROOT
from torch import Tensor

from fadrm_hf.cli import main
from fadrm_hf.evaluation.results_page import render_results_page
from fadrm_hf.labels import relabel
from no_op_device.running import NoOpDevice

BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))  # whose programs import each other
gpu, gpu_cell, estimates = (importlib.import_module(name) for name in ("gpu", "gpu_cell", "estimates"))

# What makes each program small; later arguments win.
NARROW = ("--size", "16", "--architecture", "resnet10_narrow", "--rounds", "1")
RUN = (*RECIPE[1:], "--ipc=1", "--squeeze.epochs=1", "--squeeze.num_workers=0", "--method.iterations=4",
       "--method.sizes=[12,16,12,16]", "--relabel.epochs=1", "--student.epochs=1")  # fmt: skip
SMALL = {
    "recovery_step.py": ("--size", "16", "--architectures", "resnet10_narrow", "--batch", "4", "--rounds", "1"),
    "limit.py": (*NARROW, "--batch", "4"),
    "student_epoch.py": (*NARROW[:4], "--images", "40", "--pairs", "1", "--steps", "1", "--workers", "1"),
    "relabel.py": (*NARROW, "--images", "32"),
    "gpu_cell.py": ("--config", "digits/fadrm_ipc10", *RUN),
    "estimates.py": ("--method=fadrm", *RUN),
    "imagenet_hours.py": (),
}  # fmt: skip
COSTS = {"teachers": 100.0, "patches": 10.0, "recover": 50.0, "relabel": 60.0, "students": 240.0}


class Forked:
    """A program in a copy of this process, which has imported what it needs; waited for as `subprocess.Popen` is."""

    def __init__(self, command: Sequence[str], folder: Path, log: IO[str]) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        try:
            os.setsid()
            os.chdir(folder)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.argv[:] = command[1:]
            importlib.import_module(Path(command[1]).stem).main()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)

    def wait(self, seconds: float = 60.0) -> int:
        """Return the exit code."""
        for _ in range(int(seconds / 0.02)):
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        raise subprocess.TimeoutExpired("a part", seconds)


def call_here(command: str, *words: str) -> Any:
    """Run a command of the library in this process; return its JSON document."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([command, *words, "--json"]) == 0
    return json.loads(printed.getvalue())


def fetch_zeros(labels: relabel._Pass) -> Tensor:
    """Wait for labels, and return zeros: where no kernel has written lies anything, and some of it is no label."""
    assert labels._copied is not None
    labels._copied.synchronize()
    return torch.zeros(labels.labels.shape)


def rehearse(folder: str) -> dict[str, list[str]]:
    """Make the visit with one part of each program; return how each ended."""
    gpu.start, gpu_cell.fadrm_hf, estimates.fadrm_hf = Forked, call_here, call_here
    relabel._Pass.fetch = fetch_zeros
    parts = {part.words[0]: part for part in gpu.plan("digits", 1)}
    assert set(parts) == {"-m", *SMALL}, "the tests of a GPU are themselves, and not rehearsed"
    small = [replace(parts[program], words=(*parts[program].words, *words)) for program, words in SMALL.items()]
    found = gpu.visit(small, 300.0, Path(folder))
    return {part.words[0]: [found[part.name]["ended"], *found[part.name]["last_lines"]] for part in small}


def test_every_program_of_a_visit_runs_and_files_what_it_measures(no_op_device: NoOpDevice, tmp_path: Path) -> None:
    found = no_op_device.run(rehearse, str(tmp_path), TORCHDYNAMO_DISABLE="1")  # compiling is tested elsewhere
    assert {program: lines for program, lines in found.items() if lines[0] != "done"} == {}
    results = tmp_path / "results"
    measured = {path.name.split("-resnet10")[0] for path in results.glob("bench-*-cuda.json")}
    assert measured == {
        "bench-recovery-step-fadrm-plus-set-16px-cuda.json", "bench-limit", "bench-student-epoch", "bench-relabel",
        "bench-imagenet1k-hours-cuda.json", "bench-estimates-cuda.json",
    }  # fmt: skip
    visit = json.loads((results / "gpu-visit.json").read_text())
    assert len(visit["parts"]) == len(SMALL) and visit["machine"]["gpu"] == "no-op device"
    page = render_results_page(results, ROOT / "recipes/configs")
    assert "fadrm-cifar100-ipc10" in page, "`make results` takes the cell up, and says what is smaller"


def test_a_part_that_takes_too_long_is_stopped_and_the_others_go_on(tmp_path: Path) -> None:
    endless, quick = gpu.Part("endless", 60.0, ("-m", "http.server", "0")), gpu.Part("quick", 60.0, ("-m", "this"))
    assert gpu.run(endless, 0.5, tmp_path)["ended"] == "stopped after 0 s"
    assert gpu.run(replace(quick, words=("-m", "no_such_module")), 60.0, tmp_path)["ended"] == "exit code 1"
    found = gpu.visit([endless, quick], 0.0, tmp_path)
    assert [part["ended"] for part in found.values()] == ["no time left", "done"]
    assert json.loads((tmp_path / "results/gpu-visit.json").read_text())["parts"] == found


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(1e4, {}), (460 / 0.85 + 1, {}), (300 / 0.85 + 1, {"student.num_seeds": 1}), (180 / 0.85, "half"), (0, "least")],
)
def test_a_cell_is_as_large_as_the_seconds_allow(seconds: float, expected: Any) -> None:
    """Of 60 s for images, which are recovered in full, and 400 s of what epochs and students decide."""
    settings = gpu_cell.settings_for(seconds, COSTS)
    if expected in ("half", "least"):
        share = {"half": 0.5, "least": 0.0}[expected]
        epochs = {name: max(gpu_cell.LEAST_EPOCHS[name], int(share * num)) for name, num in gpu_cell.EPOCHS.items()}
        expected = {"student.num_seeds": 1, "teachers.min_accuracy": 0.0} | epochs
    assert settings == pytest.approx(expected, abs=1)


def test_hours_are_rates_times_budgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = importlib.import_module("imagenet_hours")
    monkeypatch.chdir(tmp_path)
    here = {"machine": {"gpu": "one"}}
    forms = [{"form": form, "precision": "fp16", "ms": ms} for form, ms in (("plain", 1.0), ("compiled", 0.1))]
    records = {
        "recover": {"rows": forms} | here,
        "relabel": {"images_per_second": {"plain, 2 workers": 9e9, "ours, views": 9e9, "ours, fp16": 2000.0}} | here,
        "student": {"ms_per_view": {"plain, 0 workers": 0.1, "ours, tf32": 3.0, "ours, bf16": 2.0}} | here,
    }
    for stage, record in records.items():
        path = Path("results", hours.FILES[stage])
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record))
    hours.main()
    found = json.loads(Path("results/bench-imagenet1k-hours-cuda.json").read_text())["hours"]["10"]
    iterations = 2000 * (2 * 200**2 + 2 * 224**2) / (4 * 224**2)
    assert found["recover"] == pytest.approx(1e4 * iterations * 0.1e-3 / 3600)
    assert found["relabel"] == pytest.approx(1e4 * 300 / 2000 / 3600)
    assert found["student"] == pytest.approx(1e4 * 300 * 2e-3 / 3600)
