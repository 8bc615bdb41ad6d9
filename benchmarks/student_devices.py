"""One student by several processes against the same student by one, which has the cores of all: steps in turns.

Steps are those of `train-student` on random views; both forms begin at the same weights, and how far they differ after
all steps is printed. While one process works alone the others wait. Each round is a turn of either form,
and the median of the rounds' ratios is the figure to quote. On CPUs each process has its part of the cores; with as
many GPUs as processes each has one, and one process takes captured steps.

    .venv/bin/python benchmarks/student_devices.py --processes 2 --architecture resnet18_small_stem --batch 16
"""

import argparse
import os
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.distributed as dist
from torch import Tensor, nn

import fadrm_hf.networks.small_images  # noqa: F401 - registers the small-image architectures
from fadrm_hf.config import StudentConfig
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.batch import Batch, to_device
from fadrm_hf.training.protocol import create_optimiser
from fadrm_hf.training.student_group import ALONE, StudentGroup, student_group
from fadrm_hf.training.student_step import CapturedStep, StudentStep

CLASSES, WARM_UP = 10, 6
Step = Callable[[Batch, Sequence[int], bool], Tensor]


def student_of(architecture: str, device: torch.device) -> nn.Module:
    """Build the student, with the same weights on every process."""
    torch.manual_seed(0)
    module: nn.Module = timm.create_model(architecture, num_classes=CLASSES)
    return module.to(device).to(memory_format=torch.channels_last).train()


def step_of(student: nn.Module, precision: Any, group: StudentGroup, device: torch.device) -> Step:
    """Build a student's step as `train-student` takes it, for this process alone or for a group."""
    config = StudentConfig(lr=1e-3, eta=1.0, precision=precision)
    step = StudentStep(student, create_optimiser(config, student), config, group)
    return CapturedStep(step, device) if device.type == "cuda" and group.size == 1 else step


def batches_of(arguments: argparse.Namespace, device: torch.device) -> list[Batch]:
    """Draw a few batches of random views, the same on every process."""
    made = []
    for key in range(4):
        rng, num = generator(key, "benchmark"), arguments.batch
        images = torch.randn((num, 3, arguments.size, arguments.size), generator=rng)
        labels = torch.randint(0, CLASSES, (num,), generator=rng)
        batch = Batch(images, labels, torch.randn((num, CLASSES), generator=rng), labels, torch.zeros(num))
        made.append(to_device(batch, device))
    return made


def timed(step: Step, batches: list[Batch], arguments: argparse.Namespace, num: int, device: torch.device) -> float:
    """Return the seconds that some steps take."""
    size = arguments.batch // arguments.accumulation
    started = time.perf_counter()
    for index in range(num):
        step(batches[index % len(batches)], [size] * arguments.accumulation, False)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(rank: int, arguments: argparse.Namespace, port: int) -> None:
    """Measure both forms on this process; the first process reports."""
    num = arguments.processes
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in places.items()}, MASTER_ADDR="127.0.0.1")
    if torch.cuda.device_count() < num:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    cores = len(os.sched_getaffinity(0))
    state = join_world()
    device, batches = state.device, batches_of(arguments, state.device)
    with student_group(state, 1) as group:
        forms = {"one": (ALONE, cores), "together": (group, max(1, cores // num))}
        students = {name: student_of(arguments.architecture, device) for name in forms}
        steps = {name: step_of(students[name], arguments.precision, forms[name][0], device) for name in forms}
        seconds: dict[str, list[float]] = {name: [] for name in forms}
        for turn in range(1 + arguments.rounds):
            for name, (_, threads) in forms.items():
                dist.barrier()
                torch.set_num_threads(threads)
                if rank == 0 or name == "together":
                    taken = timed(steps[name], batches, arguments, arguments.steps if turn else WARM_UP, device)
                    seconds[name] += [taken] if turn else []
        dist.barrier()
    if rank == 0:
        pairs = zip(*(student.parameters() for student in students.values()), strict=True)
        differences = torch.cat([(one - together).detach().abs().flatten() for one, together in pairs])
        report(arguments, seconds, differences.mean().item(), device)


def report(
    arguments: argparse.Namespace, seconds: dict[str, list[float]], difference: float, device: torch.device
) -> None:
    """Print the table and write the file."""
    ratios = [one / together for one, together in zip(*seconds.values(), strict=True)]
    for name, turns in seconds.items():
        print(f"{name:<9}{1e3 * statistics.median(turns) / arguments.steps:9.1f} ms per step")
    print(f"{arguments.processes} processes are {statistics.median(ratios):.2f} times as fast as one")
    print(f"weights differ by {difference:.1e} on average")
    record = vars(arguments) | {"ratio": statistics.median(ratios), "ratios": ratios, "seconds": seconds}
    record |= {"mean_difference": difference, "machine": describe_machine(), "versions": library_versions()}
    kind = f"{arguments.architecture}-{arguments.size}px-{arguments.processes}-{device.type}"
    write_json(Path("results") / f"bench-student-devices-{kind}.json", record)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--architecture", default="resnet18_small_stem")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--steps", type=int, default=7, help="per turn")
    parser.add_argument("--rounds", type=int, default=9, help="turns of either form")
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(measure, (arguments, port), arguments.processes)


if __name__ == "__main__":
    main()
