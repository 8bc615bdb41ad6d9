"""The cost of smaller labels: bytes, decoding speed and student accuracy of one artifact under several codecs.

A spec is a codec, or a codec and the number of epochs that are stored: float16 int8 int4 top10 none int4:25. Each
becomes an artifact of its own in `ARTIFACT.codecs/`, from one that stores float16. Epochs of all codecs are decoded
in turn, so that a machine that slows down slows all; the median is the figure to quote. Students are trained by the
artifact's own protocol and tested after the last epoch; one that is in the file of results already is not trained
again, so the same command resumes an interrupted run.

    .venv/bin/python benchmarks/label_codecs.py runs/fadrm-cifar100-ipc5-small float16 int4 int4:25 --num_seeds 3
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fadrm_hf.artifact.location import LocalFolder
from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.artifact.reading import open_table, read_label_group, table_files
from fadrm_hf.artifact.recorded_source import source_of
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.pipeline.settings import run_from_recipe
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import LABELS_FOLDER, RunFolder
from fadrm_hf.training.accuracy import summarise
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.one_student import StudentTraining, remove_checkpoint
from fadrm_hf.training.protocol import resolve_protocol
from fadrm_hf.training.testing import TestImages

Record = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """The artifact, the folder of its variants and the file of results, which holds what is measured so far."""

    artifact: Path
    results: Path
    record: Record = field(default_factory=dict)

    def variant(self, spec: str) -> Path:
        """Return the artifact with the labels of a spec; make it if it is missing."""
        codec, _, stored = spec.partition(":")
        folder = self.artifact.with_name(self.artifact.name + ".codecs") / spec.replace(":", "-")
        if not RunFolder(folder).is_finished:
            recode(self.artifact, folder, codec, int(stored) if stored else None)
        return folder

    def row(self, spec: str) -> Record:
        """Return the measurements of a spec."""
        row: Record = self.record["codecs"].setdefault(spec, {"students": {}})
        return row

    def save(self) -> None:
        """Write everything measured so far."""
        write_json(self.results, self.record)


def epochs_of(folder: Path) -> Iterator[tuple[int, float]]:
    """Yield the number of rows of each stored epoch and the seconds that reading and decoding them takes."""
    manifest = read_manifest(folder)
    for file in table_files(folder, LABELS_FOLDER):
        table = open_table(file)
        for group in range(table.num_row_groups):
            started = time.perf_counter()
            read_label_group(file, table, group, manifest)
            yield manifest.num_images, time.perf_counter() - started


def measure_tables(benchmark: Benchmark, specs: list[str], repeats: int) -> None:
    """Measure the bytes of each variant's table and the rows decoded per second."""
    folders = {spec: benchmark.variant(spec) for spec in specs}
    speeds: dict[str, list[float]] = {spec: [] for spec in specs}
    for _ in range(repeats):
        for spec, folder in folders.items():
            rows, seconds = (sum(column) for column in zip(*epochs_of(folder), strict=True))
            speeds[spec].append(rows / seconds)
    whole = read_manifest(benchmark.variant("float16")).bytes.soft_labels
    for spec, folder in folders.items():
        manifest = read_manifest(folder)
        num_bytes, num_rows = manifest.bytes.soft_labels, manifest.num_images * manifest.label_epochs
        benchmark.row(spec).update(
            stored_epochs=manifest.label_epochs,
            bytes=num_bytes,
            bytes_per_row=num_bytes / num_rows,
            ratio_to_float16=num_bytes / whole,
            rows_per_second=statistics.median(speeds[spec]),
        )
    benchmark.save()


def measure_students(benchmark: Benchmark, specs: list[str], num_seeds: int, source_name: str | None) -> None:
    """Measure the accuracy of one student per spec and seed, all specs of a seed before the next."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    test = TestImages(source_of(LocalFolder(benchmark.artifact), source_name), device)
    run = run_from_recipe(read_manifest(benchmark.artifact).config, str(benchmark.artifact))
    missing = [
        (seed, spec) for seed in range(num_seeds) for spec in specs if str(seed) not in benchmark.row(spec)["students"]
    ]
    for seed, spec in missing:
        distilled = load_distilled(benchmark.variant(spec))
        config = resolve_protocol(distilled, run.student)
        assert config.epochs is not None
        folder = distilled.folder
        work = folder.with_name(folder.name + ".work")
        checkpoint = work / f"seed{seed}.safetensors"
        num_images = config.epochs * len(distilled.images)
        with Reporter(work / "log.jsonl").stage(f"{spec} seed {seed}", config.epochs, num_images) as task:
            outcome = StudentTraining(distilled, test, config, seed, device).run(checkpoint, task, num_evaluations=1)
        benchmark.row(spec)["students"][str(seed)] = {"top1": outcome.top1, "seconds": round(outcome.seconds, 1)}
        benchmark.row(spec)["top1"] = summarise([one["top1"] for one in benchmark.row(spec)["students"].values()])
        benchmark.save()
        remove_checkpoint(checkpoint)


def print_table(benchmark: Benchmark, specs: list[str]) -> None:
    """Print one line per spec."""
    print(
        f"{'labels':<12}{'bytes':>14}{'bytes/row':>11}{'of float16':>12}{'rows/s':>12}   top-1 at the last epoch (%)"
    )
    for spec in specs:
        row = benchmark.row(spec)
        numbers = f"{row['bytes']:>14,}{row['bytes_per_row']:>11.1f}{row['ratio_to_float16']:>12.3f}"
        top1 = row.get("top1")
        accuracy = (
            f"{100 * top1['mean']:.2f} ± {100 * top1['std']:.2f} ({len(row['students'])} seeds)" if top1 else "-"
        )
        print(f"{spec:<12}{numbers}{row['rows_per_second']:>12,.0f}   {accuracy}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="run folder that stores float16 labels")
    parser.add_argument("specs", nargs="+", help="codec, or codec:stored_epochs")
    parser.add_argument("--num_seeds", type=int, default=0, help="students per spec; 0 trains none")
    parser.add_argument("--repeats", type=int, default=5, help="how often each table is decoded")
    parser.add_argument("--source.name", dest="source_name", help="where the test images are, if not where they were")
    parser.add_argument("--results", type=Path, help="results/bench-label-codecs-ARTIFACT.json if not given")
    arguments = parser.parse_args()
    results = arguments.results or Path("results") / f"bench-label-codecs-{arguments.artifact.name}.json"
    known = json.loads(results.read_text()) if results.exists() else {"codecs": {}}
    about = {"artifact": arguments.artifact.name, "machine": describe_machine(), "versions": library_versions()}
    benchmark = Benchmark(arguments.artifact, results, known | about)
    measure_tables(benchmark, arguments.specs, arguments.repeats)
    print_table(benchmark, arguments.specs)
    if arguments.num_seeds:
        measure_students(benchmark, arguments.specs, arguments.num_seeds, arguments.source_name)
        print_table(benchmark, arguments.specs)


if __name__ == "__main__":
    main()
