"""The cost of a run: `estimate`."""

from pathlib import Path

from rich.table import Table

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.measuring import only_process
from fadrm_hf.commands.options.making import EstimateOptions
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.pipeline.distill import check_run, say_source
from fadrm_hf.pipeline.estimate import Estimate, StageEstimate, estimate
from fadrm_hf.runtime import terminal
from fadrm_hf.runtime.machine import describe_machine, library_versions, waiting_threads
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.terminal import duration

_BUSY = 0.2  # share of the cores from which times are no longer those of a quiet machine


def estimate_command(call: Call) -> Summary:
    """Run `fadrm-hf estimate`."""
    options: EstimateOptions = call.options
    run, source = check_run(call.request.run)
    say_source(source, Reporter())
    device, students = only_process().device, not options.no_students
    found = estimate(run, source, device, options.processes, options.budget, students)
    terminal.results.print(_table(found, Path(run.output).name))
    for line in _remarks(found):
        say(line)
    figures = found.as_plain() | {"machine": describe_machine(), "versions": library_versions()}
    return Summary(result=figures, following=["distill", *call.words_of_run])


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
    """Return remarks on what the table leaves out."""
    lines = [f"memory of stages is that of tensors; each process holds {_size(found.resident_bytes)} besides"]
    if found.largest_batch is not None and found.largest_batch_alone is not None:
        fits = "fits" if found.batch <= found.largest_batch else "does not fit"
        line = f"{found.batch} images are recovered together, which {fits} into {_size(found.free_bytes)}"
        lines.append(f"{line}; largest recover.batch_size: {found.largest_batch:,}")
        if found.num_processes > 1:
            lines[-1] += f", of a single process {found.largest_batch_alone:,}"
    if found.untrained:
        lines.append(f"timed with untrained networks in place of {', '.join(found.untrained)}")
    if found.busy >= _BUSY:
        lines.append(
            f"other work was using {found.busy:.0%} of this machine's cores meanwhile; on a quiet machine the run "
            "takes less time than this"
        )
        if waiting := waiting_threads(found.busy):
            lines.append(waiting)
    return lines


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
