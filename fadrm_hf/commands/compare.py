"""Methods side by side: `compare`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.measuring import only_process, table_summary
from fadrm_hf.commands.options.training import CompareOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import require
from fadrm_hf.data.sources import load_source
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.compare import MethodComparison
from fadrm_hf.evaluation.shared_runs import ComparedMethod, check_compared_method
from fadrm_hf.evaluation.study import Session, check_each, run_study
from fadrm_hf.pipeline.settings import has_setting
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import require_place


def compare_command(call: Call) -> Summary:
    """Run `fadrm-hf compare`; 0: every method is measured, 1: some failed, which are named."""
    methods, output = comparison_of(call)
    require_place(output.parent)
    rows = run_study(MethodComparison(methods), Session(output, call.typed, Reporter(), only_process()))
    failed = any(row.failure is not None for row in rows.values())
    return table_summary(output, ExitCode.DIFFERS if failed else ExitCode.DONE)


def parse_comparison(arguments: Sequence[str]) -> tuple[list[ComparedMethod], Path]:
    """Return the methods that a command line names, checked, and the table's name without suffix.

    Args:
        arguments: E.g. `["--methods", "[random_real,fadrm]", "--ipc=1", "--settings.fadrm.method.alpha=0.4"]`.

    Raises:
        FadrmError: For whatever cannot work, of all methods at once, before anything is made.
    """
    return comparison_of(Call("compare", tuple(arguments)))


def comparison_of(call: Call) -> tuple[list[ComparedMethod], Path]:
    """Return the methods that a command names, checked, and the table's name without suffix; see above."""
    options: CompareOptions = call.options
    names = options.methods
    require(bool(names), "methods", list(names), "a list of methods, such as '[random_real,fadrm]'")
    require(len(set(names)) == len(names), "methods", list(names), "a list without repetitions")
    protocol = call.student_protocol(options.protocol, call.layers_of(("student",)))
    protocol = protocol if options.num_seeds is None else replace(protocol, num_seeds=options.num_seeds)
    _check_addressed(call, names)
    load = cache(load_source)  # once for all methods

    def check(name: str) -> ComparedMethod:
        run = call.request_of(name).run
        run = replace(run, output=str(Path(options.runs) / Path(run.output).name))
        return check_compared_method(run, protocol, load)

    methods = list(check_each({name: partial(check, name) for name in names}).values())
    return methods, Path(options.output or f"results/compare-{_folder_name(methods[0])}-{protocol.name}")


def _check_addressed(call: Call, methods: Sequence[str]) -> None:
    """Refuse settings that none of the methods has."""
    for layer in call.layers_of(("method",)):
        for name in layer.values:
            if not any(has_setting(method, name) for method in methods):
                raise ConfigError(
                    f"--{name} is a setting of none of {', '.join(methods)}; fadrm-hf distill --method NAME --help"
                )


def _folder_name(method: ComparedMethod) -> str:
    """Return source and images per class, as the run folders are named."""
    return method.name.removeprefix(f"{method.method.replace('_', '-')}-")
