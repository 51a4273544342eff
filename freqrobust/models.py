"""Models: from any spec to an ``nn.Module`` that maps images in [0, 1] to logits."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from freqrobust import normalization
from freqrobust.architectures import ARCHITECTURES
from freqrobust.checkpoints import (
    SUFFIXES,
    Checkpoint,
    best_fit,
    guess_sizes,
    read,
    recognise,
    torchvision_architecture,
)
from freqrobust.data import ImageData
from freqrobust.devices import full_precision
from freqrobust.errors import DataError, FreqRobustError, ModelError, PluginError, SpecError
from freqrobust.files import user_path, write_atomically
from freqrobust.plugin import InputDefense
from freqrobust.printable import describe_error, one_line
from freqrobust.registry import near_miss, source_hash
from freqrobust.results import ModelRecord, NormalizeRecord, PublishedRecord
from freqrobust.user_code import call, import_module, load_file, running_user_code


class Classifier(nn.Module):
    """A network with its normalisation in front, and where both came from."""

    def __init__(
        self, network: nn.Module, normalize: normalization.Chosen, spec: str, arch: str, sha256: str | None
    ) -> None:
        super().__init__()
        self.normalize = normalize.layer()
        self.network = network
        self.chosen = normalize
        self.spec = spec
        self.arch = arch
        self.sha256 = sha256
        self.note: str | None = None
        self.published: PublishedRecord | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(self.normalize(x))  # type: ignore[no-any-return]


class _Replace(torch.autograd.Function):
    """The value of one tensor with the gradient of another (BPDA, Athalye et al. 2018)."""

    @staticmethod
    def forward(ctx: Any, stand_in: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def replace_gradient(exact: torch.Tensor, stand_in: torch.Tensor) -> torch.Tensor:
    """``exact`` going forward, the gradient of ``stand_in`` (same shape) going backward."""
    return _Replace.apply(stand_in, exact.detach())  # type: ignore[no-any-return]


class TransformedInput(nn.Module):
    """An input defense in front of a model."""

    def __init__(self, defense: InputDefense, model: nn.Module) -> None:
        super().__init__()
        self.defense = defense
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.defense.differentiable:
            return self.model(self._checked(self.defense.transform(x), x))  # type: ignore[no-any-return]
        with torch.no_grad():
            changed = self._checked(self.defense.transform(x.detach()), x)
        if torch.is_grad_enabled() and x.requires_grad:
            changed = replace_gradient(changed, self.defense.surrogate(x))
        return self.model(changed)  # type: ignore[no-any-return]

    def _checked(self, changed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if not isinstance(changed, torch.Tensor) or changed.shape[:1] != x.shape[:1] or changed.dim() != 4:
            got = tuple(changed.shape) if isinstance(changed, torch.Tensor) else type(changed).__name__
            raise PluginError(
                f"{type(self.defense).__name__}.transform should return images shaped like {tuple(x.shape)}, but got {got}"
            )
        return changed


class WithSurrogate(nn.Module):
    """A model that is not differentiable, with the gradients of its surrogate."""

    def __init__(self, exact: nn.Module, surrogate: nn.Module) -> None:
        super().__init__()
        self.exact = exact
        self.surrogate = surrogate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            exact = self.exact(x.detach())
        if torch.is_grad_enabled() and x.requires_grad:
            return replace_gradient(exact, self.surrogate(x))
        return exact  # type: ignore[no-any-return]


@contextmanager
def frozen(model: nn.Module) -> Iterator[list[str]]:
    """Eval mode and frozen parameters inside, both as before afterwards.

    Yields:
        Names of layers that stay in train mode all the same.
    """
    modes = [(module, module.training) for module in model.modules()]
    grads = [(p, p.requires_grad) for p in model.parameters()]
    try:
        set_eval(model)
        for parameter, _ in grads:
            parameter.requires_grad_(False)
        yield [
            name or type(module).__name__
            for name, module in model.named_modules()
            if module.training and _mode_matters(module)
        ]
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, needed in grads:
            parameter.requires_grad_(needed)


def set_eval(model: nn.Module) -> None:
    """Eval mode, where the model has modes: torch.export programs do not."""
    try:
        model.eval()
    except NotImplementedError:
        for module in model.modules():
            module.training = False


def _mode_matters(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd) or not list(
        module.children()
    )


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
    """Whether all parameters and buffers of two models are the same, bit for bit: whether their hashes are equal."""
    ours, theirs = _tensors(a), _tensors(b)
    return list(ours) == list(theirs) and all(_same_bits(ours[name], theirs[name]) for name in ours)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = (x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (a, b))
    return torch.equal(a, b.to(a.device))


def separate(a: nn.Module, b: nn.Module) -> bool:
    """Whether no parameter or buffer of one model lies in the memory of one of the other."""
    ours, theirs = (
        {(x.device, x.untyped_storage().data_ptr()) for x in _tensors(model).values() if x.numel()} for model in (a, b)
    )
    return a is not b and not ours & theirs


def fingerprint(model: nn.Module) -> str:
    """Hash of all that a model's outputs depend on: weights, structure, plain attributes, source of its classes."""
    digest = hashlib.sha256(state_hash(model).encode())
    for name, module in model.named_modules():
        cls = type(module)
        digest.update(f"{name} {cls.__module__}.{cls.__qualname__} {module.extra_repr()}".encode())
        ours = isinstance(module, Classifier)  # its attributes only say where it came from
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
    """How the report names a model; ``content`` is its fingerprint from before the run."""
    parameters = sum(p.numel() for p in model.parameters())
    if isinstance(model, Classifier):
        return ModelRecord(
            spec=model.spec,
            arch=model.arch,
            sha256=model.sha256 or content,
            parameters=parameters,
            normalize=model.chosen.record(),
            published=model.published,
        )
    return ModelRecord(
        spec=type(model).__name__,
        arch=type(model).__name__,
        sha256=content,
        parameters=parameters,
        normalize=NormalizeRecord(),
    )


def load_model(
    spec: str | os.PathLike[str],
    *,
    arch: str = "auto",
    normalize: str = "auto",
    trust: bool = False,
    data: ImageData | None = None,
    device: torch.device | str = "cpu",
) -> Classifier:
    """Load a model from any spec, normalisation inside.

    Args:
        spec: a file (``.pt .pth .th .ckpt .safetensors .pt2``), ``torchvision:NAME``, ``timm:NAME``,
            ``robustbench:NAME``, ``module:callable``, ``file.py:callable``, or ``demo``.
        arch: ``auto``, a name (see ``freqrobust list archs``), ``torchvision:NAME``, ``file.py:factory`` or
            ``module:factory``; the network that a state dict is loaded into.
        normalize: ``auto``, ``none``, a preset or ``m1,m2,m3/s1,s2,s3``.
        trust: allow checkpoints whose loading can run code.
        data: samples on which normalisations are tried.
        device: where the model goes.

    Raises:
        ModelError: it cannot be loaded, or its normalisation is not clear.
        SpecError: an option is wrong.
    """
    spec = os.fspath(spec)
    if spec == "demo":
        from freqrobust.demo import demo_model

        return demo_model().to(device)
    given = None if normalize == "auto" else normalization.parse(normalize)
    loaded = _load(spec, arch, trust)
    known = given or loaded.known
    network = loaded.network
    network = network.to(device)
    images = labels = None
    if data is not None:
        samples = data.limit(min(normalization.TRIAL_SAMPLES, len(data)))
        images, labels, _ = samples.batch(torch.arange(len(samples)), torch.device(device))
    with full_precision(), frozen(network), running_user_code(lambda error: misfit(network, data, error)):
        chosen = normalization.choose(network, known, images, labels)
    if data is not None:
        normalization.check_channels(chosen, data.shape[0])
    classifier = Classifier(network, chosen, spec, loaded.arch, loaded.sha256).to(device)
    classifier.note = loaded.note
    classifier.published = loaded.published
    set_eval(classifier)
    return classifier


def misfit(network: nn.Module, data: ImageData | None, error: BaseException) -> FreqRobustError:
    """Why a model fails on these images, in words."""
    if data is None or not isinstance(error, Exception):
        return ModelError(f"the model fails: {describe_error(error)}")
    text = one_line(error) or describe_error(error)
    channels = data.shape[0]
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        kind = {1: "grayscale", 3: "RGB"}.get(channels, f"{channels}-channel")
        return DataError(f"{data.spec} holds {kind} images, but the model takes {first.in_channels} channels")
    return ModelError(f"the model fails on images of shape {data.shape}: {text[:200]}")


@dataclass(frozen=True)
class _Loaded:
    """A network without normalisation, and what is known about it."""

    network: nn.Module
    arch: str
    known: normalization.Chosen | None = None
    sha256: str | None = None
    note: str | None = None
    published: PublishedRecord | None = None


def _load(spec: str, arch: str, trust: bool) -> _Loaded:
    prefix, _, name = spec.partition(":")
    if prefix == "torchvision" and name:
        return _torchvision(name)
    if prefix == "timm" and name:
        return _timm(name)
    if prefix == "robustbench" and name:
        return _robustbench(spec, trust)
    path = user_path(spec, "--model") if spec else None
    if path is not None and path.suffix in SUFFIXES:
        return _from_file(path, arch, trust)
    if prefix and name and name.isidentifier():
        # complete as it is, like a model made in Python
        return _Loaded(_called(factory(spec, "model"), spec), spec, normalization.preset("none", "none"))
    if path is not None and path.exists():
        raise ModelError(f"{spec}: expected a file ending in {' '.join(SUFFIXES)}")
    raise SpecError(
        f"unknown model {spec!r} (a file {' '.join(SUFFIXES)}, torchvision:NAME, timm:NAME, robustbench:NAME, "
        f"module:callable or file.py:callable)"
    )


def factory(spec: str, wanted_as: str) -> Callable[..., Any]:
    """The callable behind ``module:callable`` or ``file.py:callable``."""
    head, _, attr = spec.rpartition(":")
    module = load_file(head) if head.endswith(".py") else import_module(head, f"{wanted_as} {spec!r}")
    with running_user_code(f"{spec} failed", SpecError):  # a module can have a __getattr__ of its own
        found = getattr(module, attr, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if callable(v)]
        raise SpecError(f"{head} has no callable {attr!r}{near_miss(attr, names)}")
    return found  # type: ignore[no-any-return]


def _called(function: Callable[..., Any], spec: str) -> nn.Module:
    found = call(function, spec)
    if not isinstance(found, nn.Module):
        raise ModelError(f"{spec} should return an nn.Module, but returned {type(found).__name__}")
    return found


def _torchvision(name: str) -> _Loaded:
    from torchvision.models import get_model_weights, list_models

    name, _, wanted = name.partition(":weights=")
    if name not in list_models():
        raise SpecError(f"torchvision has no model {name!r}{near_miss(name, list_models())}")
    from torchvision.models import get_model

    try:
        weights = get_model_weights(name)[wanted or "DEFAULT"]
    except KeyError as error:
        raise SpecError(
            f"torchvision:{name} has no weights {wanted!r} ({', '.join(get_model_weights(name).__members__)})"
        ) from error
    with running_user_code(f"the weights of torchvision:{name} cannot be fetched", ModelError):
        network = get_model(name, weights=weights)
    preset = weights.transforms()
    known = normalization.Chosen(tuple(preset.mean), tuple(preset.std), "checkpoint")
    return _Loaded(network, f"torchvision:{name}", known)


def _timm_missing(error: BaseException) -> ModelError:
    if isinstance(error, ModuleNotFoundError) and error.name == "timm":
        return ModelError("timm: models need the extra 'zoo': pip install 'freqrobust[zoo]'")
    return ModelError(f"timm cannot be imported: {describe_error(error)}")


def _timm(name: str) -> _Loaded:
    with running_user_code(_timm_missing), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm imports what newer versions of torch deprecate
        import timm
    if not timm.is_model(name.split(".")[0]):
        raise SpecError(f"timm has no model {name!r}{near_miss(name, timm.list_models())}")

    def unloadable(error: BaseException) -> ModelError:  # no network, broken download
        reason = _timm_without_hub(timm.__version__) or describe_error(error)
        return ModelError(f"the weights of timm:{name} cannot be loaded: {reason}")

    with running_user_code(unloadable), warnings.catch_warnings():
        for deprecated in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", deprecated)
        network = timm.create_model(name, pretrained=True)
    cfg = network.pretrained_cfg
    return _Loaded(network, f"timm:{name}", normalization.Chosen(tuple(cfg["mean"]), tuple(cfg["std"]), "checkpoint"))


def _timm_without_hub(version: str) -> str:
    """Why timm cannot use ``huggingface_hub``; empty if it can.

    timm takes any failed import for a missing package, and advises to install what may be there.
    """
    from timm.models._hub import has_hf_hub

    if has_hf_hub():
        return ""
    try:
        hub = importlib.metadata.version("huggingface_hub")
    except importlib.metadata.PackageNotFoundError:
        return "timm needs the package huggingface_hub: pip install 'freqrobust[zoo]'"
    return (
        f"timm {version} cannot import what it needs from huggingface_hub {hub}; "
        "install versions that fit: pip install 'freqrobust[zoo]'"
    )


def _robustbench(spec: str, trust: bool) -> _Loaded:
    from freqrobust.robustbench_bridge import load_network

    network, entry, published = load_network(spec, trust)
    known = normalization.preset("none", "none")  # it is inside of the network
    return _Loaded(network, f"robustbench:{entry.name}", known, entry.sha256, published=published)


def _from_file(path: Path, arch: str, trust: bool) -> _Loaded:
    checkpoint = read(path, trust)
    known, saved_arch = _saved(checkpoint.metadata, path)
    if arch == "auto" and saved_arch is not None:
        if ":" in saved_arch and not saved_arch.startswith("torchvision:") and not trust:
            raise ModelError(
                f"{path} names code of its own as its architecture; if you trust it, give --arch '{saved_arch}' "
                f"or --trust-checkpoint"
            )
        arch = saved_arch
    if checkpoint.module is not None:
        return _Loaded(checkpoint.module, type(checkpoint.module).__name__, known, checkpoint.sha256, checkpoint.note)
    if arch == "auto":
        architecture, network, state = recognise(checkpoint.states, path)
        name, preset = architecture.name, architecture.normalize
    else:
        network, preset = _build(arch, checkpoint)
        name = arch
        state, differing = best_fit(checkpoint.states, dict(network.state_dict()))
        if differing:
            raise ModelError(f"{path} does not fit {arch}: {len(differing)} keys differ ({'; '.join(differing[:3])})")
    with running_user_code(f"{path} cannot be loaded into {name}", ModelError):
        network.load_state_dict(state, strict=False)
    if known is None and preset is not None:
        known = normalization.preset(preset, "architecture")
    return _Loaded(network, name, known, checkpoint.sha256, checkpoint.note)


def _saved(metadata: dict[str, Any], path: Path) -> tuple[normalization.Chosen | None, str | None]:
    """Normalisation and architecture that :func:`save_model` wrote beside the weights, checked."""
    known, arch = None, metadata.get("arch")
    try:
        saved = metadata.get("normalize")
        if saved is not None:
            mean, std = (tuple(float(value) for value in saved[key]) for key in ("mean", "std"))
            if not mean or len(mean) != len(std) or min(std) <= 0:
                raise ValueError("mean and std do not fit")
            known = normalization.Chosen(mean, std, "checkpoint", saved.get("preset"))
        if arch is not None and not isinstance(arch, str):
            raise TypeError("arch is not text")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(f"{path}: what it says about itself under 'freqrobust' is broken: {error}") from error
    return known, arch


def _build(arch: str, checkpoint: Checkpoint) -> tuple[nn.Module, str | None]:
    """The network of that name, empty, and the preset its published weights use."""
    classes, channels = guess_sizes(checkpoint.states[-1])
    if arch in ARCHITECTURES:
        known = ARCHITECTURES[arch]
        return known.build(num_classes=classes, in_channels=channels), known.normalize
    if arch.startswith("torchvision:"):
        known = torchvision_architecture(arch.removeprefix("torchvision:"))
        try:
            return known.build(num_classes=classes), known.normalize
        except ValueError as error:
            raise SpecError(f"unknown architecture {arch!r}: {error}") from error
    if ":" in arch:
        return _called(factory(arch, "architecture"), arch), None
    raise SpecError(
        f"unknown architecture {arch!r}{_meant(arch)} "
        f"({', '.join(ARCHITECTURES)}, torchvision:NAME, file.py:factory or module:factory)"
    )


def _meant(arch: str) -> str:
    """What an unknown architecture was probably meant to be: one of torchvision by that name, or one of ours."""
    from torchvision.models import list_models

    if arch in list_models():
        return f"; torchvision has a model of that name: give --arch torchvision:{arch}"
    return near_miss(arch, ARCHITECTURES)


def save_model(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Save a classifier so that ``--model FILE`` works alone: weights, architecture and normalisation.

    Raises:
        ModelError: the model is not a network from a known or named architecture with a normalisation in front.
    """
    if not isinstance(model, Classifier):
        raise ModelError(
            f"only a network with its normalisation can be saved, but this is a {type(model).__name__} "
            f"(a defense that wraps the model, or a model made in Python)"
        )
    arch = model.arch
    head, colon, attr = arch.rpartition(":")
    if colon and head.endswith(".py"):
        arch = f"{user_path(head, arch).resolve()}:{attr}"
    elif arch not in ARCHITECTURES and not colon:
        raise ModelError(
            f"a {arch} from a whole-model file cannot be saved as weights; save it with torch.save yourself"
        )
    if arch.startswith(("timm:", "robustbench:")):
        raise ModelError(
            f"models from {arch.partition(':')[0]} cannot be saved here; use torch.save(model.network.state_dict())"
        )
    content = {
        "state_dict": {key: value.detach().cpu() for key, value in model.network.state_dict().items()},
        "freqrobust": {
            "arch": arch,
            "normalize": {
                "mean": list(model.chosen.mean),
                "std": list(model.chosen.std),
                "preset": model.chosen.preset,
            },
        },
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())
