"""The scores that compare students, from the evaluations on file with an artifact; the commands that make the others.

Compared are students of one architecture: those of the artifact, and of random real images, by the artifact's own
protocol; those of the whole dataset by the recipe that teachers are trained by. Numbers that others sent do not count.
Random real images are not compared with themselves.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.config import StudentConfig
from fadrm_hf.evaluation.scores import (
    augmentation_robust_score,
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
)
from fadrm_hf.report.card.results import Result
from fadrm_hf.report.card.scores import Score, Scores

UNAUGMENTED = "unaugmented"  # the protocol that shows whole images as they are


@dataclass(frozen=True)
class Comparison:
    """The students that are compared, and the weights of the scores.

    Attributes:
        student: Their architecture.
        label_weight: w of LRS.
        augmentation_weight: gamma of ARS.
    """

    student: str
    label_weight: float = 0.5
    augmentation_weight: float = 0.5


@dataclass(frozen=True)
class TrainingData:
    """What students were trained on.

    Attributes:
        images: "own", "random_real" or "whole".
        labels: "soft" or "hard".
        augmented: Whether they saw crops, mirrors and mixtures, or whole images as they are.
    """

    images: str
    labels: str
    augmented: bool = True


_OWN, _OWN_HARD = TrainingData("own", "soft"), TrainingData("own", "hard")
_RANDOM, _RANDOM_HARD = TrainingData("random_real", "soft"), TrainingData("random_real", "hard")
_OWN_PLAIN, _RANDOM_PLAIN = replace(_OWN, augmented=False), replace(_RANDOM, augmented=False)
_WHOLE = TrainingData("whole", "hard")

Formula = Callable[..., Score]

# The command that trains students on such data.
_REMEDIES: Mapping[TrainingData, str] = {
    _OWN: "fadrm-hf train-student ARTIFACT",
    _OWN_HARD: "fadrm-hf train-student ARTIFACT --labels hard",
    _OWN_PLAIN: f"fadrm-hf train-student ARTIFACT --name {UNAUGMENTED}",
    _RANDOM: "fadrm-hf baselines ARTIFACT --rows '[random_real]'",
    _RANDOM_HARD: "fadrm-hf baselines ARTIFACT --rows '[random_real]'",
    _RANDOM_PLAIN: f"fadrm-hf baselines ARTIFACT --rows '[random_real]' --protocol {UNAUGMENTED}",
    _WHOLE: "fadrm-hf baselines ARTIFACT --rows '[whole]'",
}


def accuracy_scores(
    results: Sequence[Result], manifest: Manifest, comparison: Comparison
) -> tuple[dict[str, Score], dict[str, str]]:
    """Return every score that the evaluations give, and the names of the others with the commands that are missing.

    Raises:
        ScoreError: If a weight is no fraction.
    """
    accuracies = {data: _accuracy(data, results, manifest, comparison.student) for data in _REMEDIES}
    scores, missing = {}, {}
    for name, (needed, formula) in _formulas(comparison).items():
        if manifest.method == "random_real" and any(data.images == "random_real" for data in needed):
            continue
        known = [accuracy for data in needed if (accuracy := accuracies[data]) is not None]
        if len(known) == len(needed):
            scores[name] = formula(*known)
        else:
            lacking = [data for data in needed if accuracies[data] is None]
            missing[name] = _remedy(lacking, manifest, comparison.student)
    return scores, missing


def renewed(scores: Scores, results: Sequence[Result], manifest: Manifest) -> Scores:
    """Return the scores on file after an evaluation was added; what was measured on images stays."""
    settings = scores.settings
    comparison = Comparison(settings["student"], settings["label_weight"], settings["augmentation_weight"])
    fresh, missing = accuracy_scores(results, manifest, comparison)
    names = fresh.keys() | missing.keys()
    return replace(
        scores,
        scores=fresh | {name: score for name, score in scores.scores.items() if name not in names},
        missing=missing | {name: remedy for name, remedy in scores.missing.items() if name not in names},
    )


def _formulas(comparison: Comparison) -> dict[str, tuple[tuple[TrainingData, ...], Formula]]:
    """Return the data that each score needs, and its formula of the accuracies on these."""

    def robust_to_labels(own: Score, random: Score, whole: Score, hard: Score) -> Score:
        ior, hlr = improvement_over_random(own.value, random.value), hard_label_recovery(whole.value, hard.value)
        return Score(label_robust_score(ior, hlr, comparison.label_weight))

    def robust_to_augmentation(own: Score, random: Score, plain: Score, random_plain: Score) -> Score:
        augmented = improvement_over_random(own.value, random.value)
        unaugmented = improvement_over_random(plain.value, random_plain.value)
        return Score(augmentation_robust_score(augmented, unaugmented, comparison.augmentation_weight))

    return {
        "hard_label_accuracy": ((_OWN_HARD,), lambda hard: hard),
        "hard_label_recovery": ((_WHOLE, _OWN_HARD), _difference(hard_label_recovery)),
        "improvement_over_random": ((_OWN, _RANDOM), _difference(improvement_over_random)),
        "improvement_over_random_hard": ((_OWN_HARD, _RANDOM_HARD), _difference(improvement_over_random)),
        "label_robust_score": ((_OWN, _RANDOM, _WHOLE, _OWN_HARD), robust_to_labels),
        "augmentation_robust_score": ((_OWN, _RANDOM, _OWN_PLAIN, _RANDOM_PLAIN), robust_to_augmentation),
    }


def _difference(function: Callable[[float, float], float]) -> Formula:
    """Return a difference of accuracies with the deviation of independent seeds; with none where one has one seed."""

    def of(first: Score, second: Score) -> Score:
        stds = [score.std for score in (first, second) if score.std is not None]
        return Score(function(first.value, second.value), math.hypot(*stds) if len(stds) == 2 else None)

    return of


def _accuracy(data: TrainingData, results: Sequence[Result], manifest: Manifest, student: str) -> Score | None:
    """Return the top-1 accuracy of the students that were trained on such data, if any were."""
    own = "random_real" if manifest.method == "random_real" else "distilled"
    wanted = (own if data.images == "own" else data.images, data.labels, student)
    protocol = manifest.settings("student", StudentConfig).name
    for result in results:
        kind = (result["images"], result["labels"], result["student"])
        fits = not data.augmented if _is_unaugmented(result) else data.augmented and result["protocol"] == protocol
        if kind == wanted and not result.get("contributed") and (fits or data.images == "whole"):
            std = float(result["top1"]["std"]) if result["num_seeds"] > 1 else None
            return Score(float(result["top1"]["mean"]), std)
    return None


def _is_unaugmented(result: Result) -> bool:
    """Return whether its students saw every image whole, unmixed and never mirrored."""
    views = (result.get("settings") or {}).get("relabel") or {}
    whole = views.get("crop_area") in ([1.0, 1.0], (1.0, 1.0)) and views.get("flip_probability") == 0.0
    return whole and views.get("cutmix") is False


def _remedy(lacking: Sequence[TrainingData], manifest: Manifest, student: str) -> str:
    own = manifest.settings("student", StudentConfig).student
    option = "" if student == own else f" --student {student}"
    return "; ".join(dict.fromkeys(f"{_REMEDIES[data]}{option}" for data in lacking))
