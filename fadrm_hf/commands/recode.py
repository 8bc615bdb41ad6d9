"""Smaller labels for a finished artifact: `recode`."""

from collections.abc import Sequence
from pathlib import Path

from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.hub import fetch_all, open_artifact
from fadrm_hf.hub.repository import label_folder
from fadrm_hf.pipeline.arguments import new_parser, parse
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RunFolder


def recode_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf recode ARTIFACT OUTPUT`."""
    parser = new_parser("fadrm-hf recode", "Make the same artifact with smaller soft labels.")
    parser.add_argument("artifact", type=str, help="Run folder, or ORG/NAME on the Hub.")
    parser.add_argument("output", type=str, help="Folder of the new artifact; new or empty.")
    parser.add_argument("--codec", type=str, default=None, help="float16, int8, int4, top<k> such as top10, or none.")
    parser.add_argument(
        "--stored_epochs", type=int, default=None, help="Epochs of labels to keep; all that there are if not given."
    )
    parsed = parse(parser, arguments)
    location = open_artifact(parsed.artifact)
    before, codec = location.manifest, parsed.codec or location.manifest.label_codec
    folder = fetch_all(location)
    after = recode(folder, Path(parsed.output), codec, parsed.stored_epochs, label_folder(location), Reporter())
    ratio = after.bytes.soft_labels / before.bytes.soft_labels
    say(f"soft labels: {after.bytes.soft_labels:,} bytes, {ratio:.3f} of the {before.bytes.soft_labels:,} before")
    say(f"{parsed.output}")
    sizes = {"soft_label_bytes": after.bytes.soft_labels, "soft_label_bytes_before": before.bytes.soft_labels}
    paths = {"artifact": parsed.output, "card": RunFolder(parsed.output).card}
    return Summary(paths, {"codec": codec} | sizes, ["train-student", parsed.output])
