"""A run with some of its settings varied, as data: axes, the cells they make, and the run of each cell."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache, partial, reduce
from pathlib import Path
from typing import Any, Literal

from fadrm_hf.config import RunConfig, StudentConfig, build, require
from fadrm_hf.data.sources import load_source
from fadrm_hf.errors import ConfigError, unknown
from fadrm_hf.evaluation.shared_runs import ComparedMethod, check_compared_method
from fadrm_hf.evaluation.study import check_each
from fadrm_hf.methods import find_method

BASE, RANDOM_REAL = "base", "random_real"  # cells that are on no axis

Settings = Mapping[str, Any]  # by dotted name
Axes = dict[str, dict[str, Settings]]  # by name of the axis and label of the value, in the order of the table
Labels = Mapping[str, str]  # by name of the axis: the position of a cell


@dataclass(frozen=True)
class SweepConfig:
    """A sweep as its file holds it.

    Args:
        base: File of the run that every cell changes.
        axes: By dotted name of a setting, the values that it takes; or by any other name, labels with the settings
            that each stands for.
        settings: Settings of the base that differ here, in all cells, by dotted name.
        protocol: File of the protocol that all students are trained by; the base's own if not given.
        num_seeds: Students per cell; the protocol's if not given.
        mode: "one_at_a_time": the base, and each value of each axis with all other settings as in the base. "grid":
            every combination of values.
        random_real: Measure random real images, labelled alike, too.
        runs: Folder of the run folders, one for each cell; runs/NAME-OF-THE-FILE if not given.
        output: The table's name without suffix; results/NAME-OF-THE-FILE if not given.
    """

    base: str
    axes: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    protocol: str | None = None
    num_seeds: int | None = None
    mode: Literal["one_at_a_time", "grid"] = "one_at_a_time"
    random_real: bool = False
    runs: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        require(bool(self.axes), "axes", self.axes, "at least one axis, such as method.alpha: [0.4, 0.5]")
        require(self.num_seeds is None or self.num_seeds >= 1, "num_seeds", self.num_seeds, "at least 1")


@dataclass(frozen=True)
class Cell:
    """One position in the table and its run.

    Attributes:
        labels: Labels by name of the axis; empty for what is on no axis.
        settings: What is set for the sake of this position, by dotted name, as the run has it.
        method: The run, and how its students are trained. Positions with the same run share it.
    """

    labels: Labels
    settings: Settings
    method: ComparedMethod

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return self.method.name


@dataclass(frozen=True)
class Sweep:
    """A sweep that can run.

    Attributes:
        base: Name of the file of the base.
        axes: What is varied, with the settings that each value stands for.
        mode: As in `SweepConfig`.
        cells: Every position in the table, in its order.
        runs: Folder of the run folders.
        output: The table's name without suffix.
    """

    base: str
    axes: Axes
    mode: str
    cells: tuple[Cell, ...]
    runs: Path
    output: Path

    @property
    def methods(self) -> dict[str, ComparedMethod]:
        """Every run once, by the name of its folder."""
        return {cell.name: cell.method for cell in self.cells}


def build_sweep(document: Mapping[str, Any]) -> SweepConfig:
    """Build a sweep from plain data.

    Raises:
        ConfigError: For an unknown key, with the nearest ones, or a value of another type.
    """
    keys = [item.name for item in fields(SweepConfig)]
    for name in document:
        if name not in keys:
            raise ConfigError(f"{unknown('key of a sweep', name, keys)}; recipes/configs/ablations/ holds examples")
    for name in ("base", "axes"):
        require(name in document, name, None, "given: the file of a run, and what to vary of it")
    return build(SweepConfig, document)


def with_settings(run: RunConfig, settings: Settings) -> RunConfig:
    """Return a run with other settings.

    Args:
        run: With or without values left open.
        settings: By dotted name; those of one section are set together.

    Raises:
        ConfigError: For a name that no setting of this run has, with the nearest ones, or a value it cannot have.
    """
    by_section: dict[str, dict[str, Any]] = {}
    names = _setting_names(run)
    for name, value in settings.items():
        if name not in names:
            raise ConfigError(f"{unknown('setting', name, names)}; only the settings of {run.method.name} can be set")
        section, _, key = name.rpartition(".")
        by_section.setdefault(section, {})[key] = value
    for section, values in by_section.items():
        before: Any = getattr(run, section) if section else run
        merged = {item.name: getattr(before, item.name) for item in fields(before)} | values
        after: Any = build(type(before), merged, section)
        changed: dict[str, Any] = {section: after}
        run = replace(run, **changed) if section else after
    return run


def prepare_sweep(config: SweepConfig, base: RunConfig, protocol: StudentConfig, runs: Path, output: Path) -> Sweep:
    """Resolve every cell, refusing all that cannot work before anything is made.

    The base has the settings that hold for all cells; `runs` is the folder of the run folders.

    Raises:
        ConfigError: For axes that are none, and for cells that cannot be made; every one is named, with the reason.
    """
    axes = {name: _axis(name, values, base) for name, values in config.axes.items()}
    _require_apart(config, axes)
    positions = dict(_positions(config, axes))
    changes = {
        name: {setting: value for axis, label in labels.items() for setting, value in axes[axis][label].items()}
        for name, labels in positions.items()
    }
    changed = check_each({name: partial(_run_with, name, settings, base) for name, settings in changes.items()})
    placed = {name: replace(run, output=str(runs / name)) for name, run in changed.items()}
    load = cache(load_source)  # once for all cells
    checked = check_each({name: partial(check_compared_method, run, protocol, load) for name, run in placed.items()})
    cells = []
    folders: dict[RunConfig, str] = {}
    for name, method in checked.items():
        folder = folders.setdefault(replace(method.run, output=BASE), method.run.output)
        settings = {setting: reduce(getattr, setting.split("."), method.run) for setting in changes[name]}
        shared = replace(method, run=replace(method.run, output=folder))
        cells.append(Cell(positions[name], settings, shared))
    return Sweep(Path(config.base).name, axes, config.mode, tuple(cells), runs, output)


def _axis(name: str, values: Any, base: RunConfig) -> dict[str, Settings]:
    """Return the settings of each value of an axis from its file's entry: values, or labels with settings."""
    if isinstance(values, Mapping):
        pairs = [(label, _mapping(f"axes.{name}.{label}", settings)) for label, settings in values.items()]
    else:
        require(isinstance(values, (list, tuple)), f"axes.{name}", values, "a list of values, or labels with settings")
        pairs = [(_as_text(value), {name: value}) for value in values]
    require(bool(pairs), f"axes.{name}", values, "at least one value")
    variants, labels = dict(pairs), [label for label, _ in pairs]
    require(len(variants) == len(labels), f"axes.{name}", labels, "values that differ")
    for setting in dict.fromkeys(setting for settings in variants.values() for setting in settings):
        _require_setting(setting, f"axes.{name}", base)
    return variants


def _mapping(name: str, value: Any) -> Settings:
    require(isinstance(value, Mapping) and bool(value), name, value, "settings by dotted name")
    settings: Settings = value
    return settings


def _require_setting(setting: str, axis: str, base: RunConfig) -> None:
    if setting.partition(".")[0] == "student":
        raise ConfigError(
            f"{axis} varies {setting}, but all cells share one protocol; set it under settings, or compare protocols "
            "by fadrm-hf compare"
        )
    names = _setting_names(base)
    if setting not in names:
        raise ConfigError(f"{axis}: {unknown('setting', setting, names)}; name one of {base.method.name}'s run")


def _require_apart(config: SweepConfig, axes: Axes) -> None:
    """Refuse axes of a grid that overwrite each other, and positions that would have the same folder."""
    of_axis = [(name, {setting for settings in axis.values() for setting in settings}) for name, axis in axes.items()]
    for (first, settings), (second, others) in itertools.combinations(of_axis, 2):
        if config.mode == "grid" and settings & others:
            raise ConfigError(
                f"axes {first} and {second} both set {', '.join(sorted(settings & others))}, expected settings of one "
                "axis each; leave one out, or set mode to one_at_a_time"
            )
    names = [name for name, _ in _positions(config, axes)]
    for name in names:
        require(names.count(name) == 1, "axes", name, "labels that differ in more than punctuation")


def _positions(config: SweepConfig, axes: Axes) -> Iterator[tuple[str, Labels]]:
    """Yield every position in the table, with a name for its folder."""
    if config.mode == "grid":
        positions = [dict(zip(axes, labels, strict=True)) for labels in itertools.product(*axes.values())]
    else:
        yield BASE, {}
        positions = [{name: label} for name, axis in axes.items() for label in axis]
    for position in positions:
        parts = [f"{axis.rpartition('.')[2]}-{label}" for axis, label in position.items()]
        yield re.sub(r"[^\w.]+", "-", "-".join(parts)).strip("-."), position
    if config.random_real:
        yield RANDOM_REAL, {}


def _run_with(name: str, settings: Settings, base: RunConfig) -> RunConfig:
    if name == RANDOM_REAL:
        return replace(base, method=build(find_method(RANDOM_REAL), {}, "method"))
    return with_settings(base, settings)


def _setting_names(run: RunConfig) -> list[str]:
    """Return what can be set, by dotted name: everything but the run folder and the method's name."""
    sections = {item.name: getattr(run, item.name) for item in fields(run) if item.name != "output"}
    return [
        name
        for section, value in sections.items()
        for name in ([f"{section}.{item.name}" for item in fields(value)] if is_dataclass(value) else [section])
    ]


def _as_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_as_text, value))
    return value if isinstance(value, str) else json.dumps(value)
