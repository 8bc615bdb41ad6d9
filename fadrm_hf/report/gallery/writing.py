"""A gallery's folder: its sheets, its data, its page.

index.html, *.css, *.js    the page, the same for every artifact except for its title
pictures.json              the contents of the sheets (`fadrm_hf.report.gallery.sheets`)
*.webp                     the sheets
data.js, views.js          classes, results, scores; a sample of stored views

Names of classes and sources are foreign text: they reach the page as data and are shown as text, never as markup.
"""

from collections.abc import Iterable, Iterator
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq

from fadrm_hf.artifact.location import LocalFolder, Location, table_names
from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.reading import open_table, table_files
from fadrm_hf.report.card.metadata import card_title
from fadrm_hf.report.gallery.facts import as_script, facts_of
from fadrm_hf.report.gallery.sheets import RECORD, read_pictures, write_record
from fadrm_hf.report.gallery.stages import draw_pictures
from fadrm_hf.report.gallery.stored_views import sample_views
from fadrm_hf.runtime.files import write_bytes
from fadrm_hf.runtime.progress import QUIET, Reporter
from fadrm_hf.runtime.run_folder import CARD, GALLERY, IMAGES_FOLDER, LABELS_FOLDER, RESULTS, RunFolder

PAGE, DATA, VIEWS = "index.html", "data.js", "views.js"
_SHARED = ("style.css", "sheets.js", "charts.js", "page.js")  # with the page of comparison

Tables = Iterable[tuple[Path, pq.ParquetFile]]


def write_gallery(
    folder: Path,
    manifest: Manifest,
    work: Path | None = None,
    output: Path | None = None,
    labels: Tables | None = None,
    name: str | None = None,
    reporter: Reporter = QUIET,
) -> Path:
    """Write the gallery of an artifact; the caller then writes or refreshes the manifest.

    Args:
        folder: The artifact, with its card and tables.
        manifest: Its manifest, which need not be written yet.
        work: The run's work folder, for the starting images; without it they are copied from the gallery in `folder`,
            if it has one.
        output: The gallery's folder, by default `gallery/` in `folder`.
        labels: The files of soft labels, if they are not in `folder`.
        name: Name of the artifact in the examples, by default that on the card.
        reporter: Shows progress.

    Returns:
        The page.

    Raises:
        ArtifactError: If the artifact, or its earlier gallery, is damaged.
    """
    output = output or folder / GALLERY
    pictures = draw_pictures(folder, manifest, output, work, reporter)
    for stale in set(output.glob("*.webp")) - {output / file for stage in pictures.stages for file in stage.files}:
        stale.unlink()
    write_record(output, pictures)
    if labels is None:
        labels = ((file, open_table(file)) for file in table_files(folder, LABELS_FOLDER))
    write_bytes(output / VIEWS, as_script("VIEWS", sample_views(labels, manifest)))
    write_bytes(output / DATA, as_script("FACTS", facts_of(folder, manifest, pictures, name)))
    return write_page(output, "gallery", card_title(manifest))


def refresh_gallery(folder: Path, manifest: Manifest) -> None:
    """Update the name and the results on the page of an artifact, if it has a gallery."""
    pictures = read_pictures(folder / GALLERY)
    if pictures is not None:
        write_bytes(folder / GALLERY / DATA, as_script("FACTS", facts_of(folder, manifest, pictures)))


def pages_of(folder: Path) -> dict[str, Path]:
    """Return the pages of an artifact that people open; artifacts of early versions have no gallery."""
    pages = {"card": RunFolder(folder).card, "gallery": folder / GALLERY / PAGE}
    return {name: page for name, page in pages.items() if page.is_file()}


def write_page(folder: Path, kind: str, title: str) -> Path:
    """Write the files of a page, "gallery" or "compare", that depend on nothing but its title."""
    template = resources("fadrm_hf.report.gallery") / "page" / f"{kind}.html.jinja"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    for name in (*_SHARED, f"{kind}.js"):
        write_bytes(folder / name, (resources("fadrm_hf.report.gallery") / "page" / name).read_bytes())
    text = environment.from_string(template.read_text("utf-8")).render(title=title)
    write_bytes(folder / PAGE, text.encode())
    return folder / PAGE


def fetch_for_gallery(location: Location) -> dict[str, Any]:
    """Fetch what `write_gallery` needs of an artifact, and return its arguments; labels travel as they are sampled."""
    is_local = isinstance(location, LocalFolder)  # its earlier gallery may have been removed on purpose
    for name in location.manifest.files:
        is_needed = name.startswith((f"{IMAGES_FOLDER}/", RESULTS, CARD))
        is_earlier = name == f"{GALLERY}{RECORD}" or (name.startswith(GALLERY) and name.endswith(".webp"))
        if is_needed or (is_earlier and not is_local):
            location.local(name)
    return {"folder": location.folder, "manifest": location.manifest, "labels": _label_tables(location)}


def _label_tables(location: Location) -> Iterator[tuple[Path, pq.ParquetFile]]:
    """Yield the files of soft labels, each open until the next is requested; only ranges that are read travel."""
    for name in table_names(location.manifest, LABELS_FOLDER):
        with location.stream(name) as source:
            yield Path(name), open_table(Path(name), source)
