"""Retries in smaller parts where memory runs out."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fadrm_hf.errors import is_out_of_memory


def in_halves(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return what a function gives for a batch; if memory runs out, of its halves, down to single images.

    Not for functions that look across images, such as statistics of a batch. A network in evaluation mode gives the
    same for an image whatever the others are, up to the rounding of convolutions, which may choose another order of
    sums for another number of images.

    Args:
        function: (n, ...) -> (n, ...), each row by itself.
        images: (n, ...), at least one.

    Raises:
        MemoryError, RuntimeError: As `function` does, if it lacks memory for one image or fails otherwise.
    """
    return groups_in_halves(lambda part, sizes: function(part), images, [1] * len(images))


def groups_in_halves(
    function: Callable[[Tensor, Sequence[int]], Tensor], images: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Return what a function gives for groups of images; if memory runs out, of half of them, down to single groups.

    Args:
        function: (n, ...) and the sizes of its groups -> (n, ...), each group by itself.
        images: (n, ...), group after group.
        sizes: Images of each group, at least one group.

    Raises:
        MemoryError, RuntimeError: As `function` does, if it lacks memory for one group or fails otherwise.
    """
    try:
        return function(images, sizes)
    except (MemoryError, RuntimeError) as error:
        if len(sizes) == 1 or not is_out_of_memory(error):
            raise
    # Not above: while the error is handled its traceback holds the tensors of the attempt.
    if images.device.type == "cuda":
        torch.cuda.empty_cache()
    middle = -(-len(sizes) // 2)
    halves = sizes[:middle], sizes[middle:]
    parts = images.split([sum(half) for half in halves])
    return torch.cat([groups_in_halves(function, part, half) for part, half in zip(parts, halves, strict=True)])
