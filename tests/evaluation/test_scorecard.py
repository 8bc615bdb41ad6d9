"""Scores that compare students, against sums done by hand; and what is said of the evaluations that lack."""

import math
from dataclasses import replace

import pytest
from fixtures.artifacts import make_manifest

from fadrm_hf.errors import ScoreError
from fadrm_hf.evaluation.scorecard import Comparison, accuracy_scores, renewed
from fadrm_hf.report.card.scores import Score, Scores

pytestmark = pytest.mark.numerical

STUDENT = "timm/resnet18"
AS_THEY_ARE = {"crop_area": [1.0, 1.0], "flip_probability": 0.0, "cutmix": False}


def manifest(method="fadrm"):
    made = make_manifest()
    return replace(made, method=method, config=made.config | {"student": {"name": "fadrm", "student": STUDENT}})


def result(images, labels, top1, std=0.03, protocol="fadrm", num_seeds=3, **more):
    return {"images": images, "labels": labels, "student": STUDENT, "protocol": protocol, "num_seeds": num_seeds,
            "top1": {"mean": top1, "std": std}, "settings": {}} | more  # fmt: skip


UNAUGMENTED = [
    result("distilled", "soft", 0.50, protocol="unaugmented", settings={"relabel": AS_THEY_ARE}),
    result("random_real", "soft", 0.46, protocol="unaugmented", settings={"relabel": AS_THEY_ARE}),
]
RESULTS = [
    *UNAUGMENTED,
    result("distilled", "soft", 0.70),
    result("distilled", "hard", 0.40, std=0.04),
    result("random_real", "soft", 0.60),
    result("random_real", "hard", 0.45, num_seeds=1),
    result("whole", "hard", 0.90, protocol="squeeze"),
]


def squashed(balance):
    return (math.exp(balance) - math.exp(-1)) / (math.e - math.exp(-1))


def test_every_score_by_hand():
    scores, missing = accuracy_scores(RESULTS, manifest(), Comparison(STUDENT))
    assert missing == {}
    assert scores["hard_label_accuracy"] == Score(0.40, 0.04)
    assert scores["hard_label_recovery"].value == pytest.approx(0.50)
    assert scores["hard_label_recovery"].std == pytest.approx(0.05)  # of 0.03 and 0.04
    assert scores["improvement_over_random"].value == pytest.approx(0.10)
    assert scores["improvement_over_random"].std == pytest.approx(0.03 * math.sqrt(2))
    assert scores["improvement_over_random_hard"].value == pytest.approx(-0.05)
    assert scores["improvement_over_random_hard"].std is None  # one seed has no deviation
    assert scores["label_robust_score"].value == pytest.approx(squashed(0.5 * 0.10 - 0.5 * 0.50))
    assert scores["augmentation_robust_score"].value == pytest.approx(squashed(0.5 * 0.10 + 0.5 * 0.04))


def test_weights_are_the_callers():
    scores, _ = accuracy_scores(RESULTS, manifest(), Comparison(STUDENT, label_weight=0.9, augmentation_weight=0.2))
    assert scores["label_robust_score"].value == pytest.approx(squashed(0.9 * 0.10 - 0.1 * 0.50))
    assert scores["augmentation_robust_score"].value == pytest.approx(squashed(0.2 * 0.10 + 0.8 * 0.04))
    with pytest.raises(ScoreError, match="weight is 2"):
        accuracy_scores(RESULTS, manifest(), Comparison(STUDENT, label_weight=2))


@pytest.mark.parametrize(
    "other",
    [
        {"student": "timm/resnet50"},
        {"protocol": "rd3"},
        {"contributed": True},
        {"settings": {"relabel": AS_THEY_ARE}},  # the protocol's name, and other views
    ],
)
def test_only_the_authors_students_of_one_kind_and_protocol_are_compared(other):
    strange = result("distilled", "hard", 0.99) | other
    scores, missing = accuracy_scores([strange, *RESULTS], manifest(), Comparison(STUDENT))
    assert scores["hard_label_accuracy"].value == 0.40
    _, missing = accuracy_scores([strange], manifest(), Comparison(STUDENT))
    assert "hard_label_accuracy" in missing


def test_what_lacks_is_named_by_its_commands_and_by_no_others():
    scores, missing = accuracy_scores(RESULTS[2:6], manifest(), Comparison(STUDENT))
    assert set(scores) == {"hard_label_accuracy", "improvement_over_random", "improvement_over_random_hard"}
    whole = "fadrm-hf baselines ARTIFACT --rows '[whole]'"
    assert missing["hard_label_recovery"] == missing["label_robust_score"] == whole
    assert missing["augmentation_robust_score"] == (
        "fadrm-hf train-student ARTIFACT --name unaugmented; "
        "fadrm-hf baselines ARTIFACT --rows '[random_real]' --protocol unaugmented"
    )
    _, missing = accuracy_scores([], manifest(), Comparison("timm/resnet50"))
    assert missing["hard_label_recovery"] == (
        "fadrm-hf baselines ARTIFACT --rows '[whole]' --student timm/resnet50; "
        "fadrm-hf train-student ARTIFACT --labels hard --student timm/resnet50"
    )


def test_random_images_are_not_compared_with_themselves():
    scores, missing = accuracy_scores(RESULTS, manifest("random_real"), Comparison(STUDENT))
    assert set(scores) == {"hard_label_accuracy", "hard_label_recovery"} and missing == {}
    assert (scores["hard_label_accuracy"].value, scores["hard_label_recovery"].value) == (0.45, pytest.approx(0.45))


def test_a_new_evaluation_renews_what_it_bears_on_and_nothing_else():
    measured = {"pixel_entropy": Score(6.0, 0.1), "hard_label_accuracy": Score(0.1, 0.0)}
    lacking = {"test_copies": "a source", "label_robust_score": "more"}
    settings = {"student": STUDENT, "label_weight": 0.9, "augmentation_weight": 0.5}
    after = renewed(Scores(measured, lacking, settings=settings), RESULTS, manifest())
    assert after.scores["pixel_entropy"] == Score(6.0, 0.1) and after.scores["hard_label_accuracy"].value == 0.40
    assert after.scores["label_robust_score"].value == pytest.approx(squashed(0.9 * 0.10 - 0.1 * 0.50))
    assert after.missing == {"test_copies": "a source"}
