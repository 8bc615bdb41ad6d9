"""Making an artifact: `distill`, and `train-teacher` for a teacher of one's own."""

from collections.abc import Sequence
from pathlib import Path

from fadrm_hf.arguments import new_parser, parse, parse_run
from fadrm_hf.config import SourceConfig, SqueezeConfig
from fadrm_hf.distill import distill
from fadrm_hf.presets import resolve_source, resolve_squeeze
from fadrm_hf.progress import Reporter
from fadrm_hf.shards import WorkFolder, join_world
from fadrm_hf.sources import load_source
from fadrm_hf.teachers.squeeze import squeeze


def distill_command(arguments: Sequence[str]) -> int:
    """`fadrm-hf distill`."""
    distill(parse_run(arguments))
    return 0


def train_teacher_command(arguments: Sequence[str]) -> int:
    """`fadrm-hf train-teacher`."""
    parser = new_parser("fadrm-hf train-teacher", "Train a teacher on a source and save it as a timm model directory.")
    parser.add_argument(
        "--architecture", type=str, default="resnet18", help="timm's name; <= 64 px: small-image stem."
    )
    parser.add_argument(
        "--output", type=str, default=None, help="Folder; runs/teachers/ARCHITECTURE-SOURCE if not given."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of weights, order and augmentation.")
    parser.add_class_arguments(SourceConfig, "source")
    parser.add_class_arguments(SqueezeConfig, "squeeze")
    parsed = parse(parser, arguments)
    source_config = resolve_source(SourceConfig(**parsed.source.as_dict()))
    recipe = resolve_squeeze(SqueezeConfig(**parsed.squeeze.as_dict()), source_config)
    name = f"{parsed.architecture}-{Path(source_config.name).name}"
    folder = Path(parsed.output or f"runs/teachers/{name}")
    source = load_source(source_config)
    reporter = Reporter(WorkFolder(folder).log)
    squeeze(source, parsed.architecture, recipe, folder, parsed.seed, reporter, join_world().device)
    reporter.say(f"{folder} is finished; use it as --teachers.names timm/local-dir:{folder}")
    return 0
