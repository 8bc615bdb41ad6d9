"""One file per published method, each a composition of the shared parts. README.md is the paper index."""

from typing import ClassVar, Literal, Protocol

from torch import Tensor

from fadrm_hf.errors import ConfigError, unknown
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.methods.fadrm_plus import FADRMPlus
from fadrm_hf.methods.random_real import RandomReal
from fadrm_hf.recover import Recovery


class Method(Protocol):
    """What a method says: what it starts from, how long it takes, and what it does to a batch of images."""

    name: ClassVar[str]
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
