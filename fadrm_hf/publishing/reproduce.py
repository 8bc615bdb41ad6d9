"""The number of an artifact, measured again from the artifact alone: same images, labels, settings and seeds.

What is compared is the mean top-1 accuracy of the last epoch. What it may differ by is said in multiples of sigma, the
scatter of one student (`pooled_sigma`), or in percentage points.
"""

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any

from fadrm_hf.artifact.location import Location, table_names
from fadrm_hf.artifact.manifest import Manifest, is_unaltered, parse_settings
from fadrm_hf.config import RelabelConfig, StudentConfig
from fadrm_hf.config.architectures import full_name
from fadrm_hf.errors import UPGRADE, ArtifactError, ConfigError, unknown
from fadrm_hf.publishing.received_results import read_evaluation
from fadrm_hf.report.card.results import NO_EVALUATIONS, Result
from fadrm_hf.runtime.files import sha256
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER, MANIFEST, RESULTS


@dataclass(frozen=True)
class Tolerance:
    """The largest difference of the obtained mean from the expected one, in sigma or in percentage points."""

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}"


def parse_tolerance(text: str) -> Tolerance:
    """Parse `2sigma` or `1.5points`.

    Raises:
        ConfigError: If it is neither.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(sigma|points)\s*", text)
    if match is None:
        raise ConfigError(f"tolerance must be like '2sigma' or '1.5points', got {text!r}; set --tolerance")
    return Tolerance(float(match[1]), match[2])


@dataclass(frozen=True)
class Reproduction:
    """An accuracy that was expected, and what was obtained.

    Attributes:
        expected: The artifact's own result.
        obtained: What `train_students` returned for its settings.
        tolerance: What they may differ by.
    """

    expected: Result
    obtained: Result
    tolerance: Tolerance

    @property
    def difference(self) -> float:
        """Obtained mean less expected mean, as a fraction."""
        return statistics.fmean(_values(self.obtained)) - statistics.fmean(_values(self.expected))

    @property
    def sigma(self) -> float:
        """See `pooled_sigma`; as a fraction."""
        return pooled_sigma(_values(self.expected), _values(self.obtained), int(self.obtained["num_test_images"]))

    @property
    def num_sigmas(self) -> float:
        """The difference in multiples of sigma."""
        return self.difference / self.sigma if self.difference else 0.0

    @property
    def holds(self) -> bool:
        """True if the difference is within the tolerance."""
        measure = self.num_sigmas if self.tolerance.unit == "sigma" else 100 * self.difference
        return abs(measure) <= self.tolerance.value + 1e-9

    def verdict(self) -> dict[str, Any]:
        """Return what is filed with the obtained result."""
        return {
            "expected_top1": self.expected["top1"],
            "difference": self.difference,
            "sigma": self.sigma,
            "tolerance": str(self.tolerance),
            "reproduced": self.holds,
        }

    def lines(self) -> list[str]:
        """Return the same in words."""
        points = f"{100 * self.difference:+.2f} points = {self.num_sigmas:+.2f} sigma"
        return [
            f"expected: top-1 {_summary(self.expected)}",
            f"obtained: top-1 {_summary(self.obtained)}",
            "sigma is what one student's accuracy varies by: its standard deviation over seeds, or what"
            f" {int(self.obtained['num_test_images']):,} test images leave uncertain if that is more",
            f"difference: {points} (sigma {100 * self.sigma:.2f} points); tolerance {self.tolerance}",
            *(f"differs: {line}" for line in other_machine(self.expected, self.obtained)),
            "reproduced" if self.holds else "not reproduced: the difference is beyond the tolerance",
        ]


def pooled_sigma(expected: Sequence[float], obtained: Sequence[float], num_test_images: int) -> float:
    """Return the scatter of one student's accuracy: what another training of the same kind may differ by.

    The two samples are taken to scatter alike about means of their own, so their squared deviations are added and
    divided by the degrees of freedom of both. With the two or three seeds of a usual table that is a rough estimate:
    it is 0 for one seed, and by chance nearly 0 for two that agree. But no accuracy measured on n images is known
    better than the binomial error sqrt(p (1 - p) / n): other hardware adds in another order, rounding sends a student
    to another of the equally good minima, and which test images these get right is a draw of its own. So this is the
    least that sigma can be. It is the scatter of a single student, not of a mean: the seeds are the same on both
    sides, which makes their errors no independent draws that would average out.

    Args:
        expected: Accuracies by seed, as fractions.
        obtained: The same of the other sample; the number of seeds may be another.
        num_test_images: n.
    """
    samples = [expected, obtained]
    squares = sum(sum((value - statistics.fmean(sample)) ** 2 for value in sample) for sample in samples)
    freedom = sum(len(sample) - 1 for sample in samples)
    p = statistics.fmean([*expected, *obtained])
    binomial = math.sqrt(p * (1.0 - p) / num_test_images)
    return max(math.sqrt(squares / freedom) if freedom else 0.0, binomial)


def other_machine(expected: Result, obtained: Result) -> list[str]:
    """Return the differences between machines and libraries of two results, one line each."""
    lines = []
    for kind in ("machine", "versions"):
        there, here = (result.get(kind) or {} for result in (expected, obtained))
        lines += [
            f"{name} {_recorded(there, name)} there, {_recorded(here, name)} here"
            for name in dict.fromkeys([*there, *here])
            if there.get(name) != here.get(name)
        ]
    return lines


def _recorded(values: Mapping[str, Any], name: str) -> str:
    return str(values[name] or "none") if name in values else "not recorded"


def choose_result(location: Location, student: str | None = None, name: str | None = None) -> tuple[str, Result]:
    """Return the result to reproduce, and its file in the artifact.

    Args:
        location: The artifact.
        student: A result of this student; the artifact's own if not given. Of several, that of the artifact's own
            protocol on soft labels.
        name: This very file, with or without `results/` and `.json`.

    Raises:
        ArtifactError: If it is no result, or not what the manifest says.
        ConfigError: If none fits; the message names those there are.
    """
    named = (file for file in location.manifest.files if file.startswith(RESULTS) and file.endswith(".json"))
    files = [file for file in named if file.removeprefix(RESULTS) not in NO_EVALUATIONS]
    if not files and "edit" in location.manifest.config:
        raise ConfigError(
            f"{location.name} was edited, and no student was trained on it since: the numbers of what it was made from"
            " are of other images; train one with fadrm-hf train-student"
        )
    if name is not None:
        file = f"{RESULTS}{PurePosixPath(name).name.removesuffix('.json')}.json"
        if file not in files:
            raise ConfigError(f"{unknown('result', file, files)}; set --result")
        result = _read_result(location, file)
        _require_own(location.manifest, file, result)
        return file, result
    own = location.manifest.settings("student", StudentConfig)
    wanted = {
        "images": _own_images(location.manifest),
        "labels": "soft",
        "student": full_name(student or own.student),
        "contributed": False,
    }
    results = {file: _read_result(location, file) for file in files}
    fitting = {
        file: result
        for file, result in results.items()
        if all(result[key] == value for key, value in wanted.items()) and _has_own_labels(location.manifest, result)
    }
    of_own_protocol = {file: result for file, result in fitting.items() if result["protocol"] == own.name}
    chosen = of_own_protocol or fitting
    if len(chosen) != 1:
        asked = f"{wanted['images']} images, these soft labels and student {wanted['student']}"
        raise ConfigError(
            f"{location.name} has {len(chosen) or 'no'} results with {asked}, expected one; its results are:"
            f" {', '.join(files) or 'none'}. Choose one with --student or --result"
        )
    return next(iter(chosen.items()))


def settings_of(result: Result, file: str, num_seeds: int | None) -> StudentConfig:
    """Return the protocol that a result was measured with.

    Args:
        result: A stored result.
        file: Its name, for messages.
        num_seeds: How many students; as many as were measured if not given.

    Raises:
        ArtifactError: If a newer version measured it by settings that this one does not have.
    """
    newer = result["settings"].keys() - {field.name for field in fields(StudentConfig)}
    newer |= (result["settings"].get("relabel") or {}).keys() - {field.name for field in fields(RelabelConfig)}
    if newer:
        raise ArtifactError(
            f"{file} was measured with settings that are unknown here: {', '.join(sorted(newer))}; {UPGRADE}"
        )
    seeds = len(_values(result)) if num_seeds is None else num_seeds
    return parse_settings(result["settings"] | {"num_seeds": seeds, "num_workers": 0}, StudentConfig, file)


def is_online(result: Result) -> bool:
    """Return whether a result was measured with labels that the teachers made on the fly."""
    return result.get("label_codec") == "none"


def check_files(location: Location) -> None:
    """Recompute the hashes of all that a student is trained on; what is not on this disk is downloaded.

    Raises:
        ArtifactError: If the manifest, an image file or a label file is not what it was; all are named.
    """
    if not is_unaltered(location.folder):
        raise ArtifactError(
            f"{location.name}: {MANIFEST} is not as it was written: its digest is not its hash; {_REMEDY}"
        )
    names = [name for table in (IMAGES_FOLDER, LABELS_FOLDER) for name in table_names(location.manifest, table)]
    changed = [name for name in names if not _is_as_recorded(location, name)]
    if changed:
        raise ArtifactError(
            f"{location.name}: {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not what {MANIFEST}"
            f" says (SHA-256); {_REMEDY}"
        )


_REMEDY = "nothing was trained. See fadrm-hf verify for the rows that are damaged, and fetch it again"


def _is_as_recorded(location: Location, name: str) -> bool:
    return sha256(location.local(name)) == location.manifest.files[name].sha256


def _read_result(location: Location, file: str) -> Result:
    """Return a stored result, checked, with its settings as they were stored, known here or not."""
    if not _is_as_recorded(location, file):
        raise ArtifactError(f"{location.name}: {file} is not what {MANIFEST} says (SHA-256); {_REMEDY}")
    path = location.local(file)
    result = read_evaluation(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    return result | {"settings": document["settings"], "contributed": bool(document.get("contributed"))}


def _own_images(manifest: Manifest) -> str:
    return "random_real" if manifest.method == "random_real" else "distilled"


def _has_own_labels(manifest: Manifest, result: Result) -> bool:
    """Return whether a result was measured with labels that the artifact stores, or has made on the fly."""
    codec = result.get("label_codec", manifest.label_codec)
    return is_online(result) or manifest.label_codec in (codec, "none")


def _require_own(manifest: Manifest, file: str, result: Result) -> None:
    if result["images"] != _own_images(manifest):
        raise ConfigError(
            f"{file} was measured on {result['images']} images, which are not in this artifact; choose one of"
            f" {_own_images(manifest)} images with --result"
        )
    if not _has_own_labels(manifest, result):
        raise ConfigError(
            f"{file} was measured with labels stored as {result['label_codec']}, this artifact has them as"
            f" {manifest.label_codec}; choose another with --result"
        )


def _values(result: Result) -> list[float]:
    return [float(value) for value in result["top1"]["values"]]


def _summary(result: Result) -> str:
    values = _values(result)
    if len(values) == 1:
        return f"{values[0]:.2%} (1 seed)"
    return f"{statistics.fmean(values):.2%} ± {statistics.stdev(values):.2%} ({len(values)} seeds)"
