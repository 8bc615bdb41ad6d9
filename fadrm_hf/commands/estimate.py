"""What a run will cost: `estimate`."""

from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from fadrm_hf.commands.making import with_recipe_from_hub
from fadrm_hf.commands.measuring import only_process
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import require
from fadrm_hf.errors import ConfigError
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.pipeline.distill import check_run
from fadrm_hf.pipeline.estimate import Estimate, StageEstimate, estimate
from fadrm_hf.runtime import terminal
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.terminal import duration

_DESCRIPTION = """Say what a run will cost before it is started, after timing a few steps of every stage: seconds,
memory and disk, and the largest recover.batch_size that fits. Takes the arguments of fadrm-hf distill, and these:"""


def estimate_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf estimate`."""
    asked, rest = _own_options(arguments)
    run, source = check_run(parse_run(with_recipe_from_hub(rest), "fadrm-hf estimate"))
    found = estimate(run, source, only_process().device, asked.processes, asked.budget, not asked.no_students)
    terminal.results.print(_table(found, Path(run.output).name))
    for line in _remarks(found):
        say(line)
    figures = found.as_plain() | {"machine": describe_machine(), "versions": library_versions()}
    return Summary(result=figures, following=["distill", *rest])


def _own_options(arguments: Sequence[str]) -> tuple[Namespace, list[str]]:
    """What distill does not know, and the rest of the command line."""
    program = "fadrm-hf estimate"
    parser = ArgumentParser(program, None, _DESCRIPTION, allow_abbrev=False, add_help=False, exit_on_error=False)
    parser.add_argument("--processes", type=int, default=1, help="How many processes the run will be launched with.")
    parser.add_argument("--budget", type=float, default=2.0, help="Seconds to time each stage for, more or less.")
    parser.add_argument("--no_students", action="store_true", help="Leave out the students of the protocol.")
    if {"-h", "--help"} & set(arguments):
        say(parser.format_help())  # those of distill follow
    try:
        asked, rest = parser.parse_known_args(list(arguments))
    except ArgumentError as error:
        raise ConfigError(f"{error}; fadrm-hf estimate --help lists every setting") from error
    require(asked.processes >= 1, "processes", asked.processes, "at least 1")
    require(asked.budget > 0, "budget", asked.budget, "positive")
    return asked, rest


def _table(found: Estimate, name: str) -> Table:
    table = Table(title=f"{name}: estimate for {found.num_processes} process{'es' * (found.num_processes > 1)}")
    table.add_column("stage")
    for column in ("time", "memory", "disk"):
        table.add_column(column, justify="right")
    table.add_column("timed")
    for stage, part in found.stages.items():
        table.add_row(stage, *_cells(part))
    table.add_section()
    table.add_row("in all", *_cells(found.total))
    return table


def _cells(part: StageEstimate) -> tuple[str, str, str, str]:
    return duration(part.seconds), _size(part.memory_bytes), _size(part.disk_bytes), part.timed


def _remarks(found: Estimate) -> list[str]:
    """What the table does not say."""
    lines = [f"memory of stages is that of tensors; each process holds {_size(found.resident_bytes)} besides"]
    if found.largest_batch is not None and found.largest_batch_alone is not None:
        fits = "fits" if found.batch <= found.largest_batch else "does not fit"
        line = f"{found.batch} images are recovered together, which {fits} into {_size(found.free_bytes)}"
        lines.append(f"{line}; largest recover.batch_size: {found.largest_batch:,}")
        if found.num_processes > 1:
            lines[-1] += f", of a single process {found.largest_batch_alone:,}"
    if found.untrained:
        lines.append(f"untrained networks stood in for {', '.join(found.untrained)}")
    return lines


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
