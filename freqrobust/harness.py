"""``evaluate``: every (defense, attack) pair over one dataset, one report."""

from __future__ import annotations

import copy
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from freqrobust import __version__, suites
from freqrobust.context import DefenseContext, Progress, Silent
from freqrobust.data import ImageData, as_data
from freqrobust.devices import auto_batch_size, describe, resolve_device
from freqrobust.errors import DataError, FreqRobustError, ModelError, PluginError, SpecError
from freqrobust.journal import Journal, engine_hash, identity
from freqrobust.measurement import Bench, Outcome, measure, measure_clean
from freqrobust.models import (
    Classifier,
    fingerprint,
    frozen,
    load_model,
    misfit,
    record,
    set_eval,
    state_hash,
    with_gradients,
)
from freqrobust.plugin import Attack, Defense, Threat
from freqrobust.registry import DefenseChain, Selection, parse_attacks, parse_defenses
from freqrobust.results import (
    Cell,
    DataRecord,
    Difference,
    EnvironmentRecord,
    PerturbationRecord,
    Report,
    ThreatRecord,
    Warned,
    WorstCase,
    pack,
)
from freqrobust.statistics import by_chance, paired_difference, wilson
from freqrobust.victim import Precision, Victim, check_logits

#: Predictions that vote on a sample when the defense is stochastic.
VOTES = 11
CLEAN = "clean"


@dataclass
class _Measured:
    """The cells of one defense."""

    chain: DefenseChain
    clean: Outcome
    cells: list[tuple[Selection, Outcome | str]] = field(default_factory=list)  # a string says why it failed
    error: str | None = None


def evaluate(
    model: nn.Module | str | os.PathLike[str],
    data: Any,
    *,
    attacks: Iterable[str | Attack | Selection] | None = None,
    suite: str | None = None,
    defenses: Iterable[str | Defense | DefenseChain | Sequence[Defense]] = (),
    baseline: bool = True,
    train_data: Any = None,
    batch_size: int | Literal["auto"] = "auto",
    device: str | torch.device = "auto",
    precision: Precision = "fp32",
    seed: int = 0,
    run_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure a classifier, undefended and with each defense, under each attack.

    Prints nothing, and writes nothing unless ``run_dir`` or ``cache_dir`` is given.

    Args:
        model: an ``nn.Module`` from images in [0, 1] ``(N, C, H, W)`` to logits ``(N, K)``, or a model spec.
        data: ``(images, labels)``, a map-style dataset, an :class:`ImageData` or a data spec.
        attacks: attack specs or objects; instead of ``suite``.
        suite: a suite's name or file; ``standard`` when ``attacks`` is not given either.
        defenses: defense specs or objects; a sequence of objects is a composition, left first.
        baseline: measure the undefended model too.
        train_data: what training-time defenses learn from, in any form that ``data`` takes.
        batch_size: images per batch; results do not depend on it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: of the attacks' passes; predictions are always made in fp32.
        seed: all randomness is keyed by it.
        run_dir: journal of finished cells; the same call resumes from it.
        cache_dir: where trained defenses are kept.
        progress: told what happens.

    Returns:
        The report; cells that failed say why.

    Raises:
        FreqRobustError: the model, the data or a spec is wrong; one line that says what would work.
    """
    watch = progress or Silent()
    if attacks is not None and suite is not None:
        raise SpecError("give either attacks or a suite, not both")
    if batch_size != "auto" and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise SpecError(f"batch_size should be 'auto' or at least 1, but got {batch_size!r}")
    if precision not in ("fp32", "bf16"):
        raise SpecError(f"precision should be fp32 or bf16, but got {precision!r}")
    where = resolve_device(device)
    images = as_data(data)
    training = as_data(train_data, "train data") if train_data is not None else None
    chains = _chains(defenses, baseline, training)
    if isinstance(attacks, str | Attack):
        attacks = [attacks]
    chosen = parse_attacks(attacks if attacks is not None else suites.resolve(suite or "standard", images.shape))
    network = model if isinstance(model, nn.Module) else load_model(model, data=images, device=where)
    home = next((p.device for p in network.parameters()), None)
    network = network.to(where)
    try:
        with frozen(network) as stuck:
            warnings = _warn_about(network, stuck)
            _check_fit(network, images, where)
            size = auto_batch_size(network, images.shape, where) if batch_size == "auto" else int(batch_size)
            run = _Run(
                network=network,
                data=images,
                training=training,
                chosen=chosen,
                device=where,
                precision=precision,
                seed=seed,
                batch_size=size,
                adaptive=batch_size == "auto",
                journal=Journal(Path(run_dir) if run_dir is not None else None),
                cache_dir=Path(cache_dir) if cache_dir is not None else None,
                watch=watch,
            )
            measured = [run.defense(chain) for chain in chains]
    finally:
        if home is not None and home != where:
            network.to(home)
    for path in run.journal.damaged:
        warnings.append(Warned(code="damaged-journal", message=f"{path} was damaged and has been measured again"))
    return _report(run, measured, warnings)


def _chains(
    defenses: Iterable[str | Defense | DefenseChain | Sequence[Defense]], baseline: bool, training: ImageData | None
) -> list[DefenseChain]:
    if isinstance(defenses, str | Defense):
        defenses = [defenses]
    chains = parse_defenses(defenses)
    if baseline and all(chain.parts for chain in chains):
        chains.insert(0, DefenseChain())
    if not chains:
        raise SpecError("without the baseline there has to be a defense")
    chains.sort(key=lambda chain: len(chain.parts) > 0)  # the undefended model first; the rest as given
    for chain in chains:
        for part in chain.parts:
            if isinstance(part.plugin, Defense) and part.plugin.needs_train_data and training is None:
                raise SpecError(f"{part.spec} needs training data: give --train-data (in Python: train_data=...)")
    return chains


def _warn_about(network: nn.Module, stuck: list[str]) -> list[Warned]:
    warnings = []
    if stuck:
        shown = ", ".join(stuck[:3])
        warnings.append(Warned(code="train-mode-layers", message=f"{len(stuck)} layers stay in train mode: {shown}"))
    if isinstance(network, Classifier) and network.note:
        warnings.append(Warned(code="several-networks", message=network.note))
    if isinstance(network, Classifier) and network.chosen.warning:
        warnings.append(Warned(code="normalization", message=network.chosen.warning))
    return warnings


def _check_fit(network: nn.Module, data: ImageData, device: torch.device) -> None:
    """One forward pass of the first samples, to say clearly what does not fit.

    Raises:
        DataError: the images or labels are not for this model.
        ModelError: the model does not return finite logits.
    """
    images, _, _ = data.batch(torch.arange(min(2, len(data))), device)
    try:
        with torch.no_grad():
            logits = network(images)
    except FreqRobustError:
        raise
    except Exception as error:
        raise misfit(network, data, error) from error
    check_logits(logits, images)
    if not bool(torch.isfinite(logits).any(dim=1).any()):
        raise ModelError("the model returns NaN or infinite values for the first images")
    classes = logits.shape[1]
    highest = int(data.labels.max())
    if highest >= classes:
        raise DataError(f"{data.spec} has labels up to {highest}, but the model has {classes} classes")


@dataclass
class _Run:
    """Everything that stays the same from one defense to the next."""

    network: nn.Module
    data: ImageData
    training: ImageData | None
    chosen: list[Selection]
    device: torch.device
    precision: Precision
    seed: int
    batch_size: int
    adaptive: bool
    journal: Journal
    cache_dir: Path | None
    watch: Progress

    def __post_init__(self) -> None:
        self.model_print = fingerprint(self.network)
        self.weights_print = state_hash(self.network)
        self.engine = engine_hash()

    def key(self, chain: DefenseChain, selection: Selection | None, lower: list[float]) -> str:
        """The identity of a cell: all that its numbers depend on."""
        needs_training = any(defense.needs_train_data for defense in chain.defenses)
        attack = selection.plugin if selection is not None else None
        fixed_batch = isinstance(attack, Attack) and not attack.batch_invariant
        return identity(
            {
                "version": [__version__, self.engine, torch.__version__],
                "model": self.model_print,
                "defense": [[part.name, part.params, part.code] for part in chain.parts],
                "train_data": self.training.sha256 if needs_training and self.training is not None else None,
                "data": self.data.sha256,
                "attack": [selection.name, selection.params, selection.code] if selection is not None else CLEAN,
                "lower_eps": lower,
                "seed": self.seed,
                "precision": self.precision,
                "device": self.device.type,
                "batch_size": self.batch_size if fixed_batch else None,
                "votes": VOTES if chain.stochastic else 1,
            }
        )

    def defense(self, chain: DefenseChain) -> _Measured:
        """All cells of one defense."""
        return _DefenseRun(self, chain).measure()


class _DefenseRun:
    """One defense: made when the first cell needs it, as finished cells come from the journal."""

    def __init__(self, run: _Run, chain: DefenseChain) -> None:
        self.run = run
        self.chain = chain
        self._victim: Victim | None = None
        self.bench = Bench(run.data, run.device, run.batch_size, run.adaptive, run.watch)

    def measure(self) -> _Measured:
        run = self.run
        n = len(run.data)
        try:
            clean = self.cell(None, [], lambda: measure_clean(self.victim(), self.bench))
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # whatever a defense does, the other cells are kept
            nothing = Outcome(np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int32))
            reason = _reason(self.chain.name, error)
            run.watch.say(f"{self.chain.spec}: failed: {reason}")
            return _Measured(self.chain, nothing, [(s, reason) for s in run.chosen], reason)
        found: dict[int, Outcome | str] = {}
        for group in self.sweeps():
            lower: Outcome | None = None
            handed: list[float] = []
            for index in group:
                selection = run.chosen[index]
                found[index] = outcome = self.attacked(selection, clean, lower, handed)
                if len(group) > 1 and isinstance(outcome, Outcome):
                    lower = outcome
                    handed.append(_eps(selection))
        return _Measured(self.chain, clean, [(s, found[i]) for i, s in enumerate(run.chosen)])

    def attacked(
        self, selection: Selection, clean: Outcome, lower: Outcome | None, handed: list[float]
    ) -> Outcome | str:
        try:
            return self.cell(
                selection,
                handed,
                lambda: measure(selection, self.victim(), self.bench, clean, lower, self.run.seed),
            )
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # whatever a plugin does, the other cells are kept
            reason = _reason(selection.name, error)
            self.run.watch.end(f"{self.chain.spec} / {selection.spec}: failed: {reason}")
            return reason

    def cell(self, selection: Selection | None, handed: list[float], work: Any) -> Outcome:
        """From the journal, or measured and put there."""
        run = self.run
        key = run.key(self.chain, selection, list(handed))
        label = f"{self.chain.spec} / {selection.spec if selection is not None else CLEAN}"
        piece = run.journal.load(key)
        if piece is not None:
            known = Outcome.from_piece(piece)
            run.watch.say(f"{label}: {_percent(known)} (from the journal)")
            return known
        self.victim()  # made before the clock of the cell starts
        run.watch.begin(label, len(run.data))
        outcome: Outcome = work()
        run.journal.store(key, outcome.to_piece())
        run.watch.end(f"{label}: {_percent(outcome)}")
        return outcome

    def sweeps(self) -> list[list[int]]:
        """Positions of the attacks, those that differ only in eps together and upwards."""
        groups: dict[str, list[int]] = {}
        for index, selection in enumerate(self.run.chosen):
            attack = selection.plugin
            assert isinstance(attack, Attack)
            threat = attack.threat()
            key = f"{index}"
            if threat is not None and "eps" in type(attack).model_fields and not self.chain.stochastic:
                given = {k: v for k, v in attack.model_dump().items() if k in selection.given and k != "eps"}
                key = f"{selection.name} {selection.code} {threat.norm} {sorted(given.items())}"
            groups.setdefault(key, []).append(index)
        return [sorted(group, key=lambda i: _eps(self.run.chosen[i])) for group in groups.values()]

    def victim(self) -> Victim:
        """The defended model; made once."""
        if self._victim is not None:
            return self._victim
        run = self.run
        context = DefenseContext(
            device=run.device,
            seed=run.seed,
            batch_size=run.batch_size,
            train_data=run.training,
            cache_dir=run.cache_dir,
            progress=run.watch,
        )
        given = _copy(run.network) if self.chain.parts else run.network
        exact, attackable = defend(given, self.chain, context)
        if state_hash(given) != run.weights_print:
            raise PluginError(f"{self.chain.spec} changed the model it was given; a defense has to copy it first")
        for module in (exact, attackable):
            set_eval(module)
            for parameter in module.parameters():
                parameter.requires_grad_(False)
        probe, _, ids = run.data.batch(torch.arange(min(4, len(run.data))), run.device)
        self._victim = Victim(
            exact,
            attackable,
            probe,
            device=run.device,
            precision=run.precision,
            votes=VOTES if self.chain.stochastic else 1,
            seed=run.seed,
        )
        try:
            self._victim.predict(probe, ids, "probe")
        except FreqRobustError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise PluginError(
                f"{self.chain.spec}: the defended model fails: {type(error).__name__}: {reason}"
            ) from error
        return self._victim


def _copy(model: nn.Module) -> nn.Module:
    """A copy for a defense to work on, so that one which changes it does no harm; the model itself if need be."""
    try:
        return copy.deepcopy(model)
    except Exception:  # some modules cannot be copied
        return model


def defend(model: nn.Module, chain: DefenseChain, context: DefenseContext) -> tuple[nn.Module, nn.Module]:
    """Apply the defenses of a chain, left first.

    Returns:
        The defended model, and the same as attacks differentiate it (through surrogates where needed).

    Raises:
        PluginError: a defense failed, or did not return a model.
    """
    exact = attackable = model
    for part in chain.parts:
        defense = part.plugin
        assert isinstance(defense, Defense)
        same = exact is attackable
        before, exact = attackable, _apply(defense, part.spec, exact, context)
        attackable = exact if same else _apply(defense, part.spec, before, context)
        attackable = with_gradients(defense, attackable, before)
    return exact.to(context.device), attackable.to(context.device)


def _apply(defense: Defense, spec: str, model: nn.Module, context: DefenseContext) -> nn.Module:
    try:
        made = defense.apply(model, context)
    except FreqRobustError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise PluginError(f"{spec} failed: {type(error).__name__}: {reason}") from error
    if not isinstance(made, nn.Module):
        raise PluginError(f"{spec} should return an nn.Module, but returned a {type(made).__name__}")
    return made


def _reason(name: str, error: Exception) -> str:
    """Why a cell failed, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, FreqRobustError) else f"{name}: {type(error).__name__}: {text}"


def _eps(selection: Selection) -> float:
    attack = selection.plugin
    threat = attack.threat() if isinstance(attack, Attack) else None
    return threat.eps if threat is not None else 0.0


def _percent(outcome: Outcome) -> str:
    return f"{outcome.right.mean():.1%} in {outcome.seconds:.1f} s"


# ---------------------------------------------------------------- the report


def _report(run: _Run, measured: list[_Measured], warnings: list[Warned]) -> Report:
    cells: list[Cell] = []
    worst: list[WorstCase] = []
    threats = _threats(run.chosen)
    reference = next((m for m in measured if not m.chain.parts), None)
    base: dict[str, np.ndarray] = {}
    for one in measured:
        against = base if reference is not None and one is not reference else None
        for cell in _cells(run, one, against):
            cells.append(cell)
            if one is reference and cell.status == "ok":
                base[_cell_key(cell)] = cell.right()
        if one.error is None:
            for row in _worst(one, threats, against):
                worst.append(row)
                if one is reference:
                    base[f"worst {row.threat}"] = row.right()
        warnings.extend(_warnings(run, one))
    failed = any(cell.status == "failed" for cell in cells)
    return Report(
        freqrobust_version=__version__,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seed=run.seed,
        status="partial" if failed else "complete",
        models=[record(run.network)],
        data=DataRecord(
            spec=run.data.spec,
            split=run.data.split,
            n=len(run.data),
            classes=run.data.classes,
            shape=list(run.data.shape),
            sha256=run.data.sha256,
            ids=run.data.ids.tolist() if run.data.subset else "all",
        ),
        environment=EnvironmentRecord(
            python=platform.python_version(),
            torch=torch.__version__,
            device=describe(run.device),
            precision=run.precision,
            git=git_commit(),
        ),
        cells=cells,
        worst_case=worst,
        warnings=warnings,
    )


def _cell_key(cell: Cell) -> str:
    return f"{cell.attack} {sorted(cell.attack_params.items())}"


def _threats(chosen: list[Selection]) -> list[Threat]:
    found = [s.plugin.threat() for s in chosen if isinstance(s.plugin, Attack)]
    return sorted({threat for threat in found if threat is not None}, key=lambda t: (t.norm, t.eps))


def _cells(run: _Run, one: _Measured, base: dict[str, np.ndarray] | None) -> list[Cell]:
    labels = run.data.labels.numpy()
    made = []
    for selection, outcome in [(None, one.error or one.clean), *one.cells]:
        attack = selection.plugin if selection is not None else None
        threat = attack.threat() if isinstance(attack, Attack) else None
        cell: dict[str, Any] = {
            "defense": one.chain.name,
            "defense_spec": one.chain.spec,
            "defense_params": one.chain.params,
            "attack": selection.name if selection is not None else CLEAN,
            "attack_spec": selection.spec if selection is not None else CLEAN,
            "attack_params": selection.params if selection is not None else {},
            "kind": attack.kind if isinstance(attack, Attack) else "shift",
            "threat": ThreatRecord(norm=threat.norm, eps=threat.eps) if threat is not None else None,
            "votes": VOTES if one.chain.stochastic else None,
            "n": len(labels),
        }
        if isinstance(outcome, str):
            made.append(Cell(**cell, status="failed", error=outcome, correct=0, outcomes=None))
            continue
        cell |= {
            "correct": int(outcome.right.sum()),
            "outcomes": pack(outcome.right),
            "inherited": outcome.inherited,
            "breakdown": outcome.breakdown or None,
            "seconds": outcome.seconds,
            "forwards": outcome.forwards,
            "backwards": outcome.backwards,
        }
        if cell["kind"] == "shift":
            cell["by_chance"] = _by_chance(outcome.predictions, labels)
            if selection is not None:
                cell["agreement"] = float((outcome.predictions == one.clean.predictions).mean())
        else:
            cell["perturbation"] = _perturbation(outcome)
        finished = Cell(**cell)
        if base is not None:
            finished.difference = _difference(outcome.right, base.get(_cell_key(finished)))
        made.append(finished)
    return made


def _by_chance(predictions: np.ndarray, labels: np.ndarray) -> float:
    known = predictions[predictions >= 0]
    k = int(max(predictions.max(), labels.max())) + 1
    return by_chance(np.bincount(known, minlength=k).tolist(), np.bincount(labels, minlength=k).tolist(), len(labels))


def _perturbation(outcome: Outcome) -> PerturbationRecord:
    found = np.isfinite(outcome.examples["linf"])
    if not found.any():
        return PerturbationRecord(successes=0, linf_max=0.0, l2_mean=0.0)
    return PerturbationRecord(
        successes=int(found.sum()),
        linf_max=float(outcome.examples["linf"][found].max()),
        l2_mean=float(outcome.examples["l2"][found].mean()),
    )


def _difference(right: np.ndarray, reference: np.ndarray | None) -> Difference | None:
    if reference is None:
        return None
    points, interval = paired_difference(
        int((right & reference).sum()),
        int((right & ~reference).sum()),
        int((~right & reference).sum()),
        int((~right & ~reference).sum()),
    )
    return Difference(points=points, ci95=interval)


def _worst(one: _Measured, threats: list[Threat], base: dict[str, np.ndarray] | None) -> list[WorstCase]:
    rows = []
    adversarial = [
        outcome
        for selection, outcome in one.cells
        if isinstance(outcome, Outcome)
        and isinstance(selection.plugin, Attack)
        and selection.plugin.kind == "adversarial"
    ]
    for threat in threats:
        right = one.clean.right.copy()
        for outcome in adversarial:
            right &= ~outcome.fits(threat)
        named = ThreatRecord(norm=threat.norm, eps=threat.eps)
        rows.append(
            WorstCase(
                defense=one.chain.name,
                defense_spec=one.chain.spec,
                defense_params=one.chain.params,
                threat=named,
                n=len(right),
                correct=int(right.sum()),
                outcomes=pack(right),
                difference=_difference(right, base.get(f"worst {named}")) if base is not None else None,
            )
        )
    return rows


def _warnings(run: _Run, one: _Measured) -> list[Warned]:
    name = one.chain.spec
    if one.error is not None:
        return [Warned(code="defense-failed", message=one.error, defense=name)]
    found = [Warned(code=code, message=message, defense=name) for code, message in one.clean.warnings]
    for selection, outcome in one.cells:
        if isinstance(outcome, str):
            attack = selection.plugin
            counted = isinstance(attack, Attack) and attack.kind == "adversarial"
            note = "; it is missing from the worst case" if counted else ""
            found.append(Warned(code="cell-failed", message=f"{selection.spec} failed: {outcome}{note}", defense=name))
        else:
            found += [Warned(code=code, message=message, defense=name) for code, message in outcome.warnings]
    chance = _by_chance(one.clean.predictions, run.data.labels.numpy())
    low, _ = wilson(int(one.clean.right.sum()), len(run.data))
    if low <= chance:
        accuracy = one.clean.right.mean()
        found.append(
            Warned(
                code="near-chance-accuracy",
                message=f"clean accuracy {accuracy:.1%} is no better than chance ({chance:.1%}); robust accuracies mean nothing",
                defense=name,
            )
        )
    return found


def git_commit() -> str | None:
    """The commit of the repository in the current folder, if it is one."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
