"""Memory of packaging and of loading, from ten thousand views to a million: it does not grow with their number.

Shards of labels of 1,000 images and 100 classes are made for 10, 100 and 1,000 epochs; then a new process packages
them, and another reads every batch of the artifact. The figure to quote is the largest memory each took beyond what it
held when its work began, and that of the whole process; both are what the system counts as its own (`RssAnon`): pages
of files that are read in passing are the system's to drop.

    .venv/bin/python benchmarks/table_memory.py
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from manifests import finish_artifact, numbered_classes

from fadrm_hf.artifact.tables import write_tables
from fadrm_hf.config import RelabelConfig
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.labels.relabel import label_epoch
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.tensor_files import save_tensors
from fadrm_hf.training.loader import load_distilled

CLASSES, IPC, SIZE = 100, 10, 32
CLASS_MAP = numbered_classes(CLASSES)
RELABEL = RelabelConfig(batch_size=100, flip_probability=0.5)


def make_shards(work: Path, epochs: int) -> None:
    """Write the shards of recovery and relabelling: images of noise, views, and logits of noise."""
    rows, rng = torch.arange(CLASSES * IPC), generator(0, "benchmark")
    images = torch.randint(0, 256, (len(rows), 3, SIZE, SIZE), generator=rng, dtype=torch.uint8)
    place = {"label": rows % CLASSES, "ipc_index": rows // CLASSES, "source_index": rows[:, None]}
    save_tensors(work / "recovered/images.safetensors", {"images": images} | place)
    for epoch in range(epochs):
        logits = torch.randn((len(rows), CLASSES), generator=rng)
        columns = label_epoch(images, None, RELABEL, 0, epoch) | find_codec("float16").encode(logits)
        save_tensors(work / f"soft_labels/epoch{epoch:05d}.safetensors", columns)


def package(folder: Path, epochs: int) -> None:
    """Package both tables and the manifest from the shards in the work folder."""
    write_tables(folder, folder.with_name("work"), CLASS_MAP, SIZE, IPC, epochs)
    finish_artifact(folder, CLASS_MAP, IPC, SIZE, RELABEL, epochs)


def load(folder: Path, epochs: int) -> None:
    """Read every batch of every epoch."""
    with load_distilled(folder).batches(range(epochs)) as batches:
        for batch in batches:
            assert batch.logits.shape == (len(batch.labels), CLASSES)


def own_memory() -> int:
    """Return the bytes of this process that belong to no file."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


def measure(work: Callable[[], None]) -> dict[str, float]:
    """Return the work's seconds, its peak memory and the memory before it, sampled a hundred times a second."""
    peak = before = own_memory()
    is_over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.01):
            peak = max(peak, own_memory())

    watcher, started = threading.Thread(target=watch), time.monotonic()
    watcher.start()
    try:
        work()
    finally:
        is_over.set()
        watcher.join()
    return {"seconds": time.monotonic() - started, "peak_bytes": peak, "beyond_start_bytes": peak - before}


STAGES = {"package": package, "load": load}


def in_new_process(stage: str, folder: Path, epochs: int) -> dict[str, float]:
    """Run a stage in a process of its own, in which one small epoch has loaded every library before."""
    command = [sys.executable, __file__, "--stage", stage, str(folder), str(epochs)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def run_stage(stage: str, folder: Path, epochs: int) -> None:
    """Print what it takes as JSON."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as beside:
        make_shards(Path(beside) / "work", 1)
        for warm in STAGES.values():
            warm(Path(beside) / "run", 1)
    print(json.dumps(measure(lambda: STAGES[stage](folder, epochs))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--stage", nargs=3, metavar=("STAGE", "FOLDER", "EPOCHS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage is not None:
        stage, folder, epochs = arguments.stage
        return run_stage(stage, Path(folder), int(epochs))
    rows = []
    for views in arguments.views:
        epochs = views // (CLASSES * IPC)
        with tempfile.TemporaryDirectory() as folder:
            make_shards(Path(folder) / "work", epochs)
            for stage in STAGES:
                taken = in_new_process(stage, Path(folder) / "run", epochs)
                rows.append({"stage": stage, "views": views} | taken)
                print(
                    f"{stage:<8}{views:>10,} views: {taken['peak_bytes'] / 1e6:7.1f} MB, of which "
                    f"{taken['beyond_start_bytes'] / 1e6:6.1f} MB for this; {taken['seconds']:.1f} s"
                )
    record = {"classes": CLASSES, "images": CLASSES * IPC, "size": SIZE, "rows": rows}
    machine = {"machine": describe_machine(), "versions": library_versions()}
    write_json(Path("results/bench-table-memory.json"), record | machine)


if __name__ == "__main__":
    main()
