"""Seconds until a command prints its first word: help, lists, `info`, a mistyped option; against `import torch` alone.

Each is a process of its own, several times in turn with `python -c "import torch"`, so that what else the machine does
weighs on both. `results/bench-first-word.json` holds medians in seconds and their ratios.

    .venv/bin/python benchmarks/first_word.py runs/fadrm-digits-ipc10
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions

PROGRAM = str(Path(sys.executable).with_name("fadrm-hf"))
IMPORT_TORCH = (sys.executable, "-c", "import torch")
READER = (sys.executable, "-c", "from fadrm_hf import load_distilled")


def seconds_of(command: tuple[str, ...], code: int) -> float:
    """Return the seconds of a process that ends with a code."""
    started = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert ended.returncode == code, (command, ended.stderr)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", help="run folder for info")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    commands = {
        "distill --help": ((PROGRAM, "distill", "--help"), 0),
        "train-student --help": ((PROGRAM, "train-student", "--help"), 0),
        "distill --methods": ((PROGRAM, "distill", "--methods", "fadrm"), 2),
        "distill --print_config": ((PROGRAM, "distill", "--source.name", "digits", "--print_config"), 0),
        "methods": ((PROGRAM, "methods"), 0),
        "info": ((PROGRAM, "info", asked.artifact), 0),
        "load_distilled": (READER, 0),
        "import torch": (IMPORT_TORCH, 0),
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(asked.rounds + 1):
        for name, (command, code) in commands.items():
            found[name].append(seconds_of(command, code))
    medians = {name: statistics.median(seconds[1:]) for name, seconds in found.items()}  # the first reads the disk
    torch = medians["import torch"]
    rows = {name: {"seconds": round(value, 2), "of_torch": round(value / torch, 2)} for name, value in medians.items()}
    for name, row in rows.items():
        print(f"{row['seconds']:6.2f} s  {row['of_torch']:5.2f}  {name}")
    machine = {"machine": describe_machine(), "versions": library_versions()}
    write_json(Path("results/bench-first-word.json"), {"rounds": asked.rounds, "commands": rows} | machine)


if __name__ == "__main__":
    main()
