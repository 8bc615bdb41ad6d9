"""How much memory a step takes, against hand counts; and what is refused because it does not fit."""

from dataclasses import replace

import pytest
import torch
from accelerate import PartialState
from fixtures.small import digits, small_teacher

from fadrm_hf.config import RecoverConfig, RunConfig, TeacherConfig
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.methods.g_vbsm import GVBSM
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.memory import (
    MemoryLaw,
    free_memory_bytes,
    measure_recovery,
    peak_tensor_bytes,
    require_fit,
    require_memory,
    share_of_memory,
)
from fadrm_hf.recovery.trial import cycle_of, largest_shard, try_recovery

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
MB = 4 * 250_000  # bytes of so many float32


def values() -> torch.Tensor:
    return torch.empty(250_000)


def a_run(method=None, **recover) -> RunConfig:
    """FADRM on digits at two sizes, with one teacher."""
    config = RecoverConfig(flip_probability=0.0, max_roll=2, **recover)
    method = method or FADRM(iterations=100, num_residuals=1, sizes=(12, 16))
    return RunConfig("none", 4, method, recover=config, teachers=TeacherConfig(("test/0",)))


@pytest.fixture(scope="module")
def source():
    return digits()


@pytest.fixture(scope="module")
def teacher(source):
    return small_teacher(source)


def test_the_peak_is_what_is_held_at_once_and_not_what_is_allocated_in_all():
    def step() -> None:
        first = values()
        second = values()
        del first
        third = values()  # two of three
        assert third is not second

    assert peak_tensor_bytes(step, CPU) == 2 * MB


def test_what_was_there_before_does_not_count():
    held = values()
    assert peak_tensor_bytes(lambda: held.add_(1), CPU) < MB
    assert peak_tensor_bytes(lambda: held + 1, CPU) == pytest.approx(MB, rel=1e-3)
    assert peak_tensor_bytes(lambda: None, CPU) == 0


def test_what_the_backward_pass_keeps_counts():
    weight = torch.ones(250_000, requires_grad=True)

    def step() -> None:
        loss = weight.exp().exp().sum()  # both results are kept for the gradient
        loss.backward()
        weight.grad = None

    step()
    assert 3 * MB <= peak_tensor_bytes(step, CPU) <= 4 * MB  # and a gradient or two


def test_what_a_step_leaves_behind_counts():
    kept = []
    assert peak_tensor_bytes(lambda: kept.append(values()), CPU) == MB


def test_an_error_in_the_step_is_raised_and_the_next_one_measured():
    with pytest.raises(ZeroDivisionError):
        peak_tensor_bytes(lambda: 1 // 0, CPU)
    assert peak_tensor_bytes(values, CPU) == MB


def test_a_law_goes_through_what_was_measured():
    law = MemoryLaw.measure(lambda batch: 1000 + 7 * batch, 100, CPU)
    assert law == MemoryLaw(1000.0, 7.0)
    assert law.bytes_of(100) == 1700
    assert [law.largest_batch(free) for free in (0, 1006, 1007, 1700, 1706, 1707)] == [0, 0, 1, 100, 100, 101]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_no_more_images_are_tried_than_there_are(batch):
    tried = []
    law = MemoryLaw.measure(lambda num: tried.append(num) or 10 * num, batch, CPU)
    assert max(tried) == batch
    assert law.bytes_of(batch) == 10 * batch


def test_a_recovery_takes_what_two_small_batches_foretell(source, teacher):
    run = a_run(batch_size=10)
    with open_matchers([teacher], run.recover, CPU) as matchers:
        law = measure_recovery(run, matchers, source, CPU)
        shard = largest_shard(run, 10)
        measured = peak_tensor_bytes(lambda: try_recovery(run, matchers, source, CPU, shard, cycle_of(run)), CPU)
    assert shard.num_images == 10
    assert law.bytes_of(10) == pytest.approx(measured, rel=0.1)
    assert law.per_image > 4 * 3 * 16**2  # more than the pixels


def test_a_recovery_of_whole_classes_is_measured_too(source, teacher):
    method = GVBSM(iterations=10, drop=0.0, momentum=0.0)
    run = a_run(method, batch_size=20, layout="class_major", statistics_weight=0.0)
    with open_matchers([teacher], run.recover, CPU) as matchers:
        law = measure_recovery(run, matchers, source, CPU)
        shard = largest_shard(run, 10)  # five classes of four images
        measured = peak_tensor_bytes(lambda: try_recovery(run, matchers, source, CPU, shard, cycle_of(run)), CPU)
    assert shard.num_images == 20
    assert law.bytes_of(20) == pytest.approx(measured, rel=0.2)


def test_memory_is_that_of_the_largest_size(source, teacher):
    peaks = []
    for sizes in ((8, 16), (16, 16)):
        run = a_run(FADRM(iterations=100, num_residuals=1, sizes=sizes), batch_size=10)
        with open_matchers([teacher], run.recover, CPU) as matchers:
            peaks.append(measure_recovery(run, matchers, source, CPU).bytes_of(10))
    assert peaks[0] == pytest.approx(peaks[1], rel=0.1)


def test_a_trial_is_the_methods_own_recovery(source, teacher):
    run = a_run(batch_size=10)
    with open_matchers([teacher], run.recover, CPU) as matchers:
        shard = largest_shard(run, 10, 3)
        once, again = (try_recovery(run, matchers, source, CPU, shard, 2) for _ in range(2))
    assert once.shape == (3, 3, 16, 16)
    assert torch.equal(once, again)
    with pytest.raises(ConfigError, match="at least one per segment"):
        try_recovery(run, [], source, CPU, shard, 1)


def test_free_memory_is_shared_by_processes():
    free = free_memory_bytes(CPU)
    assert 10**6 < free < 10**15
    assert share_of_memory(CPU, 4) == pytest.approx(free / 4, rel=0.1)


def test_a_recovery_that_does_not_fit_is_refused_with_the_batch_that_does():
    law = MemoryLaw(100e6, 50e6)
    require_fit(law, 18, 1_000_000_000)
    message = r"recovery of 19 images .* needs about 1,050 MB .* 1,000 MB .*--recover.batch_size 18 or less"
    with pytest.raises(ConfigError, match=message):
        require_fit(law, 19, 1_000_000_000)
    with pytest.raises(ConfigError, match="not even one image fits"):
        require_fit(law, 1, 100_000_000)


def test_a_run_is_refused_before_its_first_iteration_if_it_cannot_fit(source, teacher, monkeypatch):
    run = a_run(batch_size=10)
    with open_matchers([teacher], run.recover, CPU) as matchers:
        needed = measure_recovery(run, matchers, source, CPU).bytes_of(10)
        free = int(0.9 * needed)  # what is measured again differs by some percent: gradients come in another order
        monkeypatch.setattr("fadrm_hf.recovery.memory.free_memory_bytes", lambda device: free)
        with pytest.raises(ConfigError, match=r"--recover.batch_size [789] or less"):
            require_memory(run, matchers, source, CPU, PartialState())
        require_memory(replace(run, recover=replace(run.recover, batch_size=6)), matchers, source, CPU, PartialState())
    require_memory(run, [], source, CPU, PartialState())  # a method that optimises nothing
