"""Whether the passes of attacks are compiled: decided once for a run, and the same when the run is resumed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from freqrobust.core.errors import FreqRobustError, ImageFileError, JournalError
from freqrobust.core.files import identity
from freqrobust.core.progress import Progress, Silent
from freqrobust.core.schedule import clock_text
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData
from freqrobust.harness.compiled_model import TRIAL, NotCompiledError, logits_and_gradient, seconds_of
from freqrobust.harness.journal import Journal
from freqrobust.harness.target_model import TargetModel
from freqrobust.plugins.specs import DefenseChain
from freqrobust.results.records import CompilationRecord, Precision, Warned

Mode = Literal["auto", "on", "off"]
#: What compiling takes about: seconds, and seconds for each operation of a forward and a backward pass. Measured on one
#: core with an empty cache: about 30 s for the 170 to 225 operations of ResNet-20.
_SECONDS, _SECONDS_PER_OPERATION = 10.0, 0.1
#: The expected share of the time of passes that compiling saves (ResNet-20: 27 % in fp32, and 13 % in bf16, whose eager passes
#: are faster), and how many times its seconds have to be saved.
_SAVED: dict[Precision, float] = {"fp32": 0.2, "bf16": 0.12}
_WORTH = 1.5
#: The reason where no attack differentiates a model, so that nothing is decided.
IDLE = "no expected work"
#: The reason where compiling would take longer than what it saves.
_FEW = "too little work"
#: Seconds after which no further pass is timed.
_LONG = 2.0
#: The folder of the run directory with what was decided.
FOLDER = "compilation"


@dataclass(frozen=True)
class Work:
    """How much the attacks of a run are expected to compute.

    Attributes:
        passes: images forward and backward of each model that can be compiled, by the name of its defense, if it classifies
            every sample correctly.
        oblivious: whether the undefended model is differentiated for the defended ones, too. For how many samples depends
            on models that are measured later, so that ``auto`` does not count these passes.
        timed: whether seconds may be measured to decide; not where processes do not see what others decided.
    """

    passes: Mapping[str, float] = field(default_factory=dict)
    oblivious: bool = False
    timed: bool = True


@dataclass
class Compilation:
    """What is compiled in a run.

    Args:
        mode: ``on``, ``off``, or ``auto``: where the expected work is worth it.
        precision: of the attacks' passes.
        device: where the models run.
        run_dir: what was decided is kept there, so that a resumed run and other processes do the same.
        work: the expected work; None where it is not known, so that ``auto`` compiles nothing.
        progress: is told what was decided.
        reading: only find out what was decided before; nothing is timed, compiled or written.
        kind: the kind of device that decided; by default that of ``device``.
    """

    mode: Mode = "off"
    precision: Precision = "fp32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    run_dir: Path | None = None
    work: Work | None = None
    progress: Progress = field(default_factory=Silent)
    reading: bool = False
    kind: str = ""

    def __post_init__(self) -> None:
        self.journal: Journal | None = None
        self.identity: dict[str, Any] = {}
        self.decision: dict[str, Any] | None = None
        self.models: dict[str, dict[str, Any]] = {}

    def decided(
        self, network: nn.Module, model_print: Mapping[str, Any] | str, data: ImageData, batch_size: int
    ) -> bool:
        """Whether the passes of attacks are compiled in this run, as far as its models can be.

        The first process that decides does so for all that share the run directory. The attacks of the run are no part
        of the decision's identity: more attacks in the same directory find the cells that are there.

        Args:
            network: the undefended model, in eval mode, frozen and on the device.
            model_print: its identity.
            data: the samples.
            batch_size: images per batch.
        """
        if self.decision is not None:
            return bool(self.decision["compiled"])
        idle = self.work is not None and not any(self.work.passes.values()) and not self.work.oblivious
        unknown = self.work is None and self.mode == "auto" and not self.reading
        if self.mode == "off" or idle or unknown:
            reason = "it was switched off" if self.mode == "off" and not idle else IDLE
            self.decision = {"compiled": False, "reason": reason}
            return False
        self.identity = {
            "model": model_print,
            "mode": self.mode,
            "precision": self.precision,
            "device": self.kind or self.device.type,
            "torch": torch.__version__,
        }
        self.journal = _there(self.run_dir) if self.reading else Journal(self.run_dir, FOLDER)
        self.decision = self._known(self.identity)
        if self.decision is not None:
            self._say(f"{self.decision['reason']}, as it was decided before")
        elif self.reading:
            self.decision = {"compiled": self.mode == "on", "reason": "it was asked for"}
        else:
            self.decision = self._once(self.identity, lambda: self._decide(network, data, batch_size))
        return bool(self.decision["compiled"])

    def apply(self, target_model: TargetModel, chain: DefenseChain, data: ImageData, batch_size: int) -> None:
        """Compile a target model of a run in which that was decided. It stays in eager mode where it is not possible."""
        if self.reading or not self.decided_before():
            return
        key = self._identity_of(chain)
        known = self.models.get(chain.spec) or self._known(key)
        if known is not None and not known["compiled"]:
            self._stays(chain, known)
            return
        eager = target_model.view.model
        try:
            reason = refusal(chain, target_model)
            if reason is None and self.mode == "auto" and known is None:
                worth = self._once({**key, "for": "work"}, lambda: self._worth(target_model, chain, data, batch_size))
                reason = worth["reason"]
            if reason:
                raise NotCompiledError(reason)
            self.progress.say(f"compiling {chain.spec}")
            probe = probe_images(data, self.device, max(2, min(TRIAL, batch_size)))
            seconds = target_model.compile(probe, faster=self.mode == "auto" and known is None).seconds
            found: dict[str, Any] = {"compiled": True, "reason": "", "seconds": round(seconds, 2)}
        except ImageFileError:
            raise
        except FreqRobustError as error:
            found = {"compiled": False, "reason": one_line(error)}
        if known is None:
            known = self._once(key, lambda: found)  # of several processes, the first one decides for all
        if known["compiled"] and found["compiled"]:
            self.progress.say(f"compiled {chain.spec} in {found['seconds']:.1f} s")
            self.models[chain.spec] = known
        else:
            target_model.view.model = eager
            self._stays(chain, found if not found["compiled"] else known)

    def decided_before(self) -> bool:
        """Whether it was decided that passes are compiled."""
        return self.decision is not None and bool(self.decision["compiled"])

    def record(self, chains: Sequence[DefenseChain]) -> CompilationRecord | None:
        """What the report says of it; None where nothing was decided, as no attack was measured."""
        if self.decision is None or self.decision["reason"] == IDLE:
            return None
        known = {chain.spec: self._of(chain) for chain in chains}
        if self.work is not None and self.work.oblivious:
            known.setdefault(DefenseChain().spec, self._of(DefenseChain()))
        decided = [one for one in known.values() if one]
        compiled, reason = self.decision["compiled"], self.decision["reason"]
        if compiled and decided and not any(one["compiled"] for one in decided):
            compiled, reasons = False, {spec: _without_seconds(one["reason"]) for spec, one in known.items() if one}
            several = len(set(reasons.values())) > 1
            reason = "; ".join(f"{spec}: {why}" for spec, why in reasons.items()) if several else min(reasons.values())
        seconds = sum(one.get("seconds", 0.0) for one in decided)
        return CompilationRecord(mode=self.mode, compiled=compiled, reason=reason, seconds=round(seconds, 2))

    def warnings(self, chains: Sequence[DefenseChain]) -> list[Warned]:
        """Which models stayed in eager mode although compiling was decided, or asked for."""
        if self.decision is None:
            return []
        if self.mode == "on" and not self.decision["compiled"]:
            return [Warned(code="not-compiled", message=f"not compiled: {self.decision['reason']}")]
        found = []
        for chain in chains:
            known = self._of(chain)
            if known and not known["compiled"] and not known["reason"].startswith(_FEW):
                message = f"{chain.spec} is not compiled: {known['reason']}"
                found.append(Warned(code="not-compiled", message=message, defense=chain.name))
        return found

    def _of(self, chain: DefenseChain) -> dict[str, Any]:
        if not self.decided_before():
            return {}
        return self.models.get(chain.spec) or self._known(self._identity_of(chain)) or {}

    def _stays(self, chain: DefenseChain, found: dict[str, Any]) -> None:
        if chain.spec not in self.models:
            self.progress.say(f"{chain.spec} is not compiled: {found['reason']}")
        self.models[chain.spec] = found

    def _identity_of(self, chain: DefenseChain) -> dict[str, Any]:
        return {**self.identity, "defense": [[part.name, part.params, part.code] for part in chain.parts]}

    def _known(self, content: dict[str, Any]) -> dict[str, Any] | None:
        return self.journal.load(identity(content)) if self.journal is not None else None

    def _once(self, content: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is kept under that identity; if there is nothing, it is made, and kept. One process at a time."""
        assert self.journal is not None
        with self.journal.alone():
            known = self._known(content)
            if known is None:
                known = make()
                with suppress(JournalError):  # a full disk takes nothing from what is measured
                    self.journal.store(identity(content), known)
        return known

    def _decide(self, network: nn.Module, data: ImageData, batch_size: int) -> dict[str, Any]:
        compiled, reason, details = self._choose(network, data, batch_size)
        self._say(f"{reason} ({details})" if details else reason, compiled)
        return {"compiled": compiled, "reason": reason}

    def _say(self, why: str, compiled: bool | None = None) -> None:
        compiled = self.decided_before() if compiled is None else compiled
        self.progress.say(f"attacks {'use compiled passes' if compiled else 'do not use compiled passes'}: {why}")

    def _choose(self, network: nn.Module, data: ImageData, batch_size: int) -> tuple[bool, str, str]:
        """Whether to compile, why, and the same with seconds."""
        problem = compiler_problem(self.device)
        if problem is not None:
            return False, problem, ""
        if batch_size == 1:
            return False, "passes of one image are made in eager mode", ""
        if self.mode == "on":
            return True, "it was asked for", ""
        assert self.work is not None  # see decided()
        if not self.work.timed:
            return False, "each shard would decide for itself; --compile on compiles in all of them", ""
        most = max(self.work.passes.values(), default=0.0)
        try:
            with running_user_code("the model fails"):
                bound = most * 3 * _forward_seconds(network, data, self.device)
                if not self._saves(bound, _SECONDS):
                    return False, _FEW, f"about {clock_text(bound)} of passes at most"
                probe = probe_images(data, self.device, max(2, min(TRIAL, batch_size)))
                model = TargetModel(
                    network, network, probe[:4], device=self.device, precision=self.precision
                ).view.model
                saves, details = self._compare(model, probe, most)
        except ImageFileError:
            raise
        except FreqRobustError as error:
            return False, one_line(error), ""
        return saves, "it saves time" if saves else _FEW, details

    def _worth(
        self, target_model: TargetModel, chain: DefenseChain, data: ImageData, batch_size: int
    ) -> dict[str, Any]:
        """Whether compiling a model saves time; attacks are made for the samples that it classifies correctly only."""
        assert self.work is not None  # see decided()
        with running_user_code("the model fails"):
            right = _share_right(target_model, data, self.device, batch_size)
            probe = probe_images(data, self.device, max(2, min(TRIAL, batch_size)))
            expected = self.work.passes.get(chain.spec, 0.0) * right
            saves, details = self._compare(target_model.view.model, probe, expected)
        return {"reason": "" if saves else f"{_FEW} ({details})"}

    def _compare(self, model: nn.Module, probe: torch.Tensor, passes: float) -> tuple[bool, str]:
        """Whether compiling a model saves time in so many images forward and backward, and the seconds in words."""
        cost = _SECONDS + _SECONDS_PER_OPERATION * _operations(model, probe[:2])
        work = passes * _least_seconds(model, probe) / len(probe)
        details = f"about {clock_text(work)} of passes, and compiling takes about {clock_text(cost)}"
        return self._saves(work, cost), details

    def _saves(self, work: float, cost: float) -> bool:
        return work * _SAVED[self.precision] > cost * _WORTH


def _share_right(target_model: TargetModel, data: ImageData, device: torch.device, batch_size: int) -> float:
    """About the share of samples that a model classifies correctly: of some that are spread over the data."""
    some = torch.linspace(0, len(data) - 1, min(TRIAL, len(data))).long()
    right = 0.0
    for part in some.split(batch_size):
        images, labels, ids = data.batch(part, device)
        right += float(target_model.predict(images, ids).is_correct(labels).sum())
    return max(right, 1.0) / len(some)


def _without_seconds(reason: str) -> str:
    return _FEW if reason.startswith(_FEW) else reason


def _there(run_dir: Path | None) -> Journal:
    """What was decided in a run directory, if there is one."""
    return Journal(run_dir if run_dir is not None and (run_dir / FOLDER).is_dir() else None, FOLDER)


def refusal(chain: DefenseChain, target_model: TargetModel) -> str | None:
    """Why a target model is not compiled; None if it can be tried."""
    if target_model.stochastic:
        return "it is random, and its noise is seeded for every sample"
    if any(not defense.differentiable for defense in chain.defenses):
        return "gradients pass through a surrogate (BPDA)"
    for module in target_model.view.modules():
        if isinstance(module, torch.jit.ScriptModule):
            return "TorchScript models cannot be compiled"
        if isinstance(module, torch.fx.GraphModule):
            return "exported programs cannot be compiled for batches of another size"
        if type(module).__name__ == "OptimizedModule":
            return "the model is compiled already"
    return None


def compiler_problem(device: torch.device) -> str | None:
    """Why nothing can be compiled on this machine; None if there is no reason."""
    if device.type != "cpu":
        return None  # the first call says so
    given = os.environ.get("CXX")
    names = [given] if given else ["g++", "clang++", "c++"]
    if any(shutil.which(name) for name in names):
        return None
    return f"there is no C++ compiler ({' or '.join(names)} was not found)"


def probe_images(data: ImageData, device: torch.device, size: int) -> torch.Tensor:
    """``size`` images ``(size, C, H, W)``: the first ones, repeated where there are fewer."""
    images, _, _ = data.batch(torch.arange(min(size, len(data))), device)
    return images.repeat(-(-size // len(images)), 1, 1, 1)[:size].contiguous()


def _least_seconds(model: nn.Module, probe: torch.Tensor) -> float:
    """Seconds of a forward and a backward pass: the least of three, or of fewer where they take long."""
    start, times = time.perf_counter(), list[float]()
    while len(times) < 3 and time.perf_counter() - start < _LONG:
        times.append(seconds_of(model, probe))
    return min(times)


def _forward_seconds(network: nn.Module, data: ImageData, device: torch.device) -> float:
    """Seconds of a forward pass of one image, in a small batch: rather too many."""
    images, _, _ = data.batch(torch.arange(min(2, len(data))), device)
    start = time.perf_counter()
    with torch.no_grad():
        network(images)[:1].cpu()  # waits for an accelerator
    return (time.perf_counter() - start) / len(images)


class _Counter(TorchDispatchMode):
    """Counts the operations that run inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def _operations(model: nn.Module, images: torch.Tensor) -> int:
    with _Counter() as counter:
        logits_and_gradient(model, images)
    return int(counter.count)
