"""One run with some of its settings changed: `ablate`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from fadrm_hf.commands.compare import protocol_from
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.measuring import only_process, table_summary
from fadrm_hf.commands.output import as_typed, say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import RunConfig, StudentConfig, read_settings
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.ablation import Sweep, SweepConfig, build_sweep, measure_sweep, prepare_sweep, with_settings
from fadrm_hf.evaluation.ablation_table import write_sweep
from fadrm_hf.evaluation.measured_tables import with_suffix
from fadrm_hf.pipeline.arguments import parse, parse_run, show_if_asked
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import require_place

_OWN = ("config", "runs", "output", "num_seeds", "protocol")
_DESCRIPTION = """Distil and measure one run with some of its settings changed, and write one table for each axis.

The file of the sweep names the run, the protocol and the axes; recipes/configs/ablations/ holds examples. Any other
option of fadrm-hf distill holds for all cells, as in the file under settings: --source.name path/to/cifar100. What is
finished is used again. The same command, started as often as you like, here or on other machines that see the folder
of the runs, shares the cells."""


def ablate_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf ablate --config SWEEP.yaml`; 0: every cell is measured, 1: some failed, which are named."""
    sweep = parse_sweep(arguments)
    require_place(sweep.output.parent)
    require_place(sweep.runs)
    only_process()
    command = as_typed("ablate", arguments)
    failed = measure_sweep(sweep, Reporter(), command, partial(write_sweep, sweep, command=command))
    say(f"{with_suffix(sweep.output, 'md')}")
    return table_summary(sweep.output, ExitCode.DIFFERS if failed else ExitCode.DONE)


def parse_sweep(arguments: Sequence[str]) -> Sweep:
    """The sweep that a command line asks for, with every cell checked.

    Args:
        arguments: E.g. `["--config", "sweep.yaml", "--source.name=path/to/cifar100", "--num_seeds=1"]`.

    Raises:
        FadrmError: For whatever cannot work, of all cells at once, before anything is made.
    """
    parser = _parser()
    show_if_asked(parser, arguments)
    options = _options(arguments)
    own = parse(parser, [f"--{name}={value}" for name, value in options.items() if name in _OWN]).as_dict()
    file = Path(own.pop("config"))
    config = build_sweep(read_settings(file) | {name: value for name, value in own.items() if value is not None})
    given = {name: _value(name, text) for name, text in options.items() if name not in _OWN}
    config = replace(config, settings={**config.settings, **given})
    base = with_settings(parse_run(["--config", config.base]), config.settings)
    runs, output = Path(config.runs or f"runs/{file.stem}"), Path(config.output or f"results/ablate-{file.stem}")
    return prepare_sweep(config, base, _protocol(config, base), runs, output)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="fadrm-hf ablate", description=_DESCRIPTION, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", type=str, required=True, help="YAML file of the sweep.")
    parser.add_argument("--protocol", type=str, default=None, help="YAML file, as for train-student.")
    parser.add_argument("--num_seeds", type=int, default=None, help="Students per cell; the protocol's if none.")
    parser.add_argument("--output", type=str, default=None, help="Table's name without suffix; results/ablate-SWEEP.")
    parser.add_argument("--runs", type=str, default=None, help="Where the run folders are; runs/SWEEP.")
    return parser


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """Options as typed, by name; the last of one name counts."""
    options: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name, given, value = word.removeprefix("--").partition("=")
        value = value if given else next(words, "")
        if not word.startswith("--") or not (given or value):
            raise ConfigError(f"{word!r} is not understood, expected --OPTION VALUE; fadrm-hf ablate --help")
        options[name] = value
    return options


def _value(name: str, text: str) -> Any:
    """What is typed, as YAML reads it."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--{name} {text!r} is not readable YAML; write a number, a word or '[A, B]'") from error


def _protocol(config: SweepConfig, base: RunConfig) -> StudentConfig:
    """That of the file with what the settings say of students; the base's own if there is no file."""
    if config.protocol is None:
        return base.student if config.num_seeds is None else replace(base.student, num_seeds=config.num_seeds)
    return protocol_from(config.protocol, list(_as_typed(config.settings).items()), config.num_seeds)


def _as_typed(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
