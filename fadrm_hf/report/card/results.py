"""The results of a card: a table of every evaluation in `results/`, which can be updated by itself."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.config import StudentConfig
from fadrm_hf.errors import ArtifactError
from fadrm_hf.report.card.scores import SCORES_NAME
from fadrm_hf.report.card.text import NOT_MEASURED, render
from fadrm_hf.runtime.files import parse_json
from fadrm_hf.runtime.run_folder import ANALYSIS, RESULTS, RunFolder, read_inner

Result = dict[str, Any]
ANALYSIS_NAME = ANALYSIS.removeprefix(RESULTS)
NO_EVALUATIONS = (SCORES_NAME, ANALYSIS_NAME)  # the other files of `results/`

# What every card compares, in the order of its table; by images and labels.
ROWS: dict[tuple[str, str], str] = {
    ("distilled", "soft"): "distilled images + soft labels",
    ("distilled", "hard"): "distilled images + hard labels",
    ("random_real", "soft"): "random real images + the same soft labels",
    ("random_real", "hard"): "random real images + hard labels",
    ("whole", "hard"): "whole dataset + hard labels",
}
_SECTIONS = ("settings", "machine", "versions", "artifact")
_STUDENT = re.compile(r"\w[\w./-]*")
_BEGIN, _END, _FOLD = "<!-- results -->", "<!-- /results -->", "<details>"


def result_files(folder: Path) -> list[Path]:
    """Return the files of an artifact's evaluations, sorted by name: `results/` without scores and analysis."""
    return RunFolder(folder).results()


def read_results(folder: Path) -> list[Result]:
    """Read all evaluations of an artifact, sorted by file name.

    Raises:
        ArtifactError: If a file in `results/` is not an evaluation.
    """
    results = []
    for path in result_files(folder):
        try:
            result = parse_json(read_inner(folder, f"{RESULTS}{path.name}"))
            _row(result), _details(result), accuracy_bars([result])
            _require_sections(result, _SECTIONS)
            _require_sections(result.get("settings") or {}, ("relabel",))
        except ArtifactError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{RESULTS}{path.name} is not an evaluation ({error!r}); remove it, or run fadrm-hf train-student "
                "again"
            ) from error
        results.append(result)
    return results


def _require_sections(record: Result, names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(record.get(name) or {}, dict):
            raise TypeError(f"{name} is {record[name]!r:.80}")


def render_results(results: Sequence[Result]) -> str:
    """Render the tables of a card, between the two marks by which `replace_results` finds them again.

    The Hub shows about six columns beside each other; so what only a second look is for is in a folded table.
    """
    ordered = in_order(results)
    rows = [_row(result) for result in ordered]
    missing = ROWS.keys() - {_kind(result) for result in results}
    rows += [[ROWS[kind], "", "", NOT_MEASURED, "", ""] for kind in ROWS if kind in missing]
    return f"{_BEGIN}\n{render('results.md', rows=rows, details=[_details(result) for result in ordered])}{_END}"


def tabled_results(card_text: str) -> list[dict[str, str]]:
    """Return the measured rows of a card's tables of results, by column; none if there is no such table."""
    _, begin, rest = card_text.partition(_BEGIN)
    tables, end, _ = rest.partition(_END)
    if not begin or not end:
        return []
    shown, _, folded = tables.partition(_FOLD)  # early cards have one table of all columns
    rows = [row for row in _rows_of(shown) if row.get("top-1") != NOT_MEASURED]
    details = _rows_of(folded)[: len(rows)]
    details += [{}] * (len(rows) - len(details))
    return [row | more for row, more in zip(rows, details, strict=True)]


def _rows_of(table: str) -> list[dict[str, str]]:
    """Return the rows of a table in Markdown, by column."""
    lines = [line.strip().strip("|").split(" | ") for line in table.splitlines() if line.startswith("|")]
    cells = [[" ".join(cell.split()) for cell in line] for line in lines if "---" not in line[0]]
    return [dict(zip(cells[0], row, strict=False)) for row in cells[1:]]


def replace_results(card_text: str, results: Sequence[Result]) -> str:
    """Return a card with its table of results replaced and nothing else changed.

    So an evaluation can be contributed with a dataset's README.md and `results/` alone.

    Args:
        card_text: README.md of an artifact.
        results: All evaluations that the table should list.

    Raises:
        ArtifactError: If the card has no table of results, or more than one.
    """
    before, begin, rest = card_text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end or _BEGIN in rest:
        raise ArtifactError(
            f"README.md does not have exactly one table of results between {_BEGIN} and {_END}; fetch the card again,"
            " or rewrite it with fadrm-hf train-student on a local copy of the artifact"
        )
    return before + render_results(results) + after


def accuracy_bars(results: Sequence[Result]) -> list[tuple[str, float, float]]:
    """Return (text, mean, standard deviation) of the authors' top-1 accuracies, in the table's order.

    Texts name students and protocols if there are several.
    """
    own = [result for result in in_order(results) if not result.get("contributed")]
    several = [key for key in ("student", "protocol") if len({result[key] for result in own}) > 1]
    return [
        (
            kind_title(result) + (f" ({', '.join(str(result[key]) for key in several)})" if several else ""),
            float(result["top1"]["mean"]),
            float(result["top1"]["std"]),
        )
        for result in own
    ]


def in_order(results: Sequence[Result]) -> list[Result]:
    """Sort results in the order of `ROWS`, unknown kinds last; within a kind, the authors' come first."""
    ranks = {kind: rank for rank, kind in enumerate(ROWS)}
    return sorted(results, key=lambda result: (ranks.get(_kind(result), len(ranks)), bool(result.get("contributed"))))


def _row(result: Result) -> list[str]:
    """Return the cells of the table that every reader sees."""
    accuracies = [_accuracy(result.get(key), result["num_seeds"]) for key in ("top1", "top5")]
    by = "others" if result.get("contributed") else "authors"
    return [kind_title(result), result["student"], result["protocol"], *accuracies, by]


def _details(result: Result) -> list[str]:
    """Return the cells of the folded table."""
    numbers = [str(result["epochs"]), str(result["num_seeds"])]
    best = _accuracy(result.get("best_epoch_top1"), result["num_seeds"])
    return [kind_title(result), *numbers, best, result.get("label_codec") or "–", _measured_on(result)]


def _measured_on(result: Result) -> str:
    if not result.get("contributed"):
        return "–"
    artifact = result.get("artifact") or {}
    at = f"@{artifact['revision'][:12]}" if artifact.get("revision") else ""
    return f"{artifact.get('repository', 'a copy')}{at}"


def _kind(result: Result) -> tuple[str, str]:
    return result["images"], result["labels"]


def measured_student(results: Sequence[Result], manifest: Manifest) -> str:
    """Return the student of the first of the authors' results on these images; without any, the artifact's own.

    It is printed in commands, so what is no name of an architecture is passed over.
    """
    images = "random_real" if manifest.method == "random_real" else "distilled"
    own = [result for result in in_order(results) if result["images"] == images and not result.get("contributed")]
    section = manifest.config.get("student")
    recipe = section.get("student", "") if isinstance(section, dict) else ""
    named = (str(name) for name in (*(result["student"] for result in own), recipe))
    return next((name for name in named if _STUDENT.fullmatch(name)), StudentConfig().student)


def kind_title(result: Result) -> str:
    """Return the name of a result's images and labels."""
    return ROWS.get(_kind(result), f"{result['images']} images + {result['labels']} labels")


def _accuracy(summary: dict[str, float] | None, num_seeds: int) -> str:
    if not summary:
        return NOT_MEASURED
    spread = f" ± {100 * summary['std']:.1f}" if num_seeds > 1 else ""
    return f"{100 * summary['mean']:.1f}{spread}"
