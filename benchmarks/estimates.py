"""What `fadrm-hf estimate` says of a run against what the run then takes: seconds of each stage, and peak memory.

Said and taken one right after the other, in processes of their own, on the same machine; students are trained, too.
Each call adds its run to the file of results, so that runs of several sizes and methods stand side by side.

    .venv/bin/python benchmarks/estimates.py --config digits/fadrm_ipc10
    .venv/bin/python benchmarks/estimates.py --method edc --source.name path/to/cifar10 --method.iterations 50 ...
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from fadrm_hf.runtime.files import read_json, write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions


def fadrm_hf(*words: str) -> dict[str, Any]:
    """Run a command; returns the JSON document that it ends with."""
    command = [str(Path(sys.executable).with_name("fadrm-hf")), *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def measure(words: list[str], folder: Path) -> dict[str, Any]:
    """Estimate a run, then make it and train its students; returns both by stage."""
    output = folder / "run"
    run = [*words, f"--output={output}"]
    said = fadrm_hf("estimate", *run)["result"]
    fadrm_hf("distill", *run)
    result = fadrm_hf("train-student", str(output))["result"]
    students = result["seconds"]
    stages = json.loads((output / "fadrm.json").read_text())["stages"]
    taken = {name: stage["seconds"] for name, stage in stages.items()} | {"students": students}
    return {
        "words": words,
        "busy": said["busy"],
        "seconds": {n: {"said": s["seconds"], "taken": taken[n]} for n, s in said["stages"].items() if n in taken},
        "peak_bytes": {
            "said": said["total"]["memory_bytes"],
            "taken": max(stage["peak_memory_bytes"] for stage in stages.values()),
        },
    }


def main() -> None:
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        sys.exit(str(__doc__))
    with tempfile.TemporaryDirectory() as folder:
        found = measure(words, Path(folder))
    parts = found["seconds"].values()
    found["seconds"]["in all"] = {which: sum(part[which] for part in parts) for which in ("said", "taken")}
    for name, pair in found["seconds"].items():
        print(f"{name:<12}{pair['said']:9.1f} s said {pair['taken']:9.1f} s taken{_ratio(pair):>8}")
    peak = found["peak_bytes"]
    print(f"{'memory':<12}{peak['said'] / 1e6:8.0f} MB said {peak['taken'] / 1e6:8.0f} MB taken{_ratio(peak):>8}")
    file = Path(f"results/bench-estimates-{'cuda' if torch.cuda.is_available() else 'cpu'}.json")
    runs = [run for run in (read_json(file) or {}).get("runs", []) if run["words"] != words]
    record = {"runs": [*runs, found], "machine": describe_machine(), "versions": library_versions()}
    write_json(file, record)


def _ratio(pair: dict[str, float]) -> str:
    return f"{pair['said'] / pair['taken']:.2f}" if pair["taken"] else "-"


if __name__ == "__main__":
    main()
