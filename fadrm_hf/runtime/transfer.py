"""Tensors on their way to a GPU: one copy for all of them, and the host goes on meanwhile."""

from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNED = 16  # bytes; every type of number may begin there


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return tensors on a device.

    From the CPU to a GPU they travel as one buffer of pinned memory. A copy from ordinary memory would make the host
    wait until the GPU has finished all that it was given before, once for each tensor.

    Args:
        tensors: Of any types and shapes.
        device: Where they are wanted; tensors that are there already are returned as they are.
    """
    if device.type != "cuda" or any(tensor.device.type != "cpu" for tensor in tensors):
        return [tensor.to(device) for tensor in tensors]
    starts = [0]
    for tensor in tensors:
        starts.append(starts[-1] + -(-tensor.nbytes // _ALIGNED) * _ALIGNED)
    buffer = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=True)
    for start, tensor in zip(starts, tensors, strict=False):
        _part(buffer, start, tensor).copy_(tensor)
    arrived = buffer.to(device, non_blocking=True)
    return [_part(arrived, start, tensor) for start, tensor in zip(starts, tensors, strict=False)]


def _part(buffer: Tensor, start: int, like: Tensor) -> Tensor:
    """Return the bytes of a buffer from `start` on as a tensor of another's type and shape."""
    return buffer[start : start + like.nbytes].view(like.dtype).view(like.shape)
