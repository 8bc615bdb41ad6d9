"""A teacher as a graph, in which every BatchNorm layer takes what follows it along, and every convolution is frozen.

Networks are traced with torch.fx. Where a network cannot be traced its layers are exchanged one by one where they
stand; what is not known here stays what it is. Both compute what the network computes, rounding apart.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fadrm_hf.networks.fused.convolution import FrozenConv2d
from fadrm_hf.networks.fused.normalisation import WITH_RESIDUAL, FrozenNorm2d, activation_of, own_activation

_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
_FUNCTIONS = {F.relu: "relu", torch.relu: "relu", F.relu6: "relu6", F.silu: "silu", "relu": "relu", "relu_": "relu"}
_NOTHING = (nn.Identity, nn.Dropout)  # in eval mode


@dataclass(frozen=True)
class Coverage:
    """How much of a network is in its fast form.

    Attributes:
        traced: Whether its graph is known.
        convolutions: Convolutions that keep no input, and how many there are.
        norms: BatchNorm layers that compute moments and output in one pass, and how many there are.
        activations: Activations that are part of such a layer, and how many there are.
    """

    traced: bool
    convolutions: tuple[int, int]
    norms: tuple[int, int]
    activations: tuple[int, int]

    @property
    def is_full(self) -> bool:
        """Whether nothing was left as it was that could be fast."""
        return self.traced and all(done == there for done, there in (self.convolutions, self.norms))


class _Tracer(fx.Tracer):
    """Layers that are exchanged as a whole are leaves, and so is a part whose control flow depends on its input."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.BatchNorm2d | nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except (fx.proxy.TraceError, TypeError):
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


def freeze(module: nn.Module, compiles: bool) -> nn.Module:
    """The fast form of a frozen network.

    Args:
        module: A network in eval mode, on its device and in its format, channels_last. It is used up.
        compiles: Whether BatchNorm layers are exchanged, which are fast only as machine code.

    Returns:
        A network of the same function, whose layers have the same names.
    """
    for name, layer in list(module.named_modules()):
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            _exchange(module, name, FrozenConv2d(layer))
    if not compiles:
        return module
    traced = _traced(module)
    for name, layer in list(module.named_modules()):
        activation = own_activation(layer) if _is_running(layer) else None
        if activation is not None:
            assert isinstance(layer, nn.BatchNorm2d)
            _exchange(module, name, FrozenNorm2d(layer, activation))
    if traced is None:
        return module
    for name, layer in module.named_modules():
        if isinstance(layer, FrozenNorm2d):
            _exchange(traced, name, layer)
    _take_along(traced)
    return traced.eval()


def coverage(module: nn.Module) -> Coverage:
    """How much of a network that `freeze` gave is in its fast form."""
    layers = list(module.modules())
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    fused = [layer for layer in norms if isinstance(layer, FrozenNorm2d)]
    frozen = sum(isinstance(layer, FrozenConv2d) for layer in convolutions)
    active = sum(layer.activation != "none" for layer in fused)
    left = _activations_left(module)
    return Coverage(
        isinstance(module, fx.GraphModule),
        (frozen, len(convolutions)),
        (len(fused), len(norms)),
        (active, active + left),
    )


def _is_running(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm2d) and isinstance(layer.running_mean, Tensor)


def _exchange(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)


def _traced(module: nn.Module) -> fx.GraphModule | None:
    """The network as a graph; none where its control flow depends on its input."""
    try:
        graph = _Tracer().trace(module)
    except Exception:  # whatever a foreign network does with what is not a tensor
        return None
    for node in list(graph.nodes):
        if node.op == "call_module" and isinstance(module.get_submodule(node.target), _NOTHING):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    network = fx.GraphModule(module, graph)
    network.graph.eliminate_dead_code()  # what was traced of a part before its control flow was met
    return network


def _take_along(network: fx.GraphModule) -> None:
    """Let each normalisation add the residual and apply the activation that follow it."""
    for node in list(network.graph.nodes):
        layer = _norm_at(network, node)
        if layer is None or layer.activation != "none":
            continue
        spent, residual = [node], _residual_after(node)
        if residual is not None:
            following = _activation_after(network, _only_user(node))
            if following is None or following in WITH_RESIDUAL:
                spent.append(_only_user(node))
            else:
                residual = None
        following = _activation_after(network, spent[-1])
        if following is not None:
            layer.activation = following
            spent.append(_only_user(spent[-1]))
        _replace(network.graph, spent, residual)
    network.graph.lint()
    network.recompile()


def _replace(graph: fx.Graph, spent: list[fx.Node], residual: fx.Node | None) -> None:
    """Put the normalisation, the first of these nodes, in place of them all; the last knows the residual."""
    first, last = spent[0], spent[-1]
    if first is last:
        return
    with graph.inserting_before(last):
        whole = graph.call_module(str(first.target), (first.args[0], *([] if residual is None else [residual])))
    last.replace_all_uses_with(whole)
    for node in reversed(spent):
        graph.erase_node(node)


def _norm_at(network: fx.GraphModule, node: fx.Node) -> FrozenNorm2d | None:
    layer = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    return layer if isinstance(layer, FrozenNorm2d) else None


def _only_user(node: fx.Node) -> fx.Node:
    (user,) = node.users
    return user


def _residual_after(node: fx.Node) -> fx.Node | None:
    """What is added to the output of a node, if that is all that is done with it."""
    if len(node.users) != 1 or _only_user(node).target not in _ADDITIONS:
        return None
    terms = [term for term in _only_user(node).args if isinstance(term, fx.Node) and term is not node]
    return terms[0] if len(terms) == 1 and len(_only_user(node).args) == 2 else None


def _activation_after(network: fx.GraphModule, node: fx.Node) -> str | None:
    """The activation of a node's output, if that is all that is done with it."""
    if len(node.users) != 1:
        return None
    return _activation_at(network, _only_user(node))


def _activation_at(network: fx.GraphModule, node: fx.Node) -> str | None:
    if node.op == "call_module":
        return activation_of(network.get_submodule(str(node.target)))
    return _FUNCTIONS.get(node.target) if node.op in ("call_function", "call_method") else None


def _activations_left(module: nn.Module) -> int:
    if isinstance(module, fx.GraphModule):
        return sum(_activation_at(module, node) is not None for node in module.graph.nodes)
    return sum(activation_of(layer) is not None and not isinstance(layer, nn.Identity) for layer in module.modules())
