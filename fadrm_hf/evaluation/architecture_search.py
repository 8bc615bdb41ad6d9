"""An artifact as a proxy for architecture search: does it rank architectures as the whole dataset does?

Every architecture is trained on the artifact (`fadrm_hf.evaluation.cross_architecture`) and on all real images
(`fadrm_hf.evaluation.whole_dataset`), with as many seeds; results of either that are on file are reused. Dataset
condensation (arXiv 2006.05929) asks the same of ConvNets of one family, trained briefly. Here architectures are of any
family, each is trained to the end of the artifact's protocol and of FADRM's Table 7, and all are ranked, not the best
few alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fadrm_hf.config import require
from fadrm_hf.config.architectures import full_name
from fadrm_hf.errors import ScoreError
from fadrm_hf.evaluation.cross_architecture import CrossArchitecture
from fadrm_hf.evaluation.measured_tables import StudyTable, images_per_class, mean_and_std
from fadrm_hf.evaluation.scores import kendall_correlation, ranks, spearman_correlation
from fadrm_hf.evaluation.student_study import StudentRow
from fadrm_hf.evaluation.study import Session, Study, run_study
from fadrm_hf.evaluation.whole_dataset import WholeDataset
from fadrm_hf.report.pictures.accuracy import draw_ranking
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.terminal import duration
from fadrm_hf.training.accuracy import summarise

_FEWEST = 3
_ORDERS, _ROUNDING = 10_000, 1e-9
_SIDES = ("distilled", "whole")
_TITLES = {"spearman": "Spearman's ρ", "kendall": "Kendall's τ-b"}

Row = dict[str, Any]
Measure = Callable[[Sequence[float], Sequence[float]], float]
_MEASURES: dict[str, Measure] = {"spearman": spearman_correlation, "kendall": kendall_correlation}


@dataclass(frozen=True)
class ArchitectureRanking(Study[list[Row]]):
    """Architectures to be ranked by two trainings.

    Attributes:
        distilled: Their training on the artifact.
        whole: Their training on the whole dataset.
    """

    distilled: CrossArchitecture
    whole: WholeDataset

    def measure(self, session: Session) -> Iterator[list[Row]]:
        """Train every architecture that has no result yet, on both; the tables of both are next to the ranking.

        Yields:
            Once, of each architecture "title", "student", "parameters", and with the prefixes "distilled_" and
            "whole_" the accuracy's "mean", "std" and "values", its "rank" from 1, the best first, and the "seconds"
            of all seeds.
        """
        distilled = run_study(self.distilled, session.part("distilled"))
        whole = run_study(self.whole, session.part("whole"))
        rows: list[Row] = [
            {"title": row.title, "student": row.result["student"], "parameters": row.parameters} for row in distilled
        ]
        for side, students in zip(_SIDES, (distilled, whole), strict=True):
            for row, values in zip(rows, _columns(students), strict=True):
                row |= {f"{side}_{column}": value for column, value in values.items()}
        yield rows

    def table(self, rows: list[Row]) -> StudyTable:
        """Describe the architectures and the correlations of the rankings, with a picture of both accuracies."""
        manifest, recipe = self.distilled.distilled.manifest, self.whole.recipe
        protocol = next(iter(self.distilled.students.values()))
        alike = correlations(rows)
        return StudyTable(
            title=f"Architectures ranked by {manifest.source_title}, {images_per_class(manifest.ipc)} by "
            f"{manifest.method}, and by all of its images",
            template="architecture_search.md",
            facts={
                "protocol": protocol.name,
                "labels": protocol.labels,
                "epochs": protocol.epochs,
                "whole_epochs": recipe.epochs,
                "num_seeds": protocol.num_seeds,
            },
            values={
                "correlations": alike,
                "architectures": rows,
                "recipe": asdict(recipe),
            },
            texts={
                "rows": [_cells(row) for row in sorted(rows, key=lambda row: -row["whole_mean"])],
                "correlations": [_correlation(name, alike) for name in _MEASURES],
                "num_architectures": len(rows),
                "chance": alike["chance"],
                "seconds": {side: duration(sum(row[f"{side}_seconds"] for row in rows)) for side in _SIDES},
            },
            rows=[{name: value for name, value in row.items() if not name.endswith("_values")} for row in rows],
            measured_here=True,
            pictures={"": draw_ranking(rows)},
        )


def check_architectures(names: Sequence[str]) -> list[str]:
    """Return the full names of architectures that can be ranked.

    Raises:
        ConfigError: If they are too few, or one is named twice.
    """
    architectures = [full_name(name) for name in names]
    distinct = len(set(architectures)) == len(architectures)
    require(distinct, "architectures", list(names), "a list without repetitions")
    expected = f"at least {_FEWEST}, such as '[resnet10_narrow,convnet3_bn,wrn16_2]'"
    require(len(architectures) >= _FEWEST, "architectures", list(names), expected)
    return architectures


def correlations(rows: Sequence[Row]) -> dict[str, Any]:
    """Return how alike the two rankings are; `None` for what is not defined, since one side is equally good in all.

    Args:
        rows: From `ArchitectureRanking.measure`.

    Returns:
        "spearman" and "kendall" of mean accuracies; "chance", the share of random orders whose Spearman is as large;
        "by_seed", of each seed's accuracies alone: "spearman" and "kendall" as lists.
    """
    means = [[row[f"{side}_mean"] for row in rows] for side in _SIDES]
    num_seeds = len(rows[0]["distilled_values"])
    by_seed = [[[row[f"{side}_values"][seed] for row in rows] for side in _SIDES] for seed in range(num_seeds)]
    return {
        "num_architectures": len(rows),
        **{name: _defined(measure, means) for name, measure in (_MEASURES | {"chance": chance_of}).items()},
        "by_seed": {name: [_defined(measure, lists) for lists in by_seed] for name, measure in _MEASURES.items()},
    }


def chance_of(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the share of random orders of one list that agree with the other at least as well, by Spearman's rho.

    Raises:
        ScoreError: As `fadrm_hf.evaluation.scores.spearman_correlation`.
    """
    rho = spearman_correlation(first, second)
    one, other = (column - column.mean() for column in (ranks(first), ranks(second)))
    orders = torch.rand((_ORDERS, len(one)), generator=generator(0, "orders")).argsort(dim=1)
    drawn = (one[orders] * other).sum(dim=1) / (one.norm() * other.norm())
    return (drawn >= rho - _ROUNDING).double().mean().item()


def _defined(measure: Measure, lists: Sequence[Sequence[float]]) -> float | None:
    try:
        return measure(*lists)
    except ScoreError:
        return None


def _columns(students: Sequence[StudentRow]) -> list[dict[str, Any]]:
    """Return one side of every row."""
    top1 = [student.result["top1"] for student in students]
    from_best = len(students) + 1 - ranks([summary["mean"] for summary in top1])
    return [
        {**summary, "rank": rank, "seconds": student.result["seconds"]}
        for student, summary, rank in zip(students, top1, from_best.tolist(), strict=True)
    ]


def _cells(row: Row) -> list[str]:
    sides = ("whole", "distilled")
    return [
        row["title"],
        f"{row['parameters'] / 1e6:.3g} M",
        *(mean_and_std(row[f"{side}_mean"], row[f"{side}_std"], len(row[f"{side}_values"])) for side in sides),
        *(f"{row[f'{side}_rank']:g}" for side in sides),
    ]


def _correlation(name: str, alike: dict[str, Any]) -> list[str]:
    """Return a correlation of mean accuracies, and over seeds where there are several; a dash if it is not defined."""
    values = [value for value in alike["by_seed"][name] if value is not None]
    of_means = "–" if alike[name] is None else f"{alike[name]:.3f}"
    summary = summarise(values) if len(values) > 1 else None
    return [_TITLES[name], of_means, f"{summary['mean']:.3f} ± {summary['std']:.3f}" if summary else "–"]
