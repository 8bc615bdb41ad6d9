"""Distance of a recovery step from the limit: its arithmetic and its traffic, at the rates of this machine.

The limit of a step is the longer of two times. Arithmetic: the operations of convolutions and matrix products,
forward and backward to the pixels, at the best rate that a matrix product or a convolution reaches in the same run.
Traffic: every map is moved once for each pass that the mathematics needs, at the rate of a large copy. A convolution
needs its input and output, and both gradients; BatchNorm with its activation and statistics the input and output
forward, the input and both gradients backward; a residual one read forward and one write backward; Adam seven passes
over the pixels, views four. Rates and steps are both the best of all rounds, taken in turn. What plain torch
operations move is counted from the tensors that they read and write.

    .venv/bin/python benchmarks/limit.py --architecture resnet18_small_stem --size 32 --batch 100
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from recovery_step import BLOCK, Stepper, teacher_of, timed
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from fadrm_hf.config import RecoverConfig, SourceConfig
from fadrm_hf.config.datasets import resolve_source
from fadrm_hf.data.sources import load_source
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions

FORMS = ("plain", "eager", "compiled")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAPS = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d)
PASSES = {"in": {nn.Conv2d: 2, nn.BatchNorm2d: 3}, "out": {nn.Conv2d: 2, nn.BatchNorm2d: 2}}


class Traffic(TorchDispatchMode):
    """Counter of the bytes of tensors that operations read and write, and of the residuals added to maps."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = self.residual_values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view or "empty" in func.__name__ or "detach" in func.__name__:
            return result
        moved = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        self.num_bytes += sum(tensor.nbytes for tensor in moved)
        if func.__name__.startswith("add") and all(isinstance(a, Tensor) and a.ndim == 4 for a in args[:2]):
            self.residual_values += args[1].numel()
        return result


def needed_values(module: nn.Module, images: Tensor) -> int:
    """Count the values that a step must move, forward and backward, of all maps and of the pixels."""
    passes = {"values": 7 * images.numel() + 4 * images.numel()}

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kind = next(kind for kind in MAPS if isinstance(layer, kind))
        passes["values"] += PASSES["in"].get(kind, 2) * inputs[0].numel()
        passes["values"] += PASSES["out"].get(kind, 2) * output.numel()

    handles = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, MAPS)]
    with Traffic() as traffic, torch.no_grad():
        module(images)
    for handle in handles:
        handle.remove()
    return passes["values"] + 2 * traffic.residual_values


def needed_flops(module: nn.Module, images: Tensor) -> int:
    """Count the operations of convolutions and matrix products, forward and backward to the pixels."""
    pixels = images.clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        module(pixels).sum().backward()
    return counter.get_total_flops()


def moved_by(step: Callable[[], object]) -> int:
    """Count the bytes that the operations of a step read and write."""
    step()
    with Traffic() as traffic:
        step()
    return traffic.num_bytes


class Probe(NamedTuple):
    """Work whose rate is one of the machine's.

    Attributes:
        rate: Which: "matmul" or "convolution" in operations per second, "copy" in bytes per second.
        amount: Operations or bytes.
        work: Does it.
    """

    rate: str
    amount: float
    work: Callable[[], object]


def probes(device: torch.device, dtype: torch.dtype) -> list[Probe]:
    """Return large products, convolutions of the shapes of residual networks, and a large copy."""
    side, batch = (8192, 256) if device.type == "cuda" else (2048, 32)
    matrix = torch.randn((side, side), device=device, dtype=dtype)
    found = [Probe("matmul", 2 * side**3, lambda: matrix @ matrix)]
    for channels, size in ((64, 32), (64, 56), (128, 16), (128, 28), (256, 8), (256, 14), (512, 4), (512, 7)):
        maps = torch.randn((batch, channels, size, size), device=device, dtype=dtype)
        maps = maps.to(memory_format=torch.channels_last)
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, dtype).requires_grad_(False)
        layer = layer.to(memory_format=torch.channels_last)
        found.append(Probe("convolution", 2 * 9 * channels * maps.numel(), partial(layer, maps)))
    source = torch.randn(1 << 26, device=device)
    target = torch.empty_like(source)
    return [*found, Probe("copy", 2 * source.nbytes, lambda: target.copy_(source))]


def best_rates(tried: list[Probe], times: list[list[float]]) -> dict[str, float]:
    """Return the best rate of each kind over all rounds."""
    best: dict[str, float] = {}
    for place, probe in enumerate(tried):
        rate = probe.amount / min(of_round[place] for of_round in times)
        best[probe.rate] = max(best.get(probe.rate, 0.0), rate)
    return best


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet18_small_stem")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds of all forms, after two that are not")
    parser.add_argument("--precision", choices=sorted(DTYPES), default="fp32")
    return parser.parse_args()


def main() -> None:
    asked = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPES[asked.precision]
    block = BLOCK if device.type == "cuda" else 1  # that are timed together
    source = load_source(resolve_source(SourceConfig(name="digits", size=asked.size)))
    teacher = teacher_of(asked.architecture, source)
    module = teacher.module.to(device)
    images = torch.randn((asked.batch, 3, asked.size, asked.size), device=device)
    with ExitStack() as stack:

        def stepper(form: str, images: Tensor) -> Callable[[], None]:
            config = RecoverConfig(flip_probability=0.5, max_roll=4, precision=asked.precision, form=form)
            made = Stepper(stack.enter_context(open_matchers([teacher], config, device)), images, config, source)
            made.prepare()
            return partial(made.run, block)

        few = 2  # operations and traffic are in proportion to the batch
        need = {
            "flops": needed_flops(module, images[:few]) / few,
            "traffic_bytes": needed_values(module, images[:few]) * dtype.itemsize / few,
            "moved_by_plain_bytes": moved_by(stepper("plain", images[:few])) / few / block,
        }
        steps, tried = [stepper(form, images) for form in FORMS], probes(device, dtype)
        works = [*steps, *(probe.work for probe in tried)]
        rounds = [[timed(work, device) for work in works] for _ in range(asked.rounds + 2)][2:]
    rates = best_rates(tried, [times[len(FORMS) :] for times in rounds])
    ms = [1e3 * min(times) / asked.batch / block for times in zip(*rounds, strict=True)][: len(FORMS)]
    rows = report(asked, device.type, need, rates, ms)
    record = vars(asked) | need | {"rates_per_s": rates, "rows": rows, "rounds_s": rounds}
    suffix = "" if asked.precision == "fp32" else f"-{asked.precision}"
    name = f"bench-limit-{asked.architecture}-{asked.size}px{suffix}-{device.type}.json"
    write_json(Path("results") / name, record | {"machine": describe_machine(), "versions": library_versions()})


def report(
    asked: argparse.Namespace, device: str, need: dict[str, float], rates: dict[str, float], ms: list[float]
) -> list[dict[str, Any]]:
    """Print the table; the limit, and what of it each form reaches."""
    compute_ms = 1e3 * need["flops"] / max(rates["matmul"], rates["convolution"])
    traffic_ms = 1e3 * need["traffic_bytes"] / rates["copy"]
    limit_ms = max(compute_ms, traffic_ms)
    print(f"{asked.architecture}, {asked.size} px, batch {asked.batch}, {device}, {asked.precision}")
    products, convolutions, copies = (rate / 1e9 for rate in rates.values())
    print(
        f"reached: matrix products {products:,.0f}, convolutions {convolutions:,.0f} GFLOP/s, copies {copies:.1f} GB/s"
    )
    print(f"needed per image: {need['flops'] / 1e9:.3f} GFLOP, {compute_ms:.3f} ms")
    print(f"                  {need['traffic_bytes'] / 1e6:.1f} MB, {traffic_ms:.3f} ms", end="")
    print(f" (plain moves {need['moved_by_plain_bytes'] / 1e6:.1f} MB)")
    print(f"{'limit':<9} {limit_ms:8.3f} ms per image and iteration")
    for form, taken in zip(FORMS, ms, strict=True):
        print(f"{form:<9} {taken:8.3f} ms: {limit_ms / taken:.3f} of the limit")
    limits = {"compute_ms": compute_ms, "traffic_ms": traffic_ms, "limit_ms": limit_ms}
    reached = zip(FORMS, ms, strict=True)
    return [{"form": form, "ms": taken, "of_limit": limit_ms / taken} | limits for form, taken in reached]


if __name__ == "__main__":
    main()
