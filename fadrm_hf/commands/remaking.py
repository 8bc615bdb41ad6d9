"""Another artifact of one that is finished: `recode` for smaller labels, `edit` for other images or classes."""

from dataclasses import asdict
from pathlib import Path

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.options.making import EditOptions, RecodeOptions
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.hub import fetch_all, open_artifact
from fadrm_hf.hub.repository import label_folder
from fadrm_hf.pipeline.edit import Changes, Edited, edit
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
    return Summary(_paths(options.output), {"codec": codec} | sizes, ["train-student", options.output])


def edit_command(call: Call) -> Summary:
    """Run `fadrm-hf edit ARTIFACT OUTPUT`."""
    options: EditOptions = call.options
    names = dict(pair.split("=", 1) for pair in options.rename_classes)
    changes = Changes(options.drop_images, options.drop_classes, names, options.even)
    edited = edit(options.artifact, options.output, changes, options.merge, Reporter())
    for line in [*_lines(edited), f"{options.output}"]:
        say(line)
    result = {"num_images": edited.manifest.num_images, "num_dropped": edited.num_dropped}
    result |= {"num_classes": len(edited.manifest.class_map), "ipc": edited.manifest.ipc}
    return Summary(
        _paths(options.output), result | {"views": asdict(edited.labels)}, ["train-student", options.output]
    )


def _lines(edited: Edited) -> list[str]:
    """Return what an edit did, in words."""
    manifest, count = edited.manifest, edited.labels
    kept = f"{manifest.num_images:,} images of {len(manifest.class_map)} classes, {manifest.ipc} of each"
    lines = [f"{kept}; {edited.num_dropped:,} images went" if edited.num_dropped else kept]
    if count.dropped:
        lines.append(f"labels: {count.dropped:,} views of images that went are left out, {count.views:,} are kept")
    if count.unmixed:
        lines.append(
            f"mixes: {count.unmixed:,} views that are kept had an image mixed in that went; they show none now"
        )
    if count.labelled:
        lines.append(
            f"labelled again by the artifact's teachers: {count.labelled:,} views, whose mix or batch is another"
        )
    if count.views:
        lines.append("results and scores are those of other images and not carried over; fadrm-hf train-student")
    return lines


def _paths(output: str) -> dict[str, Path | str]:
    return {"artifact": output, "card": RunFolder(output).card}
