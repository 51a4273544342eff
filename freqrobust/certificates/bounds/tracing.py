"""Tracing a model with ``torch.fx``, with known shapes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from freqrobust.core.errors import SpecError
from freqrobust.core.text import describe_error

SUPPORTED = (
    "Linear, Conv2d, batch norm, ReLU, Flatten, Dropout and Identity, average, adaptive average and max pooling, "
    "padding, reshaping, slicing and means, concatenation and addition of layers, and +, -, * and / with constants"
)


class KnownProxy(fx.Proxy):
    """A proxy whose shape is known, so that code may depend on it."""

    value: Any

    @property
    def shape(self) -> torch.Size:
        return self._tensor().shape

    @property
    def ndim(self) -> int:
        return self._tensor().dim()

    @property
    def dtype(self) -> torch.dtype:
        return self._tensor().dtype

    @property
    def device(self) -> torch.device:
        return self._tensor().device

    def dim(self) -> int:
        return self._tensor().dim()

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return self.shape[0] if isinstance(self.value, torch.Tensor) else len(self.value)

    def __iadd__(self, other: Any) -> Any:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: Any) -> Any:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: Any) -> Any:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: Any) -> Any:
        return self._in_place(operator.itruediv, other)

    def _in_place(self, function: Callable[..., Any], other: Any) -> Any:
        """Recorded as such, because other names of the tensor change as well."""
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    def _tensor(self) -> torch.Tensor:
        if not isinstance(self.value, torch.Tensor):
            raise TypeError(f"expected a tensor, but got {type(self.value).__name__}")
        return self.value


class ShapeTracer(fx.Tracer):
    """Records the operations of a model, and computes them for a probe.

    The value of a node that does not depend on the input is its ``meta["constant"]``; the shape of every other tensor is
    its ``meta["shape"]``. ``meta["where"]`` names the module that made it.

    Args:
        probe: images of which the shape is used.
        supported: whether a layer of ``torch.nn`` has bounds.
    """

    def __init__(self, probe: torch.Tensor, supported: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.probe, self.supported = probe, supported
        self.computing = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return KnownProxy(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self.computing:
            return forward(*args, **kwargs)
        where = described(self.path_of_module(m), type(m).__name__)
        check_module(m, where)
        if self.is_leaf_module(m, "") and not self.supported(m):
            raise unsupported(where)
        try:
            return super().call_module(m, forward, args, kwargs)
        except SpecError:
            raise
        except Exception as error:
            raise _untraceable(where, error) from error

    def create_node(self, kind: str, target: Any, *rest: Any, **options: Any) -> fx.Node:
        node = super().create_node(kind, target, *rest, **options)
        if kind == "get_attr":
            node.meta["constant"] = self._computed(operator.attrgetter(target), self.root)
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any) -> Any:
        proxy: Any = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        node = proxy.node
        scope = self.scope if self.scope.module_path else None
        module_type = scope.module_type if scope else type(self.root)
        node.meta["where"] = described(scope.module_path if scope else "", getattr(module_type, "__name__", "module"))
        if kind == "output":
            return proxy
        before = torch.random.get_rng_state()
        proxy.value = node.meta["constant"] if kind == "get_attr" else self._compute(kind, target, args, kwargs)
        if not torch.equal(before, torch.random.get_rng_state()):
            raise SpecError(f"no bounds for {node.meta['where']}: it draws random numbers")
        if (kind == "placeholder" and args) or (
            node.all_input_nodes and all("constant" in source.meta for source in node.all_input_nodes)
        ):
            node.meta["constant"] = proxy.value
        elif isinstance(proxy.value, torch.Tensor):
            node.meta["shape"] = tuple(proxy.value.shape)
        return proxy

    def _compute(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        """The value of a node for the probe."""
        if kind == "placeholder":
            return args[0] if args else self.probe
        values, named = (fx.node.map_aggregate(part, _value) for part in (args, kwargs))
        function = target
        if kind == "call_module":
            function = self.root.get_submodule(target).forward
        elif kind == "call_method":
            # the copy that is recorded computes in float64, which it keeps
            function = getattr(values[0], "double" if target == "float" else target)
            values = values[1:]
        return self._computed(function, *values, **named)

    def _computed(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """The result of a call that is not recorded itself."""
        outer, self.computing = self.computing, True
        try:
            return function(*arguments, **named)
        finally:
            self.computing = outer


def _value(argument: Any) -> Any:
    if isinstance(argument, fx.proxy.Attribute):
        return getattr(_value(argument.root), argument.attr)
    return argument.value if isinstance(argument, KnownProxy) else argument


def described(path: str, kind: str) -> str:
    """A module in messages."""
    return f"{path!r} ({kind})" if path else f"the model ({kind})"


def unsupported(where: str) -> SpecError:
    """The error for an operation without bounds."""
    return SpecError(f"no bounds for {where}; supported are {SUPPORTED}")


def check_module(module: nn.Module, where: str) -> None:
    """Refuse a module that computes something else than its forward method in eval mode.

    Raises:
        SpecError: it has hooks, or is in train mode where that matters.
    """
    if module._forward_hooks or module._forward_pre_hooks:
        raise SpecError(f"no bounds for {where}: it has forward hooks, which may change what it computes")
    stochastic = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
    if module.training and (stochastic or isinstance(module, nn.modules.batchnorm._BatchNorm)):
        raise SpecError(
            f"no bounds for {where}: it is in train mode, so that its outputs depend on the batch or are random"
        )


def _untraceable(where: str, error: Exception) -> SpecError:
    if isinstance(error, fx.proxy.TraceError):
        return SpecError(f"no bounds for {where}: its control flow depends on the values of tensors")
    return SpecError(f"no bounds for {where}: torch.fx cannot record what it computes: {describe_error(error)}")


def trace(model: nn.Module, probe: torch.Tensor, supported: Callable[[nn.Module], bool]) -> fx.Graph:
    """The operations of a model, with the metadata of :class:`ShapeTracer`.

    Raises:
        SpecError: the forward pass cannot be traced, draws random numbers, or has a module without bounds.
    """
    where = described("", type(model).__name__)
    check_module(model, where)
    before = torch.random.get_rng_state()
    tracer = ShapeTracer(probe, supported)
    try:
        graph = tracer.trace(model)
    except SpecError:
        raise
    except Exception as error:
        raise _untraceable(where, error) from error
    if not torch.equal(before, torch.random.get_rng_state()):
        raise SpecError(f"no bounds for {where}: it draws random numbers")
    return graph
