"""What is in a folder: images by the folder they are in, tables, archives, and what is left out with the reason."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fadrm_hf.data.sources.layouts.archives import ARCHIVE_SUFFIXES

_IMAGES = "jpg jpeg jpe jfif png bmp dib gif tif tiff webp ppm pgm pbm pnm jp2 j2k avif heic heif"
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _IMAGES.split())
TABLE_SUFFIXES = frozenset([".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt"])
# Never images; files of other unknown suffixes, or without one, are recognised by their first bytes.
_OTHERS = (
    "xml md html pdf mat npy npz py ipynb arrow yaml yml db ini log mp4 avi mov wav mp3 pkl pt pth h5 hdf5 svg "
    "eps ps psd dcm nii doc docx xls xlsx sh c cpp exe lock cfg toml"
)
_OTHER_SUFFIXES = frozenset(f".{name}" for name in _OTHERS.split())
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")
_LFS = b"version https://git-lfs"
_HIDDEN = ("__MACOSX", "__pycache__", "@eaDir", "Thumbs.db", "desktop.ini")


@dataclass
class Folder:
    """The files below a folder, found without opening those whose suffix says what they are.

    Attributes:
        root: The folder.
        images: By the images' folder (relative to the root, posix, "" for the root itself) their sorted names.
        tables: Files that may say which image is of which class, relative to the root.
        parquet: Parquet files, relative to the root.
        archives: Archives, relative to the root.
        left_out: How many files of each other kind there are.
    """

    root: Path
    images: dict[str, list[str]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    parquet: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def num_images(self) -> int:
        """All images below the folder."""
        return sum(map(len, self.images.values()))

    def image_paths(self) -> Iterator[str]:
        """Yield every image, relative to the root."""
        for folder, names in self.images.items():
            yield from (f"{folder}/{name}" if folder else name for name in names)

    def below(self, prefix: str) -> dict[str, list[str]]:
        """Return the images in a subfolder and below it, by their folder relative to that one."""
        if not prefix:
            return self.images
        start = f"{prefix}/"
        inside = {name: files for name, files in self.images.items() if f"{name}/".startswith(start)}
        return {name[len(start) :]: files for name, files in inside.items()}


def scan(root: Path) -> Folder:
    """List what is in a folder and below; links are followed, but not in circles."""
    found = Folder(root)
    seen: set[str] = set()
    waiting = [""]
    while waiting:
        place = waiting.pop()
        path = os.path.join(root, place)
        if (real := os.path.realpath(path)) in seen:
            continue
        seen.add(real)
        images = []
        with os.scandir(path) as entries:
            for entry in entries:
                inner = f"{place}/{entry.name}" if place else entry.name
                if _is_directory(entry):
                    if entry.name.startswith(".") or entry.name in _HIDDEN:
                        found.left_out["hidden folders"] += entry.name != ".git"
                    else:
                        waiting.append(inner)
                elif _sort_file(found, entry, inner):
                    images.append(entry.name)
        if images:
            found.images[place] = sorted(images)
    found.images = dict(sorted(found.images.items(), key=lambda item: f"{item[0]}/"))
    for names in (found.tables, found.parquet, found.archives):
        names.sort()
    return found


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _sort_file(found: Folder, entry: "os.DirEntry[str]", inner: str) -> bool:
    """File an entry where it belongs, and return whether it is an image."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if entry.name.startswith(".") or entry.name in _HIDDEN:
        found.left_out["hidden files"] += entry.name not in (".gitattributes", ".gitignore")
        return False
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix in TABLE_SUFFIXES:
        found.tables.append(inner)
    elif suffix == ".parquet":
        found.parquet.append(inner)
    elif suffix in ARCHIVE_SUFFIXES:
        found.archives.append(inner)
    elif suffix not in _OTHER_SUFFIXES and _starts_as_image(entry.path):
        return True
    else:
        found.left_out[f"{suffix if len(suffix) > 1 else 'nameless'} files"] += 1
    return False


def _starts_as_image(path: str) -> bool:
    """Return whether a file without a telling suffix begins as an image does, or is the pointer of one."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            head = file.read(32)
    except OSError:
        return False
    is_riff = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    is_iso = head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1")
    is_bitmap = head[:2] == b"BM" and head[6:10] == bytes(4)
    is_netpbm = head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
    return head.startswith(_SIGNATURES) or is_riff or is_iso or is_bitmap or is_netpbm or head.startswith(_LFS)
