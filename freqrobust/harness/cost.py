"""What an evaluation costs, before it is run: passes, time, memory and disk, from a few timed batches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from freqrobust.core.progress import Silent
from freqrobust.core.schedule import Piece
from freqrobust.data.lazy_images import LazyImages
from freqrobust.harness.cell import keeps_signs
from freqrobust.harness.certify import CertifiedSamples, certificate_key
from freqrobust.harness.evaluate import Evaluation
from freqrobust.harness.example_images import as_png
from freqrobust.harness.journal import Journal
from freqrobust.harness.opening import open_run
from freqrobust.harness.outcome import NORMS, Outcome
from freqrobust.harness.passes import passes
from freqrobust.harness.report_builder import assemble
from freqrobust.harness.run import DefenseRun, Measured, Run
from freqrobust.harness.run_plan import (
    cell_label,
    certificate_label,
    eps_of,
    pieces,
    sweeps,
    transfer_label,
)
from freqrobust.harness.speed import Speed, decoding, largest_batch, measure_speed, taken
from freqrobust.harness.sweep import beginning
from freqrobust.plugins.base import Attack
from freqrobust.plugins.selection import refusal
from freqrobust.plugins.specs import DefenseChain, PluginSpec

#: Share of its passes that an attack is expected to make on a sample that it succeeds on: with gradients, and without.
EARLY, EARLY_QUERIES = 0.1, 0.25
#: The calls of a batch end with its last sample, which stays longer than most: exponent of the share of the passes.
_LAST = 0.5
#: Files that the quick and the full checks of a defense write, each of them about as large as a cell without signs.
_CHECKS = {"quick": 2, "full": 12}
#: The row of the time in which images in files are decoded.
DECODING = "decoding"
#: Pictures of a sample in the report.
_PICTURES = 5
#: Bytes that compiling takes: the compiler's modules, and what it knows of a model. Measured with ResNet-20.
_COMPILER = 128 * 2**20


@dataclass
class Row:
    """What cells of one kind cost.

    Attributes:
        kind: an attack, ``clean``, a certificate, the checks, or the decoding of images in files.
        cells: how many there are; 0 for checks and for decoding.
        stored: how many of them are in the run directory.
        passes: forward passes of one image that are expected for the others; a backward pass counts as two.
        most: as ``passes``, if attacks stop on no sample early.
        seconds: expected.
        most_seconds: as ``seconds``, if attacks stop on no sample early.
    """

    kind: str
    cells: int = 0
    stored: int = 0
    passes: float = 0.0
    most: float = 0.0
    seconds: float = 0.0
    most_seconds: float = 0.0


@dataclass
class Cost:
    """What an evaluation costs.

    Attributes:
        samples: of the data.
        rows: by kind of cell.
        memory: bytes that the process takes, or that are taken on a CUDA device; None where that is not known.
        disk: bytes of the run directory, beside those that are there.
        batch_size: images in a batch.
        timed: batches that were timed.
        timed_images: images in the largest of them.
        forward: seconds of a forward pass of one image through the undefended model, or the first defended one.
        step: seconds of a forward and a backward pass of one image, and of the change of the image; 0 where nothing
            differentiates a model.
        decode: seconds in which an image in a file is decoded; 0 where no image has to be.
        untimed: defenses that were not timed, because they are trained first.
    """

    samples: int
    rows: list[Row] = field(default_factory=list)
    memory: int | None = None
    disk: int = 0
    batch_size: int = 0
    timed: int = 0
    timed_images: int = 0
    forward: float = 0.0
    step: float = 0.0
    decode: float = 0.0
    untimed: list[str] = field(default_factory=list)

    @property
    def total(self) -> Row:
        """The sums of the rows."""
        found = Row("all")
        for row in self.rows:
            for name in ("cells", "stored", "passes", "most", "seconds", "most_seconds"):
                setattr(found, name, getattr(found, name) + getattr(row, name))
        return found

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps({**asdict(self), "total": asdict(self.total)}, indent=1) + "\n"


def estimate(evaluation: Evaluation, run_dir: Path) -> Cost:
    """What an evaluation costs. A few batches are run; nothing is written.

    Args:
        evaluation: the evaluation.
        run_dir: its run directory, which need not exist.

    Raises:
        FreqRobustError: a model does not fit the data.
    """
    cost = Cost(len(evaluation.data))
    used, most_used = map(sum, zip(*(_add(cost, evaluation, one, run_dir) for one in evaluation.networks), strict=True))
    cost.decode, (seconds, most) = decoding(
        evaluation.data.images,
        cost.batch_size,
        evaluation.settings.device,
        (used, cost.total.seconds),
        (most_used, cost.total.most_seconds),
    )
    if most:
        cost.rows.append(Row(DECODING, seconds=seconds, most_seconds=max(seconds, most)))
    return cost


def _add(cost: Cost, evaluation: Evaluation, network: nn.Module, run_dir: Path) -> tuple[float, float]:
    """Add what one model costs; how many images its cells use, each of them counted as often as it is used.

    The second number is that if attacks stop on no sample early.
    """
    opened = open_run(
        network,
        evaluation.data,
        evaluation.settings,
        training=evaluation.training,
        chosen=evaluation.attacks,
        seed=evaluation.config.seed,
        progress=Silent(),
        criterion=evaluation.criterion,
    )
    with opened as run:
        run.compilation = replace(run.compilation, run_dir=run_dir, reading=True)
        runs = [DefenseRun(run, chain) for chain in evaluation.chains]
        speeds = _speeds(run, runs, cost, _differentiates(evaluation))
        there = Journal(run_dir) if (run_dir / "cells").is_dir() else Journal(None)
        stored = _stored(run, runs, evaluation, there)
        rows, attacked = {row.kind: row for row in cost.rows}, dict[str, tuple[float, float]]()
        used, most_used = 0.0, 0.0

        def expected(chain: DefenseChain, one: PluginSpec[Attack], lower: PluginSpec[Attack] | None) -> float:
            speed = speeds[chain.spec]
            attacked[cell_label(chain, one)] = _attacked(speed, chain, lower), _attacked(speed, chain, None)
            return _share(speed, chain, one, lower)

        planned = pieces(
            evaluation.chains,
            evaluation.attacks,
            len(run.data),
            oblivious=evaluation.config.oblivious,
            depth=evaluation.config.diagnose,
            certificates=evaluation.certificates,
            expected=expected,
        )
        for chain, piece in _with_chains(evaluation.chains, planned):
            row = rows.setdefault(piece.kinds[-1], Row(piece.kinds[-1]))
            done = stored.get(piece.label, 0.0)
            _count(row, piece, speeds[chain.spec], done, largest_batch(run))
            if piece.cells:
                share, most = attacked.get(piece.label, (1.0, 1.0))
                used, most_used = (
                    total + (1.0 - done) * part * len(run.data) for total, part in ((used, share), (most_used, most))
                )
        cost.rows = list(rows.values())
        cost.disk += _disk(run, evaluation, stored)
        cost.batch_size = max(cost.batch_size, largest_batch(run))
        kept = sum(_bytes_in_memory(run, evaluation, chain) for chain in evaluation.chains)
        kept += run.data.images.growth if isinstance(run.data.images, LazyImages) else 0
        kept += _COMPILER if run.compiled() else 0
        peaks = [speed.peak for speed in speeds.values() if speed.peak is not None]
        if peaks:
            cost.memory = max(cost.memory or 0, max(peaks) + (kept if run.device.type != "cuda" else 0))
    return used, most_used


def _differentiates(evaluation: Evaluation) -> bool:
    """Whether anything differentiates a model."""
    config, n = evaluation.config, len(evaluation.data)
    planned = pieces(evaluation.chains, evaluation.attacks, n, oblivious=config.oblivious, depth=config.diagnose)
    return any(piece.backwards for piece in planned)


def _speeds(run: Run, runs: Sequence[DefenseRun], cost: Cost, steps: bool) -> dict[str, Speed]:
    """Of every defense; one that is trained first is taken to be as fast as the undefended model."""
    threats = [threat for one in run.attacks if (threat := one.plugin.threat()) is not None]
    found: dict[str, Speed] = {}
    before = taken(run.device)
    for one in sorted(runs, key=lambda one: len(one.chain.parts)):
        if any(part.plugin.trains for part in one.chain.parts):
            if one.chain.spec not in cost.untimed:
                cost.untimed.append(one.chain.spec)
            continue
        found[one.chain.spec] = measure_speed(one, threats, probing=4.0 / len(runs), steps=steps, before=before)
        one.forget()
    if not found:
        found[""] = measure_speed(DefenseRun(run, DefenseChain()), threats, steps=steps, before=before)
    first = next(iter(found.values()))
    if not cost.timed:
        cost.forward, cost.step = first.forward.mean(first.images), first.step.mean(first.images)
    cost.timed += sum(speed.batches for speed in found.values())
    cost.timed_images = max(cost.timed_images, *(speed.images for speed in found.values()))
    return {one.chain.spec: found.get(one.chain.spec, first) for one in runs} | {"": first}


def _attacked(speed: Speed, chain: DefenseChain, lower: PluginSpec[Attack] | None) -> float:
    """Share of the samples that an attack is expected to be made for, after the one before it in its sweep."""
    if chain.stochastic:
        return 1.0
    below = lower.plugin.threat() if lower is not None else None
    return speed.kept(below) if below is not None else speed.clean


def _share(speed: Speed, chain: DefenseChain, one: PluginSpec[Attack], lower: PluginSpec[Attack] | None) -> float:
    """Share of its passes that an attack is expected to make, as it leaves a sample once it is misclassified."""
    attack, threat = one.plugin, one.plugin.threat()
    attacked = _attacked(speed, chain, lower)
    if chain.stochastic:
        return attacked
    if threat is None or passes(attack).forwards <= 2:
        return attacked
    stopped = passes(attack, typical=True).work / passes(attack).work
    robust = min(speed.kept(threat) if threat.eps > 0 else attacked, attacked)
    return stopped * robust + (attacked - robust) * (EARLY if attack.needs_gradient else EARLY_QUERIES)


def _with_chains(chains: Sequence[DefenseChain], planned: Iterable[Piece]) -> Iterable[tuple[DefenseChain, Piece]]:
    """Each piece with the defense whose speed it has; examples are made on the undefended model."""
    longest = sorted(chains, key=lambda chain: -len(chain.spec))
    for piece in planned:
        label = piece.label.removeprefix("checking ")
        yield next((c for c in longest if label == c.spec or label.startswith(f"{c.spec} / ")), chains[0]), piece


def _count(row: Row, piece: Piece, speed: Speed, stored: float, batch_size: int) -> None:
    """Add a piece, of which a share is stored."""
    rest = 1.0 - stored
    row.cells += piece.cells
    row.stored += piece.cells if stored == 1.0 else 0
    row.passes += rest * piece.work
    row.most += rest * max(piece.work, piece.most)
    images = calls = 0.0
    for duration, count in ((speed.forward, piece.most - 3 * piece.backwards), (speed.step, piece.backwards)):
        images += duration.image * max(count, 0.0)
        calls += duration.call * max(count, 0.0) / batch_size
    share = min(piece.work / piece.most, 1.0) if piece.most else 1.0
    row.most_seconds += rest * (images + calls)
    row.seconds += rest * (images * share + calls * share**_LAST)


def _stored(run: Run, runs: Sequence[DefenseRun], evaluation: Evaluation, journal: Journal) -> dict[str, float]:
    """The share of each cell that is in the run directory, by the label of its piece."""

    def share(keys: Sequence[str]) -> float:
        return sum(journal.has(key) for key in keys) / len(keys) if keys and journal.root is not None else 0.0

    found: dict[str, float] = {}
    for one in runs:
        found[cell_label(one.chain, None)] = share([one.key_of(None, None, block) for block in run.blocks(None)])
        for group in sweeps(run.attacks, one.chain):
            lower = beginning(group).eps
            for index in group:
                attack = run.attacks[index]
                keys = [one.key_of(attack, lower, block) for block in run.blocks(attack)]
                found[cell_label(one.chain, attack)] = share(keys)
                lower = [*lower, eps_of(attack)] if lower is not None else None
        for certificate in evaluation.certificates:
            if refusal(certificate, one.chain) is None:
                keys = [certificate_key(one, certificate, block) for block in run.blocks(certificate)]
                found[certificate_label(one.chain, certificate)] = share(keys)
    for attack in run.attacks:
        defended = [one for one in runs if one.chain.parts]
        keys = [one.key_of(attack, None, block, "oblivious") for one in defended for block in run.blocks(attack)]
        found[transfer_label(attack)] = share(keys)
    return found


def _disk(run: Run, evaluation: Evaluation, stored: dict[str, float]) -> int:
    """Bytes of the files that a run writes, from files with arbitrary numbers."""
    n, config = len(run.data), evaluation.config
    sizes: dict[tuple[str, int], int] = {}

    def size(kind: str, count: int) -> int:
        if (kind, count) not in sizes:
            piece: Any = (
                _certified(count) if kind == "certificate" else _outcome(run, count, kind != "shift", kind == "signs")
            ).to_piece()
            sizes[kind, count] = len(json.dumps(piece)) + 65  # and its checksum
        return sizes[kind, count]

    def cell(kind: str, plugin_spec: Any, label: str) -> float:
        return (1 - stored.get(label, 0.0)) * sum(size(kind, len(block)) for block in run.blocks(plugin_spec))

    whole = {adversarial: _outcome(run, n, adversarial, False) for adversarial in (False, True)}
    total, measured = 0.0, []
    for chain in evaluation.chains:
        total += cell("shift", None, cell_label(chain, None))
        signs = {i for group in sweeps(run.attacks, chain) if len(group) > 1 for i in group}
        cells: list[tuple[PluginSpec[Attack], Outcome | str]] = []
        for index, one in enumerate(run.attacks):
            adversarial = one.plugin.kind == "adversarial"
            kept = adversarial and index in signs and keeps_signs(one.plugin, run.data)
            kind = "signs" if kept else "adversarial" if adversarial else "shift"
            total += cell(kind, one, cell_label(chain, one))
            cells.append((one, whole[adversarial]))
        for certificate in evaluation.certificates:
            if refusal(certificate, chain) is None:
                total += cell("certificate", certificate, certificate_label(chain, certificate))
        oblivious: list[tuple[PluginSpec[Attack], Outcome | str]] = [
            (one, whole[True])
            for one in run.attacks
            if one.plugin.kind == "adversarial" and chain.parts and config.oblivious
        ]
        total += sum(cell("adversarial", one, transfer_label(one)) for one, _ in oblivious)
        if config.diagnose is not None and any(eps_of(one) > 0 for one in run.attacks):
            total += _CHECKS[config.diagnose] * size("adversarial", n)
        measured.append(Measured(chain, whole[False], cells, None, oblivious))
    report = assemble(run, measured, [None] * len(measured), [])
    pictures = min(config.examples, n) * _PICTURES
    images, _, _ = run.data.batch(torch.arange(1), torch.device("cpu"))
    return int(total) + len(report.model_dump_json()) + pictures * len(as_png(images[0]))


def _outcome(run: Run, n: int, adversarial: bool, signs: bool) -> Outcome:
    """An outcome of ``n`` samples, with arbitrary numbers."""
    draws = np.random.default_rng(0)
    right = draws.random(n) < 0.5
    outcome = Outcome(right, draws.integers(0, 10, n).astype(np.int32))
    if adversarial:
        outcome.examples = {norm: np.where(right, np.inf, draws.random(n)).astype(np.float32) for norm in NORMS}
        outcome.survives = right.copy()
    if signs:
        outcome.signs = draws.integers(0, 256, (n, _sign_bytes(run))).astype(np.uint8)
    return outcome


def _certified(n: int) -> CertifiedSamples:
    draws = np.random.default_rng(0)
    radii = draws.random(n).astype(np.float32)
    return CertifiedSamples(radii > 0.5, radii, radii > 0.9, 0.0, 0)


def _sign_bytes(run: Run) -> int:
    return (int(np.prod(run.data.shape)) + 7) // 8


def _bytes_in_memory(run: Run, evaluation: Evaluation, chain: DefenseChain) -> int:
    """Bytes of the outcomes of one defense, which are kept until the report is made, and of the signs of two eps."""
    swept = [group[0] for group in sweeps(run.attacks, chain) if len(group) > 1]
    signs = 2 * _sign_bytes(run) if any(keeps_signs(run.attacks[i].plugin, run.data) for i in swept) else 0
    return len(run.data) * (signs + 18 * len(run.attacks) * (2 if chain.parts else 1))
