"""What the gate does on real models: regressions, false alarms, detection, stopping early, time. Prints Markdown.

    python benchmarks/gate.py [--shared ../shared] [--work runs/gate] [--only changes,alarms,power,early,time]

Needs the data folder (see CONTRIBUTING). Evaluations are journaled under ``--work``; a second run only counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from freqrobust import Report, evaluate, load_model
from freqrobust.data.dataset import ImageData
from freqrobust.data.loading import load_data
from freqrobust.gate.regression import POWER, Rules, compare, expected_drop
from freqrobust.gate.sequential import SequentialGate
from freqrobust.gate.thresholds import Threshold, least_right
from freqrobust.numerics.noise import permutation
from freqrobust.numerics.sequential_test import looks_for, plan
from freqrobust.plugins.context import DefenseContext
from freqrobust.plugins.registry import defenses
from freqrobust.results.gate_record import Comparison, GateRecord
from freqrobust.results.gate_view import gate_tables
from freqrobust.results.outcomes import pack

ROOT = Path(__file__).resolve().parents[1]
#: Swaps of the outcomes of two models, and random subsets.
DRAWS, SUBSETS, ORDERS, LONG = 2000, 1000, 500, 20000
SIZES = (100, 200, 500)
LEVELS = ("clean", "lfc:radius=12", "pgd:eps=0.5/255,steps=20", "pgd:eps=1/255,steps=20")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(map(str, row)) + " |")
    print(flush=True)


class Batches:
    """The models, the images, and their reports."""

    def __init__(self, shared: Path, work: Path) -> None:
        self.shared, self.work = shared, work
        self.data: ImageData = load_data(str(shared / "data/cifar10/test_500.npz"))

    def model(self, name: str) -> nn.Module:
        file = {"resnet20": "resnet20-12fca82f.th", "resnet32": "resnet32-d509ac18.th"}[name]
        return load_model(self.shared / "checkpoints" / file, normalize="imagenet")

    def smoothed(self) -> nn.Module:
        """ResNet-20 with smoothed kernels, as the model itself: what a change of the code might do."""
        plugin = defenses.parse("smooth:rho=0.1")[0].plugin
        return plugin.apply(self.model("resnet20"), DefenseContext())

    def report(self, model: nn.Module, suite: str = "standard", data: ImageData | None = None) -> Report:
        return evaluate(model, data or self.data, suite=suite, run_dir=self.work, device="cpu")


def part(report: Report, index: np.ndarray, name: str = "part") -> Report:
    """The report of some of the samples, from their outcomes."""
    found = report.model_copy(deep=True)
    for row in (*found.cells, *found.worst_case):
        right = row.right()[index]
        row.n, row.correct, row.outcomes, row.difference = len(index), int(right.sum()), pack(right), None
    found.data = found.data.model_copy(update={"n": len(index), "sha256": name})
    return found


def swapped(first: Report, second: Report, swap: np.ndarray) -> tuple[Report, Report]:
    """Two reports with the outcomes of some samples exchanged, in all cells at once."""
    pair = []
    for one, other in ((first, second), (second, first)):
        mixed = one.model_copy(
            update={
                "cells": [_mixed(a, b, swap) for a, b in zip(one.cells, other.cells, strict=True)],
                "worst_case": [_mixed(a, b, swap) for a, b in zip(one.worst_case, other.worst_case, strict=True)],
            }
        )
        pair.append(mixed)
    return pair[0], pair[1]


def _mixed(one, other, swap: np.ndarray):
    right = np.where(swap, other.right(), one.right())
    return one.model_copy(update={"correct": int(right.sum()), "outcomes": pack(right)})


def changes(batches: Batches) -> None:
    """What differs between two networks, both ways."""
    reports = {name: batches.report(batches.model(name)) for name in ("resnet20", "resnet32")}
    for old, new in (("resnet20", "resnet32"), ("resnet32", "resnet20")):
        rules = Rules(("default", "hfc", "sweep"))
        found = compare(reports[old], reports[new], rules, name=old)
        print(f"### {old} as the baseline, {new} as the new model: {_verdict(found)}\n")
        for view in gate_tables(GateRecord(passed=found.passed, comparison=found)):
            table(
                ["cell", "result", *view.columns.values()],
                [[row.record.name, *(text for _, text in row.texts(view.columns))] for row in view.rows],
            )


def _verdict(found: Comparison) -> str:
    return "no regression" if found.passed else f"{sum(row.passed is False for row in found.rows)} regressions"


def alarms(batches: Batches) -> None:
    """How often the gate fails when nothing has changed but chance."""
    first, second = (batches.report(batches.model(name)) for name in ("resnet20", "resnet32"))
    generator = np.random.default_rng(0)
    rules = {
        "default cells, max-drop 0.01": Rules(),
        "default cells, max-drop 0": Rules(max_drop=0.0),
        "every cell and the sweep, max-drop 0": Rules(("default", "lfc", "hfc", "fgsm", "pgd", "sweep"), max_drop=0.0),
        "clean alone, max-drop 0": Rules(("clean",), max_drop=0.0),
        "the sweep alone, max-drop 0": Rules(("sweep",), max_drop=0.0),
    }
    count = dict.fromkeys(rules, 0)
    for _ in range(DRAWS):
        old, new = swapped(first, second, generator.random(len(batches.data)) < 0.5)
        for name, rule in rules.items():
            count[name] += not compare(old, new, rule).passed
    rows = [[name, f"{found} of {DRAWS}", f"{found / DRAWS:.2%}"] for name, found in count.items()]
    table(["gate", "false alarms", "share"], rows)


def power(batches: Batches) -> None:
    """Smoothed kernels against plain ones: how often it is seen, beside what was announced."""
    plain, smooth = batches.report(batches.model("resnet20"), "quick"), batches.report(batches.smoothed(), "quick")
    generator, rows = np.random.default_rng(0), []
    for n in SIZES:
        draws = SUBSETS if n < len(batches.data) else 1
        subsets = [np.sort(generator.choice(len(batches.data), n, replace=False)) for _ in range(draws)]
        found = [compare(part(plain, s), part(smooth, s)) for s in subsets]
        cells = [row for row in found[0].rows if row.passed is not None]
        whole = compare(plain, smooth)
        for name in sorted(row.name for row in cells):
            each = [next(row for row in one.rows if row.name == name) for one in found]
            drop = next(row.measured for row in whole.rows if row.name == name)
            announced = expected_drop(n, len(cells), 0.05)
            seen = [
                row.minimum_detectable_drop
                for row in each
                if row.minimum_detectable_drop is not None and row.minimum_detectable_drop <= (row.baseline or 0)
            ]
            rows.append(
                [
                    n,
                    name.removeprefix("undefended / "),
                    f"{100 * (drop or 0):.1f}",
                    f"{100 * announced:.1f}" if announced is not None else "none",
                    f"{100 * float(np.mean(seen)):.1f}" if seen else "none",
                    f"{np.mean([row.passed is False for row in each]):.1%}",
                ]
            )
        rows.append([n, "**the gate**", "", "", "", f"{np.mean([not one.passed for one in found]):.1%}"])
    print(f"Announced at {POWER:.0%} power; {SUBSETS} random subsets of the 500 images, at n = 500 all of them.\n")
    columns = ["n", "cell", "true drop", "announced before", "announced after", "found in"]
    table(columns, rows)


def early(batches: Batches) -> None:
    """Error rates and samples of the sequential plan on real outcomes, in random orders; then a real check."""
    report = batches.report(batches.model("resnet20"))
    n, rows = len(batches.data), []
    edge = []
    for level in LEVELS:
        cell = report.cell(level)
        for above in (0.15, 0.05, 0.02, 0.0, -1 / n, -0.02, -0.05, -0.15):
            required = cell.correct / n - above
            if not 0 <= required <= 1:
                continue
            need = least_right(required, n, False)
            right = cell.right()
            orders = (permutation(n, seed=s, stream=f"{level} {need}").numpy() for s in range(ORDERS))
            decided = [_decided(right[order], need) for order in orders]
            wrong = sum(verdict != (cell.correct >= need) for verdict, _ in decided)
            if abs(need - cell.correct) <= 1 and need - cell.correct >= 0:
                edge.append((wrong, _long_run(right, need)))
            used = np.array([seen for _, seen in decided]) / n
            name = f"{level.split(',')[0]} ({cell.accuracy:.1%})"
            verdict = "pass" if cell.correct >= need else "fail"
            saved = f"{1 - used.mean():.0%}"
            rows.append(
                [name, f"{100 * required:.1f}", verdict, f"{wrong} of {ORDERS}", saved, f"{used.mean() * n:.0f}"]
            )
    columns = ["cell (accuracy on all 500)", "threshold", "true verdict", "wrong", "samples saved", "samples, mean"]
    table(columns, rows)
    total, wrong = ORDERS * len(edge), sum(count for count, _ in edge)
    shares = [share for _, share in edge]
    print(
        f"At the threshold itself, where errors are most likely, the {len(edge)} rows together: {wrong} of {total} "
        f"wrong, {wrong / total:.1%}; over {LONG} orders each, {min(shares):.2%} to {max(shares):.2%}.\n"
    )
    _real_check(batches)


def _long_run(right: np.ndarray, need: int) -> float:
    """Share of wrong decisions over many more orders."""
    generator = np.random.default_rng(0)
    truth = bool(right.sum() >= need)
    return float(np.mean([_decided(generator.permutation(right), need)[0] != truth for _ in range(LONG)]))


def _decided(right: np.ndarray, need: int) -> tuple[bool, int]:
    counts = np.cumsum(right)
    stops = plan(len(right), need, 0.05, 0.05, looks_for(len(right)))
    for look, seen in enumerate(stops.looks):
        verdict = stops.decide(look, int(counts[seen - 1]))
        if verdict is not None:
            return verdict, seen
    raise AssertionError("the last look decides")


def _real_check(batches: Batches) -> None:
    """Three thresholds on a real model, in full and stopped early, both measured from nothing."""
    thresholds = [Threshold("clean", 0.85), Threshold("pgd:eps=0.5/255", 0.4), Threshold("pgd:eps=1/255", 0.4)]
    attacks = ["pgd:eps=[0.5/255,1/255],steps=20"]
    model, rows = batches.model("resnet20"), []
    evaluate(model, batches.data.first(50), attacks=attacks, device="cpu")  # warm up
    start = time.process_time()
    whole = evaluate(model, batches.data, attacks=attacks, device="cpu")
    rows.append(["all samples", _passes(whole), f"{time.process_time() - start:.1f} s", "500"])
    for seed in range(3):
        gate = SequentialGate(thresholds)
        start = time.process_time()
        report = gate.measure(model, batches.data, **_options(attacks, seed))
        seconds = time.process_time() - start
        seen = ", ".join(f"{'passed' if r.passed else 'failed'} after {r.n}" for r in gate.rows)
        rows.append([f"sequential, order {seed}", _passes(report), f"{seconds:.1f} s", seen])
    print("Thresholds clean >= 85 %, PGD-20 at eps 0.5/255 >= 40 % and at 1/255 >= 40 %, resnet20:\n")
    table(["check", "passes", "processor time", "samples"], rows)


def _options(attacks: Sequence[str], seed: int) -> dict[str, object]:
    from freqrobust.core.progress import Silent
    from freqrobust.plugins.selection import parse_attacks

    return {
        "attacks": parse_attacks(attacks),
        "defenses": [],
        "undefended": True,
        "oblivious": False,
        "seed": seed,
        "progress": Silent(),
        "device": "cpu",
    }


def _passes(report: Report) -> int:
    return sum(cell.forwards + cell.backwards for cell in report.cells)


def timing(batches: Batches) -> None:
    """Seconds of a check, and its minimum detectable drop."""
    model, rows = batches.model("resnet20"), []
    evaluate(model, batches.data.first(50), suite="quick", device="cpu")  # warm up
    for suite in ("quick", "standard"):
        for n in SIZES:
            data = batches.data.take(torch.arange(n))
            start = time.process_time()
            report = evaluate(model, data, suite=suite, device="cpu")
            seconds = time.process_time() - start
            cells = 2 + len(report.worst_case)
            drops = [expected_drop(n, cells, 0.05), expected_drop(n, 1, 0.05)]
            shown = [f"{100 * drop:.1f}" if drop is not None else "none" for drop in drops]
            rows.append([suite, n, cells, f"{seconds:.1f}", *shown])
    print(f"torch threads: {torch.get_num_threads()}\n")
    table(
        [
            *("suite", "n", "gate cells", "processor seconds"),
            *("minimum detectable drop, any gate cell", "minimum detectable drop, one gate cell alone"),
        ],
        rows,
    )
    sizes = [
        [n, *(f"{100 * (expected_drop(n, m, 0.05) or 1):.2f}" for m in (1, 4, 7))] for n in (1000, 2000, 5000, 10000)
    ]
    table(["n", "1 gate cell", "4 gate cells", "7 gate cells"], sizes)


PARTS: dict[str, Callable[[Batches], None]] = {
    "changes": changes,
    "alarms": alarms,
    "power": power,
    "early": early,
    "time": timing,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gate")
    parser.add_argument("--only", default=",".join(PARTS))
    given = parser.parse_args()
    batches = Batches(given.shared, given.work)
    for name in _chosen(given.only, parser):
        print(f"## {name}: {(PARTS[name].__doc__ or '').strip()}\n", flush=True)
        PARTS[name](batches)


def _chosen(text: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for name in text.split(","):
        if name not in PARTS:
            parser.error(f"unknown part {name!r} ({', '.join(PARTS)})")
        yield name


if __name__ == "__main__":
    main()
