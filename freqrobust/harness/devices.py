"""Devices, batch sizes, and what to do when memory runs out."""

from __future__ import annotations

import torch
from torch import nn

from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.core.user_code import running_user_code

#: Bytes of activations that a batch may take, by kind of device.
_CPU_BYTES = 512 * 2**20
_GPU_SHARE = 0.35
#: For models that cannot be measured.
DEFAULT_BATCH = 32
_MOST = {"cpu": 256, "cuda": 2048, "mps": 512}


def resolve_device(name: str | torch.device) -> torch.device:
    """``auto`` (CUDA, else MPS, else the CPU) or a device that is there.

    A ``torch.device`` may also be of another kind, if PyTorch can use it.

    Raises:
        SpecError: unknown, or not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = torch.device("meta")
    known = device.type in ("cpu", "cuda", "mps") or (isinstance(name, torch.device) and _usable(device))
    name = str(name) if isinstance(name, torch.device) else name
    if not known:
        raise SpecError(f"unknown device {name!r} (auto, cpu, cuda, cuda:1, mps)")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise SpecError(
            f"device {name!r} is not there: this machine has {count} CUDA devices; use --device cpu or auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SpecError("device 'mps' is not there; use --device cpu or auto")
    return device


def _usable(device: torch.device) -> bool:
    """Whether tensors can be on a device; those of ``meta`` have no values."""
    try:
        torch.zeros(1, device=device)
    except Exception:  # whatever a backend raises that is not there
        return False
    return device.type != "meta"


def describe(device: torch.device) -> str:
    """The device in words, for the report."""
    return f"{device.type}: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def auto_batch_size(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> int:
    """A power of two that keeps a batch's activations within a fixed budget.

    Args:
        model: the undefended model, in eval mode on ``device``.
        shape: ``(C, H, W)``.
        device: where it runs.
    """
    per_image = 0

    def count(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal per_image
        if isinstance(output, torch.Tensor):
            per_image += output.numel() * output.element_size()

    leaves = [m for m in model.modules() if not list(m.children())]
    if any(isinstance(m, torch.jit.ScriptModule) for m in leaves):
        return DEFAULT_BATCH  # takes no hooks
    handles = [m.register_forward_hook(count) for m in leaves]
    try:
        with running_user_code("the model fails"), torch.no_grad():
            model(torch.zeros(2, *shape, device=device))
    except FreqRobustError:  # the harness says what is wrong with it, on real images
        return DEFAULT_BATCH
    finally:
        for handle in handles:
            handle.remove()
    per_image //= 2
    budget = _CPU_BYTES
    if device.type == "cuda":
        budget = int(torch.cuda.get_device_properties(device).total_memory * _GPU_SHARE)
    elif device.type == "mps":
        budget = 2 * 2**30
    fits = max(1, min(budget // max(per_image, 1), _MOST.get(device.type, _MOST["cpu"])))
    return 1 << (int(fits).bit_length() - 1)
