"""Facts about an artifact from its manifest and card alone: `info`. No image and no label is downloaded."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from huggingface_hub import HfApi

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.options.checking import InfoOptions
from fadrm_hf.commands.output import list_rows, say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config.file import read_head
from fadrm_hf.errors import ArtifactError
from fadrm_hf.hub import open_artifact
from fadrm_hf.hub.repository import RepoName, pinned_repository
from fadrm_hf.hub.session import talking_to_hub
from fadrm_hf.report.card.metadata import method_name, public_source
from fadrm_hf.report.card.results import tabled_results
from fadrm_hf.report.card.text import percent, size
from fadrm_hf.report.card.writing import read_card
from fadrm_hf.runtime.run_folder import CARD
from fadrm_hf.runtime.terminal import duration


def info_command(call: Call) -> Summary:
    """Run `fadrm-hf info ARTIFACT`."""
    options: InfoOptions = call.options
    location = open_artifact(options.artifact, options.revision, reads_tables=False)
    repository = pinned_repository(location)
    location.local(CARD)
    card = read_card(location.folder)
    found = described(location.manifest) | {
        "revision": repository.revision if repository else None,
        "versions": _versions(repository) if repository else [],
        "tags": _tags(card),
        "results": tabled_results(card),
        "load": _how_to_load(str(location.folder) if repository is None else repository.id, options.revision),
    }
    _show(found)
    return Summary(result=found)


def _tags(card: str) -> list[str]:
    """Return the tags in a card's header.

    Raises:
        ArtifactError: If the header is more than plain data, which it need not be expanded to know.
    """
    try:
        tags = read_head(card).get("tags")
    except yaml.YAMLError as error:
        raise ArtifactError(
            f"the header of {CARD} is not readable ({' '.join(str(error).split())}); fetch the artifact again"
        ) from error
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def described(manifest: Manifest) -> dict[str, Any]:
    """Describe an artifact by its manifest, in short, as plain data."""
    source = manifest.source
    return {
        "method": manifest.method,
        "title": method_name(manifest),
        "source": public_source(source.name),
        "source_revision": source.revision,
        "licence": source.licence,
        "licence_link": source.licence_link,
        "gated": source.gated,
        "ipc": manifest.ipc,
        "num_classes": len(manifest.classes.ids),
        "num_images": manifest.num_images,
        "px": manifest.pixels.size,
        "image_bytes": manifest.bytes.images,
        "soft_label_bytes": manifest.bytes.soft_labels,
        "label_codec": manifest.label_codec,
        "label_epochs": manifest.label_epochs,
        "label_repository": manifest.label_repository,
        "teachers": [{"name": each.name, "accuracy": each.accuracy} for each in manifest.teachers],
        "stage_seconds": {name: stage.seconds for name, stage in manifest.stages.items()},
        "machine": manifest.machine,
        "edit": manifest.config.get("edit"),
        "format_version": manifest.format_version,
    }


def _versions(repository: RepoName) -> list[str]:
    """Return the tags of the repository: its versions."""
    with talking_to_hub(f"reading the versions of {repository.id}"):
        refs = HfApi().list_repo_refs(repository.id, repo_type="dataset")
    return sorted(tag.name for tag in refs.tags)


def _how_to_load(name: str, revision: str | None) -> list[str]:
    """Return two lines of Python that load the artifact."""
    given = json.dumps(name) + (f", revision={json.dumps(revision)}" if revision else "")
    return [
        f'datasets.load_dataset({given}, split="train")  # images and classes',
        f"fadrm_hf.load_distilled({given}).batches(range(1))  # views with soft labels",
    ]


def _show(found: Mapping[str, Any]) -> None:
    lines = list(_lines(found))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        say(f"{name:<{width}}  {' '.join(text.split())}")
    if found["results"]:
        say("")
        list_rows(found["results"])


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    terms = f" ({found['licence_link']})" if found["licence_link"] else ""
    codec = f"{found['label_codec']}, {found['label_epochs']:,} epochs, {size(found['soft_label_bytes'])}"
    where = f", in {found['label_repository']}" if found["label_repository"] else ""
    yield "method", f"{found['title']} ({found['method']})"
    yield "source", found["source"] + (f" at {found['source_revision']}" if found["source_revision"] else "")
    yield "licence", f"{found['licence'] or 'unknown'}{terms}{', consent asked for' if found['gated'] else ''}"
    yield (
        "images",
        (
            f"{found['num_images']:,}: {found['ipc']:,} for each of {found['num_classes']:,} classes, "
            f"{found['px']} px, {size(found['image_bytes'])}"
        ),
    )
    yield "labels", f"{codec}{where}"
    for teacher in found["teachers"]:
        yield "teacher", f"{teacher['name']}, {percent(teacher['accuracy'])}"
    costs = ", ".join(f"{name} {duration(seconds)}" for name, seconds in found["stage_seconds"].items())
    yield "cost", f"{duration(sum(found['stage_seconds'].values()))}: {costs}"
    if found["edit"]:
        yield "edited", f"from {', '.join(_origins(found['edit'])) or 'an artifact that is not named'}"
    if found["revision"]:
        yield "revision", f"{found['revision']}; versions {', '.join(found['versions']) or 'none'}"
    yield "tags", ", ".join(found["tags"])
    for line in found["load"]:
        yield "load", line


def _origins(record: Mapping[str, Any]) -> list[str]:
    """Return the names of the artifacts that an edited one was made from; what is no name is left out."""
    origins = record.get("made_from")
    entries = origins if isinstance(origins, list) else []
    return [str(each["name"]) for each in entries if isinstance(each, dict) and "name" in each]
