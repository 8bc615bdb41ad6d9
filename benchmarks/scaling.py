"""The cost of recovery with more images per class and more iterations: per image and iteration, and in memory.

The shards of runs of FADRM with 1, 10 and 50 images per class, each image optimised for as many iterations; then twice
and four times as many iterations of the first. All are timed in turn, several times; the figure to quote is the
median of each divided by that of the first in the same round. Memory is the most that tensors take at once.

    .venv/bin/python benchmarks/scaling.py --architecture resnet10_narrow --size 16
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import timm
import torch

import fadrm_hf.networks.small_images  # noqa: F401 - registers the small-image architectures
from fadrm_hf.config import RecoverConfig, RunConfig, SourceConfig, TeacherConfig
from fadrm_hf.config.datasets import resolve_source
from fadrm_hf.data.sources import Source, load_source
from fadrm_hf.methods import find_method
from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.recovery.capture import StepGraphs
from fadrm_hf.recovery.matcher import Matcher, open_matchers
from fadrm_hf.recovery.memory import peak_tensor_bytes
from fadrm_hf.recovery.trial import graphs_of, try_recovery
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.shards import recovery_shards


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet10_narrow")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--batch", type=int, default=100, help="digits have ten classes, so 10 images at most")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--steps", type=int, default=8, help="iterations of each image")
    parser.add_argument("--pairs", type=int, default=7, help="rounds, after one that is not counted")
    return parser.parse_args()


def recover(
    run: RunConfig,
    matchers: list[Matcher],
    source: Source,
    device: torch.device,
    iterations: int,
    graphs: StepGraphs | None = None,
) -> None:
    """Recover all shards of a run; by graphs that there are, or new ones."""
    graphs = graphs or graphs_of(run, device)
    for shard in recovery_shards(len(source.class_map), run.ipc, run.recover):
        try_recovery(run, matchers, source, device, shard, iterations, graphs)
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(work: Callable[[], None]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    asked = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = load_source(resolve_source(SourceConfig(name="digits", size=asked.size)))
    module = timm.create_model(asked.architecture, num_classes=10).to(device).eval().requires_grad_(False)
    mean, std = source.config.mean, source.config.std
    assert mean is not None and std is not None
    teacher = Teacher(asked.architecture, module, None, mean, std, sha256="")
    form = "compiled" if device.type == "cuda" else "eager"  # few steps of small images, which a GPU captures
    config = RecoverConfig(flip_probability=0.0, max_roll=2, batch_size=asked.batch, form=form)
    method = find_method("fadrm")().resolve(asked.size)
    first = RunConfig("benchmark", asked.ipc[0], method, recover=config, teachers=TeacherConfig((teacher.name,)))
    cases = [(ipc, asked.steps) for ipc in asked.ipc] + [(asked.ipc[0], factor * asked.steps) for factor in (2, 4)]
    rows = []
    with open_matchers([teacher], config, device) as matchers:
        works = [partial(recover, replace(first, ipc=ipc), matchers, source, device, steps) for ipc, steps in cases]
        replays = [partial(work, graphs_of(first, device)) for work in works]
        rounds = [[timed(work) for work in replays] for _ in range(asked.pairs + 1)][1:]
        peaks = [peak_tensor_bytes(work, device) for work in works]
    print(f"{asked.architecture}, {asked.size} px, {device.type}, batches of at most {asked.batch} images")
    for place, (ipc, steps) in enumerate(cases):
        units = ipc * 10 * steps
        ms = 1e3 * statistics.median(times[place] for times in rounds) / units
        share = statistics.median(times[place] / times[0] for times in rounds) * cases[0][0] * 10 * cases[0][1] / units
        row = {"ipc": ipc, "images": ipc * 10, "iterations": steps, "ms_per_image_and_iteration": ms}
        rows.append(row | {"relative_cost": share, "peak_bytes": peaks[place]})
        print(
            f"IPC {ipc:>3}, {10 * ipc:>4} images, {steps:>3} iterations: {ms:.4f} ms per image and iteration, "
            f"{share:.3f} of the first; peak memory {peaks[place] / 1e6:.2f} MB"
        )
    record = vars(asked) | {"rows": rows, "rounds_s": rounds}
    name = f"bench-scaling-{asked.architecture}-{asked.size}px-{device.type}.json"
    write_json(Path("results") / name, record | {"machine": describe_machine(), "versions": library_versions()})


if __name__ == "__main__":
    main()
