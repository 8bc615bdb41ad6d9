"""What was read of a source: splits, classes, pictures, and where each came from, so that a wrong guess is seen."""

import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fadrm_hf.config import OPEN, SourceConfig
from fadrm_hf.config.datasets import find_preset, preset_of
from fadrm_hf.data.sources.layouts.tables import some

_MOST_NAMED = 20  # classes that a suggestion lists


@dataclass(frozen=True)
class SourceReport:
    """What was read of a source, as plain data.

    Attributes:
        name: The source, as it was asked for.
        layout: How it is arranged.
        splits: Images in each split that was found.
        train_split: The one that is distilled.
        test_split: The one that is tested on, or how its images were chosen; `None` if there is none.
        num_train: Images that are distilled.
        num_test: Images that are tested on.
        tests_on_training: Whether training images stand in for test images.
        labels_from: Where the labels come from.
        classes: All classes in use with their training images, in order.
        smallest_image: Width and height.
        largest_image: The same.
        modes: Images looked at, by colour mode.
        num_measured: How many images were looked at.
        value_range: What is black and white in images of more than 8 bits.
        bands: Which bands are red, green and blue, where that was chosen.
        left_out: What is there and was not read, with the reason.
        preset: The dataset whose constants are used.
        preset_from: How it was found, or why there is none.
        size: Side of the square images that are used.
        suggested: Settings that fit better, as they can be typed.
        undecodable: Images that a run would refuse, by their paths or rows; only `inspect_source` looks for them.
    """

    name: str
    layout: str
    splits: dict[str, int]
    train_split: str
    test_split: str | None
    num_train: int
    num_test: int
    tests_on_training: bool
    labels_from: str
    classes: dict[str, int]
    smallest_image: tuple[int, int]
    largest_image: tuple[int, int]
    modes: dict[str, int]
    num_measured: int
    value_range: tuple[float, float] | None
    bands: tuple[int, int, int] | None
    left_out: tuple[str, ...]
    preset: str | None
    preset_from: str
    size: int
    suggested: tuple[str, ...]
    undecodable: tuple[str, ...] = ()

    def as_plain(self) -> dict[str, Any]:
        """Return the report as JSON holds it."""
        return asdict(self) | {"num_classes": len(self.classes)}

    @property
    def suggested_options(self) -> list[str]:
        """The suggested settings as single words of a command line."""
        return ["=".join(shlex.split(option)) for option in self.suggested]

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield a heading and what is said under it, for people."""
        yield "source", f"{self.name}: {self.layout}"
        splits = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        test = f"test on {self.num_test:,} of {self.test_split}" if self.test_split else "no test split"
        yield "splits", f"{splits}; train on {self.num_train:,} of {self.train_split}, {test}"
        if self.tests_on_training:
            yield "warning", "the test images are training images: no accuracy says how well new images are classified"
        if alike := list(self._alike()):
            yield "warning", f"classes that differ in case alone: {some(alike)}"
        if broken := self.undecodable:
            which = "1 image cannot be" if len(broken) == 1 else f"{len(broken):,} images cannot be"
            yield "warning", f"{which} decoded, and a run is refused: {some(broken)}"
        counts = sorted(self.classes.items(), key=lambda item: item[1])
        (least, fewest), (most, highest) = counts[0], counts[-1]
        named = ", ".join(list(self.classes)[:6]) + (", …" if len(self.classes) > 6 else "")
        yield "classes", f"{len(self.classes):,} ({named}); {least} has {fewest:,} training images, {most} {highest:,}"
        yield "labels", self.labels_from
        yield "images", self._pictures()
        yield "preset", f"{self.preset or 'none'} ({self.preset_from}); images of {self.size} px, square crops"
        for line in self.left_out:
            yield "left out", line
        for line in self.suggested:
            yield "suggested", line

    def _alike(self) -> Iterator[str]:
        """Yield the spellings of classes that may be one."""
        spellings: dict[str, list[str]] = defaultdict(list)
        for name in self.classes:
            spellings[name.casefold()].append(name)
        yield from (" and ".join(names) for names in spellings.values() if len(names) > 1)

    def _pictures(self) -> str:
        small, large = ("x".join(map(str, size)) for size in (self.smallest_image, self.largest_image))
        modes = ", ".join(f"{mode} {count:,}" for mode, count in self.modes.items())
        sizes = small if small == large else f"{small} to {large}"
        said = f"{sizes} pixels, {modes} (of {self.num_measured:,} looked at)"
        if unread := self.num_measured - sum(self.modes.values()):
            said += f"; {unread:,} cannot be read"
        if self.value_range:
            said += f"; {self.value_range[0]:g} is black and {self.value_range[1]:g} white (--source.value_range)"
        return said + (f"; bands {list(self.bands)} are red, green and blue" if self.bands else "")


def preset_origin(asked: SourceConfig, resolved: SourceConfig, num_classes: int) -> str:
    """Return how the preset was found, or why none is used, in words.

    Args:
        asked: The configuration as it was given.
        resolved: The same with its preset.
        num_classes: Of the source.
    """
    named, used = find_preset(asked.name), preset_of(resolved)
    if used is None and named is not None:
        return f"the name says {named.name}, which has {named.num_classes} classes, and this has {num_classes}"
    if used is None:
        return "no known name"
    return "by its name" if named is not None and named.name == used.name else "--source.preset"


def suggestions(
    asked: SourceConfig, config: SourceConfig, shorter_side: int, has_test: bool, counts: Mapping[str, int]
) -> tuple[str, ...]:
    """Return settings that fit the images better than those in use.

    Args:
        asked: The configuration as it was given.
        config: The same, resolved.
        shorter_side: Of the middle image.
        has_test: Whether there are test images.
        counts: Training images of each class, by what identifies it.
    """
    found = []
    fitting = next((size for size in (224, 128, 64, 32, 16) if shorter_side >= size * 0.75), 16)
    if asked.size is OPEN and preset_of(config) is None and fitting < config.size:
        found.append(f"--source.size {fitting}")
    used = [name for name, count in counts.items() if count]
    if 2 <= len(used) < len(counts) and len(used) <= _MOST_NAMED and not asked.classes:
        found.append(f"--source.classes {shlex.quote(json.dumps(used, ensure_ascii=False))}")
    if not has_test and used and min(counts[name] for name in used) > 1:
        found.append("--source.test_fraction 0.2")
    return tuple(found)
