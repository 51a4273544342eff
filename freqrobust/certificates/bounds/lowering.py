"""From a model to a network of operations with bounds."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from freqrobust.certificates.bounds.builder import Builder, NoBoundsError, Ref
from freqrobust.certificates.bounds.network import Network
from freqrobust.certificates.bounds.tracing import described, trace, unsupported

#: Functions, or names of methods of tensors, by what builds their operations.
FUNCTIONS: dict[Callable[..., Any], tuple[Any, ...]] = {
    Builder.linear: (F.linear,),
    Builder.conv2d: (F.conv2d, torch.conv2d),
    Builder.batch_norm: (F.batch_norm,),
    Builder.relu: (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"),
    Builder.clamp: (torch.clamp, "clamp", "clamp_"),
    Builder.max_pool2d: (F.max_pool2d, torch.max_pool2d),
    Builder.avg_pool2d: (F.avg_pool2d,),
    Builder.adaptive_avg_pool2d: (F.adaptive_avg_pool2d,),
    Builder.mean: (torch.mean, "mean"),
    Builder.sum: (torch.sum, "sum"),
    Builder.reshape: (
        *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze),
        *("flatten", "reshape", "view", "squeeze", "unsqueeze"),
    ),
    Builder.same: ("contiguous", "detach", "float", "double"),
    Builder.clone: (torch.clone, "clone"),
    Builder.dropout: (F.dropout, F.dropout2d),
    Builder.pad: (F.pad,),
    Builder.getitem: (operator.getitem,),
    Builder.cat: (torch.cat, torch.concat),
    Builder.add: (operator.add, operator.iadd, torch.add, "add", "add_"),
    Builder.subtract: (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_"),
    Builder.multiply: (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_"),
    Builder.divide: (operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_"),
    Builder.negative: (operator.neg, torch.neg, "neg"),
}
_BUILD = {function: build for build, functions in FUNCTIONS.items() for function in functions}
_IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv, F.relu_, torch.relu_}


def _conv2d(build: Builder, out: Any, x: Ref, m: Any) -> Ref:
    if m.padding_mode != "zeros":
        raise NoBoundsError("of convolutions only those with padding_mode='zeros' have bounds")
    return build.conv2d(out, x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)


def _max_pool2d(build: Builder, out: Any, x: Ref, m: Any) -> Ref:
    if m.return_indices:
        raise NoBoundsError("it returns indices")
    return build.max_pool2d(out, x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode)


def _batch_norm(build: Builder, out: Any, x: Ref, m: Any) -> Ref:
    return build.batch_norm(out, x, m.running_mean, m.running_var, m.weight, m.bias, m.training, eps=m.eps)


#: What builds the operations of layers of ``torch.nn``.
MODULES: dict[type[nn.Module], Callable[[Builder, Any, Ref, Any], Ref]] = {
    nn.Linear: lambda build, out, x, m: build.linear(out, x, m.weight, m.bias),
    nn.Conv2d: _conv2d,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda build, out, x, m: build.relu(out, x),
    nn.MaxPool2d: _max_pool2d,
    nn.AvgPool2d: lambda build, out, x, m: build.avg_pool2d(
        out, x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    ),
    nn.AdaptiveAvgPool2d: lambda build, out, x, m: build.adaptive_avg_pool2d(out, x, m.output_size),
    nn.ZeroPad2d: lambda build, out, x, m: build.pad(out, x, m.padding),
    nn.Flatten: lambda build, out, x, m: build.reshape(out, x),
    nn.Unflatten: lambda build, out, x, m: build.reshape(out, x),
    nn.Identity: lambda build, out, x, m: x,
    nn.Dropout: lambda build, out, x, m: build.dropout(out, x, m.p, m.training),
    nn.Dropout2d: lambda build, out, x, m: build.dropout(out, x, m.p, m.training),
}


def _layer_type(module: nn.Module) -> type[nn.Module] | None:
    """The type in :data:`MODULES` whose forward method the module has."""
    return next((t for t in MODULES if isinstance(module, t) and type(module).forward is t.forward), None)


def network(model: nn.Module, probe: torch.Tensor) -> Network:
    """The operations of a model in eval mode, in the dtype of its parameters.

    Args:
        model: maps images ``(N, C, H, W)`` to logits ``(N, K)``.
        probe: at least two images.

    Raises:
        SpecError: an operation has no bounds, or the model cannot be traced; one line that names the module.
    """
    graph = trace(model, probe, lambda module: _layer_type(module) is not None)
    build = Builder(probe)
    values: dict[fx.Node, Any] = {}
    bases: dict[int, int] = {}  # of the layers that are views, the layer whose memory they share
    for node in graph.nodes:
        if "constant" in node.meta:
            values[node] = node.meta["constant"]
        elif node.op == "placeholder":
            values[node] = Ref(0)
        elif node.op == "output":
            return _finished(build, values, node, model)
        else:
            values[node] = built = _built(build, values, node, model, len(probe))
            first = values.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
            base = bases.get(first.index, first.index) if isinstance(first, Ref) else built.index
            if _is_view(node, model) or _in_place(node, model):
                bases[built.index] = base
            if _in_place(node, model):
                values.update({other: built for other, value in values.items() if value is first})
                used = [value for other, value in values.items() if any(user not in values for user in other.users)]
                if any(isinstance(x, Ref) and x != built and bases.get(x.index, x.index) == base for x in used):
                    raise unsupported(f"{node.meta['where']}: it changes a tensor in place and uses a view of it")
    raise AssertionError("a graph has an output")


def _built(build: Builder, values: dict[fx.Node, Any], node: fx.Node, model: nn.Module, samples: int) -> Ref:
    where = node.meta["where"]
    shape = node.meta.get("shape", ())
    arguments: Any = fx.node.map_arg(node.args, values.__getitem__)
    named: Any = fx.node.map_arg(node.kwargs, values.__getitem__)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    try:
        if shape[:1] != (samples,):
            raise NoBoundsError(
                "its result has no batch dimension" if "shape" in node.meta else "its result is not a tensor"
            )
        if node.op == "call_module":
            module = model.get_submodule(str(node.target))
            layer = _layer_type(module)
            assert layer is not None  # or tracing had stopped
            return MODULES[layer](build, shape[1:], arguments[0], module)
        function = _BUILD.get(node.target)
        if function is None:
            raise NoBoundsError("")
        try:
            bound = inspect.signature(function).bind(build, shape[1:], *arguments, **named)
        except TypeError as error:
            raise NoBoundsError(str(error)) from None
        made: Ref = function(*bound.args, **bound.kwargs)
        return made
    except NoBoundsError as reason:
        what = where if node.op == "call_module" else f"{name} in {where}"
        raise unsupported(f"{what}: {reason}" if str(reason) else what) from None


def _is_view(node: fx.Node, model: nn.Module) -> bool:
    """Whether the result may share the memory of the first argument."""
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), nn.Flatten | nn.Unflatten)
    return _BUILD.get(node.target) in (Builder.reshape, Builder.getitem)


def _in_place(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    named = node.op == "call_method" and str(node.target).endswith("_")
    return named or node.target in _IN_PLACE or bool(node.kwargs.get("inplace", False))


def _finished(build: Builder, values: dict[fx.Node, Any], node: fx.Node, model: nn.Module) -> Network:
    where = described("", type(model).__name__)
    result = node.args[0]
    last = values[result] if isinstance(result, fx.Node) else None
    if not isinstance(last, Ref) or len(build.shape(last)) != 1:
        raise unsupported(f"{where}: it should return one tensor of logits (N, K)")
    if last.index != len(build.layers) - 1:  # the last layer has the logits
        last = build.scaled(last, 1, 0)
    return Network(tuple(build.layers))
