"""An artifact for other programs: `export`."""

from pathlib import Path

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.options.sharing import ExportOptions
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.hub import open_artifact
from fadrm_hf.pipeline.export import export
from fadrm_hf.runtime.progress import Reporter


def export_command(call: Call) -> Summary:
    """Run `fadrm-hf export ARTIFACT OUTPUT`."""
    options: ExportOptions = call.options
    location = open_artifact(options.artifact, options.revision)
    lines = export(location, options.output, options.form, Reporter())
    for line in [*lines, f"{options.output}"]:
        say(line)
    return Summary({"folder": Path(options.output)}, {"form": options.form, "notes": lines})
