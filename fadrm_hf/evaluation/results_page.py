"""The page of results: every table of FADRM's paper with the numbers that are on file beside those that are printed.

Nothing on it is typed by hand: the paper's numbers are those of `fadrm_hf.evaluation.published`, ours are read from
the folder of results, and what does not stand for a cell (`fadrm_hf.evaluation.evidence`) is listed below the tables
with the reasons.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fadrm_hf.config.students import ARCHITECTURES, find_architecture
from fadrm_hf.evaluation.evidence import BoundCell, Measurement, nearest_ipc, published_cell, read_measurements
from fadrm_hf.evaluation.published import (
    Ablation,
    Published,
    published_ablations,
    published_accuracies,
    published_bound,
)
from fadrm_hf.evaluation.results_pictures import Picture
from fadrm_hf.methods import title_of
from fadrm_hf.report.card.text import NOT_MEASURED, cell, render

_DATASETS = {
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny-ImageNet",
    "imagenette": "ImageNette",
    "imagewoof": "ImageWoof",
    "imagenet1k": "ImageNet-1k",
}
_RESNETS = ("resnet18", "resnet50", "resnet101")
_OTHERS = ("rded", "edc", "cv_dd")  # whose settings the paper does not tell
_OURS = ("fadrm", "fadrm_plus")  # whose settings are in recipes/configs
_PAPERS_GPU = "4090"
_NO_TABLE = "the paper has no table of this dataset"
_SETTINGS = {  # as the tables call them
    "patches.grid": lambda grid: f"{grid}×{grid} patches",
    "recover.precision": lambda precision: f"{'with' if precision == 'fp16' else 'without'} mixed precision",
    "method.num_residuals": lambda k: f"k = {k}" if k else "without ARC, without MRO",
    "method.alpha": lambda alpha: f"α = {alpha}" if alpha < 1 else "without ARC, with MRO",
    "method.sizes": lambda sizes: f"D_ds = {sizes[0]}",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """One table of the page: its title, what must be known to read it, and its cells as Markdown."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def render_results_page(results: Path, configs: Path, pictures: Sequence[Picture] = ()) -> str:
    """The page, from what is on file.

    Args:
        results: The folder of results, which the page will lie in.
        configs: The folder `recipes/configs`, whose runs are the published ones.
        pictures: What it shows (`fadrm_hf.evaluation.results_pictures.find_pictures`), from files in the same folder.

    Raises:
        ArtifactError: If a file of results is damaged.
    """
    book = _Book(read_measurements(results), configs)
    tables = [
        _table_1(book),
        _table_2_costs(book),
        _table_2(book),
        *(_table_of_ablations(book, number) for number in ("3", "4", "5", "6")),
        _table_7(book),
    ]
    smaller = [_smaller(book, found) for found in book.measurements if found not in book.used]
    return render(
        "results_page.md",
        tables=tables,
        smaller=smaller,
        num_cells=book.num_cells,
        num_measured=book.num_measured,
        pictures=pictures,
    )


class _Book:
    """What is on file, and which of it stands for cells of the paper."""

    def __init__(self, measurements: Sequence[Measurement], configs: Path) -> None:
        self.measurements, self.configs = measurements, configs
        self.used: list[Measurement] = []
        self.num_cells = self.num_measured = 0

    def distilled(
        self, dataset: str, method: str, ipc: int, student: str, changed: Mapping[str, Any] | None = None
    ) -> Measurement | None:
        """The measurement that stands for a cell, of several the one with the most seeds."""
        same = [each for each in self._of(dataset) if each.run and each.run.method.name == method]
        if not same:
            return None
        wanted = published_cell(self.configs, dataset, method, ipc, ARCHITECTURES[student].student, changed)
        return self._best([each for each in same if not wanted.differences(each)])

    def bound(self, dataset: str, student: str) -> Measurement | None:
        """The same of a bound."""
        wanted = BoundCell(dataset, ARCHITECTURES[student].student)
        return self._best([each for each in self._of(dataset) if not wanted.differences(each)])

    def shown(self, text: str | None) -> str:
        """A cell of ours, counted; what there is not says so."""
        self.num_cells += 1
        self.num_measured += text is not None
        return text or NOT_MEASURED

    def _of(self, dataset: str) -> list[Measurement]:
        return [each for each in self.measurements if each.preset and each.preset.name == dataset]

    def _best(self, found: Sequence[Measurement]) -> Measurement | None:
        self.used += found
        return max(found, key=lambda each: each.result["num_seeds"], default=None)


def _table_1(book: _Book) -> Table:
    rows = []
    for dataset, title in _DATASETS.items():
        for ipc in (1, 10, 50):
            for student in _RESNETS:
                published = published_accuracies(dataset, student, ipc)
                found = [book.shown(_accuracy(book.distilled(dataset, name, ipc, student))) for name in _OURS]
                paper = [_percent(published.get(name)) for name in (*_OTHERS, *_OURS)]
                rows.append([title, str(ipc), ARCHITECTURES[student].title, *paper[:4], found[0], paper[4], found[1]])
    head = ["dataset", "IPC", "student", *map(title_of, _OTHERS), "FADRM", "ours", "FADRM+", "ours"]
    note = "Of RDED, EDC and CV-DD it prints the better of two set-ups without saying which, so they have no column."
    return Table("Table 1: students on distilled data, top-1 (%)", note, head, rows)


def _table_2_costs(book: _Book) -> Table:
    rows = []
    for each in published_ablations("2"):
        found = book.distilled(each.dataset, each.method, each.ipc, "resnet18") if each.method in _OURS else None
        ours = [book.shown(cost(found)) if each.method in _OURS else "" for cost in (_seconds, _gigabytes)]
        rows.append([title_of(each.method), f"{each.seconds:.2f}", ours[0], f"{each.gigabytes:.1f}", ours[1]])
    head = ["method", "seconds per image", "ours", "peak memory (GB)", "ours"]
    note = "ImageNet-1k on one RTX 4090; costs on other hardware are no cells of this table."
    return Table("Table 2, left: costs", note, head, rows)


def _table_2(book: _Book) -> Table:
    rows = []
    for name, architecture in ARCHITECTURES.items():
        if "FADRM Table 2" not in architecture.occurs:
            continue
        published = published_accuracies("imagenet1k", name, 10)
        ours = book.shown(_accuracy(book.distilled("imagenet1k", "fadrm_plus", 10, name)))
        paper = [_percent(published.get(method)) for method in (*_OTHERS, "fadrm_plus")]
        rows.append([architecture.title, *paper, ours])
    head = ["student", *map(title_of, _OTHERS), "FADRM+", "ours"]
    note = "ImageNet-1k at 10 images per class. ResNet-18 is printed as 50.0, of 2×2 patches; 50.9 is Table 1's."
    return Table("Table 2, right: other architectures, top-1 (%)", note, head, rows)


def _table_of_ablations(book: _Book, number: str) -> Table:
    published = published_ablations(number)
    costs = [(title, value, cost) for title, value, cost in _COSTS if any(value(each) for each in published)]
    rows = []
    for each in published:
        found = _found(book, each) if each.method in _OURS else None
        line = [_DATASETS[each.dataset], title_of(each.method), str(each.ipc), _setting(each), _percent(each)]
        line.append(book.shown(_accuracy(found)) if each.method in _OURS else "")
        for _, value, cost in costs:
            line.append("" if value(each) is None else f"{value(each):g}")
            line.append(book.shown(cost(found)) if each.method in _OURS and value(each) else "")
        rows.append(line)
    head = ["dataset", "method", "IPC", "setting", "top-1 (%)", "ours"]
    head += [text for title, _, _ in costs for text in (title, "ours")]
    return Table(f"Table {number}: {_TITLES[number]}", _NOTES.get(number, ""), head, rows)


def _found(book: _Book, each: Ablation) -> Measurement | None:
    """What stands for a configuration: the published run with its patches and with what the table changes."""
    sizes = {"method.sizes": None} if "method.num_residuals" in each.changed else {}
    changed = {"patches.grid": each.grid, **sizes, **each.changed}
    return book.distilled(each.dataset, each.method, each.ipc, "resnet18", changed)


def _table_7(book: _Book) -> Table:
    rows = [
        [title, ARCHITECTURES[student].title, _percent(published_bound(dataset, student)),
         book.shown(_accuracy(book.bound(dataset, student)))]
        for dataset, title in _DATASETS.items()
        for student in _RESNETS
    ]  # fmt: skip
    note = "The paper prints these accuracies in Table 1 and the recipe in Table 7."
    return Table(
        "Table 7: students on the whole dataset, top-1 (%)",
        note,
        ["dataset", "student", "whole dataset", "ours"],
        rows,
    )


def _setting(each: Ablation) -> str:
    return ", ".join(_SETTINGS[name](value) for name, value in each.changed.items())


def _percent(published: Published | Ablation | None) -> str:
    return "–" if published is None or published.accuracy is None else f"{100 * published.accuracy:.1f}"


def _accuracy(found: Measurement | None) -> str | None:
    return None if found is None else f"{_top1(found)} ({_how(found)}, {_link(found)})"


def _top1(found: Measurement) -> str:
    """Mean and standard deviation in percent; of one seed no spread is known."""
    top1 = found.result["top1"]
    spread = f" ± {100 * top1['std']:.1f}" if found.result["num_seeds"] > 1 else ""
    return f"{100 * top1['mean']:.1f}{spread}"


def _how(found: Measurement) -> str:
    seeds = found.result["num_seeds"]
    return f"{seeds} seed{'s' if seeds > 1 else ''}, {cell(found.result['protocol'])}, epoch {found.result['epochs']}"


def _link(found: Measurement) -> str:
    return f"[json]({found.file})"


def _per_image(found: Measurement | None) -> float | None:
    """Seconds of recovery of one image on the paper's GPU."""
    if found is None or found.stages is None or _PAPERS_GPU not in (found.gpu or ""):
        return None
    return found.stages["recover"].seconds / float(found.result["num_images"])


def _seconds(found: Measurement | None) -> str | None:
    seconds = _per_image(found)
    return None if found is None or seconds is None else f"{seconds:.2f} ({_link(found)})"


def _milliseconds(found: Measurement | None) -> str | None:
    seconds = _per_image(found)
    if found is None or found.run is None or seconds is None:
        return None
    return f"{1000 * seconds / found.run.method.iterations:.2f} ({_link(found)})"


def _gigabytes(found: Measurement | None) -> str | None:
    if found is None or found.stages is None or _per_image(found) is None:
        return None
    peak = found.stages["recover"].peak_memory_bytes
    return None if peak is None else f"{peak / 1e9:.1f} ({_link(found)})"


_Value = Callable[[Ablation], float | None]
_Cost = Callable[[Measurement | None], str | None]
_COSTS: tuple[tuple[str, _Value, _Cost], ...] = (
    ("seconds per image", lambda each: each.seconds, _seconds),
    ("ms per image and iteration", lambda each: each.milliseconds, _milliseconds),
    ("GB of the GPU", lambda each: each.gigabytes, _gigabytes),
)
_TITLES = {
    "3": "patches to start from and to mix in",
    "4": "mixed precision",
    "5": "components and merge ratio",
    "6": "number of residuals k, and reduced resolution",
}
_NOTES = {
    "4": "Of 2×2 patches, as its accuracies show; costs are of an RTX 4090.",
    "5": "Of 2×2 patches, as its accuracies show; costs are of an RTX 4090.",
    "6": "ImageNet-1k of 2×2 patches, as its accuracies show; costs are of an RTX 4090. How long students of "
    "CIFAR-100 were trained it does not say; a run of ours counts with the 1,000 epochs of Table 11.",
}


def _smaller(book: _Book, found: Measurement) -> list[str]:
    """A line of what stands for no cell, with the reasons."""
    result, preset, run = found.result, found.preset, found.run
    student = find_architecture(result["student"])
    dataset = preset.name if preset else Path(found.source.name).name
    made = result["images"].replace("_", " ") if result["images"] != "distilled" or run is None else run.method.title
    return [
        cell(_DATASETS.get(dataset, dataset)),
        f"{cell(made)}, {result['labels']} labels",
        "" if run is None or result["images"] == "whole" else str(run.ipc),
        cell(student.title if student else result["student"]),
        f"{_top1(found)} ({_how(found)}, {_link(found)})",
        cell("; ".join(_reasons(book, found))),
    ]


def _reasons(book: _Book, found: Measurement) -> list[str]:
    """Why a measurement stands for no cell: in what it differs from the nearest."""
    preset, run, images = found.preset, found.run, found.result["images"]
    known = find_architecture(found.result["student"])
    is_tabulated = known is not None and bool({"FADRM Table 1", "FADRM Table 2"} & set(known.occurs))
    student = known if known and is_tabulated else ARCHITECTURES["resnet18"]
    if preset is None or not (book.configs / preset.name).is_dir():
        return [_NO_TABLE]
    none = [] if preset.name in _DATASETS else [_NO_TABLE]
    if images == "whole":
        return none or BoundCell(preset.name, student.student).differences(found)
    if images == "random_real" or run is None:
        return none or ["the paper has no such row"]
    if run.method.name not in _OURS:
        return none or [f"the paper does not tell the settings of its {title_of(run.method.name)}"]
    near = published_cell(book.configs, preset.name, run.method.name, nearest_ipc(run.ipc), student.student)
    return none + near.differences(found)
