"""The passes that attacks differentiate: in reduced precision, and compiled."""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from freqrobust.core.compiler import torch_compile
from freqrobust.core.errors import FreqRobustError
from freqrobust.core.text import describe_error, shortened
from freqrobust.core.user_code import running_user_code
from freqrobust.results.records import Precision

#: How far the logits that attacks see may be from those of the predictions, as a share of the largest logit.
SLACK: dict[Precision, float] = {"fp32": 1e-5, "bf16": 0.03}
#: How far results of compiled code may be from those of the same model in eager mode: logits relative to the largest one,
#: gradients relative to their norm.
TOLERANCE = 1e-3
#: The share of images whose gradients have to be that close. Rounding moves few of them much: where the input of a ReLU is
#: almost zero, or two inputs of a max-pooling layer are almost equal.
_MOST = 0.9
#: How much larger than in eager mode the error of a gradient in reduced precision may be.
_LARGER = 1.5
#: Images on which code is compiled, compared and timed, at most.
TRIAL = 64
#: Timed passes; the fastest counts.
_TIMES = 3


class NotCompiledError(FreqRobustError):
    """A model stays in eager mode, for the reason given."""


class Passes(nn.Module):
    """The passes of a model, with logits in fp32.

    Args:
        model: images to logits.
        device: where it runs.
        precision: of the arithmetic; with ``bf16``, PyTorch decides which operations are reduced (autocast).
        channels_last: whether the images are laid out so in memory.
    """

    def __init__(self, model: nn.Module, device: torch.device, precision: Precision, channels_last: bool) -> None:
        super().__init__()
        self.model = model
        self.kind = device.type
        self.reduced = precision == "bf16"
        self.channels_last = channels_last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        if not self.reduced:
            return self.model(x).float()  # type: ignore[no-any-return]
        with torch.autocast(self.kind, torch.bfloat16):
            return self.model(x).float()  # type: ignore[no-any-return]


class CompiledModel(nn.Module):
    """A model whose gradients come from compiled code, for batches of any size.

    Nothing is compiled again: where PyTorch would, as for batches that are much smaller than the first one, and of one
    image, passes run in eager mode. So do passes without gradients.
    """

    def __init__(self, eager: nn.Module, compiled: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.eager = eager
        self._compiled = (compiled,)  # no submodule: it is the eager model once more

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == 1 or not (x.requires_grad and torch.is_grad_enabled()):
            return self.eager(x)  # type: ignore[no-any-return]
        with torch.compiler.set_stance("eager_on_recompile"):
            return self._compiled[0](x)


def reduced(model: nn.Module, probe: torch.Tensor, device: torch.device) -> Passes:
    """The passes of a model in bf16; channels-last, where that gives the same.

    Args:
        model: in eval mode, frozen and on the device.
        probe: a few images, on which both layouts are compared.
        device: where it runs.
    """
    plain = Passes(model, device, "bf16", channels_last=False)
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return plain
    try:
        with running_user_code("channels-last fails"):
            laid_out = Passes(
                copy.deepcopy(model).to(memory_format=torch.channels_last), device, "bf16", channels_last=True
            )
            exact = logits_and_gradient(model, probe)
            differ = _difference(logits_and_gradient(laid_out, probe), exact, logits_and_gradient(plain, probe), "bf16")
    except FreqRobustError:  # such as a model that reshapes with .view()
        return plain
    return plain if differ else laid_out


@dataclass(frozen=True)
class Compiled:
    """A compiled model, and the seconds that compiling it and comparing the results took."""

    model: CompiledModel
    seconds: float


def compile_model(
    model: nn.Module, probe: torch.Tensor, device: torch.device, precision: Precision, *, faster: bool = False
) -> Compiled:
    """Compile a model for batches of any size.

    Args:
        model: in eval mode, frozen and on the device; images to logits, in fp32 or as :func:`reduced` returns it.
        probe: at least two images ``(N, C, H, W)``, on which compiled code is compared with eager mode.
        device: where it runs.
        precision: of the passes.
        faster: refuse compiled code that is slower than eager mode.

    Raises:
        NotCompiledError: it cannot be compiled, or the results differ; the message says why.
    """
    passes = model if isinstance(model, Passes) else Passes(model, device, precision, channels_last=False)
    start = time.perf_counter()
    try:
        with _quiet(), running_user_code("compiling fails"):
            code = compile_function(passes)
            logits_and_gradient(code, probe)
            _differentiate_twice(code, probe)
    except FreqRobustError as error:
        cause = error.__cause__
        raise NotCompiledError(shortened(f"compiling fails: {describe_error(cause or error)}")) from error
    compiled = CompiledModel(passes, code)
    for images in (probe, probe[: len(probe) // 2 + 1]):
        with running_user_code("the model fails"):
            found, eager = logits_and_gradient(compiled, images), logits_and_gradient(passes, images)
            exact = logits_and_gradient(passes.model, images) if precision == "bf16" else eager
        differ = _difference(found, exact, eager, precision)
        if differ:
            raise NotCompiledError(differ)
    if faster:
        times = [(seconds_of(compiled, probe), seconds_of(passes, probe)) for _ in range(_TIMES)]
        ours, theirs = (min(column) for column in zip(*times, strict=True))
        if ours > theirs:
            raise NotCompiledError("compiled code is slower than eager mode")
    return Compiled(compiled, time.perf_counter() - start)


def compile_function(passes: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """What PyTorch compiles; the code is made in the first call."""
    from torch._dynamo import config, mark_dynamic
    from torch._functorch import config as gradients

    # every model of a process counts for the limit, as they share the code of their layers
    config.recompile_limit = max(config.recompile_limit, 256)
    # attacks that take the gradients of several classes pass backward more than once
    gradients.donated_buffer = False
    compiled = torch_compile(passes)

    def call(x: torch.Tensor) -> torch.Tensor:
        mark_dynamic(x, 0)  # the size of the batch, and nothing else, may change
        return compiled(x)  # type: ignore[no-any-return]

    return call


def logits_and_gradient(
    model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``(N, K)`` and the gradient ``(N, C, H, W)`` of the sum of the largest logits."""
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(images)
        best = logits.max(dim=1).values.sum()
        gradient = torch.autograd.grad(best, images)[0] if best.requires_grad else torch.zeros_like(images)
    return logits.detach(), gradient


def _differentiate_twice(model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> None:
    """Pass backward twice through one forward pass; PyTorch raises where the compiled code cannot do that."""
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        total = model(images).sum()
        for again in (True, False) if total.requires_grad else ():
            torch.autograd.grad(total, images, retain_graph=again)


def seconds_of(model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> float:
    """Seconds of a forward and a backward pass."""
    start = time.perf_counter()
    _, gradient = logits_and_gradient(model, images)
    gradient[:1, :1, :1, :1].cpu()  # waits for an accelerator
    return time.perf_counter() - start


_Results = tuple[torch.Tensor, torch.Tensor]


def _difference(found: _Results, exact: _Results, eager: _Results, precision: Precision) -> str:
    """In what logits and gradients differ too much from those in eager mode; "" if in nothing."""
    largest = float(exact[0].abs().max()) + 1e-12
    farthest = float((found[0] - exact[0]).abs().max())
    if not farthest <= (TOLERANCE if precision == "fp32" else SLACK[precision]) * largest:  # also NaN
        return f"its logits differ from those in eager mode by up to {farthest:.2g} (the largest is {largest:.2g})"
    error, allowed = _error(found[1], exact[1]), _LARGER * _error(eager[1], exact[1]) + TOLERANCE
    if not error <= allowed:
        return f"its gradients differ by {error:.2g} of their norm, where {allowed:.2g} is expected"
    return ""


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The relative error that most images do not exceed; NaN if not everything is finite."""
    if not bool(torch.isfinite(found).all()):
        return float("nan")
    norms = exact.flatten(1).norm(dim=1)
    errors = (found - exact).flatten(1).norm(dim=1) / (norms + TOLERANCE * norms.mean() + 1e-12)
    return float(errors.quantile(_MOST, interpolation="higher"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and messages of the compiler: what matters raises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
