"""The pictures of the page of results, drawn from the files of results.

Methods and their costs, accuracy against images per class and against bytes of labels, information along a recovery.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fadrm_hf.evaluation.evidence import read_document, read_measurements
from fadrm_hf.evaluation.measured_tables import images_per_class
from fadrm_hf.methods import title_of
from fadrm_hf.methods.random_real import RandomReal
from fadrm_hf.report.card.scores import SCORES_NAME, complete_points, read_scores_file
from fadrm_hf.report.pictures.accuracy import draw_comparison
from fadrm_hf.report.pictures.curves import Series, StoredLabels, draw_images_per_class, draw_label_bytes
from fadrm_hf.report.pictures.images import draw_information

Row = dict[str, Any]  # of a table of `compare`
Line = dict[int, Row]  # by images per class


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        file: Its file, from the folder of results.
        title: Of its section.
        shows: A description for those who do not see it.
        sources: The files of results that it is drawn from.
        draw: Returns the file's bytes.
    """

    file: str
    title: str
    shows: str
    sources: tuple[str, ...]
    draw: Callable[[], bytes]


@dataclass(frozen=True)
class Setup:
    """What methods are compared under; numbers of images per class are compared where all of this is the same.

    Attributes:
        source: Title of the source.
        protocol: How students were trained.
        student: Their architecture.
        teacher: Digest of the first teacher's weights.
    """

    source: str
    protocol: str
    student: str
    teacher: str

    @property
    def name(self) -> str:
        """What files call it."""
        return re.sub(r"[^\w.]+", "-", f"{self.source}-{self.protocol}-{self.student}")


def find_pictures(folder: Path) -> list[Picture]:
    """Return every picture that the files of a folder of results have the numbers for.

    Args:
        folder: As of `read_measurements`, with tables of `compare` and of the benchmark of label codecs, and copies of
            run folders with their scores.

    Raises:
        ArtifactError: If a file is damaged.
    """
    return [
        *_along_images_per_class(folder),
        *_comparisons(folder),
        *_label_bytes(folder),
        *_information(folder),
    ]


def _comparisons(folder: Path) -> Iterator[Picture]:
    """Yield each table of `compare` as it draws it itself."""
    for path, document in _tables(folder):
        rows = _finished(document)
        if rows:
            where = f"{document['source']}, {images_per_class(document['ipc'])}, under {_protocol(rows[0])}"
            best = max(rows, key=lambda row: row["top1_mean"])
            shows = f"Top-1 accuracy of {len(rows)} methods on {where}, and the same against seconds of distillation; "
            shows += f"the most is {100 * best['top1_mean']:.1f} %, of {best['title']}"
            title = f"Methods and what they cost: {where}"
            yield Picture(f"{path.stem}.png", title, shows, (path.name,), partial(draw_comparison, rows))


def _along_images_per_class(folder: Path) -> Iterator[Picture]:
    """Yield a picture of each setup under which a method was measured at more than one number of images per class."""
    by_setup: dict[Setup, list[Row]] = {}
    for path, document in _tables(folder):
        for row in _finished(document):
            teacher = row["teacher_records"][0]["sha256"] if row["teacher_records"] else ""
            setup = Setup(document["source"], _protocol(row), row["student"], teacher)
            by_setup.setdefault(setup, []).append(row | {"ipc": document["ipc"], "file": path.name})
    by_method = {setup: _lines(rows) for setup, rows in by_setup.items()}
    shown = {setup: lines for setup, lines in by_method.items() if any(len(line) > 1 for line in lines.values())}
    names = Counter(setup.name for setup in shown)
    for setup, lines in shown.items():
        series = _series(lines)
        where = f"{setup.source}, student {setup.student}, under {setup.protocol}"
        counts = sorted({ipc for each in series for ipc, _, _ in each.points})
        shows = f"Top-1 accuracy against images per class ({', '.join(map(str, counts))}) on {where}: "
        shows += ", ".join(each.title for each in series)
        name = setup.name if names[setup.name] == 1 else f"{setup.name}-{setup.teacher[:8]}"
        sources = tuple(sorted({row["file"] for line in lines.values() for row in line.values()}))
        draw = partial(draw_images_per_class, series, _whole_dataset(folder, setup))
        title = f"Accuracy against images per class: {where}"
        yield Picture(f"images-per-class-{name}.png", title, shows, sources, draw)


def _label_bytes(folder: Path) -> Iterator[Picture]:
    """Yield the measurements of the benchmark of label codecs."""
    for path in sorted(folder.glob("bench-label-codecs-*.json")):
        document = read_document(path)
        codecs = document["codecs"]
        all_epochs = max(each["stored_epochs"] for each in codecs.values())
        stored = [_stored(name, each, all_epochs) for name, each in codecs.items()]
        shows = f"Top-1 accuracy against the bytes of the soft labels of {document['artifact']}, stored in "
        shows += f"{len(stored)} ways; empty marks are of one seed"
        title = f"Accuracy against bytes of soft labels: {document['artifact']}"
        name = f"{path.stem.removeprefix('bench-')}.png"
        yield Picture(name, title, shows, (path.name,), partial(draw_label_bytes, stored))


def _information(folder: Path) -> Iterator[Picture]:
    """Yield runs with scored snapshots; of start and end alone there is no picture."""
    for path in sorted(folder.glob(f"*/{SCORES_NAME}")):
        looks = complete_points(read_scores_file(path))
        if len(looks) > 2:
            name = path.parent.name
            shows = f"Entropy of pixels and of features of {name} along {looks[-1]['iteration']:.0f} iterations"
            file, source = f"{name}/information.png", path.relative_to(folder).as_posix()
            title = f"Information along the recovery: {name}"
            shows += ", with jumps where real patches are mixed in"
            yield Picture(file, title, shows, (source,), partial(draw_information, looks))


def _tables(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the tables of `compare`, with their files."""
    documents = [(path, read_document(path)) for path in sorted(folder.glob("*.json"))]
    return [(path, each) for path, each in documents if isinstance(each, dict) and {"methods", "ipc"} <= each.keys()]


def _finished(document: dict[str, Any]) -> list[Row]:
    return [row for row in document["methods"] if row.get("result") is not None]


def _protocol(row: Row) -> str:
    return str(row["result"]["protocol"])


def _lines(rows: Sequence[Row]) -> dict[str, Line]:
    """Return the line of each method.

    All of a line is labelled by the same teachers, since these are worth points by themselves: by those under which
    the method was measured most often. Of two alike, the one of more seeds.
    """
    by_teachers: dict[str, dict[tuple[str, ...], Line]] = {row["method"]: {} for row in rows}
    for row in sorted(rows, key=lambda row: row["num_seeds"]):
        teachers = tuple(record["sha256"] for record in row["teacher_records"])
        by_teachers[row["method"]].setdefault(teachers, {})[row["ipc"]] = row
    return {method: max(lines.values(), key=len) for method, lines in by_teachers.items()}


def _series(lines: Mapping[str, Line]) -> list[Series]:
    """Return the methods in the order of their tables."""
    return [
        Series(
            title_of(method),
            [(ipc, row["top1_mean"], row["top1_std"]) for ipc, row in sorted(line.items())],
            is_baseline=method == RandomReal.name,
        )
        for method, line in lines.items()
    ]


def _whole_dataset(folder: Path, setup: Setup) -> list[tuple[str, float, float]]:
    """Return the accuracy of the same student on the whole of the same source, where that is on file."""
    for each in read_measurements(folder):
        result = each.result
        if (result["images"], each.source.title, result["student"]) == ("whole", setup.source, setup.student):
            return [("whole dataset", result["top1"]["mean"], result["top1"]["std"])]
    return []


def _stored(name: str, measured: dict[str, Any], all_epochs: int) -> StoredLabels:
    codec, _, _ = name.partition(":")
    epochs, top1 = measured["stored_epochs"], measured["top1"]
    is_whole = epochs == all_epochs
    std = top1["std"] if len(top1["values"]) > 1 else None
    title = codec if is_whole else f"{codec}, {epochs} epochs"
    return StoredLabels(title, measured["bytes"], top1["mean"], std, is_whole)
