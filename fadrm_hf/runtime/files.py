"""Files that are either complete or absent: written under a temporary name, synced, then renamed."""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

_WRITTEN = "written"  # the one key of a file's metadata: safetensors writes several in random order
_DIGEST = "sha256"


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # machines may share a folder
    try:
        with naming(path, temporary):
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
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


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as one safetensors file."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(contiguous, metadata))  # save_file would hide a full disk behind an error of its own


def save_with_digest(
    path: Path, tensors: dict[str, Tensor], identity: str = "", metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as one safetensors file that `read_intact` knows again.

    Args:
        path: The file.
        tensors: What it holds.
        identity: What it stands for; a file put in the place of another is found by that.
        metadata: What else it says of itself.
    """
    written = (metadata or {}) | {_DIGEST: digest_of(tensors, identity)}
    save_tensors(path, tensors, {_WRITTEN: json.dumps(written)})


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, on the CPU."""
    return load_file(path)


def read_intact(path: Path, identity: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of a file, if they are what `save_with_digest` wrote there.

    Raises:
        SafetensorError: They are not; or the file is something else.
        IsADirectoryError: A folder is in its place.
        FileNotFoundError: There is none.
    """
    if path.is_dir():  # safetensors calls it a device
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_WRITTEN, "{}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    with suppress(ValueError):
        written: dict[str, str] = json.loads(text)
        if written.get(_DIGEST) == digest_of(tensors, identity):
            return tensors, written
    raise SafetensorError("it does not hold what was written")


def is_complete(path: Path) -> bool:
    """Return whether `path` is a safetensors file whose header and length agree."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (FileNotFoundError, SafetensorError):
        return False


def is_intact(path: Path, identity: str = "") -> bool:
    """Return whether a file still holds what `save_with_digest` wrote; every byte of it is read."""
    try:
        read_intact(path, identity)
    except (FileNotFoundError, SafetensorError):
        return False
    return True


def read_json(path: Path) -> Any:
    """Return what `write_json` wrote; `None` where there is no file, or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def digest_of(tensors: Mapping[str, Tensor], identity: str = "") -> str:
    """Return the SHA-256 of an identity, and of names, formats, shapes and values."""
    digest = hashlib.sha256(f"{identity} ".encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
