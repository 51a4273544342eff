"""Reading checkpoint files, safely: weights only, unless the user trusts the file."""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from freqrobust.core.errors import ModelError
from freqrobust.core.files import regular_file
from freqrobust.core.text import describe_error
from freqrobust.core.user_code import running_user_code
from freqrobust.data.arrays import check_growth, in_bytes
from freqrobust.models.architectures import ARCHITECTURES, TORCHVISION, Architecture

SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".safetensors", ".pt2")
_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "ema", "weights", "params")
_WRAPPERS = re.compile(r"(^|\.)(module|_orig_mod)\.")
#: Largest number of nested containers in which a state dict is searched.
_DEPTH = 16
#: Largest size of expanded tensors in bytes beyond the stored size.
_EXPANDED_BYTES = 1 << 28
_COMMON = ("model.", "net.", "network.", "backbone.")
StateDict = dict[str, torch.Tensor]


@dataclass
class Checkpoint:
    """The content of a file: a state dict, or a complete module.

    Attributes:
        states: the state dict as saved, and with the prefixes of wrappers removed; the first that fits is used.
        module: a complete model (a trusted pickle, or a torch.export program).
        metadata: what :func:`freqrobust.save_model` saved with the weights.
        sha256: hash of the file.
        note: a sentence for the user where the file contains several networks.
    """

    sha256: str
    states: list[StateDict] = field(default_factory=list)
    module: nn.Module | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    note: str | None = None


def file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def read(path: Path, trust: bool = False) -> Checkpoint:
    """Read a checkpoint file.

    Raises:
        ModelError: the file is missing, empty or damaged, or needs ``--trust-checkpoint``.
    """
    regular_file(path, str(path), ModelError, f"a file ({' '.join(SUFFIXES)})")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty")
    checkpoint = Checkpoint(file_hash(path))
    if path.suffix == ".pt2":
        if not trust:  # torch's reader of such archives can unpickle any object
            raise ModelError(
                f"{path} is a torch.export program; loading it can run code. If you trust its author, "
                f"give --trust-checkpoint (in Python: trust=True)"
            )
        checkpoint.module = _exported(path)
        return checkpoint
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path, trust)
    if isinstance(content, Mapping):
        about = content.get("freqrobust")
        checkpoint.metadata = dict(about) if isinstance(about, Mapping) else {}
    weights, several = _find_weights(content, path)
    check_storage(_tensors(weights), path)
    if several > 1:
        checkpoint.note = (
            f"{path.name} contains {several} networks, such as the stages of a cascade; the first one is evaluated"
        )
    if isinstance(weights, nn.Module):
        checkpoint.module = weights
    else:
        checkpoint.states = without_prefixes(weights)
    return checkpoint


def _safetensors(path: Path) -> StateDict:
    from safetensors.torch import load_file

    with running_user_code(f"{path} cannot be read as safetensors", ModelError):
        return load_file(path)


def _torch(path: Path, trust: bool) -> Any:
    if _is_torchscript(path):
        if not trust:
            raise ModelError(
                f"{path} is a TorchScript program; running it needs --trust-checkpoint (in Python: trust=True)"
            )
        with running_user_code(f"{path} is not a TorchScript program", ModelError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.load(str(path), map_location="cpu")
    with running_user_code(lambda error: _unreadable(path, trust, error)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=not trust)


def _unreadable(path: Path, trust: bool, error: BaseException) -> ModelError:
    """The error about a file that torch cannot read; damaged and trusted files can raise any exception."""
    text = describe_error(error)
    if isinstance(error, pickle.UnpicklingError):
        if not trust and ("weights_only" in text.lower() or "unsupported" in text.lower()):
            needs = re.search(r"GLOBAL\s+([\w.]+)", text)
            what = f" (it contains {needs[1]})" if needs else ""
            return ModelError(
                f"{path} contains more than weights{what}; loading it can run code. If you trust its author, "
                f"give --trust-checkpoint (in Python: trust=True); better, save model.state_dict()"
            )
        return ModelError(f"{path} is not a checkpoint that torch can read: {_line(text)}")
    if isinstance(error, ImportError | AttributeError):
        return ModelError(f"{path} needs code that cannot be imported here: {_line(text)}")
    return ModelError(f"{path} is truncated or not a checkpoint: {_line(text)}")


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            check_growth(archive.infolist(), path, ModelError)
            return any(name.endswith("constants.pkl") for name in archive.namelist())
    except ModelError:
        raise
    except Exception:  # a damaged archive can raise any exception; torch reports what is wrong with it
        return False


def _exported(path: Path) -> nn.Module:
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it logs a traceback of errors that are reported here
    try:
        with running_user_code(
            lambda error: ModelError(f"{path} is not a torch.export program: {_line(describe_error(error))}")
        ):
            program = torch.export.load(str(path))
    finally:
        log.setLevel(level)
    return program.module()


def _line(text: str) -> str:
    return " ".join(text.split())[:200] or "no details"


def _tensors(weights: StateDict | nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a state dict or a module, by name."""
    if isinstance(weights, nn.Module):
        return {**dict(weights.named_parameters()), **dict(weights.named_buffers())}
    return weights


def check_storage(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse tensors that are not dense arrays in memory, before they are copied or hashed.

    Raises:
        ModelError: a tensor is sparse, has no values, or is far larger than its storage (a stride of 0 repeats stored
            numbers).
    """
    claimed = stored = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise ModelError(f"{path}: {name} is a sparse tensor ({tensor.layout}); save it as {name}.to_dense()")
        if tensor.device.type == "meta":
            raise ModelError(f"{path}: {name} has a shape but no values (it is on the meta device)")
        size = tensor.numel() * tensor.element_size()
        claimed += size
        stored += min(size, tensor.untyped_storage().nbytes())
    if claimed > stored + _EXPANDED_BYTES:
        raise ModelError(
            f"the tensors of {path} would take {in_bytes(claimed)}, but the file stores {in_bytes(stored)}: "
            f"some were expanded; save them with .contiguous()"
        )


def _find_weights(content: Any, path: Path, depth: int = 0) -> tuple[StateDict | nn.Module, int]:
    """The first state dict or trusted module in the saved object, and how many there are."""
    if depth > _DEPTH:
        raise ModelError(f"{path}: no state dict found {_DEPTH} levels deep; does the checkpoint refer to itself?")
    if isinstance(content, nn.Module):
        return content, 1
    if isinstance(content, list | tuple):
        if not content or not all(isinstance(item, Mapping | nn.Module) and item for item in content):
            raise ModelError(f"{path} contains a list of {len(content)} items; expected state dicts")
        weights, several = _find_weights(content[0], path, depth + 1)
        return weights, len(content) * several
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} contains a {type(content).__name__}; expected a state dict")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if tensors and all(isinstance(v, torch.Tensor | int | float) for v in content.values()):
        return tensors, 1
    for key in _KEYS:
        if isinstance(content.get(key), Mapping | list | tuple | nn.Module):
            return _find_weights(content[key], path, depth + 1)
    if len(tensors) > 1:
        return tensors, 1
    listed = ", ".join(map(str, list(content)[:8])) or "nothing"
    raise ModelError(f"{path}: no state dict found under {', '.join(_KEYS)}; it contains {listed}")


def without_prefixes(state: StateDict) -> list[StateDict]:
    """The state dict as saved, and without the prefixes that wrappers and training libraries add to names.

    The names of a network itself may begin with ``model.`` as well, so that the first version is tried first.
    """
    state = {key: value for key, value in state.items() if key != "n_averaged"}
    versions = [state]
    while any(_WRAPPERS.search(key) for key in state):
        state = {_WRAPPERS.sub(r"\1", key): value for key, value in state.items()}
        versions.append(state)
    for prefix in _COMMON:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
            versions.append(state)
    return versions


def guess_sizes(state: StateDict) -> tuple[int, int]:
    """``(num_classes, in_channels)``, from the last layer and the first convolution."""
    weights = [value for key, value in state.items() if key.endswith("weight") and value.dim() in (2, 4)]
    kernels = [value for value in weights if value.dim() == 4]
    return (weights[-1].shape[0] if weights else 10), (kernels[0].shape[1] if kernels else 3)


def differences(state: StateDict, expected: StateDict) -> list[str]:
    """Differences between a state dict and that of a network, except for counters of batches."""
    found = []
    for key, value in expected.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key not in state:
            found.append(f"{key} is missing")
        elif state[key].shape != value.shape:
            found.append(f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}")
    return found + [f"{key} is not expected" for key in state if key not in expected]


def best_fit(states: list[StateDict], expected: StateDict) -> tuple[StateDict, list[str]]:
    """The first of the state dicts that differs least from the expected one, and how it differs."""
    return min(((state, differences(state, expected)) for state in states), key=lambda pair: len(pair[1]))


def shapes_of(build: Any, **options: Any) -> StateDict:
    """The names and shapes of a network's parameters, on the meta device where it can be built there."""
    try:
        with torch.device("meta"):
            return dict(build(**options).state_dict())
    except NotImplementedError:  # its initialisation reads values
        return dict(build(**options).state_dict())


def torchvision_architecture(name: str) -> Architecture:
    """An architecture of torchvision, by its name there."""
    from torchvision.models import get_model

    def build(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: nn.Module = get_model(name, weights=None, num_classes=num_classes)
        return network

    return Architecture(f"torchvision:{name}", build, f"torchvision's {name}", "imagenet")


def recognise(states: list[StateDict], path: Path) -> tuple[Architecture, nn.Module, StateDict]:
    """The known architecture with exactly these names and shapes, a network of it, and the state dict that fits.

    Raises:
        ModelError: none fits; the message names the closest one and the first differing keys.
    """
    classes, channels = guess_sizes(states[-1])
    closest: tuple[int, str, list[str]] | None = None
    candidates = [*ARCHITECTURES.values(), *map(torchvision_architecture, TORCHVISION)]
    for architecture in candidates:
        try:
            expected = shapes_of(architecture.build, num_classes=classes, in_channels=channels)
        except (RuntimeError, ValueError, TypeError):
            continue
        state, differing = best_fit(states, expected)
        if not differing:
            return architecture, architecture.build(num_classes=classes, in_channels=channels), state
        if closest is None or len(differing) < closest[0]:
            closest = (len(differing), architecture.name, differing)
    assert closest is not None
    raise ModelError(
        f"{path} fits no known architecture; the closest is {closest[1]}, where {closest[0]} keys differ "
        f"({'; '.join(closest[2][:3])}); give --arch NAME, file.py:factory or module:factory "
        f"(see freqrobust list archs)"
    )
