"""Measuring all cells of one run, defense by defense, through the journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from freqrobust.core.errors import FreqRobustError, JournalError
from freqrobust.core.files import identity
from freqrobust.core.progress import Progress, fail, finish
from freqrobust.core.source_hash import code_hash
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.core.version import __version__
from freqrobust.data.dataset import ImageData
from freqrobust.harness.batches import Batches
from freqrobust.harness.cell import measure, measure_clean, measure_transfer
from freqrobust.harness.defend import defend_copy
from freqrobust.harness.journal import Journal
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.run_plan import CLEAN, VOTES, cell_label, eps_of, sweeps, transfer_label
from freqrobust.harness.target_model import TargetModel
from freqrobust.models.class_subset import restricted
from freqrobust.models.classifier import set_eval
from freqrobust.models.fingerprint import fingerprint
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import DefenseContext
from freqrobust.plugins.criterion import Criterion
from freqrobust.plugins.specs import DefenseChain, PluginSpec
from freqrobust.results.records import Precision, Warned

#: The code that every number of a cell depends on, whatever the plugin; what it imports counts as well.
ENGINE = ("freqrobust.harness.run", "freqrobust.harness.diagnosis.examine")


@cache
def engine_hash() -> str:
    """Hash of the code that measures, a part of the identity of every cell; in one process it does not change."""
    return code_hash(ENGINE)


@dataclass
class Measured:
    """The cells of one defense."""

    chain: DefenseChain
    clean: Outcome
    cells: list[tuple[PluginSpec[Attack], Outcome | str]] = field(default_factory=list)  # a string says why it failed
    error: str | None = None
    oblivious: list[tuple[PluginSpec[Attack], Outcome | str]] = field(default_factory=list)


@dataclass
class Run:
    """Everything that stays the same from one defense to the next."""

    network: nn.Module
    data: ImageData
    training: ImageData | None
    attacks: list[PluginSpec[Attack]]
    device: torch.device
    precision: Precision
    seed: int
    batch_size: int
    adaptive: bool
    journal: Journal
    checked: Journal  # what a diagnosis found
    cache_dir: Path | None
    progress: Progress
    criterion: PluginSpec[Criterion]
    warnings: list[Warned] = field(default_factory=list)  # about the model

    def __post_init__(self) -> None:
        self.model_print = fingerprint(self.network)
        self.engine = engine_hash()

    def key(
        self,
        chain: DefenseChain,
        plugin_spec: PluginSpec[Attack] | None,
        lower: list[float] | None,
        purpose: str = "adaptive",
    ) -> str:
        """The identity of a cell: all that its numbers depend on; ``lower`` is its place in a sweep."""
        needs_training = any(defense.needs_train_data for defense in chain.defenses)
        attack = plugin_spec.plugin if plugin_spec is not None else None
        fixed_batch = isinstance(attack, Attack) and not attack.batch_invariant
        return identity(
            {
                "version": [__version__, self.engine, torch.__version__],
                "model": self.model_print,
                "defense": [[part.name, part.params, part.code] for part in chain.parts],
                "train_data": self.training.sha256 if needs_training and self.training is not None else None,
                "data": self.data.sha256,
                "attack": [plugin_spec.name, plugin_spec.params, plugin_spec.code]
                if plugin_spec is not None
                else CLEAN,
                "criterion": [self.criterion.name, self.criterion.params, self.criterion.code],
                "lower_eps": lower,
                "purpose": purpose,
                "seed": self.seed,
                "precision": self.precision,
                "device": self.device.type,
                "batch_size": self.batch_size if fixed_batch else None,
                "votes": VOTES if chain.stochastic else 1,
            }
        )

    def keep(self, journal: Journal, key: str, piece: dict[str, Any]) -> None:
        """Put a piece on disk; a full disk takes nothing from what was measured."""
        try:
            journal.store(key, piece)
        except JournalError as error:
            self.progress.say(f"warning: {error}")

    def transfer(
        self, plugin_spec: PluginSpec[Attack], source: DefenseRun, targets: list[tuple[DefenseRun, Measured]]
    ) -> None:
        """Show examples made on the undefended model to the defended ones."""
        try:
            self._transfer(plugin_spec, source, targets)
        finally:
            finish(self.progress, transfer_label(plugin_spec))

    def _transfer(
        self, plugin_spec: PluginSpec[Attack], source: DefenseRun, targets: list[tuple[DefenseRun, Measured]]
    ) -> None:
        missing: list[tuple[DefenseRun, Measured, str]] = []
        for run, measured in targets:
            key = self.key(run.chain, plugin_spec, None, purpose="oblivious")
            piece = self.journal.load(key)
            if piece is not None:
                measured.oblivious.append((plugin_spec, Outcome.from_piece(piece)))
            else:
                missing.append((run, measured, key))
        if not missing:
            return
        label = transfer_label(plugin_spec)
        ready: list[tuple[DefenseRun, Measured, str]] = []
        for run, measured, key in missing:
            try:
                with running_user_code(run.chain.name):
                    run.target_model()
                ready.append((run, measured, key))
            except FreqRobustError as error:  # the other defenses' cells are kept
                measured.oblivious.append((plugin_spec, one_line(error)))
        if not ready:
            return
        missing = ready
        try:
            target_models = [(run.target_model(), measured.clean) for run, measured, _ in missing]
            self.progress.begin(label, len(self.data))
            with running_user_code(plugin_spec.name):
                outcomes = measure_transfer(
                    plugin_spec, source.target_model(), source.batches, target_models, self.seed
                )
        except FreqRobustError as error:  # the other cells are kept
            reason = one_line(error)
            fail(self.progress, f"{label}: failed: {reason}")
            for _, measured, _ in missing:
                measured.oblivious.append((plugin_spec, reason))
            return
        for (_, measured, key), outcome in zip(missing, outcomes, strict=True):
            self.keep(self.journal, key, outcome.to_piece())
            measured.oblivious.append((plugin_spec, outcome))
        shown = ", ".join(
            f"{run.chain.spec} {o.right.mean():.1%}" for (run, _, _), o in zip(missing, outcomes, strict=True)
        )
        self.progress.end(f"{label}: {shown}")


class DefenseRun:
    """One defense: made when the first cell needs it, as finished cells come from the journal."""

    def __init__(self, run: Run, chain: DefenseChain) -> None:
        self.run = run
        self.chain = chain
        self._target_model: TargetModel | None = None
        self.batches = Batches(run.data, run.device, run.batch_size, run.adaptive, run.progress)

    def measure(self) -> Measured:
        run = self.run
        n = len(run.data)
        try:
            with running_user_code(self.chain.name):
                clean = self.cell(None, None, lambda: measure_clean(self.target_model(), self.batches))
        except FreqRobustError as error:  # whatever a defense does, the other cells are kept
            nothing = Outcome(np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int32))
            reason = one_line(error)
            fail(run.progress, f"{self.chain.spec}: failed: {reason}")
            for plugin_spec in [None, *run.attacks]:
                finish(run.progress, cell_label(self.chain, plugin_spec))
            return Measured(self.chain, nothing, [(s, reason) for s in run.attacks], reason)
        finish(run.progress, cell_label(self.chain, None))
        found: dict[int, Outcome | str] = {}
        for group in sweeps(run.attacks, self.chain):
            lower: Outcome | None = None
            # also at the last eps: a cell does not depend on what follows it
            lower_eps: list[float] | None = [] if len(group) > 1 else None
            for index in group:
                plugin_spec = run.attacks[index]
                found[index] = outcome = self.attacked(plugin_spec, clean, lower, lower_eps)
                if lower_eps is not None and isinstance(outcome, Outcome):
                    lower = outcome
                    lower_eps.append(eps_of(plugin_spec))
        return Measured(self.chain, clean, [(s, found[i]) for i, s in enumerate(run.attacks)])

    def forget(self) -> None:
        """Release the model."""
        self._target_model = None

    def attacked(
        self, plugin_spec: PluginSpec[Attack], clean: Outcome, lower: Outcome | None, lower_eps: list[float] | None
    ) -> Outcome | str:
        try:
            with running_user_code(plugin_spec.name):
                return self.cell(
                    plugin_spec,
                    lower_eps,
                    lambda: measure(
                        plugin_spec,
                        self.target_model(),
                        self.batches,
                        clean,
                        lower,
                        self.run.seed,
                        lower_eps is not None,
                    ),
                )
        except FreqRobustError as error:  # whatever a plugin does, the other cells are kept
            reason = one_line(error)
            fail(self.run.progress, f"{cell_label(self.chain, plugin_spec)}: failed: {reason}")
            return reason
        finally:
            finish(self.run.progress, cell_label(self.chain, plugin_spec))

    def cell(self, plugin_spec: PluginSpec[Attack] | None, lower_eps: list[float] | None, work: Any) -> Outcome:
        """From the journal, or measured and put there."""
        run = self.run
        key = run.key(self.chain, plugin_spec, lower_eps)
        label = cell_label(self.chain, plugin_spec)
        piece = run.journal.load(key)
        if piece is not None:
            known = Outcome.from_piece(piece)
            run.progress.end(f"{label}: {_percent(known)} (from the journal)")
            return known
        self.target_model()  # made before the clock of the cell starts
        run.progress.begin(label, len(run.data))
        outcome: Outcome = work()
        run.keep(run.journal, key, outcome.to_piece())
        run.progress.end(f"{label}: {_percent(outcome)}")
        return outcome

    def target_model(self) -> TargetModel:
        """The defended model; made once."""
        if self._target_model is not None:
            return self._target_model
        run = self.run
        context = DefenseContext(
            device=run.device,
            seed=run.seed,
            batch_size=run.batch_size,
            train_data=run.training,
            cache_dir=run.cache_dir,
            progress=run.progress,
        )
        exact, attackable = (
            restricted(module, run.data.class_subset, run.device)
            for module in defend_copy(run.network, self.chain, context)
        )
        for module in (exact, attackable):
            set_eval(module)
            for parameter in module.parameters():
                parameter.requires_grad_(False)
        probe, _, ids = run.data.batch(torch.arange(min(4, len(run.data))), run.device)
        self._target_model = TargetModel(
            exact,
            attackable,
            probe,
            device=run.device,
            precision=run.precision,
            votes=VOTES if self.chain.stochastic else 1,
            seed=run.seed,
            criterion=run.criterion.plugin,
        )
        if not self.chain.parts:  # tried when the run was opened
            return self._target_model
        with running_user_code(f"{self.chain.spec}: the defended model fails"):
            self._target_model.predict(probe, ids)
        return self._target_model


def _percent(outcome: Outcome) -> str:
    return f"{outcome.right.mean():.1%} in {outcome.numbers.seconds:.1f} s"
