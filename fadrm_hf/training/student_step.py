"""One update of a student from one batch: few large passes through the network; on a GPU one launch for all of it.

BatchNorm has to see one micro-batch at a time, since the teachers did; no other layer has to. So micro-batches go
through the network together, and only BatchNorm layers separate them (`by_micro_batch`): convolutions see more images
at once, weight gradients are computed once instead of per micro-batch, and a GPU gets half as many launches.

On a GPU a step of a few small views still consists of a thousand short kernels, so after some steps it is captured as
a CUDA graph (`CapturedStep`) and replayed. Compiling the student does not pay: on two CPU cores torch.compile took
40 s and made a step of ResNet-18 at 32 px, batch 16, no faster.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fadrm_hf.config import StudentConfig
from fadrm_hf.runtime.number_format import rounding_products
from fadrm_hf.training.batch import Batch, select_rows, split
from fadrm_hf.training.protocol import hard_label_loss, soft_loss
from fadrm_hf.training.shared_norm import normalise_together
from fadrm_hf.training.student_group import ALONE, StudentGroup

_MOST_PIXELS = 1 << 21  # per pass, 41 views of 224 px: what accumulation saves in memory stays saved
_EAGER_STEPS = 3  # of each shape before its capture: they choose algorithms and create the optimiser's state
_MOST_GRAPHS = 4  # each keeps the memory of a step; an epoch has two shapes, of full batches and of the last one


class StudentStep:
    """The gradient over a batch and the optimiser's step.

    Args:
        student: The network, in training mode, (n, 3, S, S) normalised -> (n, C) logits.
        optimiser: Of its parameters.
        config: The resolved protocol.
        group: The processes that take each step together; all are given the same batches.
    """

    def __init__(
        self,
        student: nn.Module,
        optimiser: torch.optim.Optimizer,
        config: StudentConfig,
        group: StudentGroup = ALONE,
    ) -> None:
        self._student, self._optimiser, self._config = student, optimiser, config
        self._joins, self._group = can_join(student), group

    def __call__(self, batch: Batch, sizes: Sequence[int], is_hard: bool) -> Tensor:
        """Update the student.

        Args:
            batch: The views, on the student's device (`to_device`).
            sizes: Of its micro-batches, in order.
            is_hard: Whether classes are learned instead of logits.

        Returns:
            () the mean loss before the update; nothing here waits for the device.
        """
        with rounding_products(self._config.precision):
            return self._update(batch, sizes, is_hard)

    def _update(self, batch: Batch, sizes: Sequence[int], is_hard: bool) -> Tensor:
        self._optimiser.zero_grad(set_to_none=True)
        passes = group_passes(sizes, batch.images.shape[-1] ** 2) if self._joins else [[size] for size in sizes]
        losses = []
        for part, part_sizes in zip(split(batch, [sum(group) for group in passes]), passes, strict=True):
            rows = self._group.rows(len(part.labels))
            views = select_rows(part, rows)
            predicted = self._predict(views.images, part_sizes)
            # Weighted by size, so that a smaller last micro-batch counts for its images and not more.
            loss = self._loss(predicted, views, is_hard) * (len(rows) / len(batch.labels))
            loss.backward()
            losses.append(loss.detach())
        loss = torch.stack(losses).sum()
        weights = self._student.parameters()
        self._group.all_reduce_([loss, *(weight.grad for weight in weights if weight.grad is not None)])
        self._optimiser.step()
        return loss

    def _predict(self, images: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return (n, C) float32 logits of several micro-batches."""
        is_reduced = self._config.precision == "bf16"
        with (
            by_micro_batch(self._student, sizes, self._group),
            torch.autocast(images.device.type, torch.bfloat16, enabled=is_reduced),
        ):
            predicted: Tensor = self._student(images)
        return predicted.float() if is_reduced else predicted

    def _loss(self, predicted: Tensor, part: Batch, is_hard: bool) -> Tensor:
        if not is_hard:
            return soft_loss(self._config, predicted, part.logits, part.labels)
        smoothing = self._config.label_smoothing
        return hard_label_loss(predicted, part.labels, part.mix_labels, part.mix_shares, smoothing)


class CapturedStep:
    """A step as one CUDA graph for each shape of batch.

    The first steps of a shape run eagerly; later ones are copied into the graph's own tensors and replayed. Learning
    rates and other numbers that change between steps must be tensors on the device. Dropout continues to draw from the
    global generator. A network that cannot be captured continues eagerly.
    """

    def __init__(self, step: StudentStep, device: torch.device) -> None:
        self._step, self._device = step, device
        self._can_capture = True
        self._seen: dict[tuple[object, ...], int] = {}
        self._graphs: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, Batch, Tensor]] = {}
        self._pool: Any = None  # of memory, for all graphs: only one runs at a time, and its result is copied at once

    def __call__(self, batch: Batch, sizes: Sequence[int], is_hard: bool) -> Tensor:
        """Update the student; see `StudentStep`."""
        key = (is_hard, tuple(sizes), batch.logits.shape)
        self._seen[key] = self._seen.get(key, 0) + 1
        if key not in self._graphs and self._seen[key] > _EAGER_STEPS and len(self._graphs) < _MOST_GRAPHS:
            self._capture(key, batch, sizes, is_hard)
        if key not in self._graphs:
            return self._run_eagerly(batch, sizes, is_hard)
        graph, static, loss = self._graphs[key]
        for target, column in zip(static, batch, strict=True):
            target.copy_(column, non_blocking=True)
        graph.replay()
        return loss.clone()

    def _run_eagerly(self, batch: Batch, sizes: Sequence[int], is_hard: bool) -> Tensor:
        """Run the step on a side stream, as later captures require."""
        stream, current = torch.cuda.Stream(self._device), torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            loss = self._step(batch, sizes, is_hard)
        current.wait_stream(stream)
        return loss

    def _capture(self, key: tuple[object, ...], batch: Batch, sizes: Sequence[int], is_hard: bool) -> None:
        """Record a step without taking it."""
        if not self._can_capture:
            return
        static = Batch(*(column.clone() for column in batch))
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the GPU meanwhile, such as the one that pins the next batches.
            stream, mode = torch.cuda.Stream(self._device), "thread_local"
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode=mode):
                loss = self._step(static, sizes, is_hard)
        except RuntimeError:  # a layer reads a number from the GPU, which a recording cannot do
            self._can_capture = False
        else:
            self._pool = graph.pool()
            self._graphs[key] = (graph, static, loss)


def can_join(network: nn.Module) -> bool:
    """Return whether micro-batches may go through a network together: whether only BatchNorm looks across images."""
    tracking = (layer for layer in network.modules() if layer._buffers.get("running_var") is not None)
    return all(isinstance(layer, _BatchNorm) for layer in tracking)


def group_passes(sizes: Sequence[int], pixels: int) -> list[list[int]]:
    """Group consecutive micro-batches, by size, so that a pass of several has at most 2^21 pixels in all."""
    passes: list[list[int]] = []
    for size in sizes:
        if passes and (sum(passes[-1]) + size) * pixels <= _MOST_PIXELS:
            passes[-1].append(size)
        else:
            passes.append([size])
    return passes


@contextmanager
def by_micro_batch(network: nn.Module, sizes: Sequence[int], group: StudentGroup = ALONE) -> Iterator[None]:
    """Let a network's BatchNorm layers normalise and count each micro-batch by itself.

    Args:
        network: In training mode; inside the block it takes sum(sizes) images at a time, of which each process of the
            group passes its own rows (`select_rows`).
        sizes: Images of each micro-batch, in order. Running statistics see one after the other.
        group: The processes that the images are divided over.
    """
    is_changed = len(sizes) > 1 or group.size > 1
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)] if is_changed else []
    for layer in layers:
        alone = partial(_forward_parts, layer.forward, list(sizes))
        together = partial(normalise_together, layer, list(sizes), group)
        vars(layer)["forward"] = alone if group.size == 1 else together
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


@torch.no_grad()
def measure_statistics(network: nn.Module, micro_batches: Iterable[Tensor]) -> None:
    """Set running statistics to the average of what BatchNorm layers see, each micro-batch counted alike.

    The numbers are those of torch's `update_bn`, whose layers read the number of micro-batches from a GPU each time.

    Args:
        network: In either mode, which it keeps.
        micro_batches: (n, 3, S, S) each; the network has seen one before the next is requested.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    if not layers:
        return
    was_training, momenta = network.training, [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
    network.train()
    for number, images in enumerate(micro_batches, start=1):
        for layer in layers:
            layer.momentum = 1.0 / number
        network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.train(was_training)


def _forward_parts(forward: Callable[[Tensor], Tensor], sizes: list[int], inputs: Tensor) -> Tensor:
    return torch.cat([forward(part) for part in inputs.split(sizes)])
