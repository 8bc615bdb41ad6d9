"""Averaged weights and their BatchNorm statistics, against a loop in float64 over the student's own checkpoints."""

import copy

import pytest
import torch
from fixtures.runs import EPOCHS, STUDENT
from torch.optim.swa_utils import update_bn

from fadrm_hf.config import SourceConfig, StudentConfig
from fadrm_hf.data.sources import load_source
from fadrm_hf.networks.students import create_student
from fadrm_hf.runtime.progress import Task
from fadrm_hf.runtime.tensor_files import load_tensors
from fadrm_hf.training.accuracy import predict, topk_accuracy
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.one_student import StudentTraining, average_weights, update_average
from fadrm_hf.training.protocol import resolve_protocol
from fadrm_hf.training.student_step import measure_statistics
from fadrm_hf.training.testing import TestImages as HeldOutImages

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
DECAY = 0.7
MICRO_BATCHES = (slice(0, 16), slice(16, 20))  # of the 20 images of a step


class Watching(Task):
    """Keeps the checkpoint and the accuracy of every epoch; stops after some number of epochs if asked to."""

    def __init__(self, checkpoint, stop_after=None):
        super().__init__("test", EPOCHS)
        self._checkpoint, self._stop_after = checkpoint, stop_after
        self.kept, self.top1 = [], []

    def advance(self, units=1, **metrics):
        super().advance(units, **metrics)
        self.kept.append(load_tensors(self._checkpoint))
        self.top1.append(metrics.get("top1"))
        if len(self.kept) == self._stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def parts(finished_random_real):
    """One step an epoch, so that a checkpoint of every epoch holds the weights of every step; all of them tested."""
    test = HeldOutImages(load_source(SourceConfig(name="digits", size=16)), CPU)
    test.labels = test.labels[:50]  # few, so that testing them every epoch takes no longer than training
    return load_distilled(finished_random_real), test


def trained(parts, checkpoint, stop_after=None, **settings):
    config = resolve_protocol(parts[0], StudentConfig(student=STUDENT, lr=0.01, ema=DECAY, **settings))
    task, training = Watching(checkpoint, stop_after), StudentTraining(*parts, config, 0, CPU)
    initial = {name: value.clone() for name, value in training.student.named_parameters()}
    try:
        training.run(checkpoint, task)
    except KeyboardInterrupt:
        assert stop_after is not None
    return initial, task, training


@pytest.fixture(scope="module")
def averaged(parts, tmp_path_factory):
    return trained(parts, tmp_path_factory.mktemp("ema") / "student.safetensors")


def weights_of(tensors, network):
    start = f"module.{network}."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def loop_over_steps(initial, kept):
    """a_t = 0.7 a_{t-1} + 0.3 w_t in float64, from a_0 = w_0; yields a_t."""
    mean = {name: value.double() for name, value in initial.items()}
    for tensors in kept:
        student = weights_of(tensors, "student")
        mean = {name: DECAY * value + (1 - DECAY) * student[name].double() for name, value in mean.items()}
        yield mean


def measured_statistics(parameters, images):
    """Mean over micro-batches of what each BatchNorm layer sees under these weights, in float64: by hooks."""
    network = create_student(STUDENT, 10, 16).double()
    network.load_state_dict(parameters, strict=False)
    seen = {}
    for name, layer in network.train().named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_pre_hook(lambda _, given, name=name: seen.setdefault(name, []).append(given[0]))
    with torch.no_grad():
        for rows in MICRO_BATCHES:
            network(images[rows].double())
    return {
        name: (
            torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0),
            torch.stack([x.transpose(0, 1).flatten(1).var(1, unbiased=True) for x in inputs]).mean(0),
        )
        for name, inputs in seen.items()
    }


def test_weights_and_statistics_are_those_of_a_float64_loop(parts, averaged):
    initial, task, _ = averaged
    batches = list(parts[0].batches(range(EPOCHS)))
    for epoch, expected in enumerate(loop_over_steps(initial, task.kept)):
        found = weights_of(task.kept[epoch], "average")
        for name, value in expected.items():
            torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6)
        for layer, (mean, variance) in measured_statistics(expected, batches[epoch].images).items():
            torch.testing.assert_close(found[f"{layer}.running_mean"].double(), mean, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(found[f"{layer}.running_var"].double(), variance, rtol=1e-3, atol=1e-4)
            own = weights_of(task.kept[epoch], "student")[f"{layer}.running_var"]
            assert not torch.allclose(own.double(), variance, rtol=1e-2), "the student's own would do"


def test_it_is_the_average_that_is_tested_and_kept(parts, tmp_path):
    parts = parts[0], HeldOutImages(load_source(SourceConfig(name="digits", size=16)), CPU)  # all of them
    _, task, training = trained(parts, tmp_path / "all.safetensors")
    average = weights_of(task.kept[-1], "average")
    assert all(torch.equal(average[name], value) for name, value in training.student.state_dict().items())
    network = create_student(STUDENT, 10, 16)
    network.load_state_dict(average)
    assert topk_accuracy(predict(network, parts[1].batches()), parts[1].labels) == pytest.approx(
        task.top1[-1], abs=0.005
    )


def test_the_released_way_copies_the_students_statistics(parts, averaged, tmp_path):
    _, task, _ = trained(parts, tmp_path / "copied.safetensors", ema_buffers="copy")
    average, student = (weights_of(task.kept[-1], network) for network in ("average", "student"))
    buffers = [name for name in student if "running" in name or "num_batches" in name]
    assert buffers and all(torch.equal(average[name], student[name]) for name in buffers)
    estimated = weights_of(averaged[1].kept[-1], "average")
    differ = [name for name in student if not torch.equal(estimated[name], average[name])]
    assert set(differ) == set(buffers), "the weights are the same: evaluating changes nothing in the training"


def test_an_interrupted_training_goes_on_with_its_average(parts, averaged, tmp_path):
    checkpoint = tmp_path / "interrupted.safetensors"
    assert len(trained(parts, checkpoint, stop_after=2)[1].kept) == 2
    rest = trained(parts, checkpoint)[1].kept
    assert len(rest) == EPOCHS - 2
    assert all(torch.equal(rest[-1][name], value) for name, value in averaged[1].kept[-1].items())


def test_an_average_of_one_weight():
    student = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        student.weight.fill_(1.0)
    average = average_weights(student, 0.75)
    with torch.no_grad():
        student.weight.fill_(5.0)
    update_average(average, student, 0.75)
    assert average.module.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 5)
    before = copy.deepcopy(average.module.state_dict())
    measure_statistics(average.module, iter([]))  # no BatchNorm: nothing to estimate
    assert torch.equal(before["weight"], average.module.weight) and student.weight.item() == 5.0


def test_averages_and_statistics_are_those_of_torch():
    """Bit for bit; what differs is what a GPU is asked."""
    torch.manual_seed(0)
    student = create_student(STUDENT, 10, 16)
    ours, theirs = average_weights(student, DECAY), average_weights(student, DECAY)
    views = torch.randn(3, 5, 3, 16, 16)
    for images in views:
        student.train()(images).sum().backward()
        with torch.no_grad():
            for weight in student.parameters():
                weight -= 0.01 * weight.grad
        update_average(ours, student, DECAY)
        theirs.update_parameters(student)
    measure_statistics(ours.module.eval(), views)
    update_bn(views, theirs.module)
    found, expected = ours.module.state_dict(), theirs.module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not ours.module.training and all(
        layer.momentum == 0.1 for layer in ours.modules() if hasattr(layer, "momentum")
    )
