"""One run with some of its settings changed: `ablate`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fadrm_hf.commands.call import OF_RUN, Call
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.measuring import only_process, table_summary
from fadrm_hf.commands.options.training import AblateOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import RunConfig, StudentConfig, read_settings
from fadrm_hf.config.layers import Layer, Settings
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.ablation import Ablation
from fadrm_hf.evaluation.study import Session, run_study
from fadrm_hf.evaluation.sweep import Sweep, SweepConfig, build_sweep, prepare_sweep, with_settings
from fadrm_hf.pipeline.arguments import named_as_today, parse_run
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import require_place


def ablate_command(call: Call) -> Summary:
    """Run `fadrm-hf ablate --config SWEEP.yaml`; 0: every cell is measured, 1: some failed, which are named."""
    sweep = sweep_of(call)
    require_place(sweep.output.parent)
    require_place(sweep.runs)
    rows = run_study(Ablation(sweep), Session(sweep.output, call.typed, Reporter(), only_process()))
    failed = any(row.failure is not None for row in rows.values())
    return table_summary(sweep.output, ExitCode.DIFFERS if failed else ExitCode.DONE)


def parse_sweep(arguments: Sequence[str]) -> Sweep:
    """Return the sweep that a command line names, with every cell checked.

    Args:
        arguments: E.g. `["--config", "sweep.yaml", "--source.name=path/to/cifar100", "--num_seeds=1"]`.

    Raises:
        FadrmError: For whatever cannot work, of all cells at once, before anything is made.
    """
    return sweep_of(Call("ablate", tuple(arguments)))


def sweep_of(call: Call) -> Sweep:
    """Return the sweep that a command names; see above."""
    options: AblateOptions = call.options
    if options.config is None:
        raise ConfigError("config is not given, expected the file of a sweep; fadrm-hf ablate --help")
    file = Path(options.config)
    asked = {name: getattr(options, name) for name in ("protocol", "num_seeds", "output", "runs")}
    document = named_as_today(read_settings(file), f"--config {file}: ")
    config = build_sweep(document | {name: value for name, value in asked.items() if value is not None})
    settings = Settings()
    settings.put(*call.layers_of([name for name in OF_RUN if name != "output"]))
    config = replace(config, settings={**config.settings, **settings.values})
    base = with_settings(parse_run(["--config", config.base]), config.settings)
    runs, output = Path(config.runs or f"runs/{file.stem}"), Path(config.output or f"results/ablate-{file.stem}")
    return prepare_sweep(config, base, _protocol(call, config, base), runs, output)


def _protocol(call: Call, config: SweepConfig, base: RunConfig) -> StudentConfig:
    """Return the sweep's protocol with what its settings change of it; the base's own if it names none."""
    protocol = base.student
    if config.protocol is not None:
        changed = {k: v for k, v in config.settings.items() if k.startswith("student.")}
        protocol = call.student_protocol(config.protocol, [Layer("the sweep", changed)])
    return protocol if config.num_seeds is None else replace(protocol, num_seeds=config.num_seeds)
