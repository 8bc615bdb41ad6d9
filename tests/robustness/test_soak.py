"""Signal 9 at any moment of any stage, to one process of a run or to both; what is left is ended by another start.

The suite takes a few moments; `make soak` takes a hundred and writes `results/soak-kills.json`.
"""

import json
import os
import statistics
import time
from pathlib import Path

import pytest
import torch
from fixtures.runs import FADRM, PROCESSES, RECIPE, identities, lasting, work_of

from fadrm_hf.cli import main
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.randomness import generator

KILLS = int(os.environ.get("SOAK_KILLS", "4"))
RESULT = os.environ.get("SOAK_RESULT")


def begin(run):
    process = PROCESSES.Process(target=main, args=(["distill", *RECIPE, *FADRM, "--output", str(run)],))
    process.start()
    return process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The artifact, and the seconds that one process takes for it, teacher and all."""
    for name in ("first", "second"):  # the first also loads what later ones find in memory
        run = tmp_path_factory.mktemp(name) / "run"
        started = time.monotonic()
        process = begin(run)
        process.join()
        assert process.exitcode == 0
        seconds = time.monotonic() - started
    return lasting(run), seconds


@pytest.fixture(scope="module")
def record():
    trials = []
    yield trials
    if RESULT is not None:
        overhead = [trial["overhead_seconds"] for trial in trials if trial["processes"] == 1]
        summary = {
            "kills": len(trials),
            "identical_artifacts": sum(trial["identical"] for trial in trials),
            "shards_computed_again": sum(trial["computed_again"] for trial in trials),
            "overhead_seconds": {"median": statistics.median(overhead), "largest": max(overhead)},
        }
        machine = {"machine": describe_machine(), "versions": library_versions()}
        Path(RESULT).write_text(json.dumps(summary | machine | {"trials": trials}, indent=2) + "\n")


@pytest.mark.fault("distill", "killed")
@pytest.mark.parametrize("trial", range(KILLS))
def test_killed_at_any_moment_and_started_again_the_artifact_is_the_same(trial, undisturbed, record, tmp_path):
    expected, seconds = undisturbed
    rng, run = generator(trial, "soak"), tmp_path / "run"
    count = 1 + trial % 2
    delay = float(torch.rand((), generator=rng)) * seconds
    started = time.monotonic()
    processes = [begin(run) for _ in range(count)]
    time.sleep(delay)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    disturbed = time.monotonic() - started
    done = identities(work_of(run))
    again = begin(run)
    again.join()
    assert again.exitcode == 0
    overhead = time.monotonic() - started - seconds
    kept = identities(work_of(run))
    computed_again = sum(kept[name] != identity for name, identity in done.items())
    record.append(
        {
            "trial": trial,
            "processes": count,
            "killed_after_seconds": round(disturbed, 3),
            "shards_there": len(done),
            "computed_again": computed_again,
            "overhead_seconds": round(overhead, 3),
            "identical": lasting(run) == expected,
        }
    )
    assert record[-1]["identical"] and computed_again == 0
