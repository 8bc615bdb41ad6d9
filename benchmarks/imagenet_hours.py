"""Hours of ImageNet-1k on one GPU of the kind that `make gpu` has measured, by stage and images per class.

Rates are those of `results/bench-*-224px-*.json`: ResNet-18, recovery compiled in fp16, labels and students in the
fastest format that was measured. Budgets are those of `recipes/configs/imagenet1k`: iterations, half of them at 200
px, epochs of labels, one student. The teacher is torchvision's; patches and packaging are not counted.

    python benchmarks/imagenet_hours.py
"""

import json
from pathlib import Path
from typing import Any

import yaml

from fadrm_hf.runtime.files import write_json

CONFIGS = Path(__file__).parents[1] / "recipes/configs/imagenet1k"
RESULTS = Path("results")
FILES = {
    "recover": "bench-recovery-step-resnet18-224px-cuda.json",
    "relabel": "bench-relabel-resnet18-224px-batch-cuda.json",
    "student": "bench-student-epoch-resnet18-224px-cuda.json",
}
CLASSES = 1000


def milliseconds(stage: str, record: dict[str, Any]) -> float:
    """Return what one image takes: an iteration, a label, a view that a student sees."""
    if stage == "recover":
        (row,) = (row for row in record["rows"] if (row["form"], row["precision"]) == ("compiled", "fp16"))
        return float(row["ms"])
    if stage == "relabel":
        rates = {name: rate for name, rate in record["images_per_second"].items() if name.startswith("ours, fp")}
        return 1e3 / max(rate for name, rate in rates.items() if name.count(",") == 1)
    return float(min(value for name, value in record["ms_per_view"].items() if name.startswith("ours")))


def repetitions(stage: str, run: dict[str, Any]) -> float:
    """Return how often an image is seen at 224 px, or what costs as much."""
    if stage == "recover":
        sizes = run["method"]["sizes"]
        return float(run["method"]["iterations"] * sum((size / 224) ** 2 for size in sizes) / len(sizes))
    return float(run["relabel" if stage == "relabel" else "student"]["epochs"])


def main() -> None:
    there = {stage: RESULTS / name for stage, name in FILES.items() if (RESULTS / name).exists()}
    records = {stage: json.loads(path.read_text()) for stage, path in there.items()}
    hours: dict[str, dict[str, float]] = {}
    for ipc in (1, 10, 50):
        run = yaml.safe_load((CONFIGS / f"fadrm_ipc{ipc}.yaml").read_text())
        hours[str(ipc)] = {
            stage: CLASSES * ipc * repetitions(stage, run) * milliseconds(stage, record) / 3.6e6
            for stage, record in records.items()
        }
        told = ", ".join(f"{stage} {value:.2f}" for stage, value in hours[str(ipc)].items())
        print(f"{ipc} images per class: {told or 'nothing was measured at 224 px'}")
    machines = {stage: record["machine"] for stage, record in records.items()}
    write_json(RESULTS / "bench-imagenet1k-hours-cuda.json", {"hours": hours, "from": FILES, "machine": machines})


if __name__ == "__main__":
    main()
