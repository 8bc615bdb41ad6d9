"""Options of the commands that look at an artifact and check it."""

from dataclasses import dataclass, field
from typing import ClassVar

from fadrm_hf.commands.options.base import ArtifactOptions, Options, SourcePlace
from fadrm_hf.config import SourceConfig, require


@dataclass(frozen=True)
class InspectOptions(Options):
    """Print what is read of a source: splits, classes, labels, pictures, what is left out, and settings that fit.

    Args:
        place: The source: a folder, a file, a Hub dataset or digits.
        source: Its settings, as of distill.
    """

    place: str
    source: SourceConfig = field(default_factory=SourceConfig)


@dataclass(frozen=True)
class InfoOptions(ArtifactOptions):
    """Print what an artifact is, from its manifest and card; nothing else is fetched."""


@dataclass(frozen=True)
class GalleryOptions(Options):
    """Make the page that shows an artifact: its images next to what they came from, results, views with their labels.

    The page opens from disk. Several artifacts are shown side by side, class by class.

    Args:
        artifacts: Run folders, or ORG/NAME on the Hub.
        output: Folder of the page; gallery/ in the artifact if not given, for one on the Hub in runs/ORG--NAME.
        serve: Serve the page on this machine until Ctrl-C.
        port: Port of --serve; any free one if not given.
    """

    artifacts: tuple[str, ...] = field(metadata={"nargs": "+"})
    output: str | None = None
    serve: bool = False
    port: int = 0


@dataclass(frozen=True)
class VerifyOptions(ArtifactOptions):
    """Recompute every hash, relabel sampled views, look for test images.

    Args:
        num_steps: Labelled batches to replay.
        leakage: Compare with the source's test images.
    """

    num_steps: int = 4
    leakage: bool = True
    source: SourcePlace = field(default_factory=SourcePlace)

    def __post_init__(self) -> None:
        require(self.num_steps >= 0, "num_steps", self.num_steps, "0 or more")


@dataclass(frozen=True)
class ReproduceOptions(ArtifactOptions):
    """Train from an artifact alone by its own settings, and compare the accuracy.

    Args:
        num_seeds: Students; as many as were measured if not given.
        tolerance: Such as 2sigma or 1.5points.
        student: Architecture of the result; the artifact's own if not given.
        result: File of results/, if there are several.
        output: Folder for the result; see train-student.
    """

    renamed: ClassVar[dict[str, str]] = {"seeds": "num_seeds"}
    num_seeds: int | None = None
    tolerance: str = "2sigma"
    student: str | None = None
    result: str | None = None
    output: str | None = None
    source: SourcePlace = field(default_factory=SourcePlace)

    def __post_init__(self) -> None:
        require(self.num_seeds is None or self.num_seeds >= 1, "num_seeds", self.num_seeds, "at least 1")


@dataclass(frozen=True)
class ScoreOptions(ArtifactOptions):
    """Score an artifact: its size, its images, and its students against those of random images and the whole dataset.

    Evaluations are those on file: nothing is trained. What is missing is named with the command that makes it.

    Args:
        student: Architecture whose evaluations are compared; the artifact's own if not given.
        network: Network whose features are measured, named as teachers are; the artifact's first teacher if not given.
        label_weight: w of LRS, the weight of IOR against HLR.
        augmentation_weight: gamma of ARS.
        bins: Bins of the histogram of grey levels; 10 in Fig. 3.
        output: Folder for the numbers; see train-student.
    """

    student: str | None = None
    network: str | None = None
    label_weight: float = 0.5
    augmentation_weight: float = 0.5
    bins: int = 256
    output: str | None = None
    source: SourcePlace = field(default_factory=SourcePlace)


@dataclass(frozen=True)
class AnalyseOptions(ArtifactOptions):
    """Measure the terms of FADRM's Theorems 1 and 2 on an artifact.

    Entropies, distances, empirical risks, and Rademacher complexities before and after a residual. Nothing is trained;
    what is missing is named with the command that makes it.

    Args:
        network: The network, named as teachers are; timm/local-dir:FOLDER for a saved student. The artifact's first
            teacher if not given.
        alpha: Merge ratio of the residual at the end; the method's if not given.
        temperature: T of the loss; the protocol's if not given.
        draws: Draws of random signs.
        num_images: Images of the artifact, at most, for Theorem 2.
        source_images: Training images of the source, at most, for Theorem 1.
        output: Folder for the numbers; see train-student.
    """

    network: str | None = None
    alpha: float | None = None
    temperature: float | None = None
    draws: int = 1000
    num_images: int = 1000
    source_images: int = 10_000
    output: str | None = None
    source: SourcePlace = field(default_factory=SourcePlace)
