"""The base of methods: what they start from and match, what they do to a batch of images, their published values.

A method is a frozen dataclass of its own settings, one file in `fadrm_hf/methods/`; what it shares with others is in
the sections of `fadrm_hf.config` and in the parts that it composes.
"""

from dataclasses import fields
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, ClassVar

from fadrm_hf.config import Init, Matching, RunConfig
from fadrm_hf.config.citation import Paper
from fadrm_hf.config.renamed import current_name
from fadrm_hf.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from fadrm_hf.recovery.recover import Recovery

Settings = dict[str, dict[str, Any]]  # values by section of a run and name, as a configuration file holds them
Table = dict[str | None, Settings]  # settings by dataset, where they differ from those of other datasets

_ON_HUB = ("resnet18", "resnet50", "densenet121")  # whose ImageNet-1k weights of torchvision are on the Hub as well


class Method:
    """A method of distillation.

    Attributes:
        name: What configurations and manifests call it.
        title: What papers call it.
        paper: What to cite, if there is one.
        init: What is optimised, or stays as it is (`fadrm_hf.recovery.patches.starting_images`).
        min_teachers: How many teachers it takes at least.
        needs_votes: Whether it needs a vote on each teacher (`fadrm_hf.pipeline.votes`).
        iterations: Steps per image; 0 leaves the starting images as they are.
        sizes: Resolutions that images are optimised at, where these are not that of the source.
        retrieval: How much complexity counts where real patches are retrieved during recovery
            (`fadrm_hf.recovery.retrieval.Retriever`); `None` where they are not.
        matching: Which statistics are matched.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[Paper | None] = None
    min_teachers: ClassVar[int] = 1
    needs_votes: ClassVar[bool] = False
    init: Init = "patches"
    iterations: int = 0
    sizes: tuple[int, ...] | None = None
    retrieval: float | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in (*vars(cls), *get_annotations(cls)):
            new = current_name(f"method.{name}").removeprefix("method.")
            if new != name:
                raise ConfigError(f"class {cls.__name__} defines {name}, which is now {new}; rename it")

    @property
    def matching(self) -> Matching:
        """Return which statistics are matched: by default those of BatchNorm layers, of the current batch."""
        return Matching()

    def resolve(self, size: int) -> "Method":
        """Return the settings with everything that depends on the side of the images filled in."""
        return self

    def batch_size(self, num_classes: int) -> int:
        """Return how many images are optimised together where the run does not say it: one of each of 100 classes."""
        return 100

    def check(self, run: RunConfig) -> None:
        """Refuse a resolved run of this method that cannot work, before anything is read.

        Raises:
            ConfigError: If there are fewer teachers than it takes.
        """
        names = run.teachers.names
        if len(names) < self.min_teachers:
            raise ConfigError(
                f"method {self.name} needs at least {self.min_teachers} teachers, got {list(names)}; "
                "set --teachers.names"
            )

    def recover(self, start: "Tensor", recovery: "Recovery") -> "Tensor":
        """Return distilled images from starting images, both (B, 3, S, S) float32, normalised."""
        return start

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return published settings that are not the defaults of a run: here the teacher that most methods have.

        Args:
            dataset: Preset of the source (`fadrm_hf.config.datasets.PRESETS`), if it has one.
            size: Side of the images in pixels.
            ipc: Images per class.
        """
        return {"teachers": pool(dataset, "resnet18")}

    @classmethod
    def released(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return what the released scripts have instead of `published` (`--settings released`); arguments as there."""
        return {}


def merged(*layers: Settings) -> Settings:
    """Return settings in which a value of a later layer wins; sections are merged, not replaced."""
    sections = dict.fromkeys(name for layer in layers for name in layer)
    return {name: {key: value for layer in layers for key, value in layer.get(name, {}).items()} for name in sections}


def setting_names(method: "type[Method] | Method") -> set[str]:
    """Return the names of a method's own settings."""
    return {item.name for item in fields(method)}  # type: ignore[arg-type]  # every method is a dataclass


def pool(dataset: str | None, *architectures: str) -> dict[str, tuple[str, ...]]:
    """Build the section `teachers` for some networks: torchvision's weights for ImageNet-1k, else `squeeze/`.

    Args:
        dataset: Preset of the source.
        architectures: torchvision's names.
    """
    if dataset != "imagenet1k":
        return {"names": tuple(f"squeeze/{name}" for name in architectures)}
    on_hub = {name: f"timm/{name}.tv_in1k" for name in _ON_HUB}
    return {"names": tuple(on_hub.get(name, f"torchvision/{name}") for name in architectures)}
