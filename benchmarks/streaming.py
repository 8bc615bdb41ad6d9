"""Training from a streamed label table ten times larger than the memory allowed to it, against one held in memory.

An artifact of small images is made, with random logits (only speed is measured), and served by the test Hub in a
process of its own. Two processes then train the same student for the same steps. One holds all epochs that it needs in
memory before the clock starts. The other streams, and its data is limited (RLIMIT_DATA) to the most that an epoch of
training took before, plus the allowance. They take turns, a few epochs each, and whoever waits is stopped (SIGSTOP),
its reading thread too: a machine that slows down slows both. A third process shows that the limit is real: it tries to
hold the table under it, with all the memory that training would need, and must fail.

    .venv/bin/python benchmarks/streaming.py --allowance_mb 64 --pairs 5
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import psutil
import pyarrow as pa
import torch
from manifests import finish_artifact, numbered_classes
from torch import Tensor, nn

from fadrm_hf.artifact.location import LocalFolder
from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.artifact.reading import Arrays
from fadrm_hf.artifact.row_checks import bad_rows
from fadrm_hf.artifact.tables import write_label_table, write_tables
from fadrm_hf.builders.soft_labels import label_features, label_table
from fadrm_hf.config import RelabelConfig
from fadrm_hf.errors import ArtifactError
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.labels.drawing import micro_batches
from fadrm_hf.labels.relabel import label_epoch
from fadrm_hf.networks.students import create_student
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.run_folder import RunFolder
from fadrm_hf.runtime.tensor_files import save_tensors
from fadrm_hf.training.batch import Batch
from fadrm_hf.training.label_stream import LabelEpochs
from fadrm_hf.training.loader import Distilled, load_distilled
from fadrm_hf.training.protocol import parameter_groups, soft_label_loss

REPO, STUDENT = "bench/labels", "timm/resnet18_narrow"
CLASSES, IPC, SIZE, BATCH = 100, 10, 32, 100
TESTS = Path(__file__).parent.parent / "tests"
MB = 1 << 20

Turns = dict[str, dict[str, float]]


@dataclass(frozen=True, eq=False)
class InMemory(Distilled):
    """The same dataset with its epochs in memory from the beginning, cut into steps in the same way."""

    held: dict[int, Arrays] = field(default_factory=dict)

    def _steps(self, epochs: range, done: int, views_only: bool) -> Iterator[Arrays]:
        for epoch in epochs:
            first = 0
            for size in self.step_sizes:
                yield {name: column[first : first + size] for name, column in self.held[epoch].items()}
                first += size


def make_artifact(folder: Path, table_bytes: int) -> None:
    """Make an artifact whose label table has at least so many bytes."""
    work, num_images = folder.with_name("work"), CLASSES * IPC
    relabel = RelabelConfig(batch_size=BATCH, flip_probability=0.5)
    features = label_features("float16", CLASSES)
    epochs = -(-table_bytes // (num_images * 2 * CLASSES * 9 // 10))  # halves of noise are packed to nine tenths
    rows, rng = torch.arange(num_images), generator(0, "benchmark")
    images = torch.randint(0, 256, (num_images, 3, SIZE, SIZE), generator=rng, dtype=torch.uint8)
    place = {"label": rows % CLASSES, "ipc_index": rows // CLASSES, "source_index": rows[:, None]}
    save_tensors(work / "recovered/images.safetensors", {"images": images} | place)
    views = label_epoch(images, None, relabel, 0, 0)  # the same in every epoch: what is read and rendered is as much

    def epoch_table(epoch: int) -> pa.Table:
        logits = torch.randn((num_images, CLASSES), generator=rng)
        columns = views | {"epoch": torch.full_like(views["epoch"], epoch)} | find_codec("float16").encode(logits)
        return label_table(columns, features)

    save_tensors(
        work / "soft_labels/epoch00000.safetensors", views | {"logits": torch.zeros((num_images, CLASSES)).half()}
    )
    classes = numbered_classes(CLASSES)
    write_tables(folder, work, classes, SIZE, IPC, 1)
    for file in (folder / "soft_labels").iterdir():
        file.unlink()
    write_label_table(folder, features, map(epoch_table, range(epochs)), epochs, num_images)
    finish_artifact(folder, classes, IPC, SIZE, relabel, epochs)


def serve(folder: Path) -> None:
    """Serve the artifact from the test Hub until standard input ends."""
    sys.path.insert(0, str(TESTS))
    from fixtures.hub_control import running

    hub = running()
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    hub.put(REPO, {name: (folder / name).read_bytes() for name in names})
    print(hub.url, flush=True)
    sys.stdin.read()
    hub.stop()


def data_bytes() -> int:
    """Return the private writable memory of this process, which RLIMIT_DATA counts."""
    return int(psutil.Process().memory_info().data)


class PeakOfData:
    """The most that `data_bytes` comes to while this is entered: activations come and go within a step."""

    def __enter__(self) -> "PeakOfData":
        self.bytes, self._is_over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.001):
            self.bytes = max(self.bytes, data_bytes())


def training_step(student: nn.Module, distilled: Distilled) -> Callable[[Batch], Tensor]:
    """Update a student once, as the evaluation protocol does."""
    optimiser = torch.optim.AdamW(parameter_groups(student, 0.01), lr=1e-3)

    def step(batch: Batch) -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        sizes = micro_batches(len(batch.labels), distilled.relabel)
        total = torch.zeros(())
        for images, logits in zip(batch.images.split(sizes), batch.logits.split(sizes), strict=True):
            predicted = student(images.to(memory_format=torch.channels_last))
            loss = soft_label_loss(predicted, logits, 20.0) * (len(logits) / len(batch.labels))
            loss.backward()
            total += loss.detach()
        optimiser.step()
        return total

    return step


def train(kind: str, folder: Path, steps: int, turns: int, allowance: int) -> None:
    """Take as many steps as a turn has for every line of standard input; print what they cost."""
    torch.set_num_threads(1)
    distilled = load_distilled(folder) if kind == "memory" else load_distilled(REPO, streaming=True)
    torch.manual_seed(0)
    student = create_student(STUDENT, CLASSES, SIZE).to(memory_format=torch.channels_last).train()
    step = training_step(student, distilled)
    with PeakOfData() as peak, distilled.batches(range(1)) as batches:
        for batch in batches:
            step(batch)
    limit = peak.bytes + allowance
    if kind != "memory":
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    table = LabelEpochs(distilled.location, distilled.num_epochs - 1, streaming=kind != "memory")
    if kind == "hold":
        return answer(hold_everything(table, distilled.num_epochs))
    epochs = range(-(-steps * turns // distilled.steps_per_epoch))
    if kind == "memory":
        held = {epoch: {name: column.copy() for name, column in table.read(epoch).items()} for epoch in epochs}
        given = {entry.name: getattr(distilled, entry.name) for entry in fields(Distilled)}
        distilled = InMemory(**given, held=held)
    table.close()
    answer({})
    with distilled.batches(epochs) as batches:
        for _ in sys.stdin:
            started, cpu = time.perf_counter(), time.process_time()
            losses = [step(next(batches)).item() for _ in range(steps)]
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            answer(
                {"seconds": seconds, "cpu_seconds": cpu, "loss": losses[-1], "left_mb": (limit - data_bytes()) / MB}
            )


def answer(record: dict[str, float]) -> None:
    print(json.dumps(record), flush=True)


def hold_everything(table: LabelEpochs, epochs: int) -> dict[str, float]:
    """Return how many epochs fit before memory runs out; all of them means that there is no limit."""
    held = []
    try:
        for epoch in range(epochs):
            held.append({name: column.copy() for name, column in table.read(epoch).items()})
    except MemoryError:
        num = len(held)
        held.clear()
        return {"held_epochs": num, "of": epochs}
    raise SystemExit("the whole table fitted into the memory that was allowed: the limit does not hold")


def cost_of_checks(folder: Path, seconds_per_step: float) -> float:
    """Measure the seconds that the checks of an epoch's rows take, as a share of training on it."""
    location = LocalFolder(folder)
    table = LabelEpochs(location, 0)
    columns, times = table.read(0), []
    for _ in range(20):
        started = time.perf_counter()
        if list(bad_rows(columns, 0, location.manifest)):
            raise ArtifactError("the benchmark's own rows are refused")
        times.append(time.perf_counter() - started)
    table.close()
    return statistics.median(times) / (seconds_per_step * CLASSES * IPC / BATCH)


class Other:
    """Another process of this program: it answers lines with lines, and is stopped between them."""

    def __init__(self, role: str, arguments: argparse.Namespace, folder: Path, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__, "--role", role, "--folder", str(folder)]
        command += [f"--{name}={getattr(arguments, name)}" for name in ("allowance_mb", "steps", "turns")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        self.first = self._answer()

    def turn(self) -> dict[str, float]:
        """Let the process continue until it answers."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """Close its input and wait for its end."""
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process ended early; its message is above")
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(line)


@contextlib.contextmanager
def hub_with(folder: Path, scratch: Path) -> Iterator[dict[str, str]]:
    """Return the environment of processes that know the Hub with the artifact."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(scratch / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, __file__, "--role", "serve", "--folder", str(folder)]
    hub = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
    assert hub.stdout is not None
    try:
        yield environment | {"HF_ENDPOINT": hub.stdout.readline().strip()}
    finally:
        hub.communicate()


def alternate(arguments: argparse.Namespace, folder: Path, environment: dict[str, str], flip: bool) -> list[Turns]:
    """Run one pair of processes in turns; `flip` swaps which starts and goes first."""
    kinds = ("stream", "memory") if flip else ("memory", "stream")
    others = {kind: Other(kind, arguments, folder, environment) for kind in kinds}
    try:
        turns = []
        for turn in range(arguments.turns):
            order = kinds if turn % 2 else kinds[::-1]
            turns.append({kind: others[kind].turn() for kind in order})
            print(", ".join(f"{kind} {turns[-1][kind]['seconds']:.1f} s" for kind in sorted(kinds)), flush=True)
        return turns
    finally:
        for other in others.values():
            other.end()


def compare(arguments: argparse.Namespace, scratch: Path) -> None:
    folder = arguments.folder or scratch / "artifact"
    if not RunFolder(folder).is_finished:
        make_artifact(folder, 10 * arguments.allowance_mb * MB)
    table_bytes = read_manifest(folder).bytes.soft_labels
    assert table_bytes >= 10 * arguments.allowance_mb * MB, "the table is not ten times as large as the allowance"
    with hub_with(folder, scratch) as environment:
        control = Other("hold", arguments, folder, environment)
        control.end()
        pairs = [alternate(arguments, folder, environment, bool(pair % 2)) for pair in range(arguments.pairs)]
    turns = [turn for pair in pairs for turn in pair]
    assert all(turn["memory"]["loss"] == turn["stream"]["loss"] for turn in turns), "the two trained differently"
    seconds = {
        kind: {name: statistics.median(turn[kind][name] for turn in turns) for name in ("seconds", "cpu_seconds")}
        for kind in ("memory", "stream")
    }
    ratios = [statistics.median(t["memory"]["seconds"] / t["stream"]["seconds"] for t in pair) for pair in pairs]
    ratio, held = statistics.median(ratios), control.first
    checks = cost_of_checks(folder, seconds["memory"]["cpu_seconds"] / arguments.steps)
    record = {
        "student": STUDENT,
        "images": CLASSES * IPC,
        "classes": CLASSES,
        "size": SIZE,
        "batch": BATCH,
        "steps_per_turn": arguments.steps,
        "turns_per_pair": arguments.turns,
        "ratio_of_each_pair": [round(value, 3) for value in ratios],
        "label_table_mb": round(table_bytes / MB, 1),
        "allowance_mb": arguments.allowance_mb,
        "epochs_held_before_memory_ran_out": f"{held['held_epochs']} of {held['of']}",
        "median_of_turns": seconds,
        "streaming_speed_of_in_memory": round(ratio, 3),
        "checks_share_of_training": round(checks, 5),
        "machine": describe_machine(),
        "versions": library_versions(),
    }
    print(f"streaming trains at {ratio:.3f} of the in-memory speed")
    print(f"the checks of the rows take {100 * checks:.2f} % of the training")
    write_json(Path("results/bench-streaming-cpu.json"), record)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--allowance_mb", type=int, default=64, help="memory that the streaming process may add")
    parser.add_argument("--steps", type=int, default=30, help="of each turn")
    parser.add_argument("--turns", type=int, default=4, help="of each process")
    parser.add_argument("--pairs", type=int, default=5, help="of processes; equal ones differ by some percent")
    parser.add_argument("--role", default="compare", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the artifact is made, or was; a temporary one if not given")
    arguments = parser.parse_args()
    if arguments.role == "serve":
        serve(arguments.folder)
    elif arguments.role == "compare":
        with tempfile.TemporaryDirectory() as scratch:
            compare(arguments, Path(scratch))
    else:
        train(arguments.role, arguments.folder, arguments.steps, arguments.turns, arguments.allowance_mb * MB)


if __name__ == "__main__":
    main()
