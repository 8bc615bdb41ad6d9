"""Archives are not read as they are: which command unpacks each kind."""

import shlex
from collections.abc import Sequence
from pathlib import PurePath

ARCHIVE_SUFFIXES = frozenset([".zip", ".tar", ".tgz", ".gz", ".7z", ".rar", ".bz2", ".xz"])

_INTO_FOLDER = {
    ".zip": "unzip {file} -d {folder}",
    ".7z": "7z x {file} -o{folder}",
    ".rar": "unrar x {file} {folder}/",
    ".tar": "mkdir {folder} && tar -xf {file} -C {folder}",
}
_ALONE = {".gz": "gunzip -k {file}", ".bz2": "bunzip2 -k {file}", ".xz": "unxz -k {file}"}
_SHOWN = 3


def unpacked_name(archive: str) -> str:
    """Return what an archive unpacks to: a folder of its name, or the one file that is packed in it."""
    stem = PurePath(archive).with_suffix("")
    return str(stem.with_suffix("") if stem.suffix.lower() == ".tar" else stem)


def unpack_command(archive: str) -> str:
    """Return the command that unpacks an archive to `unpacked_name`."""
    path = PurePath(archive)
    suffix = path.suffix.lower()
    is_tar = suffix in (".tar", ".tgz") or path.with_suffix("").suffix.lower() == ".tar"
    command = _INTO_FOLDER[".tar"] if is_tar else _INTO_FOLDER.get(suffix) or _ALONE[suffix]
    return command.format(file=shlex.quote(archive), folder=shlex.quote(unpacked_name(archive)))


def unpack_commands(folder: str, archives: Sequence[str]) -> str:
    """Return the commands that unpack the archives in a folder, as they can be typed; of many, of the first."""
    commands = " && ".join([f"cd {shlex.quote(folder)}", *map(unpack_command, archives[:_SHOWN])])
    more = len(archives) - _SHOWN
    return commands + (f"; the other {more} likewise" if more > 0 else "")
