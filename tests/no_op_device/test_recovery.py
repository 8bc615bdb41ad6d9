"""Recovery on a GPU: what its loops ask of the host and of the device, and how much memory its graphs take."""

from typing import Any

import pytest

from no_op_device.hot_loops import benchmark_loop, pools, recovery_loop, statistics_loop, whole_recovery
from no_op_device.running import NoOpDevice

# In 100 iterations there are four reports, which read two losses, the pixels and fp16's scale, and one block of views.
READ, SENT = 4 * 4 / 100, 1 / 100


def measure() -> dict[str, Any]:
    """Measure all forms and several teachers, in one process."""
    return {
        "compiled": recovery_loop(["resnet18_small_stem"], "compiled"),
        "compiled fp32": recovery_loop(["resnet10_narrow"], "compiled", precision="fp32"),
        "compiled bf16": recovery_loop(["resnet10_narrow"], "compiled", precision="bf16"),
        "eager": recovery_loop(["resnet10_narrow"], "eager"),
        "plain": recovery_loop(["resnet10_narrow"], "plain"),
        "in turn": recovery_loop(["resnet10_narrow", "resnet18_narrow"], "compiled"),
        "one teacher": whole_recovery(["resnet18"], [200, 224], 100),
        "two teachers": whole_recovery(["mobilenetv2_050", "resnet18"], [200, 224], 50),
        "benchmark": benchmark_loop(),
        "statistics": statistics_loop(),
        **pools(),
    }


@pytest.fixture(scope="module")
def measured(no_op_device: NoOpDevice) -> dict[str, Any]:
    return no_op_device.run(measure)


@pytest.mark.parametrize("form", ["compiled", "compiled fp32", "compiled bf16", "eager", "in turn"])
def test_the_host_waits_for_reports_alone_and_sends_positions_alone(measured: dict[str, Any], form: str) -> None:
    found = measured[form]
    expected = READ if form in ("compiled", "eager", "in turn") else READ * 3 / 4  # only fp16 has a scale
    assert found["waits"] == pytest.approx(expected), found["waits of"]
    assert found["to_device"] == pytest.approx(SENT) and "from_pageable" not in found


@pytest.mark.parametrize(
    ("form", "captures"), [("compiled", 1), ("compiled fp32", 1), ("compiled bf16", 1), ("in turn", 2)]
)
def test_steps_are_replayed_after_one_capture_for_each_teacher(
    measured: dict[str, Any], form: str, captures: int
) -> None:
    found = measured[form]
    assert found["first captures"] == captures and "captures" not in found
    assert found["graph_launches"] == 1
    assert found["kernels"] < 13, "those of Adam, of the scale of fp16 and of the clamp"


def test_a_benchmark_times_replays_alone(measured: dict[str, Any]) -> None:
    assert measured["benchmark"]["graph_launches"] == 1 and "captures" not in measured["benchmark"]


def test_a_captured_step_of_resnet18_has_few_nodes(measured: dict[str, Any]) -> None:
    """Two for each of 20 convolutions, three for each normalisation, and 60 for all the rest."""
    assert measured["compiled"]["graph_nodes"] <= 165


def test_only_compiled_steps_are_captured(measured: dict[str, Any]) -> None:
    for form in ("eager", "plain"):
        assert measured[form]["first captures"] == 0 and measured[form]["kernels"] > 200


def test_gradients_of_convolutions_are_not_copied(measured: dict[str, Any]) -> None:
    for form in ("compiled", "eager"):
        assert measured[form]["copies by convolutions"] == 0


@pytest.mark.parametrize(("teachers", "captures"), [("one teacher", 2), ("two teachers", 4)])
def test_graphs_serve_all_segments_and_shards(measured: dict[str, Any], teachers: str, captures: int) -> None:
    """One for each teacher and size."""
    found = measured[teachers]
    assert len(found["shards"]) > 1 and found["captures"] == captures


@pytest.mark.parametrize("teachers", ["one teacher", "two teachers"])
def test_memory_is_what_was_foretold(measured: dict[str, Any], teachers: str) -> None:
    found = measured[teachers]
    assert found["reserved"] == pytest.approx(found["foretold"], rel=0.15)
    assert found["reserved"] < 2 * found["tensors"], "graphs share a pool, beginning with the largest size"


@pytest.mark.parametrize("method", ["g_vbsm", "edc"])
def test_methods_of_many_statistics_are_captured_once_for_each_teacher(measured: dict[str, Any], method: str) -> None:
    """Averages begin anew in each shard, in one iteration of each teacher that is not replayed."""
    found = measured[method]
    assert found["all captures"] == 2 and found["graph_launches"] == 0.98
    assert found["kernels"] < 80


def test_only_eigenvalues_make_the_host_wait_in_an_iteration(measured: dict[str, Any]) -> None:
    assert measured["edc"]["waits"] == pytest.approx(0.12), measured["edc"]["waits of"]
    assert measured["g_vbsm"]["waits"] == pytest.approx(1.12), measured["g_vbsm"]["waits of"]


def test_gathering_statistics_waits_for_no_batch(measured: dict[str, Any]) -> None:
    """Whatever the number of classes: a batch is one copy."""
    found = measured["statistics"]
    assert found["waits"] == 0 and found["from_pageable"] == 0 and found["to_device"] == 1
