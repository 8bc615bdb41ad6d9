"""Options of the commands that make an artifact."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from fadrm_hf.commands.options.base import Options
from fadrm_hf.config import RelabelConfig, SourceConfig, SqueezeConfig, StudentConfig, TeacherConfig, require


@dataclass(frozen=True)
class DistillOptions(Options):
    """Distil an image-classification dataset into an artifact.

    Args:
        shards: K:N recovers the K-th of N equal shares of the images, for jobs without a launcher. The last job to
            finish, or fadrm-hf package, makes the artifact.
        snapshots: Keep what the first images look like along their optimisation, for fadrm-hf score.
        tracker: Show losses as they fall in tensorboard, wandb, trackio or another tracker of accelerate.
    """

    takes = "run"
    shards: str | None = None
    snapshots: bool = False
    tracker: str | None = None


@dataclass(frozen=True)
class PackageOptions(DistillOptions):
    """Label and package what jobs with --shards have recovered. Takes the options of fadrm-hf distill."""


@dataclass(frozen=True)
class EstimateOptions(Options):
    """Estimate what a run costs before it is started, after timing a few steps of every stage.

    Prints seconds, memory and disk, and the largest recover.batch_size that fits. Takes the options of fadrm-hf
    distill, and these.

    Args:
        processes: Processes that the run will be launched with.
        budget: Seconds to time each stage for, roughly.
        no_students: Leave out the students of the protocol.
    """

    takes = "run"
    processes: int = 1
    budget: float = 2.0
    no_students: bool = False

    def __post_init__(self) -> None:
        require(self.processes >= 1, "processes", self.processes, "at least 1")
        require(self.budget > 0, "budget", self.budget, "positive")


@dataclass(frozen=True)
class TrainTeacherOptions(Options):
    """Train a teacher on a source and save it as a timm model directory.

    Args:
        architecture: timm's name; images of 64 px or less get a small-image stem.
        output: Folder; runs/teachers/ARCHITECTURE-SOURCE if not given.
        seed: Seed of weights, order and augmentation.
    """

    needs_source: ClassVar[bool] = True
    architecture: str = "resnet18"
    output: str | None = None
    seed: int = 0
    source: SourceConfig = field(default_factory=SourceConfig)
    squeeze: SqueezeConfig = field(default_factory=SqueezeConfig)


@dataclass(frozen=True)
class RecodeOptions(Options):
    """Make the same artifact with smaller soft labels.

    Args:
        artifact: Run folder, or ORG/NAME on the Hub.
        output: Folder of the new artifact, new or empty.
        codec: float16, int8, int4, top<k> such as top10, or none.
        stored_epochs: Epochs of labels to keep; all of them if not given.
    """

    artifact: str
    output: str
    codec: str | None = None
    stored_epochs: int | None = None


@dataclass(frozen=True)
class EditOptions(Options):
    """Make a new version of an artifact without some images or classes, with other names, or of several artifacts.

    The artifact stays as it is. Labels of images that go are left out. Views that showed such an image mixed in are
    shown unmixed; they, and views that were labelled together with some that go, are labelled again by the artifact's
    own teachers. Results are not carried over, but where only names change.

    Args:
        artifact: Run folder, or ORG/NAME on the Hub.
        output: Folder of the new artifact, new or empty.
        drop_images: Rows of the images table to leave out.
        drop_classes: Classes to leave out, by id or name.
        rename_classes: New names, as OLD=NEW; OLD is an id or a name, and ids stay.
        even: Leave out the last images of classes that would have more than others, too.
        merge: Artifacts to add, of the same classes, teachers and way of labelling.
    """

    artifact: str
    output: str
    drop_images: tuple[int, ...] = ()
    drop_classes: tuple[str, ...] = ()
    rename_classes: tuple[str, ...] = ()
    even: bool = False
    merge: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pair in self.rename_classes:
            old, sign, new = pair.partition("=")
            require(bool(old and sign and new), "rename_classes", pair, "a list of OLD=NEW")


@dataclass(frozen=True)
class MethodName:
    """A method.

    Args:
        name: The method that made the images.
    """

    name: str = "sre2l"


@dataclass(frozen=True)
class LabellingTeachers:
    """The networks that labelled a release.

    Args:
        names: Networks that labelled; the labels are then compared with theirs.
        min_accuracy: Least top-1 accuracy on test images.
        class_order: Whether a teacher whose classes are named in another order is refused or mended.
    """

    names: tuple[str, ...] = ()
    min_accuracy: float | None = None
    class_order: Literal["refuse", "mend"] = TeacherConfig.class_order


@dataclass(frozen=True)
class ImportOptions(Options):
    """Make an artifact of an earlier release: images and FKD label files.

    Args:
        images: Folder with a folder of images for each class.
        labels: Folder of epoch_0/batch_0.tar and so on.
        output: Run folder, the artifact to be.
        sampler_seed: The release's --fkd-seed.
    """

    images: str = ""
    labels: str = ""
    output: str = ""
    sampler_seed: int = 42
    method: MethodName = field(default_factory=MethodName)
    teachers: LabellingTeachers = field(default_factory=LabellingTeachers)
    source: SourceConfig = field(default_factory=SourceConfig)
    relabel: RelabelConfig = field(default_factory=lambda: RelabelConfig(batch_statistics=False))
    student: StudentConfig = field(default_factory=StudentConfig)

    def __post_init__(self) -> None:
        for name in ("images", "labels", "output"):
            require(bool(getattr(self, name)), name, getattr(self, name), "a folder")
