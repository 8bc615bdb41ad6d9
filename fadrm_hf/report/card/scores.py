"""The scores of an artifact on file, `results/scores.json`, and their form on the card and in a terminal."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fadrm_hf.errors import ArtifactError
from fadrm_hf.runtime.files import MAX_TEXT_BYTES, parse_json, read_regular
from fadrm_hf.runtime.run_folder import RESULTS, SCORES, RunFolder

SCORES_NAME = SCORES.removeprefix(RESULTS)
_POINT_FORMATS = {"iteration": ".0f", "num_images": ".0f", "pixel_entropy": ".3f", "feature_entropy": ".3f"}


@dataclass(frozen=True)
class Kind:
    """The name and unit of a score.

    Attributes:
        title: In words, with its abbreviation.
        unit: "percent", "points" (of percent, with a sign), "times", "bits", "count", or "" for a plain number.
        better: "more", "less", or "" if neither is.
    """

    title: str
    unit: str
    better: str


# Every score, in the order of display; `fadrm_hf.evaluation.scores` defines them.
KINDS: dict[str, Kind] = {
    "hard_label_accuracy": Kind("accuracy with hard labels", "percent", "more"),
    "hard_label_recovery": Kind("lost against the whole dataset, hard labels (HLR)", "points", "less"),
    "improvement_over_random": Kind("gained over random images, soft labels (IOR)", "points", "more"),
    "improvement_over_random_hard": Kind("gained over random images, hard labels", "points", "more"),
    "label_robust_score": Kind("label-robust score (LRS)", "", "more"),
    "augmentation_robust_score": Kind("augmentation-robust score (ARS)", "", "more"),
    "compression_images": Kind("source : distilled, in images", "times", "more"),
    "compression_image_bytes": Kind("source : distilled, in bytes of images", "times", "more"),
    "compression_bytes": Kind("source : distilled, in bytes of images and labels", "times", "more"),
    "pixel_entropy": Kind("entropy of pixels, per image", "bits", ""),
    "feature_entropy": Kind("entropy of features, per image", "bits", ""),
    "cosine_distance": Kind("cosine distance of images of a class", "", "more"),
    "effective_number": Kind("effective number of images per class", "", "more"),
    "test_copies": Kind("images that are copies of test images", "count", "less"),
}


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes:
        value: Accuracies and their differences as fractions.
        std: Sample standard deviation, over seeds for accuracies, over images for entropies; `None` if unknown.
    """

    value: float
    std: float | None = None


@dataclass(frozen=True)
class Scores:
    """The results of `fadrm-hf score`.

    Attributes:
        scores: By their names in `KINDS`.
        missing: Names of the others, each with the command that measures it.
        course: Mean entropies along the optimisation: points of "iteration", "num_images", "pixel_entropy" and
            "feature_entropy". Two points at one iteration are before and after real patches were mixed in.
        settings: How they were computed.
        command: The command line.
    """

    scores: Mapping[str, Score]
    missing: Mapping[str, str]
    course: tuple[Mapping[str, float], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    def as_plain(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def read_scores(folder: Path) -> Scores | None:
    """Read the scores of an artifact, if it has any; scores that this version does not know are left out.

    Raises:
        ArtifactError: If the file does not contain scores.
    """
    path = RunFolder(folder).scores
    return read_scores_file(path) if path.is_file() else None


def read_scores_file(path: Path) -> Scores:
    """Read the scores in a file; see `read_scores`."""
    try:
        document = parse_json(read_regular(path, MAX_TEXT_BYTES))
        return Scores(
            scores={name: _score(found) for name, found in document["scores"].items() if name in KINDS},
            missing={name: str(remedy) for name, remedy in document["missing"].items() if name in KINDS},
            course=tuple({name: _finite(value) for name, value in point.items()} for point in document["course"]),
            settings=dict(document["settings"]),
            command=str(document["command"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path.parent.name}/{path.name} does not contain scores ({error!r}); remove it, or run fadrm-hf score"
            " again"
        ) from error


def score_rows(scores: Scores) -> list[tuple[str, str, str]]:
    """Return (title, value with deviation and unit, which is better) of every score that was measured."""
    return [
        (kind.title, _text(scores.scores[name], kind.unit), kind.better)
        for name, kind in KINDS.items()
        if name in scores.scores
    ]


def trajectory_rows(scores: Scores) -> list[tuple[str, ...]]:
    """Return (iteration, images, entropy of pixels, entropy of features) of every point of the optimisation."""
    return [
        tuple(format(point[name], spec) for name, spec in _POINT_FORMATS.items()) for point in complete_points(scores)
    ]


def complete_points(scores: Scores) -> list[Mapping[str, float]]:
    """Return the points of the optimisation that have all values."""
    return [point for point in scores.course if _POINT_FORMATS.keys() <= point.keys()]


def _score(found: Mapping[str, Any]) -> Score:
    return Score(_finite(found["value"]), None if found["std"] is None else _finite(found["std"]))


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _text(score: Score, unit: str) -> str:
    if unit in ("percent", "points"):
        sign = "+" if unit == "points" else ""
        spread = "" if score.std is None else f" ± {100 * score.std:.1f}"
        return f"{100 * score.value:{sign}.1f}{spread} {'%' if unit == 'percent' else 'points'}"
    if unit == "times":
        return f"{score.value:.3g} : 1" if score.value < 1000 else f"{score.value:,.0f} : 1"
    if unit == "count":
        return f"{score.value:.0f}"
    spread = "" if score.std is None else f" ± {score.std:.3f}"
    return f"{score.value:.3f}{spread}{' bits' if unit == 'bits' else ''}"
