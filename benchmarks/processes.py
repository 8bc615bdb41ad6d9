"""One process against several on the same sixteen shards, one thread each: seconds of each stage, and the artifact.

Every run begins with the same teacher, in its own folder and by `accelerate launch`; runs of one and of several
processes take turns. The ratio of medians is the figure to quote; the artifacts must be the same to the byte, but for
what they cost.

    .venv/bin/python benchmarks/processes.py --processes 2
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fadrm_hf.runtime.files import sha256, write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions

LAUNCH = ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")
RUN = (
    "--source.name=digits", "--source.size=16", "--ipc=8", "--teachers.names=[squeeze/resnet10_narrow]",
    "--teachers.min_accuracy=0", "--squeeze.epochs=2", "--method=fadrm", "--method.sizes=[12,16,12,16]",
    "--recover.batch_size=5", "--student.student=timm/resnet10_narrow",
)  # fmt: skip
STAGES = ("patches", "recover", "relabel")
NOT_COMPARED = ("fadrm.json", "README.md", "recovery.png", "data.js")  # they record what a run cost


def launch(output: Path, processes: int, arguments: list[str]) -> tuple[float, dict[str, float]]:
    """Run the line; returns the seconds of the whole command, and those of its stages."""
    command = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", str(processes), *LAUNCH]
    command += ["--multi_gpu"] if processes > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"ACCELERATE_USE_CPU": "true"} if processes > 1 else {})
    started = time.perf_counter()
    run = [*command, "recipes/distill.py", *RUN, *arguments, "--output", str(output)]
    subprocess.run(run, env=environment, check=True, capture_output=True)
    seconds = time.perf_counter() - started
    stages = json.loads((output / "fadrm.json").read_text())["stages"]
    return seconds, {name: stages[name]["seconds"] for name in STAGES}


def contents(run: Path) -> dict[str, str]:
    """Return the hashes of all files that do not record the cost."""
    files = (file for file in run.rglob("*") if file.is_file() and file.name not in NOT_COMPARED)
    return {str(file.relative_to(run)): sha256(file) for file in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=200, help="of labels")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    settings = [f"--method.iterations={arguments.iterations}", f"--relabel.epochs={arguments.epochs}"]
    settings += [f"--student.epochs={arguments.epochs}"]
    counts, measured = (1, arguments.processes), []
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "run"
        launch(warm, 1, settings)  # trains the teacher
        expected = contents(warm)
        for _ in range(arguments.rounds):
            for count in counts:
                shutil.rmtree(warm)
                shutil.rmtree(f"{warm}.work")
                seconds, stages = launch(warm, count, settings)
                same = contents(warm) == expected
                measured.append({"processes": count, "seconds": seconds, "stages": stages, "identical": same})
    report(arguments, counts, measured)


def report(arguments: argparse.Namespace, counts: tuple[int, int], measured: list[dict[str, Any]]) -> None:
    """Print the table and write the file."""
    medians = {
        count: {
            name: statistics.median(m["stages"][name] for m in measured if m["processes"] == count) for name in STAGES
        }
        | {"whole command": statistics.median(m["seconds"] for m in measured if m["processes"] == count)}
        for count in counts
    }
    ratios = {name: medians[counts[0]][name] / max(medians[counts[1]][name], 1e-9) for name in medians[counts[0]]}
    for name, ratio in ratios.items():
        one, several = (medians[count][name] for count in counts)
        print(f"{name:<14}{one:8.1f} s with one process, {several:8.1f} s with {counts[1]}: {ratio:.2f} times as fast")
    identical = all(run["identical"] for run in measured)
    print(f"artifacts {'are' if identical else 'are NOT'} identical")
    record = vars(arguments) | {"ratios": ratios, "identical": identical, "runs": measured}
    machine = {"machine": describe_machine(), "versions": library_versions()}
    write_json(Path("results/bench-processes-cpu.json"), record | machine)


if __name__ == "__main__":
    main()
