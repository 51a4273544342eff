"""An accelerator that is simulated on the CPU: mixed devices raise as on CUDA, and host synchronisations are counted.

``install()`` gives torch the device ``sim``, once per process and for the rest of it: tensors on it are
:class:`Simulated`, whose values are an ordinary tensor of the CPU. So all results are those of the CPU, bit by bit.

What raises, as on CUDA: any operation that gets tensors of both devices, except

* tensors of the CPU without dimensions, which are taken as numbers (but are not written to);
* indices of the CPU, as in ``images[rows]``; a tensor of the CPU takes no indices of the device;
* ``copy_`` and ``to``, which are there for that.

What counts as a host synchronisation, as in torch's kernels for CUDA (``torch.cuda.set_sync_debug_mode`` names the same):
``item`` and all that needs a number (``bool``, ``float``, ``if``, a tensor as a bound of ``range``), ``equal``, ``nonzero``,
reading or writing with a mask (which is a ``nonzero``; setting one number, as in ``x[mask] = 0``, is not), ``masked_select``,
``unique``, ``bincount``, ``repeat_interleave`` without a size, decompositions of matrices, and copies between the devices in
either direction that are not ``non_blocking``, indices of the CPU included.

What is not simulated: precision and order of the arithmetic of a GPU, autocast, random numbers of the device, streams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

aten = torch.ops.aten
#: The calls that synchronised, by name; :func:`synchronisations` counts those of a block.
COUNTED: Counter[str] = Counter()
#: Wait for the device to know the size or the validity of their result.
_WAITING = {
    "_local_scalar_dense", "equal", "nonzero", "masked_select", "unique", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "is_nonzero", "linalg_inv_ex", "linalg_cholesky_ex", "_linalg_eigh", "_linalg_svd",
    "_linalg_solve_ex", "linalg_eig",
}  # fmt: skip
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
#: Factories that torch would write as an operation on an empty tensor that grows.
_FACTORIES = (
    "arange.default", "arange.start", "arange.start_step", "eye.default", "eye.m", "randperm.default",
    "fft_fftfreq.default", "fft_rfftfreq.default",
)  # fmt: skip
_LIBRARIES: list[torch.library.Library] = []


class Simulated(torch.Tensor):
    """A tensor on the device ``sim``; ``inner`` has its values, on the CPU."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Simulated:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=device(),
        )
        made.inner = inner
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Simulated({self.inner!r})"

    def tolist(self) -> Any:  # torch has it for its own classes only
        COUNTED["tolist"] += 1
        return self.inner.tolist()

    @property
    def data(self) -> torch.Tensor:  # Module.double and the like put another one here
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, value)
        self.inner = value.inner if isinstance(value, Simulated) else value

    def untyped_storage(self) -> torch.UntypedStorage:  # torch has it for its own classes only, again
        return self.inner.untyped_storage()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Simulated, (self.inner.detach(),)

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    if name in ("copy_", "_to_copy"):
        return _copy(func, args, kwargs)
    if name in _INDEXING:
        args = _with_indices(name, args)
    elif name in _WAITING or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        COUNTED[name] += 1
    flat, spec = pytree.tree_flatten((args, kwargs))
    goal = kwargs.get("device")
    if goal is not None and torch.device(goal).type != "sim":  # new_zeros(..., device="cpu") and the like
        inner_args, inner_kwargs = pytree.tree_unflatten([_inner(a) for a in flat], spec)
        return func(*inner_args, **inner_kwargs)
    if any(isinstance(a, torch.Tensor) and not isinstance(a, Simulated) and a.dim() > 0 for a in flat):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {func} got some of sim:0 and some of cpu"
        )
    written, changes_shape = _written(func)
    for position in written:
        given = args[position] if isinstance(position, int) and position < len(args) else kwargs.get(str(position))
        for tensor in given if isinstance(given, list | tuple) else [given]:
            if isinstance(tensor, torch.Tensor) and not isinstance(tensor, Simulated):
                raise RuntimeError(f"Expected all tensors to be on the same device, but {func} writes to one of cpu")
    inner_args, inner_kwargs = pytree.tree_unflatten([_inner(a) for a in flat], spec)
    if goal is not None:
        inner_kwargs["device"] = torch.device("cpu")
    found = func(*inner_args, **inner_kwargs)
    if not written:
        return pytree.tree_map(lambda a: Simulated(a) if isinstance(a, torch.Tensor) else a, found)
    same = {id(tensor.inner): tensor for tensor in flat if isinstance(tensor, Simulated)}
    if changes_shape or any(tensor.shape != tensor.inner.shape for tensor in same.values()):
        raise NotImplementedError(f"{func} is not simulated: it changes the shape of a tensor in place")
    return pytree.tree_map(
        lambda a: same[id(a)] if id(a) in same else Simulated(a) if isinstance(a, torch.Tensor) else a, found
    )


@cache
def _written(func: Any) -> tuple[tuple[int | str, ...], bool]:
    """The arguments that an operation writes to, by position or name, and whether it changes their shape."""
    found: list[int | str] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found.append(argument.name if argument.kwarg_only else position)
    return tuple(found), torch.Tag.inplace_view in func.tags


def _inner(value: Any) -> Any:
    if isinstance(value, Simulated):
        return value.inner
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _with_indices(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with indices of the device; masks and indices of the CPU are counted."""
    of_device, indices = isinstance(args[0], Simulated), []
    number = name.startswith("index_put") and isinstance(args[2], torch.Tensor) and args[2].dim() == 0
    for index in args[1]:
        if isinstance(index, Simulated) and not of_device:
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if isinstance(index, torch.Tensor) and of_device and not isinstance(index, Simulated):
            COUNTED[f"{name} with indices of the CPU"] += 1
            index = Simulated(index)
        if isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) and not number:
            COUNTED[f"{name} with a mask"] += 1
        indices.append(index)
    return (args[0], indices, *args[2:])


def _copy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``copy_`` and ``to``, the only ways from one device to the other."""
    if func.overloadpacket.__name__ == "copy_":
        goal, source = args[:2]
        waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        number = isinstance(goal, Simulated) and source.dim() == 0 and source.device.type == "cpu"
        if waits and isinstance(goal, Simulated) != isinstance(source, Simulated) and not number:
            COUNTED["copy_ to the CPU" if isinstance(source, Simulated) else "copy_ to the device"] += 1
        _inner(goal).copy_(_inner(source))
        return goal
    (source,), kwargs = args, dict(kwargs)
    wanted = kwargs.pop("device", None)
    to_device = isinstance(source, Simulated) if wanted is None else torch.device(wanted).type == "sim"
    if to_device != isinstance(source, Simulated) and not kwargs.get("non_blocking"):
        COUNTED["to the device" if to_device else "to the CPU"] += 1
    found = func(_inner(source), **kwargs)
    return Simulated(found) if to_device else found


def _empty(size: Any, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None, memory_format: Any = None) -> Simulated:  # fmt: skip
    return Simulated(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _empty_strided(size: Any, stride: Any, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None) -> Simulated:  # fmt: skip
    return Simulated(torch.empty_strided(size, stride, dtype=dtype))


def _made(func: Any, *args: Any, device: Any = None, **kwargs: Any) -> Simulated:
    return Simulated(func(*args, device=torch.device("cpu"), **kwargs))


def _copy_from(source: torch.Tensor, goal: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """What torch's own C++ calls where it does not ask ``__torch_dispatch__``, as in ``torch.tensor(..., device="sim")``."""
    if isinstance(source, Simulated) != isinstance(goal, Simulated) and not non_blocking:
        COUNTED["copy_ to the CPU" if isinstance(source, Simulated) else "copy_ to the device"] += 1
    _inner(goal).copy_(_inner(source))
    return goal


@cache
def install() -> torch.device:
    """Register the device with torch, once, before the first backward pass of the process; returns it."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as setup

    setup("sim")
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", _empty, "PrivateUse1")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    for name in _FACTORIES:
        library.impl(
            name.removesuffix(".default"),
            partial(_made, getattr(getattr(aten, name.split(".")[0]), name.split(".")[1])),
            "PrivateUse1",
        )
    _LIBRARIES.append(library)  # which would unregister them when it is collected
    return device()


@cache
def device() -> torch.device:
    return torch.device("sim", 0)


@contextmanager
def synchronisations() -> Iterator[Callable[[], Counter[str]]]:
    """Counts those of the block: call what it gives."""
    before = COUNTED.copy()
    yield lambda: COUNTED - before
