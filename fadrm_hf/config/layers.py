"""Settings in layers: plain values by dotted name; a later layer wins, and every value knows the layer it comes from.

Defaults < the method's published settings < the protocol < configuration files < the command line. What is still
open after these, which is where the value is `None`, is filled by what is known of the source, the student and the
number of images (`fadrm_hf.config.datasets.fillings`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from fadrm_hf.config.plain_data import flatten

DEFAULT = "default"
COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Layer:
    """Values that come from one place.

    Attributes:
        origin: The place, as people read it: "run.yaml", "preset cifar10", "protocol fadrm, Table 11".
        values: By dotted name: "ipc", "recover.lr". Values of a section within a section stay together.
    """

    origin: str
    values: Mapping[str, Any]


@dataclass
class Settings:
    """The values of a run, merged from layers.

    Attributes:
        values: By dotted name.
        origins: The layer of each value.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def put(self, *layers: Layer) -> None:
        """Overwrite with every value of the layers; a section within a section is merged, not replaced."""
        for layer in layers:
            for name, value in layer.values.items():
                below = self.values.get(name)
                if isinstance(value, Mapping) and below is not None:
                    value = (dict(below) if isinstance(below, Mapping) else asdict(below)) | dict(value)
                self.values[name], self.origins[name] = value, layer.origin

    def fill(self, layers: Iterable[Layer]) -> None:
        """Fill open values from the layers, the first layer first."""
        for layer in layers:
            known = {name: value for name, value in layer.values.items() if value is not None and self.is_open(name)}
            self.put(Layer(layer.origin, known))

    def is_open(self, name: str) -> bool:
        """Return whether a setting has no value yet."""
        return self.values.get(name) is None

    def section(self, name: str) -> dict[str, Any]:
        """Return the values of one section by the names they have in it."""
        start = f"{name}."
        return {key.removeprefix(start): value for key, value in self.values.items() if key.startswith(start)}


def dotted(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a run's document by dotted name; a section within a section stays together."""
    return flatten(document, depth=1)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted name as a document with a mapping for each section."""
    document: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        if section and document.get(section) is None:
            document[section] = {}
        (document[section] if section else document)[key] = value
    return document


def section_values(name: str, section: Any) -> dict[str, Any]:
    """Return the fields of a section's dataclass by dotted name."""
    assert is_dataclass(section)
    return {f"{name}.{item.name}": getattr(section, item.name) for item in fields(section)}
