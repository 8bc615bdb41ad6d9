"""Seconds and memory of stages, and what is told when one of them stops."""

import errno
from types import SimpleNamespace

import pytest
from accelerate import PartialState

from fadrm_hf.pipeline.stage_costs import Costs
from fadrm_hf.runtime.progress import QUIET
from fadrm_hf.runtime.run_folder import WorkFolder


@pytest.fixture
def job(tmp_path):
    work = WorkFolder(tmp_path / "run")
    work.path.mkdir()
    return SimpleNamespace(work=work, state=PartialState(), reporter=QUIET)


def test_a_stage_that_is_resumed_costs_what_all_its_parts_cost(job):
    for _ in range(2):
        with Costs(job, is_part=False).of("recover"):
            pass
    record = Costs(job, is_part=False).records()["recover"]
    assert record.seconds >= 0 and record.peak_memory_bytes > 10**7


def test_a_stage_that_stops_is_noted(job):
    with pytest.raises(KeyError), Costs(job, is_part=False).of("patches"):
        raise KeyError
    assert list(Costs(job, is_part=False).records()) == ["patches"]


def test_what_stopped_a_stage_is_told_even_where_its_cost_cannot_be_noted(job):
    job.work.costs.mkdir()  # nothing can be written there, as on a full disk
    with pytest.raises(OSError, match="labels-00003") as caught, Costs(job, is_part=False).of("relabel"):
        raise OSError(errno.ENOSPC, "No space left on device", "labels-00003.safetensors")
    assert caught.value.errno == errno.ENOSPC
