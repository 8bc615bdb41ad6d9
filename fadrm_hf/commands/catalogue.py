"""The commands with a line on each, the stations from source to student with examples, and the help made of them.

Nothing here imports torch: a first look must not take the seconds that torch does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.text import Text

from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.options import checking, listing, making, sharing, training
from fadrm_hf.commands.options.base import Options


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        module: Its module in `fadrm_hf.commands`, which has a function `COMMAND_command`.
        options: The dataclass of its options.
        line: What it does.
    """

    module: str
    options: type[Options]
    line: str


@dataclass(frozen=True)
class Station:
    """One step from source to student.

    Attributes:
        name: What it is called.
        line: What happens there.
        example: A command for it.
    """

    name: str
    line: str
    example: str


STATIONS = (
    Station(
        "source",
        "real images by class: a Hub id, a folder of images, parquet or csv",
        "fadrm-hf distill --source.name path/to/images --source.size 64 --ipc 10",
    ),
    Station(
        "teachers",
        "networks that know them: from timm, torchvision or transformers, or trained here",
        "fadrm-hf train-teacher --source.name digits --architecture resnet10_narrow",
    ),
    Station(
        "patches",
        "the crops of real images that recovery starts from, chosen by a teacher",
        "fadrm-hf distill --source.name cifar10 --patches.crops_per_image 5",
    ),
    Station(
        "recover",
        "their pixels, optimised until teachers see in them what they saw in the source",
        "fadrm-hf distill --source.name cifar10 --method fadrm_plus --recover.precision bf16",
    ),
    Station(
        "relabel",
        "soft labels of every view that students will be shown",
        "fadrm-hf distill --source.name cifar10 --relabel.epochs 300 --relabel.codec int4",
    ),
    Station(
        "package",
        "tables, card and manifest; by itself, but after jobs with --shards",
        "fadrm-hf package --source.name cifar10 --output runs/fadrm-cifar10-ipc10",
    ),
    Station(
        "publish",
        "to the Hub, verified, in one commit with one tag",
        "fadrm-hf publish runs/fadrm-cifar10-ipc10 ORG/NAME",
    ),
    Station(
        "train",
        "students from the artifact alone, and how good they are",
        "fadrm-hf train-student ORG/NAME --student timm/resnet18",
    ),
    Station(
        "reproduce",
        "the card's number again, from the Hub alone",
        "fadrm-hf reproduce ORG/NAME --tolerance 2sigma",
    ),
)

GROUPS: dict[str, dict[str, Command]] = {
    "Make an artifact": {
        "distill": Command("making", making.DistillOptions, "everything from source to package"),
        "estimate": Command("estimate", making.EstimateOptions, "what distill will take: seconds, memory, disk"),
        "train-teacher": Command("making", making.TrainTeacherOptions, "a teacher of your own"),
        "package": Command("making", making.PackageOptions, "an artifact of what jobs with --shards have recovered"),
        "recode": Command("remaking", making.RecodeOptions, "the same artifact with smaller soft labels"),
        "edit": Command("remaking", making.EditOptions, "one without some images or classes, renamed, or merged"),
        "import": Command(
            "import_legacy", making.ImportOptions, "an artifact of an older release: images and label files"
        ),
    },
    "Look at a source": {
        "inspect": Command(
            "inspect", checking.InspectOptions, "what is read of it: splits, classes, labels, pictures"
        ),
    },
    "Look at one, check it": {
        "info": Command("info", checking.InfoOptions, "what it is, by its manifest and card alone"),
        "gallery": Command("gallery", checking.GalleryOptions, "a page to look at it, or at several side by side"),
        "verify": Command(
            "checking", checking.VerifyOptions, "hashes, tables, sampled labels, leakage of test images"
        ),
        "reproduce": Command("reproduce", checking.ReproduceOptions, "its own number again, within a tolerance"),
        "score": Command("scoring", checking.ScoreOptions, "size, entropy, diversity, HLR, IOR, LRS, ARS"),
        "analyse": Command("analysis", checking.AnalyseOptions, "the terms of FADRM's Theorems 1 and 2"),
    },
    "Train on one, compare": {
        "train-student": Command("measuring", training.TrainStudentOptions, "students, and their accuracy"),
        "baselines": Command("measuring", training.BaselinesOptions, "random images and the whole dataset to compare"),
        "cross-architecture": Command(
            "cross_architecture", training.CrossArchitectureOptions, "many students, one table"
        ),
        "compare": Command("compare", training.CompareOptions, "methods side by side, one table"),
        "ablate": Command("ablate", training.AblateOptions, "one run with some settings changed, one table"),
        "whole-dataset": Command(
            "whole_dataset", training.WholeDatasetOptions, "the bound: students trained on everything"
        ),
        "continual-learning": Command(
            "continual_learning", training.ContinualLearningOptions, "students of classes that arrive in steps"
        ),
        "slim": Command("slimming", training.SlimOptions, "a VGG with part of its channels"),
        "rank-architectures": Command(
            "architecture_search", training.RankArchitecturesOptions, "whether it ranks networks as all images do"
        ),
    },
    "Share": {
        "publish": Command("publish", sharing.PublishOptions, "an artifact, to the Hub"),
        "export": Command("export", sharing.ExportOptions, "for other programs: ImageFolder, DD-Ranking"),
        "push-student": Command("contribute", sharing.PushStudentOptions, "a student, as a model repository"),
        "send-result": Command("contribute", sharing.SendResultOptions, "a number of yours, as a pull request"),
    },
    "List what there is": {
        "methods": Command("listing", listing.MethodsOptions, "methods of distillation, with their papers"),
        "sources": Command("listing", listing.SourcesOptions, "datasets whose constants and recipes are known"),
        "teachers": Command(
            "listing", listing.TeachersOptions, "families of teachers, those of papers, those trained here"
        ),
        "students": Command("listing", listing.StudentsOptions, "the students of the papers' tables"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}

_OPTIONS = {
    "COMMAND --help": "every option of a command, with its default",
    "COMMAND --quiet": "errors only",
    "COMMAND --json": "one JSON document at the end on stdout; all else goes to stderr",
    "--print_completion SHELL": "completion for bash, zsh or tcsh, to be sourced",
    "--version": "the version",
}


def help_text() -> Text:
    """Return the text of `fadrm-hf --help`: at most 100 columns, the same with and without colours."""
    return Text("\n").join(_help_lines())


def _help_lines() -> Iterator[Text]:
    yield Text("usage: fadrm-hf COMMAND [--OPTION VALUE ...]")
    yield Text()
    yield Text("From source to student", "bold")
    for station in STATIONS:
        yield _row(station.name, station.line, 10)
        yield Text(f"  {'':10}  $ {station.example}", "dim")
    for title, commands in GROUPS.items():
        yield Text()
        yield Text(title, "bold")
        for name, command in commands.items():
            yield _row(name, command.line, 18)
    yield Text()
    yield Text("Options", "bold")
    for name, line in _OPTIONS.items():
        yield _row(name, line, 24)
    yield Text()
    yield Text("Exit codes", "bold")
    for code in ExitCode:
        yield _row(f"{code:>3}", code.meaning, 3)
    yield Text()
    yield Text("An ARTIFACT is a run folder, or ORG/NAME on the Hub, perhaps with @REVISION.")


def _row(name: str, line: str, width: int) -> Text:
    return Text.assemble("  ", (f"{name:<{width}}", "cyan"), f"  {line}")
