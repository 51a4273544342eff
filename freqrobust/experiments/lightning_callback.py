"""A callback of Lightning that measures robust accuracies while a network is trained (the extra ``lightning``)."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.numbers import check_int64
from freqrobust.core.user_code import running_user_code
from freqrobust.data.loading import as_data
from freqrobust.experiments.probes import check_probes, probes_of
from freqrobust.harness.correctness import correct_samples
from freqrobust.models.loading import misfit
from freqrobust.models.logits import check_logits
from freqrobust.models.normalization import check_channels
from freqrobust.models.normalization import parse as parse_normalization
from freqrobust.models.outputs import logits_of
from freqrobust.training.threads import suitable_threads

#: The packages that Lightning is installed as, each with a ``Callback`` of its own.
PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _bases() -> tuple[type, ...]:
    """``Callback`` of the packages that are in use, or else of the first that is installed."""
    used = [name for name in PACKAGES if sys.modules.get(name) is not None]
    names = used or [name for name in PACKAGES if find_spec(name.partition(".")[0]) is not None][:1]
    if not names:
        raise SpecError("RobustnessCallback needs Lightning: pip install 'freqrobust[lightning]'")
    return tuple(dict.fromkeys(import_module(name).Callback for name in names))


if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    _found = _bases()
    Callback = _found[0] if len(_found) == 1 else type("Callback", _found, {})


class RobustnessCallback(Callback):
    """Measures the accuracy under attacks and shifts after epochs of a training with Lightning, and logs it.

    The accuracies, as shares, are logged under the specs: ``clean``, ``pgd:eps=8/255``, ... They are there when
    ``ModelCheckpoint`` and ``EarlyStopping`` ask for them, so that ``monitor="pgd:eps=8/255"`` works, and they go to all
    loggers. They are measured as ``evaluate`` measures them: in eval mode, in fp32, on fixed samples, with random numbers
    of attacks that are the same after every epoch.

    The training is not changed: modes, gradients, the states of all random generators and the device are those from before.
    In distributed training every process measures all samples.

    Example:
        >>> trainer = Trainer(callbacks=[RobustnessCallback((images, labels), "pgd:eps=8/255")])  # doctest: +SKIP

    Args:
        data: as in :func:`freqrobust.evaluate`. A hundred to a few hundred samples are enough to follow a training.
        attacks: a spec, or several; ``@every=5`` behind a spec is a period of its own.
        every: it is measured after every so many epochs, and after the last one.
        normalize: what the module expects: ``none`` for images in [0, 1], a preset such as ``cifar10``, or
            ``m1,m2,m3/s1,s2,s3``.
        network: gives the network that maps images to logits, from the module; by default the module itself.
        seed: seeds all random numbers of the attacks.
        batch_size: images per forward pass, or ``auto``.
        prefix: before the names of the metrics, such as ``robust/``.
        prog_bar: show the metrics in the progress bar.

    Attributes:
        metrics: the names that are logged.

    Raises:
        SpecError: a spec or a number is wrong, or an attack has no budget.
        DataError: the data is wrong.
    """

    def __init__(
        self,
        data: Any,
        attacks: str | Sequence[str] = "pgd:eps=8/255",
        *,
        every: int = 1,
        normalize: str = "none",
        network: Callable[[Any], nn.Module] | None = None,
        seed: int = 0,
        batch_size: int | Literal["auto"] = "auto",
        prefix: str = "",
        prog_bar: bool = False,
    ) -> None:
        super().__init__()
        for name, value, lowest in (("every", every, 1), ("seed", seed, None), ("batch_size", batch_size, 1)):
            if name == "batch_size" and value == "auto":
                continue
            bound = f" of at least {lowest}" if lowest is not None else ""
            if isinstance(value, bool) or not isinstance(value, int) or (lowest is not None and value < lowest):
                raise SpecError(f"{name} should be a whole number{bound}, but got {value!r}")
        check_int64("seed", seed)
        if not isinstance(attacks, str | list | tuple):
            raise SpecError(f"attacks should be a spec or several, but got {type(attacks).__name__}")
        specs = [attacks] if isinstance(attacks, str) else list(attacks)
        self._data = as_data(data)
        self._probes = probes_of(specs, every)
        check_probes(self._probes, self._data)
        self._normalize = parse_normalization(normalize)
        check_channels(self._normalize, self._data.shape[0])
        self._network = network
        self._seed, self._batch_size = seed, None if batch_size == "auto" else batch_size
        self._prefix, self._prog_bar = prefix, prog_bar
        self._measured: int | None = None
        self.metrics = [f"{prefix}{probe.name}" for probe in self._probes]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier training."""
        self._measured = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure with the last validation of an epoch, before what monitors the metrics."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and trainer.is_last_batch:
            self._measure(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure after an epoch without validation."""
        self._measure(trainer, pl_module)

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self._measured == epoch:
            return
        self._measured = epoch
        due = [probe for probe in self._probes if probe.due(epoch, trainer.max_epochs or -1)]
        if not due:
            return
        network = pl_module if self._network is None else self._network(pl_module)
        if not isinstance(network, nn.Module):
            raise ModelError(f"network(module) should be a torch.nn.Module, but is {type(network).__name__}")
        measured = _Measured(network, self._normalize.layer().to(pl_module.device))
        device = pl_module.device
        with _untouched(device), suitable_threads(network, self._data.shape, device):
            self._check_fit(measured, device)
            correct = correct_samples(
                measured,
                self._data,
                [probe.spec for probe in due],
                device=device,
                seed=self._seed,
                batch_size=self._batch_size,
            )
        values = {f"{self._prefix}{probe.name}": float(which.mean()) for probe, which in zip(due, correct, strict=True)}
        pl_module.log_dict(
            values,
            on_step=False,
            on_epoch=True,
            prog_bar=self._prog_bar,
            sync_dist=True,  # equal in all processes; Lightning would warn otherwise
            batch_size=len(self._data),
        )

    def _check_fit(self, network: nn.Module, device: torch.device) -> None:
        images, _, _ = self._data.batch(torch.arange(min(2, len(self._data))), device)
        modes = [(module, module.training) for module in network.modules()]
        try:
            network.eval()
            with running_user_code(lambda error: misfit(network, self._data, error)), torch.no_grad():
                check_logits(network(images), images)
        finally:
            for module, mode in modes:
                module.training = mode


class _Measured(nn.Module):
    """A network behind its normalisation, with images and logits in fp32 whatever the precision of its parameters."""

    def __init__(self, network: nn.Module, normalize: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dtype = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), x.dtype)
        return logits_of(self.network(self.normalize(x).to(dtype))).float()


@contextmanager
def _untouched(device: torch.device) -> Iterator[None]:
    """Gradients and normal tensors inside, also where Lightning has none; random generators are as before afterwards."""
    python, arrays = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
