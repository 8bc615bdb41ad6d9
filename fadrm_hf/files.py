"""Files that are either complete or absent: written under a temporary name, synced, then renamed."""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

DIGEST = "sha256"  # under this name a file's metadata tells what its tensors were


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # machines may share a folder
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what writers that were killed left in a folder; nobody else may be writing there."""
    for temporary in folder.rglob(".*.tmp"):
        temporary.unlink()


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


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU."""
    return load_file(path)


def is_complete(path: Path) -> bool:
    """Whether `path` is a safetensors file whose header and length agree."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (FileNotFoundError, SafetensorError):
        return False


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, formats, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_intact(path: Path) -> bool:
    """Whether a safetensors file still holds what was written with a digest; one without a digest is trusted."""
    try:
        with safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get(DIGEST)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return written in (None, digest_of(tensors))
    except SafetensorError:
        return False


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
