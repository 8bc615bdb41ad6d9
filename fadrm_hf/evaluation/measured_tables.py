"""Tables of measured numbers: the same rows as CSV, as cells of Markdown, and under one name with several suffixes."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fadrm_hf.report.card.results import Result
from fadrm_hf.runtime.files import write_bytes, write_json

SCORES = ("top1", "top5", "best_epoch_top1")


def accuracies(result: Result) -> dict[str, Any]:
    """The numbers of an evaluation by column: accuracies as fractions, seconds of one student."""
    scores = {f"{name}_{kind}": (result[name] or {}).get(kind) for name in SCORES for kind in ("mean", "std")}
    return {
        "labels": ", ".join([result["labels"], *([result["label_codec"]] if "label_codec" in result else [])]),
        "student": result["student"],
        "epochs": result["epochs"],
        "num_seeds": result["num_seeds"],
        **{name: None if score is None else round(score, 6) for name, score in scores.items()},
        "student_seconds": round(result["seconds"] / result["num_seeds"], 1),
    }


def as_csv(values: Sequence[dict[str, Any]]) -> str:
    """Rows by column as CSV, lists joined by semicolons; a row need not have every column."""
    columns = list(dict.fromkeys(name for row in values for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in values:
        writer.writerow({name: "; ".join(value) if isinstance(value, list) else value for name, value in row.items()})
    return text.getvalue()


def write_table(output: Path, document: Mapping[str, Any], rows: Sequence[dict[str, Any]], text: str) -> None:
    """Write a table as JSON, CSV and Markdown.

    Args:
        output: Its name without suffix.
        document: Every value.
        rows: Its lines by column.
        text: As it is read.
    """
    write_json(with_suffix(output, "json"), document)
    write_bytes(with_suffix(output, "csv"), as_csv(rows).encode())
    write_bytes(with_suffix(output, "md"), text.encode())


def mean_and_std(mean: float | None, std: float | None) -> str:
    """Fractions as `mean ± standard deviation` in percent."""
    return "–" if mean is None or std is None else f"{100 * mean:.1f} ± {100 * std:.1f}"


def with_suffix(output: Path, suffix: str) -> Path:
    """`output.suffix`, whatever dots the name has."""
    return output.with_name(f"{output.name}.{suffix}")
