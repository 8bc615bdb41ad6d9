"""The known datasets of the literature, so that a run on one of them needs no numbers typed.

Numbers come from the FADRM paper (arXiv 2506.24125; tables "T"), and where it is silent from the released code of
CV-DD (github.com/Jiacheng8/CV-DD @ 24097e9) and CDA (github.com/VILA-Lab/SRe2L @ 8d00cba).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from fadrm_hf.config.checks import Colour, Section, filled
from fadrm_hf.config.layers import Layer, section_values
from fadrm_hf.config.protocols import nearest, student_fillings
from fadrm_hf.config.real_images import SourceConfig, SqueezeConfig
from fadrm_hf.config.run import RunConfig
from fadrm_hf.errors import ConfigError, unknown

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, of [0, 1] pixels
IMAGENET_TERMS = "https://image-net.org/download.php"  # non-commercial research and education


@dataclass(frozen=True)
class Preset:
    """The constants and recipes of one dataset.

    Args:
        name: The preset's key.
        hub_ids: Hub datasets that hold it.
        num_classes: Number of classes.
        size: Side of the square images.
        mean: Channel means of [0, 1] pixels.
        std: Channel standard deviations of [0, 1] pixels.
        licence: Licence identifier as the Hub spells it.
        licence_link: Where the terms are.
        gated: Whether non-commercial terms apply, so that an artifact should be gated on the Hub.
        class_order: How its classes are ordered, where that has misled people.
        squeeze: Recipe of a teacher trained on it.
        label_epochs: Epochs of soft labels by IPC.
        config_name: The configuration that is meant where the Hub's copy has several.
        label_column: The label that is meant where the Hub's copy has several.
        max_roll: Largest shift of a view during recovery.
        flip_probability: Probability that a view is mirrored.
    """

    name: str
    hub_ids: tuple[str, ...]
    num_classes: int
    size: int
    mean: Colour
    std: Colour
    licence: str
    licence_link: str | None
    gated: bool
    class_order: str
    squeeze: SqueezeConfig
    label_epochs: Mapping[int, int] = field(default_factory=lambda: {1: 300, 10: 300, 50: 300})  # T15, T17, T18
    config_name: str | None = None
    label_column: str | None = None
    max_roll: int = 32  # released code at 224 px; in no table
    flip_probability: float = 0.5  # T8 "Horizontal Flip"; torchvision's default


def _sgd(epochs: int, batch_size: int, lr: float, crop: Literal["pad", "resized"]) -> SqueezeConfig:
    """Return a recipe with a flip, momentum 0.9 and weight decay 1e-4, which T10, T12, T14 and T16 share."""
    return SqueezeConfig(epochs, batch_size, lr, crop=crop, padding=4, flip_probability=0.5)


_CATALOGUE = (
    Preset(
        "digits",
        hub_ids=(),
        num_classes=10,
        size=16,  # 8 px originals: the least at which a network has a few strides
        mean=(0.3062, 0.3062, 0.3062),  # measured: the 1,297 training images at 16 px
        std=(0.3189, 0.3189, 0.3189),  # measured: same
        licence="cc-by-4.0",  # UCI repository, dataset 80
        licence_link="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        gated=False,
        class_order="0 to 9",
        squeeze=replace(_sgd(30, 64, 0.1, "pad"), padding=1, flip_probability=0.0),  # ours: for a narrow network
        max_roll=2,  # the released code's 4 px at 32 px, in proportion
        flip_probability=0.0,  # a mirrored digit is no digit
    ),
    Preset(
        "cifar10",
        hub_ids=("uoft-cs/cifar10", "cifar10"),
        num_classes=10,
        size=32,
        mean=(0.4914, 0.4822, 0.4465),  # FADRM and CV-DD relabel code
        std=(0.2470, 0.2435, 0.2616),  # same
        licence="unknown",
        licence_link="https://www.cs.toronto.edu/~kriz/cifar.html",
        gated=False,
        class_order="airplane to truck, alphabetical but for truck after ship",
        squeeze=_sgd(50, 128, 0.1, "pad"),  # not in the paper: T10, as CIFAR-100
        max_roll=4,  # released code at 32 px
    ),
    Preset(
        "cifar100",
        hub_ids=("uoft-cs/cifar100", "cifar100"),
        num_classes=100,
        size=32,
        mean=(0.5071, 0.4867, 0.4408),  # FADRM, CV-DD, EDC and G-VBSM code
        std=(0.2675, 0.2565, 0.2761),  # same
        licence="unknown",
        licence_link="https://www.cs.toronto.edu/~kriz/cifar.html",
        gated=False,
        class_order="alphabetical",
        squeeze=_sgd(50, 128, 0.1, "pad"),  # T10
        label_epochs={1: 1000, 10: 1000, 50: 1000},  # T11
        label_column="fine_label",
        max_roll=4,  # released code at 32 px
    ),
    Preset(
        "tiny_imagenet",
        hub_ids=("zh-plus/tiny-imagenet",),
        num_classes=200,
        size=64,
        mean=IMAGENET_MEAN,  # FADRM, CV-DD, RDED and EDC code
        std=IMAGENET_STD,  # same
        licence="other",
        licence_link=IMAGENET_TERMS,
        gated=True,
        class_order="WNIDs, ascending; the folders published with CV-DD are numbered otherwise",
        squeeze=_sgd(150, 64, 0.1, "pad"),  # T12
        label_epochs={1: 1000, 10: 300, 50: 300},  # T13
        max_roll=4,  # released code at 64 px
    ),
    Preset(
        "imagenette",
        hub_ids=("frgfm/imagenette",),
        num_classes=10,
        size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        licence="other",
        licence_link=IMAGENET_TERMS,
        gated=True,
        class_order="WNIDs, ascending; the released teachers use another order",
        squeeze=_sgd(300, 128, 0.01, "resized"),  # T14
        config_name="full_size",
    ),
    Preset(
        "imagewoof",
        hub_ids=("frgfm/imagewoof",),
        num_classes=10,
        size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        licence="other",
        licence_link=IMAGENET_TERMS,
        gated=True,
        class_order="WNIDs, ascending; the released teachers use another order",
        squeeze=_sgd(50, 128, 0.1, "resized"),  # T16
        config_name="full_size",
    ),
    Preset(
        "imagenet100",
        hub_ids=("clane9/imagenet-100",),
        num_classes=100,
        size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        licence="other",
        licence_link=IMAGENET_TERMS,
        gated=True,
        class_order="differs between publications: several choices of 100 classes bear this name",
        squeeze=_sgd(90, 256, 0.1, "resized"),  # not in the paper: as ImageNet-1k
    ),
    Preset(
        "imagenet1k",
        hub_ids=("ILSVRC/imagenet-1k", "imagenet-1k", "timm/imagenet-1k-wds"),
        num_classes=1000,
        size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        licence="other",
        licence_link=IMAGENET_TERMS,
        gated=True,
        class_order="WNIDs, ascending",
        squeeze=_sgd(
            90, 256, 0.1, "resized"
        ),  # torchvision's recipe for the weights the paper uses (its decay: steps)
    ),
    Preset(
        "imagenet21k_p",
        hub_ids=("timm/imagenet-w21-p-wds",),
        num_classes=10450,  # CDA
        size=224,
        mean=(0.0, 0.0, 0.0),  # CDA: pixels stay in [0, 1]
        std=(1.0, 1.0, 1.0),  # same
        licence="other",
        licence_link=IMAGENET_TERMS,
        gated=True,
        class_order="WNIDs, ascending",
        squeeze=_sgd(80, 256, 0.1, "resized"),  # CDA: 80 epochs; the rest as ImageNet-1k
    ),
)
PRESETS = {preset.name: preset for preset in _CATALOGUE}
NO_PRESET = "none"

# T7: training students on the whole dataset; its schedule, which the paper does not name, is that of the teachers.
WHOLE_DATASET = replace(_sgd(300, 128, 0.1, "resized"), cutmix=True)
_WORTH_COMPILING = 2**18  # iterations x pixels of an image; compiling takes some 15 s, once per machine
_UNKNOWN_SQUEEZE = PRESETS["imagewoof"].squeeze  # T16: a recipe from scratch at 224 px


def find_preset(source_name: str) -> Preset | None:
    """Find the preset of a Hub id or of a local folder: "uoft-cs/cifar10", "../data/cifar10", "imagenette160"."""
    for preset in _CATALOGUE:
        if source_name.casefold() in (preset.name, *(hub_id.casefold() for hub_id in preset.hub_ids)):
            return preset
    last = source_name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    bare = _alphanumerics(last)
    starts = [preset for preset in _CATALOGUE if preset.hub_ids and _begins_with(bare, _alphanumerics(preset.name))]
    return max(starts, key=lambda preset: len(preset.name), default=None)


def _alphanumerics(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _begins_with(text: str, name: str) -> bool:
    """Return whether `text` begins with `name` and its number ends there: "cifar10" does not begin "cifar100"."""
    rest = text.removeprefix(name)
    return text.startswith(name) and not (name[-1].isdigit() and rest[:1].isdigit())


def preset_of(source: SourceConfig) -> Preset | None:
    """Return the preset that a source names, or that its own name implies."""
    if source.preset is None:
        return find_preset(source.name)
    if source.preset == NO_PRESET:
        return None
    if source.preset not in PRESETS:
        raise ConfigError(f"{unknown('preset', source.preset, PRESETS)}; set --source.preset")
    return PRESETS[source.preset]


def resolve_source(source: SourceConfig) -> SourceConfig:
    """Fill in what a source leaves open, from its preset; columns and splits are found when it is loaded."""
    return _filled("source", source, [_source_filling(source)])


def resolve_squeeze(squeeze: SqueezeConfig, source: SourceConfig) -> SqueezeConfig:
    """Fill in what a squeeze leaves open, from the source's preset or from a general recipe."""
    return _filled("squeeze", squeeze, [_squeeze_filling(source)])


def resolve(run: RunConfig) -> RunConfig:
    """Fill in every open value; `teachers.min_accuracy` and what is found in the data stay open."""
    filling = list(fillings(run))
    sections = {name: getattr(run, name) for name in ("source", "squeeze", "recover", "relabel", "student")}
    return replace(run, **{name: _filled(name, section, filling) for name, section in sections.items()})


def fillings(run: RunConfig) -> Iterator[Layer]:
    """Yield the layers that fill a run's open values, each with the place it comes from."""
    yield _source_filling(run.source)
    yield _squeeze_filling(run.source)
    preset, source = preset_of(run.source), resolve_source(run.source)
    size, origin = source.size, _origin(preset)
    max_roll = preset.max_roll if preset and preset.size == size else _max_roll(size)
    flip_probability = preset.flip_probability if preset else 0.5
    epochs = nearest(preset.label_epochs, run.ipc) if preset else 300  # T15, T17, T18
    yield Layer(origin, {"recover.max_roll": max_roll, "recover.flip_probability": flip_probability})
    yield Layer(origin, {"relabel.epochs": epochs, "relabel.flip_probability": flip_probability})
    yield Layer("number of classes", {"recover.batch_size": _batch_size(run, preset)})
    yield Layer("iterations and size", {"recover.form": _form(getattr(run.method, "iterations", 0), size)})
    dataset = preset.name if preset else None
    yield from student_fillings(run.student.name, dataset, run.student.student, run.ipc)
    yield Layer("relabel.epochs", {"student.epochs": run.relabel.epochs or epochs})


def _batch_size(run: RunConfig, preset: Preset | None) -> int | None:
    """Return how many images a run optimises together; `None` while the number of classes is not known."""
    num_classes = len(run.source.classes or ()) or (preset.num_classes if preset else 0)
    return run.method.batch_size(num_classes) if num_classes else None


def _source_filling(source: SourceConfig) -> Layer:
    preset = preset_of(source)
    if preset is None:
        general = {"size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "licence": "unknown"}
        return Layer(_origin(preset), {f"source.{name}": value for name, value in general.items()})
    constants = {name: getattr(preset, name) for name in ("size", "mean", "std", "licence")}
    on_hub = {"config_name": preset.config_name} if source.name in preset.hub_ids else {}
    values = {"preset": preset.name} | constants | on_hub
    return Layer(_origin(preset), {f"source.{name}": value for name, value in values.items()})


def _squeeze_filling(source: SourceConfig) -> Layer:
    preset = preset_of(source)
    return Layer(_origin(preset), section_values("squeeze", preset.squeeze if preset else _UNKNOWN_SQUEEZE))


def _origin(preset: Preset | None) -> str:
    return f"preset {preset.name}" if preset else "no preset"


def _filled(name: str, section: Section, layers: Iterable[Layer]) -> Section:
    """Return a section with the values of the layers where it is open."""
    start = f"{name}."
    for layer in layers:
        own = {key.removeprefix(start): value for key, value in layer.values.items() if key.startswith(start)}
        section = filled(section, **own)
    return section


def _form(iterations: int, size: int) -> str:
    """Return "compiled" where an image is optimised for long: from 256 iterations at 32 px, 6 at 224."""
    return "compiled" if iterations * size**2 >= _WORTH_COMPILING else "eager"


def _max_roll(size: int) -> int:
    return 32 if size > 64 else 4  # the released code's two values
