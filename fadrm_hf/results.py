"""Evaluations kept with the artifact: one file each in `results/`, from which the card's numbers come."""

from pathlib import Path

from fadrm_hf.artifact.manifest import read_manifest, refresh_files
from fadrm_hf.card import Result, write_card
from fadrm_hf.files import write_json


def record_result(folder: Path, result: Result) -> Path:
    """File an evaluation with the artifact, and bring its card and manifest up to date.

    Args:
        folder: The artifact.
        result: What `train_students` returned, with the command that made it.

    Returns:
        The result's file. An evaluation of the same kind that was there before is replaced.
    """
    path = folder / "results" / f"{result_name(result)}.json"
    write_json(path, result)
    write_card(folder, read_manifest(folder))
    refresh_files(folder)
    return path


def result_name(result: Result) -> str:
    """What tells two evaluations of an artifact apart: images, labels, protocol, student."""
    parts = (result["images"], result["labels"], result["protocol"], result["student"].replace("/", "_"))
    return "-".join(parts)


def describe_result(result: Result) -> str:
    """One line: accuracies of the last epoch, and the best epoch called what it is."""
    top1, top5, best = (result[name] for name in ("top1", "top5", "best_epoch_top1"))
    chosen = f"; best epoch, chosen on the test images: {best['mean']:.1%}" if best else ""
    seeds = f"{result['num_seeds']} seed{'s' if result['num_seeds'] > 1 else ''}"
    return (
        f"{result['student']}, {result['labels']} labels, {result['epochs']} epochs: "
        f"top-1 {top1['mean']:.1%} ± {top1['std']:.1%}, top-5 {top5['mean']:.1%} ± {top5['std']:.1%} "
        f"(last epoch, {seeds}){chosen}"
    )
