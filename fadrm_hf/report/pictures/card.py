"""The pictures of a card, in `assets/` of an artifact."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.methods import METHODS
from fadrm_hf.report.class_names import shown_names
from fadrm_hf.report.pictures.accuracy import draw_accuracy
from fadrm_hf.report.pictures.images import CURVES, draw_grid, draw_information, draw_recovery
from fadrm_hf.runtime.files import parse_json, read_regular, write_bytes
from fadrm_hf.runtime.progress import QUIET, Reporter
from fadrm_hf.runtime.run_folder import LOG, PATCHES, RECOVERED, RunFolder
from fadrm_hf.runtime.tensor_files import load_tensors

_GRID_CLASSES = 10
_MAX_LOG_BYTES = 1 << 30  # a line for every iteration of every shard


def write_pictures(
    folder: Path,
    manifest: Manifest,
    bars: Sequence[tuple[str, float, float]],
    trajectory: Sequence[Mapping[str, float]] = (),
    work: Path | None = None,
    reporter: Reporter = QUIET,
) -> None:
    """Draw the pictures of an artifact into `assets/`, as far as there is data for them.

    Args:
        folder: The artifact.
        manifest: Its manifest, which need not be written yet.
        bars: (text, mean, standard deviation) of each accuracy, as fractions.
        trajectory: Information in the images along their optimisation (`draw_information`), if it has more points
            than start and end.
        work: The run's work folder; without it, the pictures of the recovery stay as they are.
        reporter: Told of damaged lines of the log.
    """
    run = RunFolder(folder)
    if work is not None:
        patches, recovered = (_first_images(work / stage) for stage in (PATCHES, RECOVERED))
        if patches and recovered:
            write_bytes(run.picture("grid"), draw_grid(shown_names(manifest), patches, recovered))
        records = _recovery_records(work / LOG, reporter)
        if records:
            write_bytes(run.picture("recovery"), draw_recovery(records, _residuals(manifest)))
    if bars:
        write_bytes(run.picture("accuracy"), draw_accuracy(bars))
    information = run.picture("information")
    if len(trajectory) > 2:
        write_bytes(information, draw_information(trajectory))
    else:
        information.unlink(missing_ok=True)  # of earlier scores


def _residuals(manifest: Manifest) -> list[int]:
    """Return the iterations after which real patches were mixed in; none for methods without residuals."""
    method = METHODS.get(manifest.method)
    budgets = getattr(manifest.settings("method", method), "budgets", None) if method else None
    return list(accumulate(budgets()[:-1])) if budgets else []


def _first_images(shards: Path) -> dict[int, Tensor]:
    """Return label -> the image of ipc index 0, of the first classes."""
    found: dict[int, Tensor] = {}
    for file in sorted(shards.glob("*.safetensors")):
        if len(found) >= _GRID_CLASSES:
            break
        columns = load_tensors(file)
        for row in torch.nonzero(columns["ipc_index"] == 0).flatten().tolist():
            found.setdefault(int(columns["label"][row]), columns["images"][row])
    return {label: found[label] for label in sorted(found)[:_GRID_CLASSES]}


def _recovery_records(log: Path, reporter: Reporter) -> list[dict[str, float]]:
    """Return the log's records of recovery, one of each iteration of each shard, however often it was begun.

    Lines that a power failure or a full disk has damaged are left out.
    """
    if not log.exists():
        return []
    try:
        content = read_regular(log, _MAX_LOG_BYTES)
    except ValueError as error:
        reporter.say(f"{log} is left out of the pictures: {error}; remove it if it is not the run's")
        return []
    records: dict[tuple[str, object], dict[str, Any]] = {}
    num_damaged = 0
    for number, line in enumerate(content.splitlines()):
        record = _record_of(line)
        num_damaged += record is None
        if record and record.get("stage") == "recover" and "iteration" in record and CURVES.keys() & record:
            unit = str(record.get("unit", f"line {number}"))  # of earlier versions
            records[unit, record["iteration"]] = record
    if num_damaged:
        reporter.say(f"{log}: {num_damaged} damaged lines are left out; the curves of recovery lack these points")
    return [records[place] for place in sorted(records)]  # whichever process came first


def _record_of(line: bytes) -> dict[str, Any] | None:
    """Return the record in a line of the log; `None` if it is damaged."""
    try:
        record = parse_json(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    numbers = (value for name, value in record.items() if name in CURVES or name == "iteration")
    return record if all(type(value) in (int, float) for value in numbers) else None
