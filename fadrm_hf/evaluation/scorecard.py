"""The scores that compare students, from the evaluations on file with an artifact; which command makes one that lacks.

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
class Contest:
    """Which students are compared, and how much counts what.

    Attributes:
        student: Their architecture.
        label_weight: w of LRS.
        augmentation_weight: gamma of ARS.
    """

    student: str
    label_weight: float = 0.5
    augmentation_weight: float = 0.5


@dataclass(frozen=True)
class Row:
    """What students were trained on.

    Attributes:
        images: "own", "random_real" or "whole".
        labels: "soft" or "hard".
        augmented: Whether they saw crops, mirrors and mixtures, or whole images as they are.
    """

    images: str
    labels: str
    augmented: bool = True


_OWN, _OWN_HARD, _OWN_PLAIN = Row("own", "soft"), Row("own", "hard"), Row("own", "soft", False)
_RANDOM, _RANDOM_HARD = Row("random_real", "soft"), Row("random_real", "hard")
_RANDOM_PLAIN, _WHOLE = Row("random_real", "soft", False), Row("whole", "hard")


def accuracy_scores(
    results: Sequence[Result], manifest: Manifest, contest: Contest
) -> tuple[dict[str, Score], dict[str, str]]:
    """Every score that the evaluations give, and the names of the others with the commands that are missing.

    Args:
        results: All evaluations of the artifact.
        manifest: The artifact's.
        contest: Which students are compared.

    Raises:
        ScoreError: If a weight is no fraction.
    """
    found = {row: _find(row, results, manifest, contest.student) for row in _REMEDIES}
    scores, missing = {}, {}
    for name, (rows, formula) in _formulas(contest).items():
        if manifest.method == "random_real" and any(row.images == "random_real" for row in rows):
            continue
        tops = [found[row] for row in rows]
        if None not in tops:
            scores[name] = formula(*(top for top in tops if top is not None))
        else:
            missing[name] = _remedy([row for row in rows if found[row] is None], manifest, contest.student)
    return scores, missing


def renewed(scores: Scores, results: Sequence[Result], manifest: Manifest) -> Scores:
    """The scores on file after an evaluation was added; what was measured on images stays."""
    settings = scores.settings
    contest = Contest(settings["student"], settings["label_weight"], settings["augmentation_weight"])
    fresh, missing = accuracy_scores(results, manifest, contest)
    names = fresh.keys() | missing.keys()
    return replace(
        scores,
        scores=fresh | {name: score for name, score in scores.scores.items() if name not in names},
        missing=missing | {name: remedy for name, remedy in scores.missing.items() if name not in names},
    )


Formula = Callable[..., Score]


def _formulas(contest: Contest) -> dict[str, tuple[tuple[Row, ...], Formula]]:
    """What each score needs, and what it makes of their accuracies."""

    def robust_to_labels(own: Score, random: Score, whole: Score, hard: Score) -> Score:
        ior, hlr = improvement_over_random(own.value, random.value), hard_label_recovery(whole.value, hard.value)
        return Score(label_robust_score(ior, hlr, contest.label_weight))

    def robust_to_augmentation(own: Score, random: Score, plain: Score, random_plain: Score) -> Score:
        augmented = improvement_over_random(own.value, random.value)
        unaugmented = improvement_over_random(plain.value, random_plain.value)
        return Score(augmentation_robust_score(augmented, unaugmented, contest.augmentation_weight))

    return {
        "hard_label_accuracy": ((_OWN_HARD,), lambda hard: hard),
        "hard_label_recovery": ((_WHOLE, _OWN_HARD), _difference(hard_label_recovery)),
        "improvement_over_random": ((_OWN, _RANDOM), _difference(improvement_over_random)),
        "improvement_over_random_hard": ((_OWN_HARD, _RANDOM_HARD), _difference(improvement_over_random)),
        "label_robust_score": ((_OWN, _RANDOM, _WHOLE, _OWN_HARD), robust_to_labels),
        "augmentation_robust_score": ((_OWN, _RANDOM, _OWN_PLAIN, _RANDOM_PLAIN), robust_to_augmentation),
    }


def _difference(function: Callable[[float, float], float]) -> Formula:
    """A difference of two accuracies, with the deviation of independent seeds; with none where one has one seed."""

    def of(first: Score, second: Score) -> Score:
        stds = [score.std for score in (first, second) if score.std is not None]
        return Score(function(first.value, second.value), math.hypot(*stds) if len(stds) == 2 else None)

    return of


def _find(row: Row, results: Sequence[Result], manifest: Manifest, student: str) -> Score | None:
    """The top-1 accuracy of the students of a row, if they were trained."""
    own = "random_real" if manifest.method == "random_real" else "distilled"
    wanted = (own if row.images == "own" else row.images, row.labels, student)
    protocol = manifest.settings("student", StudentConfig).name
    for result in results:
        kind = (result["images"], result["labels"], result["student"])
        fits = not row.augmented if _is_unaugmented(result) else row.augmented and result["protocol"] == protocol
        if kind == wanted and not result.get("contributed") and (fits or row.images == "whole"):
            std = float(result["top1"]["std"]) if result["num_seeds"] > 1 else None
            return Score(float(result["top1"]["mean"]), std)
    return None


def _is_unaugmented(result: Result) -> bool:
    """Whether its students saw every image whole, unmixed and never mirrored."""
    views = (result.get("settings") or {}).get("relabel") or {}
    whole = list(views.get("crop_area", ())) == [1.0, 1.0] and views.get("flip_probability") == 0.0
    return whole and views.get("cutmix") is False


# The command that makes a row of results.
_REMEDIES: Mapping[Row, str] = {
    _OWN: "fadrm-hf train-student ARTIFACT",
    _OWN_HARD: "fadrm-hf train-student ARTIFACT --labels hard",
    _OWN_PLAIN: f"fadrm-hf train-student ARTIFACT --name {UNAUGMENTED}",
    _RANDOM: "fadrm-hf baselines ARTIFACT --rows '[random_real]'",
    _RANDOM_HARD: "fadrm-hf baselines ARTIFACT --rows '[random_real]'",
    _RANDOM_PLAIN: f"fadrm-hf baselines ARTIFACT --rows '[random_real]' --protocol {UNAUGMENTED}",
    _WHOLE: "fadrm-hf baselines ARTIFACT --rows '[whole]'",
}


def _remedy(rows: Sequence[Row], manifest: Manifest, student: str) -> str:
    own = manifest.settings("student", StudentConfig).student
    option = "" if student == own else f" --student {student}"
    return "; ".join(dict.fromkeys(f"{_REMEDIES[row]}{option}" for row in rows))
