"""Several artifacts on one page: what differs, the same classes side by side, accuracies and scores as plots."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fadrm_hf.artifact.location import LocalFolder, Location
from fadrm_hf.errors import ConfigError
from fadrm_hf.report.gallery.differences import differences
from fadrm_hf.report.gallery.facts import as_script, facts_of
from fadrm_hf.report.gallery.origin import hub_page
from fadrm_hf.report.gallery.stages import draw_pictures
from fadrm_hf.report.gallery.writing import DATA, PAGE, fetch_for_gallery, write_page
from fadrm_hf.runtime.files import write_bytes
from fadrm_hf.runtime.progress import QUIET, Reporter
from fadrm_hf.runtime.run_folder import GALLERY


def write_comparison(
    locations: Sequence[Location], output: Path, works: Sequence[Path | None], reporter: Reporter = QUIET
) -> Path:
    """Write the page that compares artifacts.

    Args:
        locations: At least two artifacts that have classes in common.
        output: Its folder.
        works: The work folder of each, or `None`; see `write_gallery`.
        reporter: Shows progress.

    Returns:
        The page.

    Raises:
        ConfigError: If they have no class in common.
        ArtifactError: If one is damaged.
    """
    shared = _shared_classes(locations)
    artifacts: list[dict[str, Any]] = []
    for index, (location, work) in enumerate(zip(locations, works, strict=True)):
        fetch_for_gallery(location)
        folder, manifest, subfolder = location.folder, location.manifest, f"{index:02d}"
        pictures = draw_pictures(folder, manifest, output / subfolder, work, reporter)
        name = None if isinstance(location, LocalFolder) else location.name.partition("@")[0]
        facts = facts_of(folder, manifest, pictures, name)
        artifacts.append(facts | {"folder": subfolder, "page": _page_of(location, output) or hub_page(facts["name"])})
    compared = differences([location.manifest for location in locations])
    write_bytes(
        output / DATA, as_script("COMPARISON", {"ids": shared, "artifacts": artifacts, "differences": compared})
    )
    return write_page(output, "compare", f"{len(locations)} distilled datasets compared")


def _page_of(location: Location, output: Path) -> str | None:
    """Return the link to the gallery of a local artifact next to the page; of others none, since it names folders."""
    gallery, place = (location.folder / GALLERY / PAGE).resolve(), output.resolve()
    if not isinstance(location, LocalFolder) or not gallery.is_file() or not gallery.is_relative_to(place.parent):
        return None
    return quote(Path(os.path.relpath(gallery, place)).as_posix())


def _shared_classes(locations: Sequence[Location]) -> list[str]:
    """Return the ids of the common classes, in the order of the first artifact."""
    ids = [location.manifest.classes.ids for location in locations]
    shared = set(ids[0]).intersection(*ids[1:])
    if not shared:
        raise ConfigError(
            f"{', '.join(location.name for location in locations)} have no class in common (by id), expected "
            "artifacts of one source; choose others"
        )
    return [label for label in ids[0] if label in shared]
