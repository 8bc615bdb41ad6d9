r"""A whole run at the size of ImageNet-1k or ImageNet-21k-P: memory and seconds of every stage.

The first stage includes starting the program and reading the source; "load" is a new process that reads the artifact.
The source, the tables, the files and the program (`fadrm-hf distill`) are real; the teacher is a stand-in of one
convolution, one BatchNorm and one linear layer, trained on nothing, and the images of the source are small pictures
of noise, of which a few thousand differ. So memory is that of a real run less what a real teacher takes
(`fadrm-hf estimate` says that), and seconds are those of everything but the teacher. Iterations, epochs of labels and
the pool of patches are fewer than in a real run and named in the result: seconds grow with them, memory does not.

    .venv/bin/python benchmarks/full_size.py --dataset imagenet1k --ipc 10 --pool 5
    .venv/bin/python benchmarks/full_size.py --dataset imagenet21k_p --ipc 20 --size 32 --grid 1 \
        --epochs 1 --pool 4 --processes 2
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
from datasets import ClassLabel, Features, Image
from manifests import numbered_classes
from PIL import Image as PillowImage
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from fadrm_hf.cli import main as fadrm_hf
from fadrm_hf.config import SourceConfig
from fadrm_hf.config.datasets import PRESETS
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.networks.convnets import MapClassifier
from fadrm_hf.networks.model_directory import model_config, write_model_directory
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.training.loader import load_distilled

NUM_IMAGES = {"imagenet1k": 1_281_167, "imagenet21k_p": 1_045_000}  # of 11,060,223: a hundred of each class
PICTURE, DIFFERENT, ROWS_PER_FILE = 64, 2000, 100_000
TESTED = 5000
LOADED_BATCHES = 200


class OneConvolution(MapClassifier):
    """Stand-in for a teacher: one convolution, one BatchNorm and one linear layer."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, **_: Any) -> None:
        layers = (nn.Conv2d(in_chans, 16, 8, stride=8), nn.BatchNorm2d(16), nn.ReLU())
        super().__init__(nn.Sequential(*layers), 16, 1, num_classes)


default_cfgs = generate_default_cfgs(
    {"full_size_stand_in.untrained": {"input_size": (3, 224, 224), "first_conv": "layers.0", "classifier": "fc"}}
)


@register_model
def full_size_stand_in(pretrained: bool = False, **settings: Any) -> nn.Module:
    """Build the stand-in, which timm finds by this name."""
    network: nn.Module = build_model_with_cfg(OneConvolution, "full_size_stand_in", pretrained, **settings)
    return network


def make_teacher(folder: Path, classes: ClassMap, size: int) -> None:
    """Write a model directory of the stand-in, with the running statistics of standard noise."""
    torch.manual_seed(0)
    network = timm.create_model("full_size_stand_in", num_classes=len(classes))
    images = SourceConfig(name="full-size", size=size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    write_model_directory(network, model_config(network, "full_size_stand_in", classes, images), folder)


def pictures() -> list[bytes]:
    """Draw JPEGs of blurred noise, about a kilobyte each."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(DIFFERENT):
        coarse = PillowImage.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((PICTURE, PICTURE), PillowImage.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        found.append(buffer.getvalue())
    return found


def make_source(folder: Path, names: tuple[str, ...], num_images: int) -> None:
    """Write parquet files as on the Hub; successive rows differ in class, so that each class is in all files."""
    features = Features({"image": Image(), "label": ClassLabel(names=list(names))})
    drawn = pa.array([{"bytes": picture, "path": None} for picture in pictures()], features["image"].pa_type)
    for split, count in (("train", num_images), ("test", max(TESTED, len(names)))):
        starts = range(0, count, ROWS_PER_FILE)
        for index, first in enumerate(starts):
            rows = np.arange(first, min(first + ROWS_PER_FILE, count))
            columns = [drawn.take(pa.array(rows % DIFFERENT)), pa.array(rows % len(names))]
            path = folder / "data" / f"{split}-{index:05d}-of-{len(starts):05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_arrays(columns, schema=features.arrow_schema), path, row_group_size=10_000)


def settings(asked: argparse.Namespace, folder: Path) -> list[str]:
    """Return the arguments of `fadrm-hf`."""
    iterations, epochs = asked.iterations, asked.epochs
    return [
        "--method=fadrm", f"--method.iterations={iterations}", f"--ipc={asked.ipc}", f"--source.name={folder}/source",
        f"--source.size={asked.size}", "--source.mean=[0.5,0.5,0.5]", "--source.std=[0.25,0.25,0.25]",
        f"--teachers.names=[timm/local-dir:{folder}/teacher]", "--teachers.min_accuracy=0",
        f"--patches.pool={asked.pool}", "--patches.crops_per_image=1", f"--patches.grid={asked.grid}",
        f"--relabel.epochs={epochs}",
        f"--relabel.codec={asked.codec}", f"--student.epochs={epochs}", f"--output={folder}/run",
    ]  # fmt: skip


class Usage:
    """Memory and seconds of some processes.

    Args:
        processes: Their numbers.
    """

    def __init__(self, processes: Sequence[int]) -> None:
        self._processes = processes
        self._cpu = dict.fromkeys(processes, 0.0)

    def now(self) -> dict[str, float]:
        """Return the memory of the largest process, without and with files, and the seconds of all, ended or not."""
        most = {"own": 0.0, "resident": 0.0}
        for process in self._processes:
            with suppress(psutil.Error):  # it has ended
                known = psutil.Process(process)
                memory, times = known.memory_info(), known.cpu_times()
                most = {
                    "own": max(most["own"], memory.rss - memory.shared),
                    "resident": max(most["resident"], memory.rss),
                }
                self._cpu[process] = times.user + times.system
        return most | {"cpu": sum(self._cpu.values())}


def watch(command: list[str], costs: Path, count: int = 1) -> Iterator[tuple[str, dict[str, float]]]:
    """Run a command, several times at once; of each stage that ends, the most memory and the seconds it took."""
    environment, seen = os.environ | {"HF_DATASETS_OFFLINE": "1"}, set[str]()
    processes = [subprocess.Popen(command, env=environment) for _ in range(count)]
    usage = Usage([process.pid for process in processes])
    started, cpu, peak = time.monotonic(), 0.0, {"own": 0.0, "resident": 0.0}
    while any(process.poll() is None for process in processes):
        now = usage.now()
        peak = {kind: max(peak[kind], now[kind]) for kind in peak}
        for stage in json.loads(costs.read_text()).keys() - seen if costs.exists() else ():
            yield stage, peak | {"seconds": time.monotonic() - started, "cpu_seconds": now["cpu"] - cpu}
            seen.add(stage)
            started, cpu, peak = time.monotonic(), now["cpu"], {kind: now[kind] for kind in peak}
        time.sleep(0.05)
    for process in processes:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
    yield "end", peak | {"seconds": time.monotonic() - started, "cpu_seconds": now["cpu"] - cpu}


def load(folder: Path) -> None:
    """Read the artifact's images and the first batches of its labels."""
    with load_distilled(folder).batches(range(1)) as batches:
        for _, _batch in zip(range(LOADED_BATCHES), batches, strict=False):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=NUM_IMAGES, default="imagenet1k")
    parser.add_argument("--images", type=int, help="of the source; as many as it has if not given")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pool", type=int, default=20, help="images of a class that are scored")
    parser.add_argument("--grid", type=int, default=2, help="patches in a row of a mosaic")
    parser.add_argument("--codec", default="top10")
    parser.add_argument("--processes", type=int, default=1, help="that share the run")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one if not given")
    parser.add_argument("--only", choices=("distill", "load"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only == "distill":
        sys.exit(fadrm_hf(["distill", *settings(asked, asked.folder)]))
    if asked.only == "load":
        return load(asked.folder / "run")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        measure(asked, Path(folder))


def bytes_in(folder: Path) -> int:
    """Return the size of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure(asked: argparse.Namespace, folder: Path) -> None:
    """Make source and teacher, run, and write what it took."""
    num_classes = PRESETS[asked.dataset].num_classes
    names = numbered_classes(num_classes).ids
    num_images = asked.images or NUM_IMAGES[asked.dataset]
    make_source(folder / "source", names, num_images)
    make_teacher(folder / "teacher", ClassMap(names, names), asked.size)
    given = [argument for argument in sys.argv[1:] if not argument.startswith("--folder")]
    stages = {}
    costs = folder / "run.work/costs.json"
    for only, told, count in (("distill", costs, asked.processes), ("load", Path("none"), 1)):
        command = [sys.executable, __file__, *given, f"--folder={folder}", "--only", only]
        for stage, taken in watch(command, told, count):
            stages[only if stage == "end" else stage] = taken
    del stages["distill"]  # what the process does when its last stage has ended
    for name, taken in stages.items():
        print(
            f"{name:<10}{taken['seconds']:8.0f} s, {taken['cpu_seconds']:8.0f} s of processors,"
            f"{taken['own'] / 1e6:8.0f} MB of its own,{taken['resident'] / 1e6:8.0f} MB resident"
        )
    sizes = {part: bytes_in(folder / part) for part in ("source", "run", "run.work")}
    asked_for = {key: value for key, value in vars(asked).items() if key not in ("folder", "only")}
    record = asked_for | {"classes": num_classes, "images": num_images, "stages": stages, "bytes": sizes}
    machine = {"machine": describe_machine(), "versions": library_versions()}
    write_json(Path(f"results/bench-full-size-{asked.dataset}.json"), record | machine)


if __name__ == "__main__":
    main()
