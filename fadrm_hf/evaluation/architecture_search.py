"""An artifact as a proxy for architecture search: does it rank architectures as the whole dataset does?

Every architecture is trained on the artifact (`fadrm_hf.evaluation.cross_architecture`) and on all real images
(`fadrm_hf.evaluation.whole_dataset`), with as many seeds; what is on file of either is used again. Dataset
condensation (arXiv 2006.05929) asks the same of ConvNets of one family, trained briefly. Here architectures are of any
family, each is trained to the end of the artifact's protocol and of FADRM's Table 7, and all are ranked, not the best
few alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from fadrm_hf.config import SqueezeConfig, StudentConfig, require
from fadrm_hf.config.students import full_name
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ScoreError
from fadrm_hf.evaluation.cross_architecture import Examination, examine, prepare_examination, rows_on_file
from fadrm_hf.evaluation.results import ResultFolder
from fadrm_hf.evaluation.scores import kendall_correlation, ranks, spearman_correlation
from fadrm_hf.evaluation.student_table import StudentRow
from fadrm_hf.evaluation.whole_dataset import Bound, measure_bound
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.training.loader import Distilled

# Small networks of several families that take images from 16 px on: 0.02 to 1.9 M parameters with ten classes.
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
_FEWEST = 3
_ORDERS, _ROUNDING = 10_000, 1e-9
_SIDES = ("distilled", "whole")

Measure = Callable[[Sequence[float], Sequence[float]], float]
_MEASURES: dict[str, Measure] = {"spearman": spearman_correlation, "kendall": kendall_correlation}


@dataclass(frozen=True)
class Search:
    """Architectures to be ranked.

    Attributes:
        examination: Their training on the artifact.
        bound: Their training on the whole dataset.
    """

    examination: Examination
    bound: Bound


def check_architectures(names: Sequence[str]) -> list[str]:
    """The full names of architectures that can be ranked.

    Raises:
        ConfigError: If they are too few, or one is named twice.
    """
    architectures = [full_name(name) for name in names]
    distinct = len(set(architectures)) == len(architectures)
    require(distinct, "architectures", list(names), "a list without repetitions")
    expected = f"at least {_FEWEST}, such as '[resnet10_narrow,convnet3_bn,wrn16_2]'"
    require(len(architectures) >= _FEWEST, "architectures", list(names), expected)
    return architectures


def prepare_search(
    distilled: Distilled,
    source: Source,
    given: Sequence[StudentConfig],
    place: ResultFolder,
    recipe: SqueezeConfig,
    networks: Path,
    whole: Path,
    output: Path,
) -> Search:
    """Resolve both trainings, refusing all that cannot work before anything is trained.

    Args:
        distilled: The artifact.
        source: Its source.
        given: One protocol for each architecture.
        place: Where results on the artifact are filed.
        recipe: How networks are trained on the whole dataset, with nothing left open.
        networks: Where these are kept.
        whole: Where their results are filed, as `fadrm_hf.evaluation.whole_dataset.Bound.output`.
        output: The name of this search's table without suffix; the tables of both trainings lie beside it.

    Raises:
        ArtifactError: If the artifact cannot be read.
        ConfigError: If an architecture cannot be trained as asked; every one is named, with the reason.
        SourceError: If there are no test images.
    """
    students = [protocol.student for protocol in given]
    table = output.with_name(f"{output.name}-whole")
    bound = Bound(source, students, recipe, given[0].num_seeds, networks, whole, table)
    bound.check()
    return Search(prepare_examination(distilled, source, given, place), bound)


def search(
    prepared: Search,
    output: Path,
    command: str,
    reporter: Reporter,
    state: PartialState,
    processes_per_student: int = 1,
) -> list[dict[str, Any]]:
    """Train every architecture that has no result yet, on both; an interrupted call goes on from there.

    Args:
        prepared: From `prepare_search`.
        output: The name of this search's table without suffix.
        command: What was typed, for the record.
        reporter: Says what is trained.
        state: The processes, each with the device that its students train on.
        processes_per_student: How many of them train one student on the artifact together at least.

    Returns:
        Of each architecture "title", "student", "parameters", and with the prefixes "distilled_" and "whole_" the
        accuracy's "mean", "std" and "values", its "rank" from 1, the best first, and the "seconds" of all seeds.

    Raises:
        StudentError, TeacherError: If a training diverges.
    """
    table = output.with_name(f"{output.name}-distilled")
    examine(prepared.examination, table, command, reporter, state, processes_per_student)
    measured = {
        "distilled": rows_on_file(prepared.examination),
        "whole": measure_bound(prepared.bound, command, reporter, state),
    }
    rows: list[dict[str, Any]] = [
        {"title": row.title, "student": row.result["student"], "parameters": row.parameters}
        for row in measured["distilled"]
    ]
    for name, students in measured.items():
        for row, values in zip(rows, _columns(students), strict=True):
            row |= {f"{name}_{column}": value for column, value in values.items()}
    return rows


def correlations(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How alike the two rankings are; what is not defined, since all are equally good on one side, is `None`.

    Args:
        rows: From `search`.

    Returns:
        "spearman" and "kendall" of mean accuracies; "chance", the share of random orders whose Spearman is as large;
        "by_seed", of each seed's accuracies alone: "spearman" and "kendall" as lists.
    """
    lists = [[row[f"{side}_mean"] for row in rows] for side in _SIDES]
    num_seeds = len(rows[0]["distilled_values"])
    by_seed = [[[row[f"{side}_values"][seed] for row in rows] for side in _SIDES] for seed in range(num_seeds)]
    return {
        "num_architectures": len(rows),
        **{name: _defined(measure, lists) for name, measure in (_MEASURES | {"chance": chance_of}).items()},
        "by_seed": {name: [_defined(measure, each) for each in by_seed] for name, measure in _MEASURES.items()},
    }


def chance_of(first: Sequence[float], second: Sequence[float]) -> float:
    """The share of random orders of one list that agree with the other at least as well, by Spearman's rho.

    Args:
        first: A value of each thing.
        second: Another value of each, in the same order.

    Raises:
        ScoreError: As `fadrm_hf.evaluation.scores.spearman_correlation`.
    """
    rho = spearman_correlation(first, second)
    one, other = (column - column.mean() for column in (ranks(first), ranks(second)))
    drawn = torch.rand((_ORDERS, len(one)), generator=generator(0, "orders")).argsort(dim=1)
    found = (one[drawn] * other).sum(dim=1) / (one.norm() * other.norm())
    return (found >= rho - _ROUNDING).double().mean().item()


def _defined(measure: Measure, lists: Sequence[Sequence[float]]) -> float | None:
    try:
        return measure(*lists)
    except ScoreError:
        return None


def _columns(students: Sequence[StudentRow]) -> list[dict[str, Any]]:
    """One side of every row."""
    top1 = [student.result["top1"] for student in students]
    places = len(students) + 1 - ranks([each["mean"] for each in top1])
    return [
        {**each, "rank": place, "seconds": student.result["seconds"]}
        for student, each, place in zip(students, top1, places.tolist(), strict=True)
    ]
