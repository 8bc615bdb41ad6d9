"""Micro-batches that go through a student together, against the same ones after another, in float64."""

import copy
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

import fadrm_hf.networks.small_images  # noqa: F401 - registers the small-image architectures
from fadrm_hf.config import StudentConfig
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.training.batch import Batch, to_device
from fadrm_hf.training.protocol import create_optimiser, set_learning_rate, soft_label_loss
from fadrm_hf.training.student_step import CapturedStep, StudentStep, by_micro_batch, can_join, group_passes

pytestmark = pytest.mark.numerical

CONFIG = StudentConfig(lr=0.1, eta=1.0, optimiser="sgd", momentum=0.0, weight_decay=0.0)


class Tracked(nn.Sequential):
    """A network whose instance statistics are averaged over whatever goes through it together."""

    def __init__(self):
        norm = nn.InstanceNorm2d(4, track_running_stats=True)
        super().__init__(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def network(name="resnet10_narrow"):
    torch.manual_seed(0)
    module = Tracked() if name == "tracked" else timm.create_model(name, num_classes=5)
    return module.double().train()


def batch_of(num, size=16):
    rng = generator(0, "step")
    images = torch.randn((num, 3, size, size), generator=rng, dtype=torch.float64)
    labels = torch.randint(0, 5, (num,), generator=rng)
    logits = torch.randn((num, 5), generator=rng, dtype=torch.float64)
    return Batch(images, labels, logits, labels.flip(0), torch.rand((num,), generator=rng, dtype=torch.float64))


def gradients(module):
    return [parameter.grad for parameter in module.parameters()]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("sizes", [[8, 8], [6, 6, 4], [5, 2]])
@pytest.mark.parametrize("name", ["resnet10_narrow", "mobilenetv2_100_small_stem"])  # timm has norms with activation
def test_batchnorm_sees_one_micro_batch_at_a_time(name, sizes):
    together, apart = network(name), network(name)
    batch = batch_of(sum(sizes))
    with by_micro_batch(together, sizes):
        logits = together(batch.images)
    parts = [apart(images) for images in batch.images.split(sizes)]
    close(logits, torch.cat(parts))
    whole = network(name)
    assert (whole(batch.images) - logits).abs().max() > 1e-3, "the whole batch at once is something else"
    (logits * batch.logits).sum().backward()
    (torch.cat(parts) * batch.logits).sum().backward()
    close(gradients(together), gradients(apart))
    close(dict(together.named_buffers()), dict(apart.named_buffers()))  # running statistics, one after the other


def test_a_network_is_itself_again_afterwards_also_after_an_error():
    student, before = network(), network()
    with pytest.raises(RuntimeError, match="split"), by_micro_batch(student, [3, 4]):
        student(batch_of(6).images)
    images = batch_of(6).images
    close(student(images), before(images))
    close(copy.deepcopy(student)(images), copy.deepcopy(before)(images))


def test_passes_are_as_large_as_memory_allows():
    assert group_passes([8, 8], 32 * 32) == [[8, 8]]
    assert group_passes([16, 16, 16, 16], 224 * 224) == [[16, 16], [16, 16]]
    assert group_passes([50, 50, 7], 224 * 224) == [[50], [50], [7]]  # each above the limit: as if nothing were joined
    assert group_passes([20, 20, 20, 3], 224 * 224) == [[20, 20], [20, 3]]


def test_what_else_sees_its_neighbours_is_not_joined():
    assert can_join(network()) and can_join(network("convnet3_narrow"))
    assert not can_join(network("tracked"))


@pytest.mark.parametrize("name", ["resnet10_narrow", "tracked"])
@pytest.mark.parametrize("is_hard", [False, True])
def test_a_step_is_the_mean_gradient_of_its_micro_batches(name, is_hard):
    """Of 6, 6 and 4 views; each micro-batch through the network by itself, weighted by its share."""
    student, plain = network(name), network(name)
    batch, sizes = batch_of(16), [6, 6, 4]
    loss = StudentStep(student, create_optimiser(CONFIG, student), CONFIG)(batch, sizes, is_hard)
    total = torch.zeros((), dtype=torch.float64)
    for rows in torch.arange(16).split(sizes):
        predicted = plain(batch.images[rows])
        if is_hard:
            shares, logs = batch.mix_shares[rows], predicted.log_softmax(1)
            own, mixed = (-logs.gather(1, y[rows, None])[:, 0] for y in (batch.labels, batch.mix_labels))
            part = ((1 - shares) * own + shares * mixed).sum()
        else:
            part = soft_label_loss(predicted, batch.logits[rows], 20.0) * len(rows)
        total = total + part / 16
    close(loss, total.detach())
    total.backward()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter -= 0.1 * parameter.grad
    close(dict(student.named_parameters()), dict(plain.named_parameters()))
    close(dict(student.named_buffers()), dict(plain.named_buffers()))


def test_half_the_bits_point_the_same_way():
    """bf16 convolutions; weights, gradients and the loss stay fp32, and no layer is left in another format."""
    results = []
    for precision in ("fp32", "bf16"):
        student, config = network().float(), replace(CONFIG, precision=precision)
        batch = Batch(*(x.float() if x.is_floating_point() else x for x in batch_of(16)))
        loss = StudentStep(student, create_optimiser(config, student), config)(batch, [8, 8], False)
        assert {loss.dtype, *(tensor.dtype for tensor in gradients(student))} == {torch.float32}
        results.append((loss, torch.cat([tensor.flatten() for tensor in gradients(student)])))
    (exact, expected), (reduced, found) = results
    torch.testing.assert_close(reduced, exact, rtol=0.05, atol=0)
    assert not torch.equal(found, expected) and torch.cosine_similarity(found, expected, dim=0) > 0.97


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_factors_are_rounded_to_tf32_where_the_protocol_says_so(precision):
    student, config, seen = network().float(), replace(CONFIG, precision=precision), set()
    student.register_forward_pre_hook(lambda *_: seen.add(torch.backends.cudnn.allow_tf32))
    next(student.parameters()).register_hook(lambda _: seen.add(torch.backends.cuda.matmul.allow_tf32))
    batch = Batch(*(x.float() if x.is_floating_point() else x for x in batch_of(16)))
    StudentStep(student, create_optimiser(config, student), config)(batch, [8, 8], False)
    assert seen == {precision == "tf32"}


def test_the_learning_rate_is_set_as_a_number_and_as_a_tensor():
    for rate in (0.5, torch.tensor(0.5)):
        weight = nn.Parameter(torch.ones(2))
        optimiser = torch.optim.SGD([weight], lr=rate)
        set_learning_rate(optimiser, 0.25)
        weight.sum().backward()
        optimiser.step()
        assert weight.tolist() == [0.75, 0.75]
        assert not isinstance(rate, torch.Tensor) or optimiser.param_groups[0]["lr"] is rate, "a capture holds it"


def test_a_batch_is_brought_to_the_student_as_it_is():
    batch = batch_of(4)
    brought = to_device(batch, torch.device("cpu"))
    assert all(torch.equal(x, y) for x, y in zip(batch, brought, strict=True))
    assert brought.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_captured_steps_are_the_steps_that_were_written(optimiser):
    device, config = torch.device("cuda"), StudentConfig(lr=0.01, eta=1.0, optimiser=optimiser)
    batches = [to_device(batch_of(num), device) for num in (16, 16, 12) * 6]
    trained = []
    for captured in (False, True):
        student = network().to(device)
        adaptive = create_optimiser(config, student)
        written = StudentStep(student, adaptive, config)
        step = CapturedStep(written, device) if captured else written
        losses = []
        for index, batch in enumerate(batches):
            set_learning_rate(adaptive, 0.01 / (1 + index))
            losses.append(step(batch, [8, len(batch.labels) - 8], False))
        trained.append([torch.stack(losses), *student.state_dict().values()])
    close(trained[1], trained[0])


@pytest.mark.gpu
@pytest.mark.parametrize("is_hard", [False, True])
def test_steps_of_a_gpu_are_those_of_a_cpu(is_hard):
    """In float64, captured: after six steps, whose first three are not replayed."""
    trained = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        student = network().to(device)
        step = StudentStep(student, create_optimiser(CONFIG, student), CONFIG)
        run = step if device.type == "cpu" else CapturedStep(step, device)
        losses = [run(to_device(batch_of(16), device), [8, 8], is_hard) for _ in range(6)]
        trained.append([tensor.cpu() for tensor in (torch.stack(losses), *student.state_dict().values())])
    for found, expected in zip(*trained, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
