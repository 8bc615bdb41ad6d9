"""The device itself: what it counts, by the operations of torch that cause it, and what it refuses."""

from contextlib import suppress
from typing import Any

import pytest
import torch

from no_op_device.running import NoOpDevice
from no_op_device.watching import watch


def counts_of_operations() -> dict[str, dict[str, float]]:
    """Count what some operations of torch cause, after one of each."""
    numbers, pinned = torch.ones(1000, device="cuda"), torch.ones(1000).pin_memory()
    operations = {
        "kernel": lambda: numbers.add_(1),
        "product": lambda: torch.ones((8, 8), device="cuda") @ torch.ones((8, 8), device="cuda"),
        "number": lambda: numbers.sum().item(),
        "truth": lambda: bool((numbers > 5).all()),
        "to_device": lambda: torch.ones(1000).cuda(),
        "pinned_to_device": lambda: pinned.to("cuda", non_blocking=True),
        "to_host": lambda: numbers.cpu(),
        "synchronize": torch.cuda.synchronize,
    }
    found = {}
    for name, operation in operations.items():
        operation()
        with watch() as seen:
            operation()
        found[name] = seen.per(1)
    return found


def graph_of_three_nodes() -> dict[str, Any]:
    """Capture two kernels and a copy, and replay them twice."""
    numbers, other = torch.ones(10, device="cuda"), torch.ones(10, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with watch() as captured, torch.cuda.graph(graph):
        other.copy_(numbers.mul_(2).add_(1))
    with watch() as replayed:
        graph.replay()
        graph.replay()
    return {"captured": captured.per(1), "replayed": replayed.per(1), "devices": torch.cuda.device_count()}


def wait_in_capture() -> None:
    """Wait for the device during a capture, and overlook the error."""
    with suppress(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.cuda.current_stream().synchronize()


def measure() -> dict[str, Any]:
    """Measure operations and a graph, in one process."""
    return {"operations": counts_of_operations(), "graph": graph_of_three_nodes()}


def test_operations_are_counted_as_what_they_are(no_op_device: NoOpDevice) -> None:
    found = no_op_device.run(measure, NO_OP_DEVICES="2")
    copied, read = {"to_device": 1, "from_pageable": 1, "waits": 1}, {"to_host": 1, "waits": 1}
    assert found["operations"] == {
        "kernel": {"kernels": 1},
        "product": {"kernels": 3},
        "number": {"kernels": 1} | read,
        "truth": {"kernels": 2} | read,
        "to_device": copied,
        "pinned_to_device": {"to_device": 1},
        "to_host": read,
        "synchronize": {"waits": 1},
    }
    assert found["graph"] == {
        "captured": {"captures": 1, "waits": 1},
        "replayed": {"graph_launches": 2, "graph_nodes": 6},
        "devices": 2,
    }


def test_what_a_capture_forbids_ends_the_test(no_op_device: NoOpDevice) -> None:
    with pytest.raises(AssertionError, match="1 calls are illegal in a capture"):
        no_op_device.run(wait_in_capture)
