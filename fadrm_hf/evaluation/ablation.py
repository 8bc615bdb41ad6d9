"""One run with some of its settings changed: ablations, each axis alone or all of them together.

Every cell is a run of its own in a folder of its own, distilled and measured as `fadrm_hf.evaluation.compare` does
with a method: in a process of its own, and what is finished under the same settings is not made again. Cells are
claimed, so that any number of commands with the same sweep share them.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal, TypeVar

from fadrm_hf.config import RunConfig, StudentConfig, build, require
from fadrm_hf.errors import ConfigError, FadrmError, unknown
from fadrm_hf.evaluation.compare import Contender, Row, check_contender, measure_shared
from fadrm_hf.methods import find_method
from fadrm_hf.runtime.progress import Reporter

Value = TypeVar("Value")

BASE, RANDOM_REAL = "base", "random_real"  # cells that belong to no axis


@dataclass(frozen=True)
class SweepConfig:
    """A sweep as its file holds it.

    Args:
        base: File of a run, of which every cell is a change.
        axes: By dotted name of a setting, the values that it takes; or by any other name, labels with the settings
            that each stands for.
        settings: Settings of the base that are others here, in all cells, by dotted name.
        protocol: File of the protocol that all students are trained by; the base's own if not given.
        num_seeds: Students per cell; the protocol's if not given.
        mode: "one_at_a_time": the base, and each value of each axis with all other settings as in the base. "grid":
            every combination of values.
        random_real: Whether random real images, labelled alike, are measured too.
        runs: Where the run folders are, one for each cell; runs/NAME-OF-THE-FILE if not given.
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
class Variant:
    """One place on an axis: what the table calls it, and the settings it stands for, by dotted name."""

    label: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Axis:
    """What is varied, and the places it takes, in the order of the table."""

    name: str
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep, at one place of the table.

    Attributes:
        place: Labels by name of the axis; empty for what belongs to no axis.
        settings: What is set for the sake of this place, by dotted name, as the run has it.
        contender: The run, and how its students are trained. Places whose runs are the same share it.
    """

    place: Mapping[str, str]
    settings: Mapping[str, Any]
    contender: Contender

    @property
    def name(self) -> str:
        """That of its run folder."""
        return Path(self.contender.run.output).name


@dataclass(frozen=True)
class Sweep:
    """A sweep that can run.

    Attributes:
        base: Name of the file of the base.
        axes: What is varied.
        mode: As in `SweepConfig`.
        cells: Every place of the table, in its order.
        runs: Where the run folders are.
        output: The table's name without suffix.
    """

    base: str
    axes: tuple[Axis, ...]
    mode: str
    cells: tuple[Cell, ...]
    runs: Path
    output: Path

    @property
    def contenders(self) -> dict[str, Contender]:
        """Every run once, by the name of its folder."""
        return {cell.name: cell.contender for cell in self.cells}


def build_sweep(document: Mapping[str, Any]) -> SweepConfig:
    """A sweep from plain data.

    Raises:
        ConfigError: For an unknown key, with the nearest ones, or a value of another type.
    """
    known = [item.name for item in fields(SweepConfig)]
    for name in document:
        if name not in known:
            raise ConfigError(f"{unknown('key of a sweep', name, known)}; recipes/configs/ablations/ holds examples")
    for name in ("base", "axes"):
        require(name in document, name, None, "given: the file of a run, and what to vary of it")
    return build(SweepConfig, document)


def with_settings(run: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """A run with other settings.

    Args:
        run: With or without values left open.
        settings: By dotted name; those of one section are set together.

    Raises:
        ConfigError: For a name that no setting of this run has, with the nearest ones, or a value it cannot have.
    """
    by_section: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        if name not in _names(run):
            raise ConfigError(f"{unknown('setting', name, _names(run))}; those of {run.method.name} are known here")
        section, _, key = name.rpartition(".")
        by_section.setdefault(section, {})[key] = value
    for section, values in by_section.items():
        before: Any = getattr(run, section) if section else run
        given = {item.name: getattr(before, item.name) for item in fields(before)} | values
        after: Any = build(type(before), given, section)
        changed: dict[str, Any] = {section: after}
        run = replace(run, **changed) if section else after
    return run


def prepare_sweep(config: SweepConfig, base: RunConfig, protocol: StudentConfig, runs: Path, output: Path) -> Sweep:
    """Resolve every cell, refusing all that cannot work before anything is made.

    Args:
        config: The sweep.
        base: Its base, with the settings that hold for all cells.
        protocol: How students are trained.
        runs: Where the run folders are.
        output: The table's name without suffix.

    Raises:
        ConfigError: For axes that are none, and for cells that cannot be made; every one is named, with the reason.
    """
    axes = tuple(_axis(name, given, base) for name, given in config.axes.items())
    _require_apart(config, axes)
    places = dict(_places(config, axes))
    changed = _each({name: partial(_run_at, name, place, base) for name, place in places.items()})
    placed = {name: replace(run, output=str(runs / name)) for name, run in changed.items()}
    checked = _each({name: partial(check_contender, run, protocol) for name, run in placed.items()})
    cells = []
    folders: dict[RunConfig, str] = {}
    for name, contender in checked.items():
        run = contender.run
        folder = folders.setdefault(replace(run, output=BASE), run.output)
        labels = {axis: variant.label for axis, variant in places[name].items()}
        shared = replace(contender, run=replace(run, output=folder))
        cells.append(Cell(labels, _settings_of(run, places[name]), shared))
    return Sweep(Path(config.base).name, axes, config.mode, tuple(cells), runs, output)


def measure_sweep(
    sweep: Sweep, reporter: Reporter, command: str, show: Callable[[Mapping[str, Row]], None]
) -> list[Row]:
    """Distil and measure the cells that nobody has finished or is at work on, until all are done.

    Args:
        sweep: From `prepare_sweep`.
        reporter: Says which cell is worked on, which failed and why, and who is waited for.
        command: What was typed, for the record.
        show: Given the rows by name that are finished by now, after each cell.

    Returns:
        The rows of cells that failed here.
    """
    rows = measure_shared(sweep.contenders, command, reporter, show)
    return [row for row in rows.values() if row.failure is not None]


def _axis(name: str, given: Any, base: RunConfig) -> Axis:
    """An axis as its file has it: a setting's values, or labels with settings.

    Raises:
        ConfigError: If it is neither, or names what is no setting of the base.
    """
    if isinstance(given, Mapping):
        variants = tuple(Variant(label, _mapping(f"axes.{name}.{label}", stands)) for label, stands in given.items())
    else:
        require(isinstance(given, (list, tuple)), f"axes.{name}", given, "a list of values, or labels with settings")
        variants = tuple(Variant(_as_text(value), {name: value}) for value in given)
    require(bool(variants), f"axes.{name}", given, "at least one value")
    labels = [variant.label for variant in variants]
    require(len(set(labels)) == len(labels), f"axes.{name}", labels, "values that differ")
    for setting in dict.fromkeys(setting for variant in variants for setting in variant.settings):
        _require_setting(setting, f"axes.{name}", base)
    return Axis(name, variants)


def _mapping(name: str, given: Any) -> Mapping[str, Any]:
    require(isinstance(given, Mapping) and bool(given), name, given, "settings by dotted name")
    settings: Mapping[str, Any] = given
    return settings


def _require_setting(setting: str, axis: str, base: RunConfig) -> None:
    if setting.partition(".")[0] == "student":
        raise ConfigError(
            f"{axis} varies {setting}, but all cells share one protocol; set it under settings, or compare protocols "
            "by fadrm-hf compare"
        )
    if setting not in _names(base):
        raise ConfigError(f"{axis}: {unknown('setting', setting, _names(base))}; name one of {base.method.name}'s run")


def _require_apart(config: SweepConfig, axes: Sequence[Axis]) -> None:
    """Refuse axes that undo one another in a grid, and places whose folders would have the same name."""
    of_axis = [{setting for variant in axis.variants for setting in variant.settings} for axis in axes]
    for (one, own), (other, others) in itertools.combinations(zip(axes, of_axis, strict=True), 2):
        if config.mode == "grid" and own & others:
            raise ConfigError(
                f"axes {one.name} and {other.name} both set {', '.join(sorted(own & others))}, expected "
                "settings of one axis each; leave one out, or set mode to one_at_a_time"
            )
    names = [name for name, _ in _places(config, axes)]
    for name in names:
        require(names.count(name) == 1, "axes", name, "labels that differ in more than punctuation")


def _each(tasks: Mapping[str, Callable[[], Value]]) -> dict[str, Value]:
    """What every task gives, by its name.

    Raises:
        ConfigError: If some cannot be done; every one is named, with the reason.
    """
    done, wrong = {}, []
    for name, task in tasks.items():
        try:
            done[name] = task()
        except FadrmError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    return done


def _places(config: SweepConfig, axes: Sequence[Axis]) -> Iterator[tuple[str, dict[str, Variant]]]:
    """Every place of the table: the name of a folder for it, and its variant of each axis that it is on."""
    if config.mode == "grid":
        places = [
            {axis.name: variant for axis, variant in zip(axes, variants, strict=True)}
            for variants in itertools.product(*(axis.variants for axis in axes))
        ]
    else:
        yield BASE, {}
        places = [{axis.name: variant} for axis in axes for variant in axis.variants]
    for place in places:
        yield _folder_name(place), place
    if config.random_real:
        yield RANDOM_REAL, {}


def _folder_name(place: Mapping[str, Variant]) -> str:
    parts = [f"{axis.rpartition('.')[2]}-{variant.label}" for axis, variant in place.items()]
    return re.sub(r"[^\w.]+", "-", "-".join(parts)).strip("-.")


def _run_at(name: str, place: Mapping[str, Variant], base: RunConfig) -> RunConfig:
    if name == RANDOM_REAL:
        return replace(base, method=build(find_method(RANDOM_REAL), {}, "method"))
    return with_settings(base, {key: value for variant in place.values() for key, value in variant.settings.items()})


def _names(run: RunConfig) -> list[str]:
    """What can be set, by dotted name: everything but the run folder and the method's name."""
    sections = {item.name: getattr(run, item.name) for item in fields(run) if item.name != "output"}
    return [
        name
        for section, value in sections.items()
        for name in ([f"{section}.{item.name}" for item in fields(value)] if is_dataclass(value) else [section])
    ]


def _settings_of(run: RunConfig, place: Mapping[str, Variant]) -> dict[str, Any]:
    """What the axes of a place have set, as the run has it."""
    names = [name for variant in place.values() for name in variant.settings]
    return {name: reduce(getattr, name.split("."), run) for name in names}


def _as_text(value: Any) -> str:
    """A value as the table calls it."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_as_text, value))
    return value if isinstance(value, str) else json.dumps(value)
