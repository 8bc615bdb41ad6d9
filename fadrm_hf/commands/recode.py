"""Smaller labels for a finished artifact: `recode`."""

from pathlib import Path

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.options.making import RecodeOptions
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.hub import fetch_all, open_artifact
from fadrm_hf.hub.repository import label_folder
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RunFolder


def recode_command(call: Call) -> Summary:
    """Run `fadrm-hf recode ARTIFACT OUTPUT`."""
    options: RecodeOptions = call.options
    location = open_artifact(options.artifact)
    before, codec = location.manifest, options.codec or location.manifest.label_codec
    folder = fetch_all(location)
    after = recode(folder, Path(options.output), codec, options.stored_epochs, label_folder(location), Reporter())
    ratio = after.bytes.soft_labels / before.bytes.soft_labels
    say(f"soft labels: {after.bytes.soft_labels:,} bytes, {ratio:.3f} of the {before.bytes.soft_labels:,} before")
    say(f"{options.output}")
    sizes = {"soft_label_bytes": after.bytes.soft_labels, "soft_label_bytes_before": before.bytes.soft_labels}
    paths: dict[str, Path | str] = {"artifact": options.output, "card": RunFolder(options.output).card}
    return Summary(paths, {"codec": codec} | sizes, ["train-student", options.output])
