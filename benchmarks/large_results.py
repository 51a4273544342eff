"""Reports of 50,000 samples and 100 cells: their size, and how long they take to write, read, show and compare.

    python benchmarks/large_results.py [--repeats 3] [--against FOLDER]

The reports are made up, without a model: five defenses with 20 cells each, worst cases, verdicts, and the same with the
distances of a minimum-norm attack for every defense and the radii of a certificate sweep. The samples are a subset in a
random order. Everything runs on one thread. ``--against`` is another checkout of freqrobust: both are measured in turns,
in processes of their own, and the ratios of this one to that one are printed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from freqrobust.results.report import Report

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = 50_000
DEFENSES = ("undefended", "smooth", "lowpass:radius=12", "jpeg:quality=75", "bit-depth:bits=5")
ATTACKS = (
    "apgd:eps=[0.5/255,1/255,2/255,4/255,8/255]",
    "pgd:eps=[0.25,0.5,1],norm=l2",
    "fgsm:eps=[4/255,8/255]",
    "lfc:radius=[4,8,12,16]",
    "hfc:radius=[4,8,12,16]",
    "square:eps=8/255",
)
#: With one more per defense, of which the report contains all distances.
MINIMUM_NORM = "fmn"
#: With the radii of each sample.
CERTIFICATE = "smoothing:eps=[0.25,0.5,0.75,1]"
CERTIFIED = ("undefended", "smooth")


def large_report(n: int = SAMPLES, *, seed: int = 0, drop: float = 0.0, per_sample: bool = False) -> Report:
    """A report as an evaluation of ``n`` samples gives it, with made-up numbers that fit each other.

    Args:
        n: samples; a subset of 4/3 as many, in a random order.
        seed: of the numbers of this report. The data is the same for all seeds.
        drop: how much less robust the undefended model and all defenses are.
        per_sample: also the distances of a minimum-norm attack, and the radii of a certificate.
    """
    from freqrobust.numerics.statistics import paired_difference
    from freqrobust.plugins.selection import parse_attacks, parse_certificates, parse_chains
    from freqrobust.results.cells import Cell, WorstCase
    from freqrobust.results.certificates import CertificateRecord, encode_radii
    from freqrobust.results.diagnosis import Check, Diagnosis
    from freqrobust.results.distances import DistanceRecord
    from freqrobust.results.outcomes import pack
    from freqrobust.results.records import (
        DataRecord,
        Difference,
        EnvironmentRecord,
        ModelRecord,
        NormalizeRecord,
        ThreatRecord,
        Warned,
    )
    from freqrobust.results.report import Report

    data = np.random.default_rng(1)
    ids = data.permutation(n * 4 // 3)[:n]
    margin = data.normal(1.4, 1.0, n)  # of each sample: what all models and attacks have in common
    draws = np.random.default_rng([2, seed])
    base: dict[str, NDArray[np.bool_]] = {}

    def difference(key: str, right: NDArray[np.bool_]) -> Difference | None:
        if key not in base:
            base[key] = right
            return None
        other = base[key]
        counts = [int(x.sum()) for x in (right & other, right & ~other, ~right & other, ~right & ~other)]
        points, interval = paired_difference(*counts)
        return Difference(points=points, ci95=interval)

    cells, worst, diagnostics, certificates = [], [], [], []
    for number, chain in enumerate(parse_chains(DEFENSES[1:], True, False)):
        defense: dict[str, Any] = {"defense": chain.name, "defense_spec": chain.spec, "defense_params": chain.params}
        own = margin + draws.normal(0, 0.3, n) - 0.1 * number - drop
        clean = own > 0
        rights: dict[tuple[str, float], list[NDArray[np.bool_]]] = {}

        def cell(right: NDArray[np.bool_], name: str, spec: str, **values: Any) -> None:
            cells.append(
                Cell(
                    **defense,  # noqa: B023 (called in this round)
                    attack=name,
                    attack_spec=spec,
                    n=n,
                    correct=int(right.sum()),
                    outcomes=pack(right),
                    difference=difference(spec, right),
                    batch_size=500,
                    seconds=round(float(draws.uniform(10, 5000)), 4),
                    forwards=int(draws.integers(n, 40 * n)),
                    **values,
                )
            )

        cell(clean, "clean", "clean", attack_params={}, kind="shift", chance_accuracy=0.001)
        for spec in parse_attacks([*ATTACKS, *([MINIMUM_NORM] if per_sample else [])]):
            attack, threat = spec.plugin, spec.plugin.threat()
            size = 1.0 if threat is None else threat.eps * (255 if threat.norm == "linf" else 8)
            noise = draws.normal(0, 0.1, n)
            right = clean & (own + noise > 0.4 * np.log2(1 + size))
            values: dict[str, Any] = {"attack_params": spec.params, "kind": attack.kind}
            if threat is not None:
                values["threat"] = ThreatRecord(norm=threat.norm, eps=threat.eps)
            if attack.kind == "adversarial":
                found = int((clean & ~right).sum())
                values["perturbation"] = {"successes": found, "linf_max": size / 255, "l2_mean": 0.5 * size / 8}
                values["backwards"] = int(draws.integers(n, 40 * n))
                if threat is not None:
                    rights.setdefault((threat.norm, threat.eps), []).append(right)
            if spec.name == MINIMUM_NORM:
                distances = np.where(clean, np.exp2(np.maximum(own + noise, 0) / 0.4) / 255, 0).astype(np.float32)
                distances[own > 3.5] = np.inf
                right = np.isinf(distances)
                values["distances"] = DistanceRecord.of("linf", distances)
            cell(right, spec.name, spec.spec, **values)
        for norm in ("linf", "l2"):
            right = clean
            for eps in sorted(eps for name, eps in rights if name == norm):
                right = np.logical_and.reduce([right, *rights[norm, eps]])
                threat_record = ThreatRecord(norm=norm, eps=eps)
                counted = {"n": n, "correct": int(right.sum()), "outcomes": pack(right)}
                worst.append(
                    WorstCase(**defense, threat=threat_record, **counted, difference=difference(f"{norm} {eps}", right))
                )
        source = "Carlini et al. 2019, sec. 4"
        checks = [
            Check(name=name, status="passed", measured=0, threshold=n // 100, unit="samples", n=n, source=source)
            for name in ("zero-gradients", "random-noise", "transfer", "strong-attack", "unbounded-attack")
        ]
        diagnostics.append(
            Diagnosis(
                **defense,
                verdict="no problem found",
                sentence="no problem found by 5 quick checks",
                n=n,
                checks=checks,
                threat=ThreatRecord(norm="linf", eps=8 / 255),
            )
        )
        if per_sample and chain.spec in CERTIFIED:
            votes = draws.binomial(10_000, 1 / (1 + np.exp(-2 * own)))
            radii = np.where(clean, np.maximum(np.log((votes + 1) / (10_001 - votes)) / 6, 0), 0).astype(np.float32)
            sweep = parse_certificates([CERTIFICATE])
            for spec in sweep:
                eps = spec.plugin.threat().eps
                right = radii >= np.float32(eps)
                certificates.append(
                    CertificateRecord(
                        **defense,
                        certificate=spec.name,
                        certificate_spec=spec.spec,
                        certificate_params=spec.params,
                        threat=ThreatRecord(norm="l2", eps=eps),
                        guarantee="statistical",
                        statement="the smoothed classifier predicts the class of the clean image within the budget",
                        alpha=0.001,
                        n=n,
                        correct=int(right.sum()),
                        outcomes=pack(right),
                        radii=encode_radii(radii),
                        abstained=int((radii == 0).sum()) if eps == sweep[0].plugin.threat().eps else 0,
                        shared_with=None if spec is sweep[0] else sweep[0].spec,
                    )
                )
    return Report(
        freqrobust_version="0",
        created="2026-11-22T00:00:00+00:00",
        seed=seed,
        status="complete",
        models=[
            ModelRecord(
                spec=f"net{seed}.pth", arch="resnet50", sha256=f"{seed:064x}", parameters=1, normalize=NormalizeRecord()
            )
        ],
        data=DataRecord(
            spec="imagenet:val", split="val", n=n, classes=1000, shape=[3, 224, 224], sha256="0" * 64, ids=ids.tolist()
        ),
        environment=EnvironmentRecord(python="3.11", torch="2.15", device="cpu", precision="fp32"),
        cells=cells,
        worst_case=worst,
        certificates=certificates,
        diagnostics=diagnostics,
        warnings=[
            Warned(code="weak-attack", message="made up", defense=c.defense_spec, attack=c.attack_spec) for c in cells
        ],
    )


def parts(text: str) -> dict[str, int]:
    """Bytes of a report: the ids of the samples, outcomes, distances, radii, and all else."""
    values = json.loads(text)
    outcomes = sum(len(one["outcomes"]) for kind in ("cells", "worst_case", "certificates") for one in values[kind])
    distances = sum(len(one["distances"]["values"]) for one in values["cells"] if one["distances"])
    radii = sum(len(one["radii"]) for one in values["certificates"] if one["radii"])
    found = {"ids": len(json.dumps(values["data"]["ids"])), "outcomes": outcomes}
    found |= {"distances": distances, "radii": radii}
    return {"all": len(text), **found, "else": len(text) - sum(found.values())}


def steps(folder: Path, per_sample: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is measured: its name, and what does it. The first step makes the two files that the others read."""
    from freqrobust.gate.compare import compare
    from freqrobust.gate.thresholds import Gate, parse_threshold
    from freqrobust.numerics import statistics
    from freqrobust.results.leaderboard import board
    from freqrobust.results.report import Report
    from freqrobust.results.reporter import reports

    old, new = (folder / f"{name}{'-per-sample' if per_sample else ''}.json" for name in ("old", "new"))
    made = large_report(per_sample=per_sample)
    if not old.exists():
        made.to_json(old)
        large_report(seed=1, drop=0.01, per_sample=per_sample).to_json(new)
    report, other = Report.from_json(old), Report.from_json(new)
    assert report == made

    def show(name: str) -> str:
        target = io.StringIO()
        reports.get(name)().render(report, target)
        return target.getvalue()

    yield "write", lambda: made.to_json(folder / "written.json")
    yield "read and validate", lambda: Report.from_json(old)
    for name in ("html", "table", "markdown", "csv", "latex", "junit"):
        yield name, lambda name=name: show(name)
    yield "to_dataframe", report.to_dataframe
    yield "cell, 100 times", lambda: [report.cell("smooth/worst-linf-8/255") for _ in range(100)]
    yield "leaderboard of 4", lambda: board({str(n): (report, other)[n % 2] for n in range(4)})

    def compared() -> object:
        for name in ("detectable_drop", "_critical_counts"):  # as in a new process
            with contextlib.suppress(AttributeError):
                getattr(statistics, name).cache_clear()
        return compare(report, other)

    yield "compare", compared
    yield "gate", lambda: Gate([parse_threshold("apgd>=0.1")], baseline=old).judge(Report.from_json(new))


def measure_once(folder: Path, per_sample: bool) -> dict[str, Any]:
    """Seconds of every step, sizes in bytes, and the largest memory that reading a report takes, in bytes."""
    from freqrobust.results.report import Report

    seconds, sizes = {}, {}
    for name, step in steps(folder, per_sample):
        start = time.perf_counter()
        found = step()
        seconds[name] = time.perf_counter() - start
        if isinstance(found, str):
            sizes[name] = len(found.encode())
    file = folder / "written.json"
    tracemalloc.start()
    Report.from_json(file)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": seconds, "sizes": {**parts(file.read_text(encoding="utf-8")), **sizes}, "memory": memory}


def work(root: Path) -> None:
    """Answer each line on standard input with one round by the checkout at ``root``."""
    sys.path.insert(0, str(root))
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
    import freqrobust

    freqrobust.__path__.append(str(root))  # attacks, defenses and reports are beside it
    assert Path(str(freqrobust.__file__)).is_relative_to(root)
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            print(json.dumps(measure_once(Path(folder), line.strip() == "per sample")), flush=True)


class Side:
    """One checkout, in a process of its own."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(root)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, what: str) -> dict[str, Any]:
        """One round."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def opened(repeats: int) -> list[float]:
    """Milliseconds until the load event of the page of a large report in a browser without a window; none without one."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.reports import Browser, Page, find_browser

    program = find_browser()
    if program is None:
        return []
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "report.html"
        large_report(per_sample=True).to_html(file)
        browser = Browser(program, Path(temporary) / "profile")
        times = []
        for _ in range(repeats + 1):
            browser.events.clear()
            page = Page(browser, file, 1280, 900, "light")
            times.append(float(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")))
        browser.close()
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker)
        return
    sides = {"this": Side(ROOT)}
    if given.against is not None:
        sides["other"] = Side(given.against.resolve())
    for what in ("outcomes", "per sample"):
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number in range(given.repeats + 1):
            for name, side in sides.items():
                answer = side.ask(what)
                rounds[name] += [answer] if number else []  # the first one is to warm up
        heading = "outcomes only" if what == "outcomes" else "with distances of five cells, and radii of two sweeps"
        print(f"\n{SAMPLES:,} samples, 100 cells, {heading}; median of {given.repeats} rounds, one thread\n")
        print("| step | seconds |" + (" ratio to the other checkout |" if "other" in sides else ""))
        print("|---|---|" + ("---|" if "other" in sides else ""))
        for step in rounds["this"][0]["seconds"]:
            times = {name: [one["seconds"][step] for one in found] for name, found in rounds.items()}
            row = f"| {step} | {statistics.median(times['this']):.3f} |"
            if "other" in times:
                ratios = [a / b for a, b in zip(times["this"], times["other"], strict=True)]
                row += f" {statistics.median(ratios):.3g} |"
            print(row)
        for name, found in rounds.items():
            sizes = ", ".join(f"{part} {size / 1e6:.2f}" for part, size in found[0]["sizes"].items())
            print(f"\nsizes in MB, {name}: {sizes}; memory to read it {found[0]['memory'] / 1e6:.1f} MB")
    for side in sides.values():
        side.close()
    times = opened(given.repeats)
    if times:
        print(f"\nload event of the page in Chromium: {statistics.median(times):.0f} ms")


if __name__ == "__main__":
    main()
