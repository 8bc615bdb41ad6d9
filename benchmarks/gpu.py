"""One visit to a GPU: all that can only be tested and measured there, in ten minutes at most.

    make gpu                                # from a checkout, with the torch of the machine
    make gpu DATA=path/to/cifar100          # and a cell of the paper: CIFAR-100, 10 images per class, full size

Every part is a program of its own, with a limit of its own, the most telling first. What one has measured is on file
before the next begins, `results/bench-*-cuda.json` and the folder of the cell, which `make results` takes up; and
`results/gpu-visit.json` says how each part ended. Exit code 1: a test failed, or a program.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from fadrm_hf.runtime.files import read_json, write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions

HERE = Path(__file__).parent
LEAST = 5.0  # seconds; with less left no part is begun
WHOLE_RUN = (
    "--method=fadrm_plus", "--source.name=digits", "--source.size=224", "--ipc=10", "--recover.batch_size=100",
    "--recover.layout=class_major", "--recover.precision=fp16", "--recover.form=compiled", "--method.iterations=480",
    "--squeeze.epochs=1", "--teachers.min_accuracy=0", "--relabel.epochs=10", "--student.epochs=10",
    "--student.num_seeds=1",
)  # fmt: skip
SET = ("resnet18", "mobilenetv2_100", "shufflenet_v2_x0_5", "densenet121")  # of FADRM+, at 224 px


@dataclass(frozen=True)
class Part:
    """A program.

    Attributes:
        name: What it measures.
        seconds: Its limit.
        words: Its file in this folder, or a module after "-m", and its arguments; "{seconds}" is what it may take.
    """

    name: str
    seconds: float
    words: tuple[str, ...]

    def command(self, seconds: float) -> list[str]:
        """Return the command line."""
        first, *rest = (word.replace("{seconds}", str(int(seconds))) for word in self.words)
        return [sys.executable, *([first] if first == "-m" else [str(HERE / first)]), *rest]


def measurement(name: str, seconds: float, program: str, size: int, *words: str) -> Part:
    """Return the part of a benchmark of one network, ResNet-18 for images of a size."""
    architecture = "resnet18" if size > 64 else "resnet18_small_stem"
    option = "--architectures" if program == "recovery_step.py" else "--architecture"
    return Part(f"{name} at {size} px", seconds, (program, option, architecture, "--size", str(size), *words))


def plan(data: str | None, workers: int) -> list[Part]:
    """Return all parts, in the order of what they are worth per second."""
    tests = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(HERE.parent / "tests"))
    recovery, student = ("recovery_step.py", ("--batch", "100")), ("--pairs", "5", "--workers", str(workers))
    limit = ("--batch", "100", "--precision", "fp16", "--rounds", "3")
    cell = ("gpu_cell.py", str(data), "--seconds", "{seconds}", "--workers", str(workers))
    squeezed = f"--teachers.names=[{', '.join(f'squeeze/{name}' for name in SET)}]"
    four = ("--architectures", *SET, "--size", "224", "--rounds", "2", "--name", "fadrm-plus-set")
    return [
        Part("tests", 90, tests),
        measurement("recovery", 60, recovery[0], 32, *recovery[1], "--rounds", "5"),
        measurement("recovery", 80, recovery[0], 224, *recovery[1], "--rounds", "3"),
        measurement("student", 40, "student_epoch.py", 32, *student),
        measurement("labels", 40, "relabel.py", 224, "--images", "512"),
        measurement("student", 40, "student_epoch.py", 224, "--images", "320", *student),
        *([Part("cell", 600, cell)] if data else []),
        measurement("labels", 40, "relabel.py", 32, "--images", "1008"),
        measurement("limit", 40, "limit.py", 32, *limit),
        measurement("limit", 60, "limit.py", 224, *limit),
        measurement("recovery", 50, recovery[0], 64, *recovery[1], "--rounds", "3"),
        Part("recovery by FADRM+'s four", 120, (recovery[0], *four)),
        Part("memory and seconds foretold", 150, ("estimates.py", squeezed, *WHOLE_RUN)),
        Part("hours of ImageNet-1k", 20, ("imagenet_hours.py",)),
    ]


def start(command: Sequence[str], folder: Path, log: IO[str]) -> "subprocess.Popen[str]":
    """Start a program in a session of its own, which can be ended with all that it has started."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment, text=True, start_new_session=True
    )


def run(part: Part, seconds: float, folder: Path) -> dict[str, Any]:
    """Run a part for at most so many seconds; return how it ended, and the last lines that it printed."""
    log, began = folder / "runs/gpu" / f"{part.name}.log".replace(" ", "-"), time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    command = part.command(seconds)
    with log.open("w") as file:
        process = start(command, folder, file)
        try:
            code = process.wait(seconds)
            ended = "done" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            ended = f"stopped after {seconds:.0f} s"
    taken = round(time.monotonic() - began, 1)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return {
        "command": command[1:],
        "ended": ended,
        "seconds": taken,
        "last_lines": [line[:300] for line in lines[-8:]],
    }


def visit(parts: Sequence[Part], seconds: float, folder: Path) -> dict[str, dict[str, Any]]:
    """Run parts until the time is over, the last one in any case; what is known is on file after each."""
    deadline, found = time.monotonic() + seconds, dict[str, dict[str, Any]]()
    kept, file = parts[-1].seconds, folder / "results/gpu-visit.json"
    for part in parts:
        left = deadline - time.monotonic() - (0.0 if part is parts[-1] else kept)
        if left < LEAST and part is not parts[-1]:
            found[part.name] = {"ended": "no time left", "seconds": 0.0}
        else:
            found[part.name] = run(part, max(LEAST, min(part.seconds, left)), folder)
        print(f"{part.name:<28}{found[part.name]['ended']:<22}{found[part.name]['seconds']:8.1f} s", flush=True)
        write_json(file, {"seconds": seconds, "parts": found})
    write_json(file, read_json(file) | {"machine": describe_machine(), "versions": library_versions()})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="CIFAR-100: a folder as datasets reads it, or its name on the Hub")
    parser.add_argument("--seconds", type=float, default=600.0, help="that all parts may take together")
    parser.add_argument(
        "--folder", type=Path, default=HERE.parent, help="results and logs go there; the checkout if not given"
    )
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(
            "error: torch finds no GPU here (torch.cuda.is_available() is False), expected one; see CONTRIBUTING.md"
        )
    found = visit(plan(asked.data, min(8, os.cpu_count() or 1)), asked.seconds, asked.folder.resolve())
    sys.exit(any(part["ended"].startswith("exit code") for part in found.values()))


if __name__ == "__main__":
    main()
