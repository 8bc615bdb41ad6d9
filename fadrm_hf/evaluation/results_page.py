"""The page of results: every table of FADRM's paper with the numbers that are on file next to those that are printed.

Nothing on it is typed by hand: the paper's numbers are those of `fadrm_hf.evaluation.published`, ours are read from
the folder of results, and what is no cell of the paper (`fadrm_hf.evaluation.evidence`) is listed below the tables
with the reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fadrm_hf.config.architectures import ARCHITECTURES, find_architecture
from fadrm_hf.evaluation.evidence import (
    Cell,
    Measurement,
    nearest_ipc,
    published_cell,
    read_measurements,
    whole_dataset_cell,
)
from fadrm_hf.evaluation.measured_tables import counted
from fadrm_hf.evaluation.published import (
    Published,
    PublishedAblation,
    published_ablations,
    published_accuracies,
    published_whole_dataset,
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
_OTHERS = ("rded", "edc", "cv_dd")  # methods with settings that the paper does not tell
_OURS = ("fadrm", "fadrm_plus")  # methods with settings in recipes/configs
_PAPERS_GPU = "4090"
_NO_TABLE = "the paper has no table of this dataset"
_SETTINGS = {  # as the tables call them
    "patches.grid": lambda grid: f"{grid}×{grid} patches",
    "recover.precision": lambda precision: f"{'with' if precision == 'fp16' else 'without'} mixed precision",
    "method.num_residuals": lambda k: f"k = {k}" if k else "without ARC, without MRO",
    "method.alpha": lambda alpha: f"α = {alpha}" if alpha < 1 else "without ARC, with MRO",
    "method.sizes": lambda sizes: f"D_ds = {sizes[0]}",
}
_COSTS = {  # title and format
    "seconds": ("seconds per image", ".2f"),
    "milliseconds": ("ms per image and iteration", ".2f"),
    "gigabytes": ("GB of the GPU", ".1f"),
}
_ABLATIONS = {
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


@dataclass(frozen=True)
class Table:
    """One table of the page: its title, what must be known to read it, and its cells as Markdown."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def render_results_page(results: Path, configs: Path, pictures: Sequence[Picture] = ()) -> str:
    """Render the page from what is on file.

    Args:
        results: The folder of results, which the page is meant for.
        configs: The folder `recipes/configs` with the published runs.
        pictures: Its pictures (`fadrm_hf.evaluation.results_pictures.find_pictures`), from files in the same folder.

    Raises:
        ArtifactError: If a file of results is damaged.
    """
    ours = _Ours(read_measurements(results), configs)
    tables = [
        _table_1(ours),
        _table_2_costs(ours),
        _table_2(ours),
        *(_table_of_ablations(ours, number) for number in _ABLATIONS),
        _table_7(ours),
    ]
    return render(
        "results_page.md",
        tables=tables,
        smaller=[_smaller(ours, each) for each in ours.measurements if each not in ours.used],
        num_cells=ours.num_cells,
        num_measured=ours.num_measured,
        pictures=pictures,
    )


class _Ours:
    """Our measurements, and which of them are cells of the paper."""

    def __init__(self, measurements: Sequence[Measurement], configs: Path) -> None:
        self.measurements, self.configs = measurements, configs
        self.used: list[Measurement] = []
        self.num_cells = self.num_measured = 0

    def distilled(
        self, dataset: str, method: str, ipc: int, student: str = "resnet18", changed: Mapping[str, Any] | None = None
    ) -> Measurement | None:
        """Return the measurement of a cell, of several the one with the most seeds."""
        same = [each for each in self.measurements if each.run and each.run.method.name == method]
        if not any(_is_of(each, dataset) for each in same):
            return None  # without reading the published run
        wanted = published_cell(self.configs, dataset, method, ipc, ARCHITECTURES[student].student, changed)
        return self._best(same, wanted)

    def whole(self, dataset: str, student: str) -> Measurement | None:
        """Return the same of a student of the whole dataset."""
        return self._best(self.measurements, whole_dataset_cell(dataset, ARCHITECTURES[student].student))

    def shown(self, text: str | None) -> str:
        """Return a cell of ours and count it; without a text it is not measured."""
        self.num_cells += 1
        self.num_measured += text is not None
        return text or NOT_MEASURED

    def _best(self, measurements: Sequence[Measurement], wanted: Cell) -> Measurement | None:
        equal = [each for each in measurements if _is_of(each, wanted.dataset) and not wanted.differences(each)]
        self.used += equal
        return max(equal, key=lambda each: each.result["num_seeds"], default=None)


def _is_of(measurement: Measurement, dataset: str) -> bool:
    return measurement.preset is not None and measurement.preset.name == dataset


def _table_1(ours: _Ours) -> Table:
    rows = []
    for dataset, title in _DATASETS.items():
        for ipc in (1, 10, 50):
            for student in _RESNETS:
                published = published_accuracies(dataset, student, ipc)
                cells = [ours.shown(_accuracy(ours.distilled(dataset, name, ipc, student))) for name in _OURS]
                paper = [_percent(published.get(name)) for name in (*_OTHERS, *_OURS)]
                rows.append([title, str(ipc), ARCHITECTURES[student].title, *paper[:4], cells[0], paper[4], cells[1]])
    head = ["dataset", "IPC", "student", *map(title_of, _OTHERS), "FADRM", "ours", "FADRM+", "ours"]
    note = "Of RDED, EDC and CV-DD it prints the better of two set-ups without saying which, so they have no column."
    return Table("Table 1: students on distilled data, top-1 (%)", note, head, rows)


def _table_2_costs(ours: _Ours) -> Table:
    rows = []
    for each in published_ablations("2"):
        cells = ["", ""]
        if each.method in _OURS:
            costs = _costs(ours.distilled(each.dataset, each.method, each.ipc))
            cells = [ours.shown(costs.get(name)) for name in ("seconds", "gigabytes")]
        rows.append([title_of(each.method), f"{each.seconds:.2f}", cells[0], f"{each.gigabytes:.1f}", cells[1]])
    head = ["method", "seconds per image", "ours", "peak memory (GB)", "ours"]
    note = "ImageNet-1k on one RTX 4090; costs on other hardware are no cells of this table."
    return Table("Table 2, left: costs", note, head, rows)


def _table_2(ours: _Ours) -> Table:
    rows = []
    for name, architecture in ARCHITECTURES.items():
        if "FADRM Table 2" in architecture.occurs:
            published = published_accuracies("imagenet1k", name, 10)
            accuracy = ours.shown(_accuracy(ours.distilled("imagenet1k", "fadrm_plus", 10, name)))
            paper = [_percent(published.get(method)) for method in (*_OTHERS, "fadrm_plus")]
            rows.append([architecture.title, *paper, accuracy])
    head = ["student", *map(title_of, _OTHERS), "FADRM+", "ours"]
    note = "ImageNet-1k at 10 images per class. ResNet-18 is printed as 50.0, of 2×2 patches; 50.9 is Table 1's."
    return Table("Table 2, right: other architectures, top-1 (%)", note, head, rows)


def _table_of_ablations(ours: _Ours, number: str) -> Table:
    published = published_ablations(number)
    costs = [name for name in _COSTS if any(getattr(each, name) for each in published)]
    rows = []
    for each in published:
        is_ours = each.method in _OURS
        measurement = _ablation(ours, each) if is_ours else None
        setting = ", ".join(_SETTINGS[name](value) for name, value in each.changed.items())
        row = [_DATASETS[each.dataset], title_of(each.method), str(each.ipc), setting, _percent(each)]
        row.append(ours.shown(_accuracy(measurement)) if is_ours else "")
        for name in costs:
            cost = getattr(each, name)
            row.append("" if cost is None else f"{cost:g}")
            row.append(ours.shown(_costs(measurement).get(name)) if is_ours and cost else "")
        rows.append(row)
    head = ["dataset", "method", "IPC", "setting", "top-1 (%)", "ours"]
    head += [text for name in costs for text in (_COSTS[name][0], "ours")]
    return Table(f"Table {number}: {_ABLATIONS[number]}", _NOTES.get(number, ""), head, rows)


def _ablation(ours: _Ours, each: PublishedAblation) -> Measurement | None:
    """Return the measurement of the published run with the table's patches and with what the table changes."""
    sizes = {"method.sizes": None} if "method.num_residuals" in each.changed else {}
    changed = {"patches.grid": each.grid, **sizes, **each.changed}
    return ours.distilled(each.dataset, each.method, each.ipc, changed=changed)


def _table_7(ours: _Ours) -> Table:
    rows = []
    for dataset, title in _DATASETS.items():
        for student in _RESNETS:
            accuracy = ours.shown(_accuracy(ours.whole(dataset, student)))
            paper = _percent(published_whole_dataset(dataset, student))
            rows.append([title, ARCHITECTURES[student].title, paper, accuracy])
    note = "The paper prints these accuracies in Table 1 and the recipe in Table 7."
    head = ["dataset", "student", "whole dataset", "ours"]
    return Table("Table 7: students on the whole dataset, top-1 (%)", note, head, rows)


def _percent(published: Published | PublishedAblation | None) -> str:
    return "–" if published is None or published.accuracy is None else f"{100 * published.accuracy:.1f}"


def _accuracy(measurement: Measurement | None) -> str | None:
    """Return mean and standard deviation in percent, and where they come from; of one seed no spread is known."""
    if measurement is None:
        return None
    result, seeds = measurement.result, measurement.result["num_seeds"]
    spread = f" ± {100 * result['top1']['std']:.1f}" if seeds > 1 else ""
    training = f"{counted(seeds, 'seed')}, {cell(result['protocol'])}, epoch {result['epochs']}"
    return f"{100 * result['top1']['mean']:.1f}{spread} ({training}, {_link(measurement)})"


def _link(measurement: Measurement) -> str:
    return f"[json]({measurement.file})"


def _costs(measurement: Measurement | None) -> dict[str, str]:
    """Return the costs of recovery as `_COSTS` names them, if they were measured on the paper's GPU."""
    if measurement is None or measurement.run is None or _PAPERS_GPU not in (measurement.gpu or ""):
        return {}
    stage = (measurement.stages or {})["recover"]
    seconds, peak = stage.seconds / float(measurement.result["num_images"]), stage.peak_memory_bytes
    costs = {"seconds": seconds, "milliseconds": 1000 * seconds / measurement.run.method.iterations}
    costs |= {} if peak is None else {"gigabytes": peak / 1e9}
    return {name: f"{cost:{_COSTS[name][1]}} ({_link(measurement)})" for name, cost in costs.items()}


def _smaller(ours: _Ours, measurement: Measurement) -> list[str]:
    """Return the row of what is no cell of the paper, with the reasons."""
    result, preset, run = measurement.result, measurement.preset, measurement.run
    student = find_architecture(result["student"])
    dataset = preset.name if preset else Path(measurement.source.name).name
    made = result["images"].replace("_", " ") if result["images"] != "distilled" or run is None else run.method.title
    return [
        cell(_DATASETS.get(dataset, dataset)),
        f"{cell(made)}, {result['labels']} labels",
        "" if run is None or result["images"] == "whole" else str(run.ipc),
        cell(student.title if student else result["student"]),
        _accuracy(measurement) or "",
        cell("; ".join(_reasons(ours, measurement))),
    ]


def _reasons(ours: _Ours, measurement: Measurement) -> list[str]:
    """Return in what a measurement differs from the nearest cell."""
    preset, run, images = measurement.preset, measurement.run, measurement.result["images"]
    known = find_architecture(measurement.result["student"])
    is_tabulated = known is not None and bool({"FADRM Table 1", "FADRM Table 2"} & set(known.occurs))
    student = known if known and is_tabulated else ARCHITECTURES["resnet18"]
    if preset is None or not (ours.configs / preset.name).is_dir():
        return [_NO_TABLE]
    none = [] if preset.name in _DATASETS else [_NO_TABLE]
    if images == "whole":
        return none or whole_dataset_cell(preset.name, student.student).differences(measurement)
    if images == "random_real" or run is None:
        return none or ["the paper has no such row"]
    if run.method.name not in _OURS:
        return none or [f"the paper does not tell the settings of its {title_of(run.method.name)}"]
    nearest = published_cell(ours.configs, preset.name, run.method.name, nearest_ipc(run.ipc), student.student)
    return none + nearest.differences(measurement)
