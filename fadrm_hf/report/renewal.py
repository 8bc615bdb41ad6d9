"""One change of an artifact at a time: results, card, pages and the manifest, which has their hashes.

While a command rewrites them the artifact holds a file `.changing`, which is a lock as well. If the command is killed
the file stays, and whoever opens the artifact next finishes the change: card, page and manifest are made anew from the
results on file, each of which is complete or absent.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fadrm_hf.artifact.manifest import read_manifest, refresh_files
from fadrm_hf.report.card.writing import write_card
from fadrm_hf.report.gallery.writing import refresh_gallery
from fadrm_hf.runtime.files import remove_temporaries
from fadrm_hf.runtime.locks import Say, locked
from fadrm_hf.runtime.run_folder import CHANGING


@contextmanager
def changing(folder: Path, say: Say, name: str | None = None) -> Iterator[None]:
    """Let one command at a time rewrite parts of an artifact, and renew card, page and manifest after it.

    Args:
        folder: The artifact.
        say: Prints who is waited for.
        name: Repository id for the card's examples; as before if not given.
    """
    with locked(folder / CHANGING, say):
        remove_temporaries(folder)  # of a change that was killed
        yield
        _renew(folder, name)
        with suppress(PermissionError):  # Windows removes no file that is open
            (folder / CHANGING).unlink(missing_ok=True)


@contextmanager
def filing(folder: Path, say: Say) -> Iterator[None]:
    """Let one command at a time file results in a folder that is no artifact, and remove what a killed one left.

    Args:
        folder: The folder with `results/`.
        say: Prints who is waited for.
    """
    with locked(folder / CHANGING, say):
        remove_temporaries(folder)
        yield
        with suppress(PermissionError):  # as in `changing`
            (folder / CHANGING).unlink(missing_ok=True)


def renew(folder: Path, say: Say, name: str | None = None) -> None:
    """Make card, page and manifest of an artifact anew; arguments as of `changing`."""
    with changing(folder, say, name):
        pass


def finish_change(folder: Path, say: Say) -> None:
    """Finish a change of an artifact that was interrupted; wait for one that is under way."""
    with suppress(PermissionError):  # who may only read leaves it to others
        renew(folder, say)


def _renew(folder: Path, name: str | None) -> None:
    manifest = read_manifest(folder)
    write_card(folder, manifest, name=name)
    refresh_gallery(folder, manifest)
    refresh_files(folder)
