"""Tensors in safetensors files: complete or absent, with a digest by which damage is found."""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from fadrm_hf.runtime.files import write_bytes

_WRITTEN = "written"  # the one key of a file's metadata: safetensors writes several in random order
_DIGEST = "sha256"


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


def digest_of(tensors: Mapping[str, Tensor], identity: str = "") -> str:
    """Return the SHA-256 of an identity, and of names, formats, shapes and values."""
    digest = hashlib.sha256(f"{identity} ".encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
