"""Retries in smaller parts where memory runs out, for functions that see each image by itself."""

from collections.abc import Callable

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
    try:
        return function(images)
    except (MemoryError, RuntimeError) as error:
        if len(images) == 1 or not is_out_of_memory(error):
            raise
    # Not above: while the error is handled its traceback holds the tensors of the attempt.
    if images.device.type == "cuda":
        torch.cuda.empty_cache()
    return torch.cat([in_halves(function, half) for half in images.chunk(2)])
