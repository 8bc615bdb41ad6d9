"""Files that are either complete or absent: written under a temporary name, synced, then renamed."""

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# The largest text of ours, a manifest of ImageNet-21k, has 2 MB. A larger one is refused before it is read, so that it
# cannot fill the memory.
MAX_TEXT_BYTES = 64 << 20
_MAX_DIGITS = 20  # of a whole number of 64 bits, with its sign; one of 400 has no float


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
    write_bytes(path, _as_json(value))


def create_json(path: Path, value: Any) -> bool:
    """Write `value` as `write_json` does unless there is a file already; of several processes one alone succeeds.

    Returns:
        Whether the file is this one's.
    """

    def write(temporary: Path) -> None:
        temporary.write_bytes(_as_json(value))

    try:
        write_with(path, write, _place_first)
    except FileExistsError:
        return False
    return True


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


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


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return a file's bytes, once it is known to be a file, and of at most `most_bytes`.

    Raises:
        ValueError: If it is a pipe, a device or a folder, or larger; nothing of it is read then.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no file")
    if status.st_size > most_bytes:
        raise ValueError(f"it has {status.st_size:,} bytes, expected at most {most_bytes:,}")
    return path.read_bytes()


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON document whose whole numbers have 64 bits, and whose texts can be written.

    Raises:
        ValueError: If it is none, or nested deeper than Python can follow.
    """
    text = content.decode("utf-8")
    try:
        document = json.loads(text, parse_int=_whole_number)
        if re.search(r"\\u[dD]", text):  # half of a character, which Python keeps and nothing can encode
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    return document


def _whole_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a whole number has {len(digits)} digits, expected at most {_MAX_DIGITS}")
    return int(digits)


def read_json(path: Path) -> Any:
    """Return what `write_json` wrote; `None` where there is no file, or it is damaged."""
    try:
        return parse_json(read_regular(path, MAX_TEXT_BYTES))
    except (FileNotFoundError, ValueError):
        return None


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
