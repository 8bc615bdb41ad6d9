"""What a measurement was made on, and how much memory it took."""

import mmap
import sys

import pytest
import torch

from fadrm_hf.machine import describe_machine, library_versions, peak_memory_bytes, reset_peak_memory

BLOCK = 300 << 20


def test_the_machine_is_described_without_names():
    machine = describe_machine()
    assert set(machine) == {"cpu", "cores", "memory_bytes", "gpu"}
    assert machine["cores"] >= 1 and machine["memory_bytes"] > 1 << 28
    assert {"python", "torch", "datasets"} <= set(library_versions())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU its memory is counted")
def test_a_stage_has_a_peak_of_its_own():
    reset_peak_memory()
    block = mmap.mmap(-1, BLOCK)  # not of the heap, which may keep what it is given back
    block.write(bytes(BLOCK))
    before = peak_memory_bytes()
    block.close()
    reset_peak_memory()
    after = peak_memory_bytes()
    assert after < before - BLOCK // 2
    assert peak_memory_bytes() >= after
