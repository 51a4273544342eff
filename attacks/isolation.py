"""Isolation of code of other libraries: seeded global generators, no output, no lasting changes of state."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from freqrobust.core.errors import SpecError
from freqrobust.core.text import describe_error
from freqrobust.core.user_code import running_user_code

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext

EXTRA = "pip install 'freqrobust[zoo]'"
#: How far rounding may move a result out of [0, 1] or the budget, relative to budgets above 1.
ROUNDING = 1e-5


def installed(library: str, wanted_by: str) -> None:
    """Raise what :func:`require` raises for a library that is absent, without importing it."""
    if find_spec(library) is None:
        raise SpecError(f"{wanted_by} needs {library}, which is not installed: {EXTRA}")


def require(library: str, wanted_by: str) -> Any:
    """The imported library.

    Raises:
        SpecError: it is not installed; the message names the extra.
    """

    def failed(error: BaseException) -> SpecError:
        if isinstance(error, ModuleNotFoundError):
            installed(library, wanted_by)
        return SpecError(f"{wanted_by}: {library} cannot be imported ({describe_error(error)})")

    with running_user_code(failed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(library)


def batch_seed(context: AttackContext) -> int:
    """A seed below 2**32 for this batch: the same for the same samples of the same run."""
    digest = hashlib.sha256(str(context.seed).encode())
    digest.update(context.ids.cpu().numpy().astype("<i8").tobytes())
    return int.from_bytes(digest.digest()[:4], "little")


class _Nowhere(io.StringIO):
    """Discards what is printed, except by a progress display that is already running."""

    def __init__(self, instead_of: Any) -> None:
        super().__init__()
        self.rich_proxied_file = getattr(instead_of, "rich_proxied_file", instead_of)

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def generators(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python, and restore their states afterwards."""
    import numpy as np
    import torch

    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python_state, numpy_state = random.getstate(), np.random.get_state()
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)


@contextmanager
def isolated(name: str, model: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Run code of a library: seeded, silent, with gradients, and with the modes of the model restored.

    Its warnings about what it computes go to the harness, which puts them into the report; those for its developers
    are ignored.

    Raises:
        PluginError: whatever the library raises, with the name of the attack; but out-of-memory errors and this
            project's own errors pass unchanged.
    """
    import torch

    modes = [(module, module.training) for module in model.modules()]
    try:
        with (
            running_user_code(f"{name} failed", memory_passes=True),
            generators(seed, device),
            contextlib.redirect_stdout(_Nowhere(sys.stdout)),
            contextlib.redirect_stderr(_Nowhere(sys.stderr)),
            warnings.catch_warnings(),
            torch.enable_grad(),
        ):
            warnings.simplefilter("ignore")
            for category in (UserWarning, RuntimeWarning):
                warnings.simplefilter("default", category)
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def any_batch(model: nn.Module, context: AttackContext) -> nn.Module:
    """The model for code that predicts a subset of the batch, or a sample several times.

    Modules that draw seeded noise need the ids of the samples, which a library does not pass on: where the number of
    images differs from that of the batch, positions and a count of the calls replace the ids.
    """
    import torch
    from torch import nn

    from freqrobust.numerics import noise

    class AnyBatch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.calls = 0

        def forward(self, x: torch.Tensor) -> Any:
            if len(x) == len(context.ids):
                return self.model(x)
            self.calls += 1
            with noise.sample_scope(torch.arange(len(x)), seed=context.seed, stream=f"any batch {self.calls}"):
                return self.model(x)

    view = AnyBatch()
    view.training = model.training
    return view


def settle(examples: Any, images: torch.Tensor, norm: str | None, eps: float | None) -> torch.Tensor:
    """The library's images, detached, in float32, with rounding errors removed; real violations are kept.

    Args:
        examples: what the library returned.
        images: the clean images ``(N, C, H, W)``.
        norm: ``linf``, ``l2`` or ``l1``; None without a budget.
        eps: the budget.
    """
    import torch

    if not isinstance(examples, torch.Tensor) or examples.shape != images.shape:
        return examples  # type: ignore[no-any-return]  # the harness reports what is wrong with it
    exact: torch.Tensor = examples.detach().to(images.device, torch.float32)
    boxed = exact.clamp(0, 1)
    inside = torch.where((exact - boxed).abs() <= ROUNDING, boxed, exact)
    if norm is None or eps is None:
        return inside
    delta = inside - images
    far = _lengths(delta, norm)
    rounded = (far > eps) & (far <= eps + ROUNDING * max(1.0, eps))
    if not bool(rounded.any()):
        return inside
    if norm == "linf":
        nearer = torch.minimum(torch.maximum(inside, images - eps), images + eps)
    else:
        wanted = torch.full_like(far, eps)
        for _ in range(4):  # the sum is rounded again, pixel by pixel
            nearer = images + delta * (wanted / far.clamp_min(1e-12)).float()[:, None, None, None]
            wanted = wanted - 2 * (_lengths(nearer - images, norm) - eps).clamp_min(0)
    return torch.where(rounded[:, None, None, None], nearer.clamp(0, 1), inside)


def _lengths(delta: torch.Tensor, norm: str) -> torch.Tensor:
    import torch

    order = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}[norm]
    lengths: torch.Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1, dtype=torch.float64)
    return lengths
