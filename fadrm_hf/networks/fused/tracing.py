"""A teacher as a graph, in which every BatchNorm layer takes what follows it along, and every convolution is frozen.

Networks are traced with torch.fx. Where a network cannot be traced its layers are replaced one by one; an unknown
layer stays as it is. Both forms compute what the network computes, up to rounding.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fadrm_hf.networks.fused.convolution import FrozenConv2d
from fadrm_hf.networks.fused.normalisation import WITH_RESIDUAL, FrozenNorm2d, activation_inside, activation_of

_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
_FUNCTIONS = {F.relu: "relu", torch.relu: "relu", F.relu6: "relu6", F.silu: "silu", "relu": "relu", "relu_": "relu"}
_NOTHING = (nn.Identity, nn.Dropout)  # in eval mode


class _Tracer(fx.Tracer):
    """A tracer whose leaves are the layers that are replaced, and parts whose control flow depends on their input."""

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
    """Return the fast form of a frozen network: the same function, in layers of the same names.

    Args:
        module: A network in eval mode, on its device and in its format, channels_last. It is used up.
        compiles: Whether BatchNorm layers are replaced, too; they are fast only as machine code.
    """
    for name, layer in list(module.named_modules()):
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            _put(module, name, FrozenConv2d(layer))
    if not compiles:
        return module
    traced = _traced(module)
    for name, layer in list(module.named_modules()):
        activation = activation_inside(layer) if _is_running(layer) else None
        if activation is not None:
            assert isinstance(layer, nn.BatchNorm2d)
            _put(module, name, FrozenNorm2d(layer, activation))
    if traced is None:
        return module
    for name, layer in module.named_modules():
        if isinstance(layer, FrozenNorm2d):
            _put(traced, name, layer)
    _fuse(traced)
    return traced.eval()


def _is_running(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm2d) and isinstance(layer.running_mean, Tensor)


def _put(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)


def _traced(module: nn.Module) -> fx.GraphModule | None:
    """Return the network as a graph; `None` where its control flow depends on its input."""
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


def _fuse(network: fx.GraphModule) -> None:
    """Let each normalisation add the residual and apply the activation that follow it."""
    for node in list(network.graph.nodes):
        layer = _norm_at(network, node)
        if layer is None or layer.activation != "none":
            continue
        fused, residual = [node], _residual_after(node)
        if residual is not None:
            following = _activation_after(network, _only_user(node))
            if following is None or following in WITH_RESIDUAL:
                fused.append(_only_user(node))
            else:
                residual = None
        following = _activation_after(network, fused[-1])
        if following is not None:
            layer.activation = following
            fused.append(_only_user(fused[-1]))
        _replace(network.graph, fused, residual)
    network.graph.lint()
    network.recompile()


def _replace(graph: fx.Graph, fused: list[fx.Node], residual: fx.Node | None) -> None:
    """Put the normalisation, the first of these nodes, in place of them all."""
    first, last = fused[0], fused[-1]
    if first is last:
        return
    with graph.inserting_before(last):
        whole = graph.call_module(str(first.target), (first.args[0], *([] if residual is None else [residual])))
    last.replace_all_uses_with(whole)
    for node in reversed(fused):
        graph.erase_node(node)


def _norm_at(network: fx.GraphModule, node: fx.Node) -> FrozenNorm2d | None:
    layer = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    return layer if isinstance(layer, FrozenNorm2d) else None


def _only_user(node: fx.Node) -> fx.Node:
    (user,) = node.users
    return user


def _residual_after(node: fx.Node) -> fx.Node | None:
    """Return what is added to the output of a node, if nothing else is done with it."""
    if len(node.users) != 1 or _only_user(node).target not in _ADDITIONS:
        return None
    terms = [term for term in _only_user(node).args if isinstance(term, fx.Node) and term is not node]
    return terms[0] if len(terms) == 1 and len(_only_user(node).args) == 2 else None


def _activation_after(network: fx.GraphModule, node: fx.Node) -> str | None:
    """Return the activation of a node's output, if nothing else is done with it."""
    if len(node.users) != 1:
        return None
    user = _only_user(node)
    if user.op == "call_module":
        return activation_of(network.get_submodule(str(user.target)))
    return _FUNCTIONS.get(user.target) if user.op in ("call_function", "call_method") else None
