"""A look at a source before anything is trained on it: `inspect`."""

import json
from dataclasses import fields, replace

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.options.checking import InspectOptions
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources import inspect_source


def inspect_command(call: Call) -> Summary:
    """Run `fadrm-hf inspect SOURCE`."""
    options: InspectOptions = call.options
    config = replace(options.source, name=options.place)
    report = inspect_source(config)
    for heading, text in report.lines():
        say(f"{heading:<9}  {text}")
    return Summary(result=report.as_plain(), following=["distill", *source_options(config), *report.suggested_options])


def source_options(config: SourceConfig) -> list[str]:
    """Return the words of a command line that name a source with all its settings."""
    default = SourceConfig()
    given = {item.name: getattr(config, item.name) for item in fields(config)}
    return [
        f"--source.{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in given.items()
        if name == "name" or value != getattr(default, name)
    ]
