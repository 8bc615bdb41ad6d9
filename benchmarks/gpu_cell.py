"""A cell of the paper at its own size, CIFAR-100 with ten images per class, as far as some seconds allow.

What it will cost is estimated first. If it fits, all is published: 50 epochs of the teacher, 2,000 iterations, 1,000
epochs of labels, three students. If not, there is one student; and if that is too much, fewer epochs of teacher,
labels and student. Images are always recovered in full. The cell's files are in `results/fadrm-cifar100-ipc10`, where
`make results` finds them and says what is smaller.

    python benchmarks/gpu_cell.py path/to/cifar100 --seconds 300
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAME = "fadrm-cifar100-ipc10"
EPOCHS = {"squeeze.epochs": 50, "relabel.epochs": 1000, "student.epochs": 1000}  # published
LEAST_EPOCHS = {"squeeze.epochs": 5, "relabel.epochs": 20, "student.epochs": 20}
TRUSTED = 0.85  # of the seconds: an estimate is none of the program's start, and no promise


def settings_for(seconds: float, costs: Mapping[str, float]) -> dict[str, float]:
    """Return what is not as published, so that a run fits into some seconds.

    Args:
        seconds: What there is.
        costs: Estimated seconds of each stage as published; "students" are three.
    """
    varied = {name: costs.get(name, 0.0) for name in ("teachers", "relabel", "students")}
    fixed = sum(costs.values()) - sum(varied.values())
    left = TRUSTED * seconds - fixed
    if sum(varied.values()) <= left:
        return {}
    share = left / max(1e-9, sum(varied.values()) - 2 / 3 * varied["students"])
    one = {"student.num_seeds": 1}
    if share >= 1:
        return one
    fewer = {name: max(LEAST_EPOCHS[name], int(share * num)) for name, num in EPOCHS.items()}
    return one | fewer | {"teachers.min_accuracy": 0.0}


def fadrm_hf(command: str, *words: str) -> Any:
    """Run a command of this library; return the JSON document that it ends with."""
    program = "import sys; from fadrm_hf.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, command, *words, "--json"], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def as_words(settings: Mapping[str, float]) -> list[str]:
    """Return settings as a command line has them."""
    return [f"--{name}={value}" for name, value in settings.items()]


def file_cell(run: Path, results: Path) -> None:
    """Copy what `make results` reads of a run, and no image."""
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    for file in (run / "fadrm.json", run / "recipe.yaml", *(run / "results").glob("*.json")):
        shutil.copy(file, results)


def make_cell(config: str, data: str, seconds: float, workers: int, others: Sequence[str]) -> None:
    """Estimate, distil, train; `others` are settings that are not as published in any case."""
    deadline = time.monotonic() + seconds
    run = Path("runs") / NAME
    words = ["--config", config, f"--source.name={data}", f"--squeeze.num_workers={workers}", f"--output={run}"]
    if Path(data).exists():  # columns of a copy may have other names
        words += ["--source.image_column=null", "--source.label_column=null"]
    said = fadrm_hf("estimate", *words, *others)["result"]["stages"]
    costs = {name: stage["seconds"] for name, stage in said.items()}
    changed = settings_for(deadline - time.monotonic(), costs)
    print(
        "estimated:", {name: round(value) for name, value in costs.items()}, "not as published:", changed, flush=True
    )
    fadrm_hf("distill", *words, *as_words(changed), *others)
    result = fadrm_hf("train-student", str(run))["result"]
    file_cell(run, Path("results") / NAME)
    print(
        f"top-1 {100 * result['top1']['mean']:.1f} %, {time.monotonic() + seconds - deadline:.0f} s in all", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="CIFAR-100: a folder as datasets reads it, or its name on the Hub")
    parser.add_argument("--config", default="cifar100/fadrm_ipc10", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--workers", type=int, default=8, help="processes that augment the teacher's images")
    asked, others = parser.parse_known_args()
    make_cell(asked.config, asked.data, asked.seconds, asked.workers, others)


if __name__ == "__main__":
    main()
