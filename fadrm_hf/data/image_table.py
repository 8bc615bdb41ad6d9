"""Image tables that may be larger than memory: rows are read from their files, as views need them."""

import os
import tempfile
from collections.abc import Sequence

import torch
from torch import Tensor

from fadrm_hf.runtime.transfer import send

_IN_MEMORY_BYTES = 4 << 30
_SHARE_OF_GPU = 0.5  # of the memory that is free there; teachers need the rest


class ImageTable:
    """(N, 3, S, S) uint8 images in parts, of which only the requested rows are read.

    Args:
        parts: Each (n, 3, S, S) uint8, in row order; tensors of `tensor_files.load_tensors` stay on disk until then.
        device: Where rows are wanted.
    """

    def __init__(self, parts: Sequence[Tensor], device: torch.device | str = "cpu") -> None:
        self._parts, self.device = parts, torch.device(device)
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    @property
    def shape(self) -> torch.Size:
        """Return the shape (N, 3, S, S)."""
        return torch.Size((int(self._ends[-1]), *self._parts[0].shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the images (n, 3, S, S) of rows (n,) int64, in their order."""
        rows = rows.cpu()
        images = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8)
        part_of = torch.bucketize(rows, self._ends, right=True)
        for index in part_of.unique().tolist():
            wanted, part = part_of == index, self._parts[index]
            images[wanted] = part[rows[wanted] - (self._ends[index] - len(part))]
        return send([images], self.device)[0]

    def to(self, device: torch.device) -> "ImageTable | Tensor":
        """Return the table for use on a device: as one tensor on a GPU that has room for it, else as it is."""
        if device == self.device:
            return self
        if device.type == "cuda" and self.shape.numel() <= _SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]:
            return torch.cat([part.to(device) for part in self._parts])
        return ImageTable(self._parts, device)


def empty_images(num: int, size: int, in_memory_bytes: int = _IN_MEMORY_BYTES) -> Tensor:
    """Allocate (num, 3, size, size) uint8 to be filled.

    Args:
        num: Number of images.
        size: Their side in pixels.
        in_memory_bytes: More than this is in a file of the temporary folder (`TMPDIR`), of which the system keeps in
            memory what is used; it has no name and goes with the tensor.

    Raises:
        OSError: The temporary folder has no room for them.
    """
    shape = (num, 3, size, size)
    num_bytes = num * 3 * size**2
    if num_bytes <= in_memory_bytes:
        return torch.empty(shape, dtype=torch.uint8)
    with tempfile.NamedTemporaryFile(prefix="fadrm_hf-images-") as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes)  # a disk that fills up later would end the process
        return torch.from_file(file.name, shared=True, size=num_bytes, dtype=torch.uint8).view(shape)
