"""The features that a classifier is given: the input of the linear layer that a network calls last."""

import torch
from torch import Tensor, nn

from fadrm_hf.errors import TeacherError


def features_before_last_linear(
    network: nn.Module,
    images: Tensor,  # (n, 3, S, S), normalised as the network takes them
) -> Tensor:  # (n, D) of most networks, in the network's number format
    """Return the input of the linear layer that a network in eval mode calls last; no gradient is kept.

    Raises:
        TeacherError: The network calls no linear layer.
    """
    return _last_call(network, images)[1]


def last_linear(network: nn.Module, images: Tensor) -> nn.Linear:
    """Return the linear layer that a network in eval mode calls last on such images.

    Raises:
        TeacherError: The network calls no linear layer.
    """
    return _last_call(network, images)[0]


@torch.inference_mode()
def _last_call(network: nn.Module, images: Tensor) -> tuple[nn.Linear, Tensor]:
    # By the order of calls: a network may list heads that it uses in training alone behind its classifier.
    calls: list[tuple[nn.Linear, Tensor]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        calls[:] = [(layer, inputs[0])]

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise TeacherError("the network has no linear layer, expected one that gives its logits")
    return calls[0]
