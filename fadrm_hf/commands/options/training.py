"""Options of the commands that train on an artifact, and of those that compare."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from fadrm_hf.commands.options.base import ArtifactOptions, Options, SourcePlace
from fadrm_hf.config import OPEN, SourceConfig, SqueezeConfig
from fadrm_hf.config.datasets import WHOLE_DATASET

TABLE_1 = ("resnet18", "resnet50", "resnet101")  # FADRM's students
# Networks of several families that take images from 16 px on: 0.02 to 1.9 M parameters with ten classes.
SMALL_ARCHITECTURES = (
    "convnet3_narrow",
    "convnet3_bn",
    "alexnet_small",
    "vgg11_bn_narrow",
    "wrn16_2",
    "resnet10_narrow",
    "resnet18_narrow",
    "shufflenetv2_x0_5",
    "timm/mobilenetv3_small_050",
    "timm/lcnet_035",
    "timm/tinynet_e",
    "timm/test_efficientnet",
)
# Training on the whole source; whether images are mirrored is the dataset's: digits are not.
_WHOLE = replace(WHOLE_DATASET, flip_probability=OPEN)


@dataclass(frozen=True)
class StudentOptions(ArtifactOptions):
    """Students of an artifact, trained by a protocol.

    Args:
        labels: Soft labels of each view, the hard label of each image, or soft labels made online.
        streaming: Read soft labels from the Hub as they are needed, and keep none.
        online: Make soft labels on the fly with the artifact's teachers; the same as --labels online.
        protocol: Name of a protocol, or a YAML file; the artifact's own if not given.
        output: Folder for results; the run folder, or runs/ORG--NAME for an artifact on the Hub, if not given.
        processes_per_student: Processes of a launch that train one student together, at least. More do where there are
            more processes than seeds. The student is the same up to rounding.
    """

    takes = "protocol"
    labels: Literal["soft", "hard", "online"] | None = None
    streaming: bool = False
    online: bool = False
    protocol: str | None = None
    output: str | None = None
    processes_per_student: int = 1
    source: SourcePlace = field(default_factory=SourcePlace)

    @property
    def makes_labels(self) -> bool:
        """Return whether soft labels are made on the fly."""
        return self.online or self.labels == "online"


@dataclass(frozen=True)
class TrainStudentOptions(StudentOptions):
    """Train students from an artifact alone and record how good they are.

    Args:
        tracker: Live curves in tensorboard, wandb, trackio or another tracker of accelerate.
        save_student: Folder for the student of the first seed.
        push_student: Model repository ORG/MODEL for the student of the first seed.
        private: Make a new model repository private.
        send_result: Send the result to the artifact's repository.
    """

    tracker: str | None = None
    save_student: str | None = None
    push_student: str | None = None
    private: bool = False
    send_result: bool = False


@dataclass(frozen=True)
class BaselinesOptions(Options):
    """Train students on what an artifact must be compared with.

    Args:
        artifact: Run folder.
        student: Architecture; the artifact's own if not given.
        num_seeds: Students per row; the artifact's own number if not given.
        rows: Images to train on: random_real, distilled, whole.
        protocol: Name of a protocol; the artifact's own if not given.
    """

    artifact: str
    student: str | None = None
    num_seeds: int | None = None
    rows: tuple[str, ...] = ("random_real", "distilled", "whole")
    protocol: str | None = None
    source: SourcePlace = field(default_factory=SourcePlace)


@dataclass(frozen=True)
class CrossArchitectureOptions(StudentOptions):
    """Train several students from one artifact by one protocol, and write one table with published numbers.

    Options are those of fadrm-hf train-student, except for --students, and hold for all students. Learning rate and η
    are those of the papers' tables for each student. Results on file under the same settings are reused.

    Args:
        students: Short or full names; fadrm-hf students lists those of papers.
        table: Table's name without suffix; cross-architecture-... next to the results if not given.
    """

    students: tuple[str, ...] = ()
    table: str | None = None


@dataclass(frozen=True)
class CompareOptions(Options):
    """Distil by several methods, train students on each by one protocol, and write one table.

    Any other option of fadrm-hf distill holds for all methods (--method.X for those that have X), and
    --settings.METHOD.OPTION for one. --student.X changes the protocol of the students, never the artifacts:
    comparisons under several protocols share them. Finished work is reused. The same command, started as often as you
    like, here or on other machines that see the folder of the runs, shares the methods.

    Args:
        methods: Names; fadrm-hf methods lists them.
        protocol: Name of a protocol, or a YAML file; FADRM's if not given.
        num_seeds: Students per method; the protocol's number if not given.
        output: Table's name without suffix; results/compare-... if not given.
        runs: Folder of the run folders, one for each method.
    """

    takes = "several"
    methods: tuple[str, ...] = ()
    protocol: str | None = None
    num_seeds: int | None = None
    output: str | None = None
    runs: str = "runs"


@dataclass(frozen=True)
class AblateOptions(Options):
    """Distil and measure one run with some of its settings changed, and write one table for each axis.

    The file of the sweep names the run, the protocol and the axes; recipes/configs/ablations/ holds examples. Any
    other option of fadrm-hf distill holds for all cells, as in the file under settings: --source.name
    path/to/cifar100. Finished work is reused. The same command, started as often as you like, here or on other
    machines that see the folder of the runs, shares the cells.

    Args:
        config: YAML file of the sweep.
        protocol: Name of a protocol, or a YAML file; the run's own if not given.
        num_seeds: Students per cell; the protocol's number if not given.
        output: Table's name without suffix; results/ablate-SWEEP if not given.
        runs: Folder of the run folders; runs/SWEEP if not given.
    """

    takes = "sweep"
    config: str | None = None
    protocol: str | None = None
    num_seeds: int | None = None
    output: str | None = None
    runs: str | None = None


@dataclass(frozen=True)
class WholeDatasetOptions(Options):
    """Train students on all images of a dataset with hard labels; write one table with published numbers.

    --squeeze.X is the recipe; defaults are FADRM's Table 7. Results on file under the same settings are reused.

    Args:
        students: Short or full names.
        num_seeds: Networks of each student.
        output: Table's name without suffix; runs/whole-SOURCE if not given.
        teachers: Folder of trained networks.
    """

    needs_source: ClassVar[bool] = True
    students: tuple[str, ...] = TABLE_1
    num_seeds: int = 3
    output: str | None = None
    teachers: str = "runs/teachers"
    source: SourceConfig = field(default_factory=SourceConfig)
    squeeze: SqueezeConfig = _WHOLE


@dataclass(frozen=True)
class ContinualLearningOptions(StudentOptions):
    """Let the classes of an artifact arrive in steps; train and test students on those seen so far.

    Options are those of fadrm-hf train-student, and --steps, --orders, --table. Results on file are reused.

    Args:
        steps: Steps in which the classes arrive.
        orders: Orders of the classes to try.
        table: Table's name without suffix; continual-... next to the results if not given.
    """

    steps: int = 5
    orders: int = 5
    table: str | None = None


@dataclass(frozen=True)
class SlimOptions(StudentOptions):
    """Train a VGG on an artifact with a penalty on BatchNorm's scales, prune it, and train what is left again.

    Accuracies, parameters and multiply-adds before and after, in one table. Options are those of fadrm-hf
    train-student, and --ratio, --scale_penalty, --tuning_epochs, --control, --table. Results on file are reused.

    Args:
        ratio: Share of all channels to remove.
        scale_penalty: Weight of the L1 norm of BatchNorm's scales (lambda).
        tuning_epochs: Length of the second training; that of the first one if not given.
        control: Artifact to compare with: random_real, which makes random real images with labels of the same
            teachers, as baselines does, or any other artifact of the same source.
        table: Table's name without suffix; slim-... next to the results if not given.
    """

    ratio: float = 0.5
    scale_penalty: float = 1e-4
    tuning_epochs: int | None = None
    control: str | None = None
    table: str | None = None


@dataclass(frozen=True)
class RankArchitecturesOptions(StudentOptions):
    """Train several architectures on an artifact and on its whole source, and measure how alike the rankings are.

    Options are those of fadrm-hf train-student, except for --architectures, and hold for all of them. --squeeze.X is
    the recipe for the whole source, by default FADRM's Table 7. Results on file under the same settings are reused,
    also those of cross-architecture and whole-dataset.

    Args:
        architectures: Short or full names, at least three; twelve small networks if not given.
        whole: Results on the whole source, as whole-dataset --output; runs/whole-SOURCE if not given.
        teachers: Folder of networks trained on the whole source.
        table: Table's name without suffix; rank-architectures-... next to the results if not given.
    """

    architectures: tuple[str, ...] = SMALL_ARCHITECTURES
    whole: str | None = None
    teachers: str = "runs/teachers"
    table: str | None = None
    squeeze: SqueezeConfig = _WHOLE
