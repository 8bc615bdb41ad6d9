"""Steps of recovery as CUDA graphs: one launch in place of hundreds of kernels of microseconds.

A graph reads and writes where it was captured. So what changes from step to step is copied to tensors that stay where
they are (`StepGraphs.hold`), and one graph serves all segments and shards in which the same teachers see as many
images of one size. All graphs of a run share one pool of memory, since only one of them runs at a time.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Result = TypeVar("Result")

WARM_UP = 2  # steps of each kind before its capture: kernels are compiled and chosen, memory is found
_WORTH_CAPTURING = 50  # iterations; capturing takes as long as a few of them that are not captured


class StepGraphs:
    """Graphs of the steps of a run, captured as they occur, and the tensors that they read.

    Args:
        device: Where the steps run.
        captures: Whether they are captured; else every step is computed as it is written.
    """

    def __init__(self, device: torch.device, captures: bool) -> None:
        self.captures = captures and device.type == "cuda"
        self._held: dict[Hashable, Tensor] = {}
        self._seen: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Any]] = {}  # before the pool, which outlives them
        if self.captures:
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.MemPool()

    @classmethod
    def of(cls, device: torch.device, form: str | None, iterations: int) -> "StepGraphs":
        """Return those of a run of some form, in which each image is optimised for so many iterations."""
        return cls(device, captures=form == "compiled" and iterations >= _WORTH_CAPTURING)

    @torch.no_grad()
    def hold(self, name: Hashable, value: Tensor) -> Tensor:
        """Return a copy of a tensor; for steps that are captured, at a place that its name and its shape decide."""
        if not self.captures:
            return value.detach().clone()
        key = name, value.shape, value.dtype
        if key not in self._held:
            self._held[key] = torch.empty_like(value, requires_grad=False)
        return self._held[key].copy_(value)

    def run(self, kind: Hashable, step: Callable[..., Result], *inputs: Tensor) -> Result:
        """Return what a step makes of some tensors; from the third of its kind on by a graph.

        Args:
            kind: All that decides what is computed, beside the values of tensors; `None`: it is not captured.
            step: What is computed. Beyond its inputs it reads what is held or never changes, and it neither waits for
                the device nor draws random numbers.
            inputs: Tensors, copied to where the graph reads them.

        Returns:
            Its result, which the next step of its kind may overwrite.
        """
        if not self.captures:
            return step(*inputs)
        held = [self.hold(f"input {place}", value) for place, value in enumerate(inputs)]
        if kind in self._graphs:
            return self._replay(kind)
        self._seen[kind] += 1
        if kind is None or self._seen[kind] <= WARM_UP:
            with self._aside():
                return step(*held)
        graph = torch.cuda.CUDAGraph()
        with _in_this_thread(), torch.cuda.graph(graph, pool=cast(Any, self._pool.id), stream=self._stream):
            result = step(*held)
        self._graphs[kind] = graph, result
        return self._replay(kind)

    def _replay(self, kind: Hashable) -> Any:
        graph, result = self._graphs[kind]
        graph.replay()
        return result

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Run what is inside on the stream and in the memory of the graphs, which find both as they need them."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with _in_this_thread(), torch.cuda.stream(self._stream), torch.cuda.use_mem_pool(self._pool):
            yield
        current.wait_stream(self._stream)


def _in_this_thread() -> AbstractContextManager[None]:
    """Compute gradients in this thread, which alone takes memory from the pool, and has the libraries' handles."""
    return torch.autograd.set_multithreading_enabled(False)
