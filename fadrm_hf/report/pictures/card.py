"""The pictures of a card, in `assets/` of an artifact."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fadrm_hf.report.pictures.accuracy import draw_accuracy
from fadrm_hf.report.pictures.images import CURVES, draw_grid, draw_information, draw_recovery
from fadrm_hf.runtime.files import write_bytes
from fadrm_hf.runtime.run_folder import LOG, PATCHES, RECOVERED, RunFolder
from fadrm_hf.runtime.tensor_files import load_tensors

_GRID_CLASSES = 10


def write_pictures(
    folder: Path,
    class_names: Sequence[str],
    bars: Sequence[tuple[str, float, float]],
    trajectory: Sequence[Mapping[str, float]] = (),
    work: Path | None = None,
) -> None:
    """Draw the pictures of an artifact into `assets/`, as far as there is data for them.

    Args:
        folder: The artifact.
        class_names: Names in label order.
        bars: (text, mean, standard deviation) of each accuracy, as fractions.
        trajectory: Information in the images along their optimisation (`draw_information`), if it has more points
            than start and end.
        work: The run's work folder; without it, the pictures of the recovery stay as they are.
    """
    run = RunFolder(folder)
    if work is not None:
        patches, recovered = (_first_images(work / stage) for stage in (PATCHES, RECOVERED))
        if patches and recovered:
            write_bytes(run.picture("grid"), draw_grid(class_names, patches, recovered))
        records = _recovery_records(work / LOG)
        if records:
            write_bytes(run.picture("recovery"), draw_recovery(records))
    if bars:
        write_bytes(run.picture("accuracy"), draw_accuracy(bars))
    information = run.picture("information")
    if len(trajectory) > 2:
        write_bytes(information, draw_information(trajectory))
    else:
        information.unlink(missing_ok=True)  # of earlier scores


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


def _recovery_records(log: Path) -> list[dict[str, float]]:
    if not log.exists():
        return []
    # After a power failure the last line may be incomplete.
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return [line for line in lines if line.get("stage") == "recover" and "iteration" in line and CURVES.keys() & line]
