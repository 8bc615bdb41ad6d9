"""One update of a student from one batch: few, large passes through the network; on a GPU one launch for all of it.

BatchNorm has to see one micro-batch at a time, since the teachers did; nothing else has to. So micro-batches go
through the network together, and only its BatchNorm layers take them apart (`by_micro_batch`): convolutions see more
images at once, weight gradients are made once instead of per micro-batch, and a GPU gets half as many launches.

On a GPU a step of a few small views still consists of a thousand short kernels, so after some steps it is captured as
a CUDA graph (`CapturedStep`) and replayed. Compiling the student is no option: on two CPU cores torch.compile took
40 s and made a step of ResNet-18 at 32 px, batch 16, no faster.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fadrm_hf.config import StudentConfig
from fadrm_hf.training.loader import Batch
from fadrm_hf.training.protocol import hard_label_loss, soft_loss_of
from fadrm_hf.training.shared_norm import normalise_together
from fadrm_hf.training.student_group import ALONE, StudentGroup
from fadrm_hf.training.weight_average import WeightAverage

_MOST_PIXELS = 1 << 21  # per pass, 41 views of 224 px: what accumulation saves in memory stays saved
_EAGER_STEPS = 3  # of each shape before its capture: they choose algorithms and create the optimiser's state
_MOST_GRAPHS = 4  # each keeps the memory of a step; an epoch has two shapes, those of full and of the last batch


class StudentStep:
    """The gradient over a batch and the optimiser's step.

    Args:
        student: The network, in training mode, (n, 3, S, S) normalised -> (n, C) logits.
        optimiser: Of its parameters.
        average: Its averaged weights, updated after each step, if the protocol has them.
        config: The protocol, with nothing left open.
        group: The processes that take each step together; all are given the same batches.
    """

    def __init__(
        self,
        student: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: WeightAverage | None,
        config: StudentConfig,
        group: StudentGroup = ALONE,
    ) -> None:
        self._student, self._optimiser, self._average, self._config = student, optimiser, average, config
        self._joins, self._group = can_join(student), group

    def __call__(self, batch: Batch, sizes: Sequence[int], is_hard: bool) -> Tensor:
        """Update the student.

        Args:
            batch: The views, where the student is (`on_device`).
            sizes: Of its micro-batches, in order.
            is_hard: Whether classes are learned instead of logits.

        Returns:
            () the mean loss before the update; nothing here waits for the device.
        """
        self._optimiser.zero_grad(set_to_none=True)
        passes = joined(sizes, batch.images.shape[-1] ** 2) if self._joins else [[size] for size in sizes]
        losses = []
        for part, own in zip(split(batch, [sum(own) for own in passes]), passes, strict=True):
            held = self._group.rows(len(part.labels))
            shown = rows_of(part, held)
            predicted = self._predict(shown.images, own)
            # Weighted by size, so that a smaller last micro-batch counts for its images and not more.
            loss = self._loss(predicted, shown, is_hard) * (len(held) / len(batch.labels))
            loss.backward()
            losses.append(loss.detach())
        loss = torch.stack(losses).sum()
        weights = self._student.parameters()
        self._group.add_up([loss, *(weight.grad for weight in weights if weight.grad is not None)])
        self._optimiser.step()
        if self._average is not None:
            self._average.update(self._student)
        return loss

    def _predict(self, images: Tensor, sizes: Sequence[int]) -> Tensor:
        """(n, C) float32 logits of several micro-batches."""
        is_reduced = self._config.precision == "bf16"
        with (
            by_micro_batch(self._student, sizes, self._group),
            torch.autocast(images.device.type, torch.bfloat16, enabled=is_reduced),
        ):
            predicted: Tensor = self._student(images)
        return predicted.float() if is_reduced else predicted

    def _loss(self, predicted: Tensor, part: Batch, is_hard: bool) -> Tensor:
        if not is_hard:
            return soft_loss_of(self._config, predicted, part.logits, part.labels)
        smoothing = self._config.label_smoothing
        return hard_label_loss(predicted, part.labels, part.mix_labels, part.mix_shares, smoothing)


class CapturedStep:
    """A step as one CUDA graph for each shape of batch.

    The first steps of a shape are taken as they are written, later ones are copied into the graph's own tensors and
    replayed. Learning rates and other numbers that change between steps must be tensors on the device. Dropout goes on
    drawing from the global generator. A network that cannot be captured goes on as it is written.

    Args:
        step: What is captured.
        device: The GPU.
    """

    def __init__(self, step: StudentStep, device: torch.device) -> None:
        self._step, self._device = step, device
        self._can_capture = True
        self._seen: dict[tuple[object, ...], int] = {}
        self._graphs: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, Batch, Tensor]] = {}

    def __call__(self, batch: Batch, sizes: Sequence[int], is_hard: bool) -> Tensor:
        """Update the student; see `StudentStep`."""
        key = (is_hard, tuple(sizes), batch.logits.shape)
        self._seen[key] = self._seen.get(key, 0) + 1
        if key not in self._graphs and self._seen[key] > _EAGER_STEPS and len(self._graphs) < _MOST_GRAPHS:
            self._capture(key, batch, sizes, is_hard)
        if key not in self._graphs:
            return self._aside(batch, sizes, is_hard)
        graph, static, loss = self._graphs[key]
        for mine, its in zip(_columns(static), _columns(batch), strict=True):
            mine.copy_(its, non_blocking=True)
        graph.replay()
        return loss.clone()

    def _aside(self, batch: Batch, sizes: Sequence[int], is_hard: bool) -> Tensor:
        """The step as it is written, on a stream of its own, as captures ask for."""
        stream, current = torch.cuda.Stream(self._device), torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            loss = self._step(batch, sizes, is_hard)
        current.wait_stream(stream)
        return loss

    def _capture(self, key: tuple[object, ...], batch: Batch, sizes: Sequence[int], is_hard: bool) -> None:
        """Record a step, which is not taken by that."""
        if not self._can_capture:
            return
        static = Batch(*(column.clone() for column in _columns(batch)))
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                loss = self._step(static, sizes, is_hard)
        except RuntimeError:  # a layer asks the GPU for a number, which a recording cannot answer
            self._can_capture = False
        else:
            self._graphs[key] = (graph, static, loss)


def can_join(network: nn.Module) -> bool:
    """Whether images of several micro-batches may go through a network together: only BatchNorm sees the others."""
    tracking = (layer for layer in network.modules() if layer._buffers.get("running_var") is not None)
    return all(isinstance(layer, _BatchNorm) for layer in tracking)


def joined(sizes: Sequence[int], pixels: int) -> list[list[int]]:
    """Consecutive micro-batches, by size, that go through the network together.

    Args:
        sizes: Of all micro-batches of a step.
        pixels: Of each image; a pass of more than one micro-batch has at most 2^21 in all.
    """
    passes: list[list[int]] = []
    for size in sizes:
        if passes and (sum(passes[-1]) + size) * pixels <= _MOST_PIXELS:
            passes[-1].append(size)
        else:
            passes.append([size])
    return passes


@contextmanager
def by_micro_batch(network: nn.Module, sizes: Sequence[int], group: StudentGroup = ALONE) -> Iterator[None]:
    """Let a network's BatchNorm layers normalise each micro-batch by itself, and count it by itself.

    Args:
        network: In training mode; inside the block it takes sum(sizes) images at a time, of which each process of the
            group gives it its own (`rows_of`).
        sizes: Images of each micro-batch, in order. Running statistics see one after the other.
        group: The processes that the images are divided over.
    """
    is_changed = len(sizes) > 1 or group.size > 1
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)] if is_changed else []
    for layer in layers:
        alone = partial(_apart, layer.forward, list(sizes))
        together = partial(normalise_together, layer, list(sizes), group)
        vars(layer)["forward"] = alone if group.size == 1 else together
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _apart(forward: Callable[[Tensor], Tensor], sizes: list[int], inputs: Tensor) -> Tensor:
    return torch.cat([forward(part) for part in inputs.split(sizes)])


def rows_of(batch: Batch, rows: range) -> Batch:
    """Some rows of a batch that follow one another; the first one where there are none.

    A process without rows takes part in what the others add up, with a row that counts for nothing: networks do not
    take batches of none.
    """
    place = slice(rows.start, rows.stop) if rows else slice(0, 1)
    return Batch(*(column[place] for column in _columns(batch)))


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch where the student is, its images in the order of memory that convolutions prefer."""
    images = batch.images.to(device, memory_format=torch.channels_last, non_blocking=True)
    rest = (column.to(device, non_blocking=True) for column in _columns(batch)[1:])
    return Batch(images, *rest)


def _columns(batch: Batch) -> tuple[Tensor, ...]:
    return batch.images, batch.labels, batch.logits, batch.mix_labels, batch.mix_shares


def split(batch: Batch, sizes: list[int]) -> Iterator[Batch]:
    """The batch in parts of some sizes, one after another."""
    for parts in zip(*(column.split(sizes) for column in _columns(batch)), strict=True):
        yield Batch(*parts)
