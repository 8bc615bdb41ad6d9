"""Published numbers, to be printed next to measured ones: top-1 in percent, as the tables print them, and costs.

FADRM is arXiv 2506.24125, in its camera-ready numbers, which are also those of its poster. In two places the arXiv
version still has earlier ones, of 2x2 patches: Table 2 prints 50.0 for FADRM+ with ResNet-18, where Table 1 and the
poster have 50.9; the abstract has 47.7 and 50.0 for 48.4 and 50.9. EDC is arXiv 2404.13733.

Tables 4 to 6 do not name their patches; for ImageNet-1k their 47.7 and 50.0 are what Table 3 prints for 2x2. Nor does
Table 6 name the epochs of students of CIFAR-100: its 61.5 at k = 3 is Table 1's 67.4.

Neither paper names the epoch of a number; FADRM's released code keeps the best epoch on the test images, and no
held-out images are mentioned by which its settings per cell (Tables 11-18) were chosen. Accuracies of a last epoch may
therefore be lower for this reason alone.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fadrm_hf.config.architectures import find_architecture

_RESNETS = ("resnet18", "resnet50", "resnet101")
_METHODS = ("rded", "edc", "cv_dd", "fadrm", "fadrm_plus")

# FADRM, Table 1: for each student in turn the five methods.
_TABLE_1 = {
    ("cifar100", 1): "17.1 39.7 28.3 31.8 40.6  10.9 36.1 28.7 27.3 37.4  11.2 32.3 29.0 29.2 40.1",
    ("cifar100", 10): "56.9 63.7 62.7 67.4 67.9  41.6 62.1 61.5 66.5 67.4  54.1 61.7 63.8 68.3 68.9",
    ("cifar100", 50): "66.8 68.6 67.1 71.0 71.3  64.0 69.4 68.2 71.5 72.1  67.9 68.5 67.6 71.9 72.1",
    ("tiny_imagenet", 1): "11.8 39.2 30.6 28.6 40.4  8.2 35.9 25.1 28.4 39.4  9.6 40.6 28.0 27.9 41.9",
    ("tiny_imagenet", 10): "41.9 51.2 47.8 48.9 52.8  38.4 50.2 43.8 47.3 53.7  22.9 51.6 47.4 47.8 53.6",
    ("tiny_imagenet", 50): "58.2 57.2 54.1 56.4 58.7  45.6 58.8 54.7 57.0 60.3  41.2 58.6 54.1 57.2 60.8",
    ("imagenette", 1): "35.8 - 36.2 36.2 39.2  27.0 - 27.6 31.1 31.9  25.1 - 25.3 26.3 29.3",
    ("imagenette", 10): "61.4 - 64.1 64.8 69.0  55.0 - 61.4 64.1 68.1  54.0 - 61.0 61.9 63.7",
    ("imagenette", 50): "80.4 - 81.6 83.6 84.6  81.8 - 82.0 84.1 85.4  75.0 - 80.0 80.3 82.3",
    ("imagewoof", 1): "20.8 - 21.4 21.0 22.8  17.8 - 19.1 19.5 19.9  19.6 - 19.9 20.0 21.8",
    ("imagewoof", 10): "38.5 - 49.3 44.5 57.3  35.2 - 47.8 44.9 54.1  31.3 - 42.6 40.4 51.4",
    ("imagewoof", 50): "68.5 - 71.9 72.3 72.6  67.0 - 71.2 71.0 71.7  59.1 - 69.9 70.3 70.6",
    ("imagenet1k", 1): "6.6 12.8 9.2 9.0 14.7  8.0 13.3 10.0 12.2 16.2  5.9 12.2 7.0 6.8 14.1",
    ("imagenet1k", 10): "42.0 48.6 46.0 48.4 50.9  49.7 54.1 51.3 54.5 57.5  48.3 51.7 51.7 54.8 58.1",
    ("imagenet1k", 50): "56.5 58.0 59.5 60.1 61.2  62.0 64.3 63.9 65.4 66.9  61.2 64.9 62.7 66.0 67.0",
}
# FADRM, Table 1, "Whole Dataset": students trained on all images by the recipe of Table 7.
_WHOLE = {
    "cifar100": "78.9 79.9 79.5",
    "tiny_imagenet": "68.9 71.5 70.6",
    "imagenette": "93.8 89.8 89.3",
    "imagewoof": "88.2 77.8 82.7",
    "imagenet1k": "72.3 78.6 79.8",
}
# FADRM, Table 2 (right), ImageNet-1k at IPC 10: RDED, EDC, CV-DD, FADRM+. The rows of the ResNets repeat Table 1.
_TABLE_2 = {
    "efficientnet_b0": "42.8 51.1 43.2 51.9",
    "mobilenetv2": "34.4 45.0 39.0 45.5",
    "shufflenetv2_x0_5": "19.6 29.8 27.4 30.2",
    "swin_tiny": "29.2 38.3 - 39.1",
    "wrn50_2": "50.0 - 53.9 59.1",
    "densenet121": "49.4 - 50.9 55.4",
    "densenet169": "50.9 - 53.6 58.5",
    "densenet201": "49.0 - 54.8 59.7",
}
# EDC, Table 2, ImageNet-1k: RDED and EDC where FADRM's tables have no row.
_EDC_TABLE_2 = {
    ("deit_tiny", 10): "14.0 18.4",
    ("convnext_tiny", 10): "48.3 54.4",
    ("efficientnet_b0", 50): "57.6 60.9",
    ("mobilenetv2", 50): "53.9 57.8",
    ("shufflenetv2_x0_5", 50): "30.9 45.7",
    ("swin_tiny", 50): "56.9 63.3",
    ("deit_tiny", 50): "44.5 55.0",
    ("convnext_tiny", 50): "65.4 66.6",
}
# FADRM, Table 2 (left), ImageNet-1k on one RTX 4090: seconds to make an image, and peak memory in GB.
_TABLE_2_COSTS = {
    "sre2l_pp": "2.52 5.3",
    "fadrm": "0.47 2.9",
    "g_vbsm": "17.28 21.4",
    "cv_dd": "8.20 23.4",
    "edc": "4.99 17.9",
    "fadrm_plus": "1.09 11.0",
}
# FADRM, Table 3, by patches: FADRM and FADRM+ at IPC 10, the same at IPC 50.
_TABLE_3 = {1: "48.4 50.9 60.1 61.2", 2: "47.7 50.0 59.8 60.1"}
# FADRM, Table 4, with and without mixed precision: %, ms per image and iteration (batch 100, 224 px), GB.
_TABLE_4 = {
    "fadrm": "47.7 0.26 2.9  47.8 0.63 5.3",
    "fadrm_plus": "50.0 0.58 12  49.6 0.96 23",
    "sre2l_pp": "43.1 0.26 2.9  43.1 0.63 5.3",
    "g_vbsm": "30.5 2.65 11.8  30.7 4.32 21.4",
}
# FADRM, Table 5: % and seconds per image of FADRM, the same of FADRM+.
_TABLE_5_COMPONENTS = {
    "num_residuals": "46.4 0.52 48.7 1.16",  # without ARC and MRO: one segment, at the full resolution
    "alpha": "46.2 0.47 48.2 1.09",  # without ARC: segments at both resolutions, no residual between them
}
_TABLE_5_ALPHA = {
    0.9: "45.7 0.47 48.5 1.09",
    0.8: "46.4 0.47 48.0 1.09",
    0.7: "47.6 0.47 48.9 1.09",
    0.6: "47.3 0.47 49.3 1.09",
    0.5: "47.7 0.47 50.0 1.09",
    0.4: "47.4 0.47 49.5 1.09",
}
# FADRM, Table 6 (left): k from 1 to 6.
_TABLE_6_K = {"imagenet1k": "47.1 47.6 47.8 47.6 47.4 47.3", "cifar100": "59.2 60.9 61.5 60.5 59.4 57.9"}
# FADRM, Table 6 (right), by D_ds: % and seconds per image.
_TABLE_6_SIZE = {160: "47.2 0.42", 180: "47.5 0.44", 200: "47.7 0.47", 224: "47.7 0.52"}
_FULL_SIZE = 224


@dataclass(frozen=True)
class Published:
    """One number of a table.

    Attributes:
        accuracy: Top-1, a fraction.
        source: Paper and table.
    """

    accuracy: float
    source: str


@dataclass(frozen=True)
class PublishedAblation:
    """One configuration of Tables 2 (left) to 6; the student is a ResNet-18.

    Attributes:
        table: Paper and table.
        dataset: Name of the preset.
        method: Its name here.
        changed: The settings that the table varies, with their values here, by dotted name.
        accuracy: Top-1, a fraction.
        grid: Patches per row and column of the images that these numbers are of.
        ipc: Images per class.
        seconds: To make one image, all iterations.
        milliseconds: Per image and iteration.
        gigabytes: Peak memory of the GPU.
    """

    table: str
    dataset: str
    method: str
    changed: Mapping[str, Any]
    accuracy: float | None
    grid: int
    ipc: int = 10
    seconds: float | None = None
    milliseconds: float | None = None
    gigabytes: float | None = None


def published_accuracies(dataset: str | None, student: str, ipc: int) -> dict[str, Published]:
    """Return what papers report of a student trained on distilled images, by the method that distilled them.

    `dataset` is the preset of the source, if it has one; `student` is a short or full name.

    Returns:
        Nothing where no table has the cell.
    """
    architecture = find_architecture(student)
    name = architecture.name if architecture else ""
    if name in _RESNETS and (dataset, ipc) in _TABLE_1:
        values = _TABLE_1[str(dataset), ipc].split()
        first = _RESNETS.index(name) * len(_METHODS)
        return _cells(_METHODS, values[first : first + len(_METHODS)], "FADRM, Table 1")
    if dataset == "imagenet1k" and ipc == 10 and name in _TABLE_2:
        return _cells(("rded", "edc", "cv_dd", "fadrm_plus"), _TABLE_2[name].split(), "FADRM, Table 2")
    if dataset == "imagenet1k" and (name, ipc) in _EDC_TABLE_2:
        return _cells(("rded", "edc"), _EDC_TABLE_2[name, ipc].split(), "EDC, Table 2")
    return {}


def published_whole_dataset(dataset: str | None, student: str) -> Published | None:
    """Return what FADRM's Table 1 reports of a student trained on the whole dataset."""
    architecture = find_architecture(student)
    if architecture is None or architecture.name not in _RESNETS or dataset not in _WHOLE:
        return None
    return _cells(_RESNETS, _WHOLE[dataset].split(), "FADRM, Table 1")[architecture.name]


def published_ablations(table: str) -> list[PublishedAblation]:
    """Return the configurations of table "2" (left), "3", "4", "5" or "6", in its order."""
    return [each for each in _ABLATIONS if each.table == f"FADRM, Table {table}"]


def find_ablation(method: str, dataset: str | None, ipc: int, changed: Mapping[str, Any]) -> PublishedAblation | None:
    """Return what the paper reports of some changed settings, of the same data if it can, else of others.

    `changed` are all settings in question, with their values.

    Returns:
        `None` where no table varies these settings, or none to these values.
    """
    same = [each for each in _ABLATIONS if each.method == method and each.changed and each.changed == changed]
    return min(same, key=lambda each: (each.dataset != dataset, abs(each.ipc - ipc)), default=None)


def _cells(names: tuple[str, ...], values: list[str], source: str) -> dict[str, Published]:
    pairs = zip(names, values, strict=True)
    return {name: Published(_fraction(value), source) for name, value in pairs if value != "-"}


def _fraction(percent: str) -> float:
    return round(float(percent) / 100, 4)


def _ablation(table: str, method: str, changed: Mapping[str, Any], percent: str, **more: Any) -> PublishedAblation:
    """Return a configuration of ImageNet-1k and 2x2 patches, if `more` does not say otherwise."""
    others: dict[str, Any] = {"dataset": "imagenet1k", "grid": 2} | more
    return PublishedAblation(
        f"FADRM, Table {table}", method=method, changed=changed, accuracy=_fraction(percent), **others
    )


def _costs_of_table_2() -> Iterator[PublishedAblation]:
    for method, values in _TABLE_2_COSTS.items():
        seconds, gigabytes = map(float, values.split())
        yield PublishedAblation(
            "FADRM, Table 2", "imagenet1k", method, {}, None, 1, seconds=seconds, gigabytes=gigabytes
        )


def _patches_of_table_3() -> Iterator[PublishedAblation]:
    for grid, values in _TABLE_3.items():
        cells = zip(itertools.product((10, 50), ("fadrm", "fadrm_plus")), values.split(), strict=True)
        for (ipc, method), value in cells:
            yield _ablation("3", method, {"patches.grid": grid}, value, grid=grid, ipc=ipc)


def _precisions_of_table_4() -> Iterator[PublishedAblation]:
    for method, values in _TABLE_4.items():
        numbers = values.split()
        for precision, (value, *costs) in (("fp16", numbers[:3]), ("fp32", numbers[3:])):
            milliseconds, gigabytes = map(float, costs)
            changed = {"recover.precision": precision}
            yield _ablation("4", method, changed, value, milliseconds=milliseconds, gigabytes=gigabytes)


def _components_of_table_5() -> Iterator[PublishedAblation]:
    off: dict[str, float] = {"num_residuals": 0, "alpha": 1.0}
    rows = [({f"method.{name}": off[name]}, values) for name, values in _TABLE_5_COMPONENTS.items()]
    rows += [({"method.alpha": alpha}, values) for alpha, values in _TABLE_5_ALPHA.items()]
    for changed, values in rows:
        numbers = values.split()
        for method, (value, seconds) in (("fadrm", numbers[:2]), ("fadrm_plus", numbers[2:])):
            yield _ablation("5", method, changed, value, seconds=float(seconds))


def _segments_of_table_6() -> Iterator[PublishedAblation]:
    for dataset, values in _TABLE_6_K.items():
        grid = 2 if dataset == "imagenet1k" else 1
        for k, value in enumerate(values.split(), start=1):
            yield _ablation("6", "fadrm", {"method.num_residuals": k}, value, dataset=dataset, grid=grid)
    for size, values in _TABLE_6_SIZE.items():
        value, seconds = values.split()
        sizes = (size, _FULL_SIZE, size, _FULL_SIZE)
        yield _ablation("6", "fadrm", {"method.sizes": sizes}, value, seconds=float(seconds))


_ABLATIONS = (
    *_costs_of_table_2(),
    *_patches_of_table_3(),
    *_precisions_of_table_4(),
    *_components_of_table_5(),
    *_segments_of_table_6(),
)
