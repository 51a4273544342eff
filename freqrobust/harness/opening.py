"""Opening a run: the one place where a model is prepared for measurement and restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from freqrobust.core.config import DeviceOptions, SaveConfig
from freqrobust.core.errors import DataError, ModelError
from freqrobust.core.files import in_use
from freqrobust.core.progress import Progress, Silent
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData
from freqrobust.harness.compilation import Compilation, Mode, Work
from freqrobust.harness.devices import auto_batch_size, resolve_device
from freqrobust.harness.inputs import other_size, unreadable
from freqrobust.harness.journal import Journal
from freqrobust.harness.run import Run
from freqrobust.models.class_subset import restricted
from freqrobust.models.classifier import Classifier, frozen
from freqrobust.models.loading import misfit
from freqrobust.models.logits import check_logits
from freqrobust.models.outputs import logits_of, returning_logits
from freqrobust.numerics.precision import full_precision
from freqrobust.plugins.base import Attack
from freqrobust.plugins.criterion import Criterion
from freqrobust.plugins.selection import check_criterion, parse_criterion
from freqrobust.plugins.specs import PluginSpec
from freqrobust.results.records import Precision, Warned

BatchSize = int | Literal["auto"]


@dataclass(frozen=True)
class Settings:
    """How a model is run, checked.

    Attributes:
        device: where it runs.
        precision: of the attacks' passes.
        batch_size: images per batch; ``auto`` depends on the model.
        compile: whether the passes of attacks are compiled.
    """

    device: torch.device
    precision: Precision
    batch_size: BatchSize
    compile: Mode = "off"


def check_settings(config: DeviceOptions) -> Settings:
    """How a model is run, by the options.

    Raises:
        SpecError: there is no such device.
    """
    device = resolve_device(config.device)
    if isinstance(config, SaveConfig):
        return Settings(device, config.precision, config.batch_size, config.compile)
    return Settings(device, "fp32", config.batch_size)


@dataclass(frozen=True)
class Fit:
    """The model was tried on the first samples, and fits the data.

    Attributes:
        network: the model, reduced to its logits where it returns more.
        classes: of the model.
        warnings: what these passes showed.
    """

    network: nn.Module
    classes: int
    warnings: list[Warned] = field(default_factory=list)


def try_out(network: nn.Module, data: ImageData) -> Fit:
    """Try a model on the first samples, on the device where it is; everything is as before afterwards.

    Raises:
        FreqRobustError: see :func:`check_fit`.
    """
    home = _home(network) or torch.device("cpu")
    with full_precision(), frozen(network):
        return check_fit(network, data, home)


@contextmanager
def open_run(
    network: nn.Module,
    data: ImageData,
    settings: Settings,
    *,
    training: ImageData | None = None,
    chosen: Sequence[PluginSpec[Attack]] = (),
    seed: int = 0,
    run_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    fit: Fit | None = None,
    criterion: PluginSpec[Criterion] | None = None,
    shared: bool = False,
    kind: str | None = None,
    work: Work | None = None,
) -> Iterator[Run]:
    """A run of one model on one dataset. Inside, the model is frozen in eval mode on its device, and fp32 is exact.

    Afterwards the device, the modes and the arithmetic are those from before.

    Args:
        network: images in [0, 1] to logits.
        data: the samples.
        settings: device, precision and batch size.
        training: what training-time defenses learn from.
        chosen: the attacks of the run.
        seed: all randomness is seeded by it.
        run_dir: journal of finished cells; without one nothing is kept.
        cache_dir: where trained defenses are kept.
        progress: is told what happens.
        fit: of this model and this data, where they were tried before.
        criterion: what counts as adversarial; by default misclassification.
        shared: several processes measure into the same run directory.
        kind: the kind of device that the results were measured on; by default that of ``settings``.
        work: what the attacks are expected to compute, by which ``compile="auto"`` is decided.

    Yields:
        The run; its ``warnings`` are those about the model.

    Raises:
        FreqRobustError: the model does not fit the data.
    """
    device, batch_size = settings.device, settings.batch_size
    criterion = criterion or parse_criterion("misclassification")
    check_criterion(criterion, chosen)
    with ExitStack() as stack, prepared_model(network, device) as stuck:
        if fit is None:
            fit = check_fit(network, data, device)
        criterion.plugin.check_classes(fit.classes)
        journal, checked = Journal(run_dir), Journal(run_dir, "checks")
        stack.enter_context(in_use(journal.root))
        yield Run(
            network=fit.network,
            data=data,
            training=training,
            attacks=list(chosen),
            device=device,
            precision=settings.precision,
            seed=seed,
            batch_size=auto_batch_size(network, data.shape, device) if batch_size == "auto" else batch_size,
            adaptive=batch_size == "auto",
            journal=journal,
            checked=checked,
            failures=Journal(run_dir, "failures"),
            cache_dir=cache_dir,
            progress=progress or Silent(),
            criterion=criterion,
            warnings=[*about_model(network, stuck, data), *about_data(data, training), *fit.warnings],
            shared=shared,
            kind=kind or "",
            compilation=Compilation(
                settings.compile, settings.precision, device, journal.root, work, progress or Silent(), kind=kind or ""
            ),
        )


@contextmanager
def prepared_model(network: nn.Module, device: torch.device) -> Iterator[list[str]]:
    """Inside, the model is frozen in eval mode on the device, and fp32 is exact; afterwards all is as before.

    Yields:
        Names of layers that stay in train mode all the same.
    """
    home = _home(network)
    try:
        network.to(device)
        with full_precision(), frozen(network) as stuck:
            yield stuck
    finally:
        if home is not None and home != device:
            network.to(home)


def _home(network: nn.Module) -> torch.device | None:
    return next((p.device for p in network.parameters()), None)


def about_model(network: nn.Module, stuck: list[str], data: ImageData | None = None) -> list[Warned]:
    """What is to be known about a model before it is measured.

    Args:
        network: the model.
        stuck: its layers that stay in train mode.
        data: the images, where it is measured on images.
    """
    warnings = []
    if stuck:
        shown = ", ".join(stuck[:3])
        warnings.append(Warned(code="train-mode-layers", message=f"{len(stuck)} layers stay in train mode: {shown}"))
    if isinstance(network, Classifier) and network.note:
        warnings.append(Warned(code="several-networks", message=network.note))
    if isinstance(network, Classifier) and network.normalization.warning:
        warnings.append(Warned(code="normalization", message=network.normalization.warning))
    message = other_size(network, data) if data is not None else None
    if message is not None:
        warnings.append(Warned(code="image-size", message=message))
    return warnings


def about_data(data: ImageData | None, training: ImageData | None = None) -> list[Warned]:
    """What is to be known about the images, and about those that training-time defenses learn from."""
    return [Warned(code="unreadable-images", message=message) for message in unreadable(data, training)]


def check_fit(network: nn.Module, data: ImageData, device: torch.device) -> Fit:
    """Two forward passes of the first samples, to say clearly what does not fit, or that it changes between them.

    Raises:
        DataError: the images or labels are not for this model.
        ModelError: the model does not return finite logits.
    """
    images, _, _ = data.batch(torch.arange(min(2, len(data))), device)
    with running_user_code(lambda error: misfit(network, data, error)), torch.no_grad():
        output = network(images)
        network = returning_logits(network, output)
        model = restricted(network, data.class_subset, device)
        logits = model(images) if data.class_subset else logits_of(output)
        again = model(images)
    check_logits(logits, images)
    if not bool(torch.isfinite(logits).any(dim=1).any()):
        raise ModelError("the model returns NaN or infinite values for the first images")
    names, own = network.labels if isinstance(network, Classifier) else (), logits_of(output).shape[1]
    if names and len(names) != own:
        raise ModelError(f"the model has {own} classes, but {len(names)} names of classes (labels)")
    classes = logits.shape[1]
    highest = int(data.labels.max())
    if highest >= classes:
        raise DataError(f"{data.spec} has labels up to {highest}, but the model has {classes} classes")
    if float((logits - again).abs().max()) <= 1e-4 * float(logits.abs().max()):
        return Fit(network, classes)
    message = "the model's outputs change from one call to the next; robust accuracies of random models need stochastic = True"
    return Fit(network, classes, [Warned(code="changing-outputs", message=message)])
