"""Methods side by side: `compare`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.measuring import only_process, table_summary
from fadrm_hf.commands.options.training import CompareOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import require
from fadrm_hf.config.layers import Layer, Settings, dotted
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.compare import MethodComparison
from fadrm_hf.evaluation.shared_runs import ComparedMethod, check_compared_method
from fadrm_hf.evaluation.study import Session, check_each, run_study
from fadrm_hf.methods import find_method
from fadrm_hf.methods.method import setting_names
from fadrm_hf.pipeline.arguments import OF_ONE_METHOD
from fadrm_hf.pipeline.settings import request_run
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import require_place

_SHARED = ("ipc", "seed", "source", *OF_ONE_METHOD)


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
    settings = Settings()
    settings.put(*call.layers_of(("student",)))
    protocol = call.student_protocol(options.protocol, settings.values)
    protocol = protocol if options.num_seeds is None else replace(protocol, num_seeds=options.num_seeds)
    _check_addressed(call, names)

    def check(name: str) -> ComparedMethod:
        run = request_run(name, _layers_of(call, name)).run
        return check_compared_method(replace(run, output=str(Path(options.runs) / Path(run.output).name)), protocol)

    methods = list(check_each({name: partial(check, name) for name in names}).values())
    return methods, Path(options.output or f"results/compare-{_folder_name(methods[0])}-{protocol.name}")


def _check_addressed(call: Call, methods: Sequence[str]) -> None:
    """Refuse settings that none of the methods has."""
    for layer in call.layers_of(("method",)):
        for name in layer.values:
            if not any(_has(method, name) for method in methods):
                raise ConfigError(
                    f"--{name} is a setting of none of {', '.join(methods)}; fadrm-hf distill --method NAME --help"
                )


def _layers_of(call: Call, method: str) -> list[Layer]:
    """Return the layers of one method's run: those of all methods, then its own."""
    shared = [
        Layer(layer.origin, {name: value for name, value in layer.values.items() if _has(method, name)})
        for layer in call.layers_of((*_SHARED, "method"))
    ]
    own = [
        Layer(layer.origin, dotted(layer.values[f"settings.{method}"]))
        for layer in call.layers
        if f"settings.{method}" in layer.values
    ]
    return [*shared, *own]


def _has(method: str, name: str) -> bool:
    """Return whether a setting is the method's; every other section is that of all methods."""
    section, _, key = name.partition(".")
    return section != "method" or key in setting_names(find_method(method))


def _folder_name(method: ComparedMethod) -> str:
    """Return source and images per class, as the run folders are named."""
    return method.name.removeprefix(f"{method.method.replace('_', '-')}-")
