"""Checking an artifact: `verify`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fadrm_hf.arguments import new_parser, parse
from fadrm_hf.artifact.manifest import MANIFEST_NAME, read_manifest
from fadrm_hf.artifact.recorded_teachers import recorded_labeller
from fadrm_hf.commands.output import say
from fadrm_hf.config import require
from fadrm_hf.errors import FadrmError
from fadrm_hf.shards import join_world
from fadrm_hf.verify import Problem, verify_artifact
from fadrm_hf.views import LabelViews


def verify_command(arguments: Sequence[str]) -> int:
    """`fadrm-hf verify FOLDER`."""
    parser = new_parser("fadrm-hf verify", "Recompute every hash and relabel sampled views with the teachers.")
    parser.add_argument("artifact", type=str, help="Run folder.")
    parser.add_argument("--num_steps", type=int, default=4, help="Labelled batches to replay.")
    parsed = parse(parser, arguments)
    require(parsed.num_steps >= 0, "num_steps", parsed.num_steps, "0 or more")
    problems = check(Path(parsed.artifact), parsed.num_steps)
    for problem in problems:
        say(str(problem))
    say(f"{parsed.artifact}: {len(problems)} problems" if problems else f"{parsed.artifact}: sound")
    return 1 if problems else 0


def check(folder: Path, num_steps: int) -> list[Problem]:
    """All checks; without its teachers, all but the replay of soft labels, which then counts as a problem."""
    manifest = read_manifest(folder)  # without a readable one there is nothing to check anything against
    try:
        labeller = recorded_labeller(folder, manifest, join_world().device) if num_steps else None
    except FadrmError as error:
        return [
            *verify_artifact(folder, 0),
            Problem(MANIFEST_NAME, "teachers", f"labels cannot be made again: {error}"),
        ]
    if labeller is None:
        return verify_artifact(folder, 0)

    def relabel(images: Tensor, rows: dict[str, np.ndarray]) -> Tensor:
        views = LabelViews.from_columns({name: torch.from_numpy(column) for name, column in rows.items()})
        return labeller.label(images, views)

    return verify_artifact(folder, num_steps, relabel)
