"""The process on the no-op device: calls a function of a file, and prints what it returns as JSON, last."""

import importlib.util
import json
import sys
import warnings
from typing import Any

import torch
from torch import Tensor

from no_op_device.watching import counts


def read_number(tensor: Tensor) -> bool | int | float:
    """Return what the host reads where it asks for a number: the wait is real; what nobody computed is true, or 1."""
    number: bool | int | float = tensor.detach().cpu().item()
    return number if type(number) is int else type(number)(1)


def list_places(tensor: Tensor) -> Tensor:
    """Return the places that are not zero, as the host's copy of the tensor has them."""
    return tensor.cpu().nonzero().to(tensor.device)


def unique_consecutive(tensor: Tensor, *options: Any, **settings: Any) -> tuple[Tensor, ...]:
    """Return the distinct values, as the host's copy of the tensor has them."""
    found = torch.ops.aten.unique_consecutive(tensor.cpu(), *options, **settings)
    return tuple(part.to(tensor.device) for part in found)


def eigh(matrices: Tensor, *options: Any, **settings: Any) -> tuple[Tensor, Tensor]:
    """Return the diagonals for eigenvalues, after the host has read whether these were found."""
    read_number(matrices.flatten()[0])
    return matrices.diagonal(dim1=-2, dim2=-1).clone(), matrices.clone()


def answer() -> torch.library.Library:
    """Answer on the host what decides how a program continues; the operators of a GPU that wait for it."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that these replace others is meant
        library.impl("_local_scalar_dense", read_number, "CUDA")
        library.impl("nonzero", list_places, "CUDA")
        library.impl("unique_consecutive", unique_consecutive, "CUDA")
        library.impl("_linalg_eigh", eigh, "CUDA")
    return library


def main(file: str, name: str, arguments: str) -> None:
    """Call the function, and refuse what a capture forbids wherever it happened."""
    answers = answer()
    specification = importlib.util.spec_from_file_location("program", file)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    result = getattr(module, name)(*json.loads(arguments))
    assert counts()["illegal"] == 0, f"{counts()['illegal']} calls are illegal in a capture"
    sys.stdout.write(f"\n{json.dumps(result)}\n")
    del answers  # they held until here


if __name__ == "__main__":
    main(*sys.argv[1:])
