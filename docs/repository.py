"""A hook of mkdocs that shows the repository's pages where they are.

Pages below `docs/` are at the top of the site. Pages of other folders that the navigation names are at their path in
the repository, and other files that a page links to, pictures and configurations, are copied to their path. So one
relative link is right in the repository and on the site, and no page exists twice.
"""

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")  # the path of a relative link or picture
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add a link to the repository, whose address whoever publishes the site knows: FADRM_HF_REPOSITORY."""
    address = os.environ.get("FADRM_HF_REPOSITORY")
    if address:
        config.nav.append({"Repository": address})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere in the repository, then the files that all pages link to."""
    root = Path(config.config_file_path).parent
    for path in _paths(config.nav):
        if files.get_file_from_path(path) is None and (root / path).is_file():
            files.append(File.generated(config, path, abs_src_path=str(root / path)))
    pages = files.documentation_pages()
    for page in pages:
        for path in _linked(page, root):
            if files.get_file_from_path(_on_site(path)) is None and (root / path).is_file():
                linked = File.generated(config, _on_site(path), abs_src_path=str(root / path))
                files.append(linked)
                pages += [linked] if linked.is_documentation_page() else []  # whose links are followed too
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between files of the site."""
    root = Path(config.config_file_path).parent
    start = posixpath.dirname(page.file.src_uri) or "."

    def on_site(link: re.Match[str]) -> str:
        return posixpath.relpath(_on_site(_target(page.file, link[1], root)), start)

    return _LINK.sub(on_site, markdown)


def _paths(nav: Any) -> Iterator[str]:
    """Yield every page that a navigation names, at any depth."""
    if isinstance(nav, str):
        yield nav
    elif nav is not None:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _paths(entry)


def _linked(page: File, root: Path) -> Iterator[str]:
    """Yield the paths in the repository that a page links to."""
    for link in _LINK.findall(_FENCE.sub("", page.content_string)):
        yield _target(page, link, root)


def _target(page: File, link: str, root: Path) -> str:
    """Return the path in the repository that a link means; for a folder, the nearest README.md, in it or above."""
    place = os.path.relpath(str(page.abs_src_path), root)
    path = Path(posixpath.normpath(posixpath.join(posixpath.dirname(place), link)))
    if not (root / path).is_dir():
        return path.as_posix()
    described = (folder / "README.md" for folder in (path, *path.parents))
    return next(file.as_posix() for file in described if (root / file).is_file())


def _on_site(path: str) -> str:
    """Return the path on the site of a file of the repository."""
    return path.removeprefix("docs/")
