"""One file per published method, each a composition of the shared parts. README.md is the paper index."""

from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from fadrm_hf.citation import Paper
from fadrm_hf.errors import ConfigError, unknown
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.methods.fadrm_plus import FADRMPlus
from fadrm_hf.methods.random_real import RandomReal
from fadrm_hf.recover import Recovery


class Method(Protocol):
    """What a method says: what it starts from, how long it takes, and what it does to a batch of images.

    `name` is what configs and manifests call it, `title` what papers do; `paper` is what to cite, if there is one.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[Paper | None]
    starts_from: ClassVar[Literal["patches", "random_images"]]
    min_teachers: ClassVar[int]

    @property
    def iterations(self) -> int:
        """Steps per image."""

    def resolve(self, size: int) -> "Method":
        """The settings with everything that depends on the image size filled in."""

    def recover(self, patches: Tensor, recovery: Recovery) -> Tensor:
        """Distilled images from starting images, both (B, 3, S, S) float32, normalised."""


METHODS: dict[str, type] = {method.name: method for method in (RandomReal, FADRM, FADRMPlus)}


def find_method(name: str) -> type:
    """The settings class of a method.

    Raises:
        ConfigError: If no method has that name; the nearest names are given.
    """
    if name not in METHODS:
        raise ConfigError(unknown("method", name, METHODS) + "; set --method.name")
    return METHODS[name]


def title_of(name: str) -> str:
    """A method's name as papers spell it; of a method that is not known here, its name in capitals."""
    method: Any = METHODS.get(name)
    return str(method.title) if method else name.upper()


def paper_of(name: str) -> Paper | None:
    """What to cite for a method; `None` for one that has no paper, or is not known here."""
    method: Any = METHODS.get(name)
    paper: Paper | None = method.paper if method else None
    return paper
