"""The page that shows an artifact, or several side by side: `gallery`."""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from fadrm_hf.artifact.location import Location
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.options.checking import GalleryOptions
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.errors import ConfigError, RunFolderError
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.hub import open_artifact
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.report.gallery.comparison import write_comparison
from fadrm_hf.report.gallery.serving import served
from fadrm_hf.report.gallery.writing import fetch_for_gallery, write_gallery
from fadrm_hf.report.renewal import changing
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import GALLERY, MANIFEST, WorkFolder, require_place


def gallery_command(call: Call) -> Summary:
    """Run `fadrm-hf gallery ARTIFACT [ARTIFACT ...]`."""
    options: GalleryOptions = call.options
    locations = [open_artifact(name) for name in options.artifacts]
    page = _compare(locations, options.output) if len(locations) > 1 else _show(locations[0], options.output)
    if options.serve:
        _serve(page.parent, options.port)
    return Summary({"page": page}, {"artifacts": list(options.artifacts)})


def _show(location: Location, output: str | None) -> Path:
    """Write the gallery of one artifact; in a run folder it becomes part of the artifact."""
    repository = pinned_repository(location)
    place = _free(Path(output)) if output else result_folder(location).folder / GALLERY
    name = repository.id if repository else None
    given = fetch_for_gallery(location)
    is_own = repository is None and place.resolve() == (location.folder / GALLERY).resolve()
    with changing(location.folder, Reporter().say) if is_own else nullcontext():
        return write_gallery(**given, work=_work_of(location), output=place, name=name, reporter=Reporter())


def _compare(locations: Sequence[Location], output: str | None) -> Path:
    if output is None:
        raise ConfigError("output is not given, expected a folder for the page of several artifacts; set --output")
    works = [_work_of(location) for location in locations]
    return write_comparison(locations, _free(Path(output)), works, Reporter())


def _free(folder: Path) -> Path:
    """Return a folder that a page may be written to: a new or empty one, or that of an earlier page."""
    require_place(folder)
    is_page = (folder / "index.html").is_file() and (folder / "page.js").is_file()
    held = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if (held and not is_page) or MANIFEST in held:
        raise RunFolderError(
            f"{folder} holds other files ({', '.join(held[:3])}), expected a new or an empty folder; set --output"
        )
    return folder


def _work_of(location: Location) -> Path | None:
    """Return the run's folder of shards, on the machine that made the artifact."""
    work = WorkFolder(location.folder).path
    return work if pinned_repository(location) is None and work.is_dir() else None


def _serve(folder: Path, port: int) -> None:
    """Serve the page until the process is asked to end."""
    try:
        with served(folder, port) as address:
            say(f"{address} (Ctrl-C ends it)")
            threading.Event().wait()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"port is {port}, which cannot be had ({error}); set --port to another, or leave it out"
        ) from error
