"""One recovery step in each of its forms, in one run: plain as published, eager, and compiled; several formats.

Plain is the published loop (`--plain`): forward hooks on every BatchNorm layer, autocast, torchvision's transforms.
All forms see the same views of the same images. Steps are interleaved, so that a machine that slows down slows all
of them. Ratios are those to plain fp32 (on a GPU: to plain fp16), of the fastest rounds and of the medians; the plain
form takes new memory for every map, and scatters most, so the figure to quote is the smaller of the two. Peak memory
is what the tensors of a step take beyond those that were there before; on a GPU, those of steps that are captured. The
first steps, which compile and capture, are timed apart.

    .venv/bin/python benchmarks/recovery_step.py --architectures resnet18_small_stem --size 32 --batch 100

Several architectures are teachers that take turns, as in FADRM+; then one step of each is counted as one.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import timm
import torch
from torch import Tensor

import fadrm_hf.networks.small_images  # noqa: F401 - registers the small-image architectures
from fadrm_hf.config import RecoverConfig, SourceConfig
from fadrm_hf.config.datasets import resolve_source
from fadrm_hf.data.sources import Source, load_source
from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.recovery.capture import WARM_UP
from fadrm_hf.recovery.matcher import Matcher, open_matchers
from fadrm_hf.recovery.memory import peak_tensor_bytes
from fadrm_hf.recovery.recover import Recovery
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.randomness import generator

Variant = tuple[str, str]  # form, precision
CPU_VARIANTS = [("plain", "fp32"), ("plain", "bf16"), ("eager", "fp32"), ("compiled", "fp32"), ("compiled", "bf16")]
CUDA_VARIANTS = [("plain", "fp16"), ("eager", "fp16"), ("compiled", "fp16"), ("compiled", "fp32")]
BLOCK = 20  # steps of each teacher that are timed together on a GPU


def teacher_of(architecture: str, source: Source) -> Teacher:
    """Build a network whose BatchNorm layers have seen random images, so that distances and gradients are ordinary."""
    torch.manual_seed(0)
    module = timm.create_model(architecture, num_classes=10).train()
    with torch.no_grad():
        module(torch.randn((16, 3, source.size, source.size)))
    mean, std = source.config.mean, source.config.std
    assert mean is not None and std is not None
    return Teacher(architecture, module.eval().requires_grad_(False), None, mean, std, sha256="")


class Stepper:
    """Steps of one form on images of its own."""

    def __init__(self, matchers: list[Matcher], images: Tensor, config: RecoverConfig, source: Source) -> None:
        self.images = images.clone()
        labels = torch.arange(len(images), device=images.device) % 10
        rng = generator(0, "benchmark")
        self._recovery = Recovery(matchers, labels, source, config, 10**6, rng, lambda done, losses: None)
        self._num_teachers = len(matchers)

    def prepare(self) -> None:
        """Take the first steps, in which graphs are captured on a GPU."""
        self.run((WARM_UP + 1 if self.images.is_cuda else 1) * self._num_teachers)

    def run(self, steps: int) -> None:
        """Take the next steps."""
        self.images = self._recovery.optimise(self.images, steps)


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Return the seconds that a call takes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(arguments: argparse.Namespace, variants: list[Variant], device: torch.device) -> dict[Variant, dict]:
    """Measure milliseconds per image and iteration, and bytes per image, of each variant."""
    source = load_source(resolve_source(SourceConfig(name="digits", size=arguments.size)))
    teachers = [teacher_of(architecture, source) for architecture in arguments.architectures]
    images = torch.randn((arguments.batch, 3, arguments.size, arguments.size), device=device)
    block = BLOCK * len(teachers) if device.type == "cuda" else len(teachers)
    steppers, contexts, results = {}, [], {}
    try:
        for form, precision in variants:
            config = RecoverConfig(flip_probability=0.5, max_roll=4, form=form, precision=precision)
            contexts.append(open_matchers(teachers, config, device))
            new = partial(Stepper, contexts[-1].__enter__(), images, config, source)
            steppers[form, precision] = new()
            first = timed(new().prepare, device)  # compiles
            peak = peak_tensor_bytes(lambda new=new: new().prepare(), device)
            captured = timed(steppers[form, precision].prepare, device)
            memory = {"bytes_per_image": peak / arguments.batch}
            results[form, precision] = memory | {"first_seconds": first, "prepare_seconds": captured, "times": []}
        for _ in range(arguments.rounds):
            for variant, stepper in steppers.items():
                results[variant]["times"].append(timed(lambda stepper=stepper: stepper.run(block), device))
    finally:
        for context in contexts:
            context.__exit__(None, None, None)
    for result in results.values():
        result["ms"] = 1e3 * statistics.median(result["times"]) / arguments.batch / block
        result["fastest_ms"] = 1e3 * min(result["times"]) / arguments.batch / block
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=["resnet18_small_stem"])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds of all variants")
    parser.add_argument("--name", default=None, help="of the result's file; the architecture if not given")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    variants = CUDA_VARIANTS if device.type == "cuda" else CPU_VARIANTS
    results = measure(arguments, variants, device)
    plain = results[variants[0]]
    what = " + ".join(arguments.architectures)
    print(f"{what}, {arguments.size} px, batch {arguments.batch}, {device.type}; against {' '.join(variants[0])}")
    rows = []
    for (form, precision), result in results.items():
        speed, memory = plain["ms"] / result["ms"], result["bytes_per_image"] / plain["bytes_per_image"]
        fastest = plain["fastest_ms"] / result["fastest_ms"]
        ratios = {"speed": speed, "speed_of_fastest": fastest, "memory": memory}
        rows.append({"form": form, "precision": precision} | ratios | result)
        print(
            f"{form:9} {precision}: {result['fastest_ms']:8.3f} ms per image and iteration "
            f"(median {result['ms']:8.3f}), {fastest:5.2f} times as fast ({speed:5.2f}); "
            f"{result['bytes_per_image'] / 1e6:6.2f} MB per image, {memory:4.2f} of it; "
            f"first steps {result['first_seconds']:.1f} s, compiled {result['prepare_seconds']:.2f} s"
        )
    name = f"bench-recovery-step-{arguments.name or arguments.architectures[0]}-{arguments.size}px-{device.type}.json"
    record = {**vars(arguments), "rows": rows, "machine": describe_machine(), "versions": library_versions()}
    write_json(Path("results") / name, record)


if __name__ == "__main__":
    main()
