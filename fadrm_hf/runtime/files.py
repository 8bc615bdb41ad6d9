"""Files that are either complete or absent: written under a temporary name, synced, then renamed."""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def write_with(path: Path, write: Callable[[Path], None], place: Callable[[Path, Path], None] = os.replace) -> None:
    """Let `write` fill a temporary file beside `path`, sync it and rename it to `path`, or `place` it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # machines may share a folder
    try:
        with naming(path, temporary):
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            place(temporary, path)
    finally:
        with suppress(OSError):  # of a disk that cannot be written to any more; why is told already
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let what the system refuses inside the block name a file: a write that fails does not say where.

    Args:
        path: The file's name, for an error that has none.
        temporary: Another name, in whose place `path` is told.
    """
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else Path(os.fsdecode(error.filename))
        if error.errno is None or named not in (None, temporary):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def remove_temporaries(folder: Path) -> None:
    """Remove what writers that were killed left in a folder; nobody else may be writing there."""
    for temporary in folder.rglob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, completely or not at all."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_with(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def create_json(path: Path, value: Any) -> bool:
    """Write `value` as `write_json` does unless there is a file already; of several processes one alone succeeds.

    Returns:
        Whether the file is this one's.
    """

    def write(temporary: Path) -> None:
        write_json(temporary, value)

    try:
        write_with(path, write, _place_first)
    except FileExistsError:
        return False
    return True


def _place_first(temporary: Path, path: Path) -> None:
    """Give a finished file its name, which nothing has yet.

    Raises:
        FileExistsError: If something has.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without second names: as exclusive, not as complete
        with open(path, "xb") as file:
            file.write(temporary.read_bytes())
            file.flush()
            os.fsync(file.fileno())


def read_json(path: Path) -> Any:
    """Return what `write_json` wrote; `None` where there is no file, or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
