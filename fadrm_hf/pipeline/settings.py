"""A run from its settings: configuration files and the command line, over what methods and protocols publish.

Each section of a run has its dataclass; the section `method` has that of the method it names, so the name is found
before anything else is read. The layers are merged once (`fadrm_hf.config.layers`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from fadrm_hf.config import (
    PatchConfig,
    RecoverConfig,
    RelabelConfig,
    RunConfig,
    SourceConfig,
    SqueezeConfig,
    StatisticsConfig,
    StudentConfig,
    TeacherConfig,
    build,
    require,
)
from fadrm_hf.config.datasets import NO_PRESET, fillings, find_preset, resolve, resolve_source
from fadrm_hf.config.layers import DEFAULT, Layer, Settings, dotted, section_values
from fadrm_hf.config.protocols import protocol_section
from fadrm_hf.config.renamed import with_current_names
from fadrm_hf.methods import find_method
from fadrm_hf.methods.method import Method, setting_names

SECTIONS: dict[str, type] = {
    "source": SourceConfig,
    "teachers": TeacherConfig,
    "squeeze": SqueezeConfig,
    "patches": PatchConfig,
    "statistics": StatisticsConfig,
    "recover": RecoverConfig,
    "relabel": RelabelConfig,
    "student": StudentConfig,
}
DEFAULT_METHOD = "fadrm"
# What a resolved run means by no value at all.
NONE_MEANS = {
    "source.config_name": "the only one",
    "source.revision": "the newest; the manifest names it",
    **dict.fromkeys(("source.train_split", "source.test_split"), "found in the source"),
    **dict.fromkeys(("source.image_column", "source.label_column"), "found in the source"),
    "source.classes": "all",
    "source.preset": "none",
    "source.test_fraction": "the source's own test images",
    "source.bands": "the first three",
    "source.value_range": "that of the pixels' type, or measured",
    "teachers.min_accuracy": "no gate",
    "statistics.images_per_class": "all",
    "statistics.patch_side": "4 up to 64 px, 16 above",
    "recover.batch_size": "by the number of classes",
    "relabel.stored_epochs": "all",
    "relabel.num_teachers": "all",
    "student.ema": "no averaged weights",
    **dict.fromkeys(("student.batch_size", "student.accumulation"), "as labelled"),
    "student.relabel": "the stored labels",
    "student.hard_phase": "soft labels throughout",
    "method.retrieval": "the patch an image started from",
    "method.votes": "measured",
    "method.sizes": "that of the source",
}
_ADDED: dict[str, dict[str, Any]] = {"statistics": {}}  # sections that recipes of version 0.1 do not have


@dataclass(frozen=True)
class Request:
    """A run as it is requested.

    Attributes:
        run: The run; what nothing has set is open (`fadrm_hf.config.datasets.resolve` fills it in).
        origins: The layer that each value comes from, by dotted name.
    """

    run: RunConfig
    origins: Mapping[str, str]

    def resolved(self) -> "Request":
        """Return the run with no value open, each with the layer it comes from."""
        settings = Settings(_values(self.run), dict(self.origins))
        settings.fill(fillings(self.run))
        run = resolve(self.run)
        method = run.method.resolve(run.source.size)
        settings.fill([Layer("source.size", section_values("method", method))])
        run = replace(run, method=method)
        return Request(run, {name: settings.origins.get(name, DEFAULT) for name in _values(run)})

    def as_yaml(self) -> str:
        """Return the run as a file that runs, with the origin of every value in a comment."""
        return settings_as_yaml(_values(self.run), self.origins)


def request_run(name: str, layers: Sequence[Layer]) -> Request:
    """Merge the requested settings with the defaults, the method's published settings and the protocol.

    Args:
        name: The method's.
        layers: The requested settings, by dotted name, the weakest first; from `read_layer` or the command line.

    Raises:
        ConfigError: For a value that no run can have.
    """
    method, asked, settings = find_method(name), Settings(), Settings()
    asked.put(*layers)
    preset = _without_preset(asked)  # reads the files of a folder whose name suggests a preset
    asked.put(*preset)
    published = _published(method, asked)
    defaults = {"output": None, "ipc": 10, "seed": 0, "method.name": name}
    settings.put(Layer(DEFAULT, defaults), *(_defaults(key, section) for key, section in SECTIONS.items()))
    settings.put(_defaults("method", method), *published)
    protocol = asked.values.get("student.name", settings.values["student.name"])
    settings.put(_protocol(str(protocol)), *preset, *layers)
    if settings.values["output"] is None:
        source = Path(settings.values["source.name"]).name
        folder = f"runs/{name.replace('_', '-')}-{source}-ipc{settings.values['ipc']}"
        settings.put(Layer("method, source and ipc", {"output": folder}))
    sections: dict[str, Any] = {key: build(section, settings.section(key), key) for key, section in SECTIONS.items()}
    own = {key: value for key, value in settings.section("method").items() if key != "name"}
    numbers = {key: settings.values[key] for key in ("output", "ipc", "seed")}
    run = build(RunConfig, {**numbers, "method": build(method, own, "method"), **sections})
    return Request(run, settings.origins)


def run_from_recipe(recipe: dict[str, Any], output: str) -> RunConfig:
    """Build a run from the plain data of a recipe, as a manifest or `recipe.yaml` holds it.

    Args:
        recipe: A resolved recipe.
        output: The run folder, which a recipe does not know.

    Raises:
        ArtifactError: If it is no resolved recipe.
        ConfigError: If its method is unknown here.
    """
    from fadrm_hf.artifact.manifest import parse_settings  # it imports torch

    recipe = with_current_names(recipe)
    given = recipe.get("method")
    method = find_method(str(given.get("name")) if isinstance(given, dict) else "")
    sections: dict[str, Any] = {
        name: parse_settings(recipe.get(name, _ADDED.get(name)), section, name) for name, section in SECTIONS.items()
    }
    run_method: Any = parse_settings(given, method, "method")
    numbers = {name: recipe.get(name) for name in ("ipc", "seed")}
    whole = {"output": output, "method": run_method, **numbers, **sections}
    return parse_settings(whole, RunConfig, "the recipe")


def _defaults(name: str, section: Any) -> Layer:
    return Layer(DEFAULT, section_values(name, section()))


def _without_preset(asked: Settings) -> list[Layer]:
    """Return that there is no preset, where the name of a folder suggests one of another number of classes."""
    source = build(SourceConfig, asked.section("source"), "source")
    if source.preset == NO_PRESET:
        return [Layer("number of classes", {"source.preset": NO_PRESET})]
    if source.preset is not None or find_preset(source.name) is None or not Path(source.name).expanduser().exists():
        return []
    from fadrm_hf.data.sources import with_own_preset  # it imports torch

    preset = with_own_preset(source).preset
    return [] if preset is None else [Layer("number of classes", {"source.preset": preset})]


def _published(method: type[Method], asked: Settings) -> list[Layer]:
    """Return the method's own settings for the requested source: the papers', and the released scripts' over them."""
    source = resolve_source(build(SourceConfig, asked.section("source"), "source"))
    ipc = asked.values.get("ipc", 10)
    require(isinstance(ipc, int), "ipc", ipc, "a number of images per class")
    dataset = None if source.preset == NO_PRESET else source.preset
    cell = (dataset, source.size, ipc)
    layers = [Layer(f"{method.title}, published settings", dotted(method.published(*cell)))]
    if asked.values.get("settings") == "released":
        layers.append(Layer(f"{method.title}, released scripts", dotted(method.released(*cell))))
    names = [TeacherConfig().names, *(layer.values.get("teachers.names") for layer in layers)]
    teachers = asked.values.get("teachers.names")
    if teachers is None or tuple(teachers) in names:
        return layers
    of_others = "relabel.num_teachers"  # of the published teachers
    return [Layer(each.origin, {k: v for k, v in each.values.items() if k != of_others}) for each in layers]


def _protocol(name: str) -> Layer:
    """Return the settings of a named protocol, which trains for as long as there are labels."""
    values = {f"student.{key}": value for key, value in protocol_section(name).items() if key != "epochs"}
    return Layer(f"protocol {name}", values)


def _values(run: RunConfig) -> dict[str, Any]:
    """Return every value of a run by dotted name, in the order of its sections."""
    values = {name: getattr(run, name) for name in ("output", "ipc", "seed")} | {"method.name": run.method.name}
    for item in fields(run):
        if item.name not in values:
            values |= section_values(item.name, getattr(run, item.name))
    return values


def has_setting(method: str, name: str) -> bool:
    """Return whether a method has a setting, by dotted name; all have those of every section but `method`."""
    section, _, key = name.partition(".")
    return section != "method" or key in setting_names(find_method(method))


def settings_as_yaml(values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """Return settings by dotted name as a file, with the origin of every value and the meaning of null."""
    lines: list[str] = []
    for name, value in sorted(values.items(), key=lambda item: "." in item[0]):
        section, _, key = name.rpartition(".")
        if section and f"{section}:" not in lines:
            lines += ["", f"{section}:"]
        lines.append(f"{'  ' * bool(section)}{key}: {_value_and_origin(name, value, origins)}")
    return "\n".join(lines) + "\n"


def comparison_as_yaml(
    settings: Settings, requests: Mapping[str, Request], shared: Sequence[str], own: Sequence[str]
) -> str:
    """Return the settings of a comparison as a file: what its methods share, once; under `settings` what they do not.

    Args:
        settings: Those of the comparison itself and of its students.
        requests: The resolved run of each method.
        shared: Settings and sections that are the same for all.
        own: Sections that may differ. A value is a method's own where value or origin is another than elsewhere.
    """
    runs = [(_values(request.run), request.origins) for request in requests.values()]
    values, origins = dict(settings.values), dict(settings.origins)

    first, origins_of_first = runs[0] if runs else ({}, {})
    for name, value in first.items():
        section, origin = name.partition(".")[0], origins_of_first[name]
        may_be_common = section in own and section != "method"  # of which every method has settings of its own
        if section in shared or (may_be_common and all((run[name], of[name]) == (value, origin) for run, of in runs)):
            values[name], origins[name] = value, origin
    lines = ["", "settings:"]
    for method, (run, found) in zip(requests, runs, strict=True):
        different = [name for name in run if name.partition(".")[0] in own and name not in values]
        lines += [f"  {method}:"]
        lines += [
            f"    {name}: {_value_and_origin(name, run[name], found)}" for name in different if name != "method.name"
        ]
    return settings_as_yaml(values, origins) + "\n".join(lines) + "\n"


def _value_and_origin(name: str, value: Any, origins: Mapping[str, str]) -> str:
    origin = f"{NONE_MEANS[name]}; {origins[name]}" if value is None and name in NONE_MEANS else origins[name]
    return f"{_inline(value)}  # {origin}"


def _inline(value: Any) -> str:
    """Return a value as YAML on one line."""
    value = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    value = json.loads(json.dumps(value))  # tuples are lists
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
