"""Importing what earlier methods have released: `import`."""

from dataclasses import asdict
from pathlib import Path

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.options.making import ImportOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import TeacherConfig
from fadrm_hf.pipeline.legacy import ImportConfig, import_release
from fadrm_hf.runtime.run_folder import RunFolder


def import_command(call: Call) -> Summary:
    """Run `fadrm-hf import`."""
    options: ImportOptions = call.options
    import_release(
        ImportConfig(
            images=options.images,
            labels=options.labels,
            output=options.output,
            method=options.method.name,
            sampler_seed=options.sampler_seed,
            source=options.source,
            teachers=TeacherConfig(**asdict(options.teachers)) if options.teachers.names else None,
            relabel=options.relabel,
            student=options.student,
        )
    )
    paths: dict[str, Path | str] = {"artifact": options.output, "card": RunFolder(options.output).card}
    return Summary(paths, following=["verify", options.output])
