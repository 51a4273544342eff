"""Hashes of the weights, structure and code of a model."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from freqrobust.core.source_hash import source_hash
from freqrobust.models.classifier import Classifier
from freqrobust.models.outputs import LogitsOnly
from freqrobust.results.records import ModelRecord, NormalizeRecord


def state_hash(model: nn.Module) -> str:
    """Hash of all parameters and buffers, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict([*model.named_parameters(), *model.named_buffers()])


def same_state(a: nn.Module, b: nn.Module) -> bool:
    """Whether all parameters and buffers of two models are bitwise equal, so that their hashes are equal."""
    ours, theirs = _tensors(a), _tensors(b)
    return list(ours) == list(theirs) and all(_same_bits(ours[name], theirs[name]) for name in ours)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = (x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (a, b))
    return torch.equal(a, b.to(a.device))


def separate(a: nn.Module, b: nn.Module) -> bool:
    """Whether no parameter or buffer of one model shares memory with one of the other."""
    ours, theirs = (
        {(x.device, x.untyped_storage().data_ptr()) for x in _tensors(model).values() if x.numel()} for model in (a, b)
    )
    return a is not b and not ours & theirs


def fingerprint(model: nn.Module) -> str:
    """Hash of everything that the outputs of a model depend on: weights, structure, attributes, source of its classes."""
    digest = hashlib.sha256(state_hash(model).encode())
    for name, module in model.named_modules():
        cls = type(module)
        digest.update(f"{name} {cls.__module__}.{cls.__qualname__} {module.extra_repr()}".encode())
        ours = isinstance(module, Classifier)  # its other attributes do not change its outputs
        plain = {} if ours else {k: v for k, v in vars(module).items() if k != "training" and _is_plain(v)}
        digest.update(repr(sorted(plain.items())).encode())
        digest.update(str(getattr(module, "code", "")).encode())  # of a traced or exported program
    classes = {type(module) for module in model.modules()} - {Classifier}
    for cls in sorted(classes, key=lambda c: (c.__module__, c.__qualname__)):
        if not cls.__module__.startswith(("torch.", "freqrobust.")):
            digest.update(source_hash(cls).encode())
    return digest.hexdigest()


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def record(model: nn.Module, content: str) -> ModelRecord:
    """The entry of a model in the report; ``content`` is its fingerprint before the run."""
    parameters = sum(p.numel() for p in model.parameters())
    if isinstance(model, Classifier):
        return ModelRecord(
            spec=model.spec,
            arch=model.arch,
            sha256=model.sha256 or content,
            parameters=parameters,
            normalize=model.normalization.record(),
            published=model.published,
        )
    name = type(model.network if isinstance(model, LogitsOnly) else model).__name__
    return ModelRecord(
        spec=name,
        arch=name,
        sha256=content,
        parameters=parameters,
        normalize=NormalizeRecord(),
    )
