"""freqrobust beside its peers: same model, same images, same threads, in turns, in one run.

    python benchmarks/peers.py [--repeats 3] [--images 250] [--only maximize,foolbox] [--device cuda]

Every row has a target. A ratio is the median over the rounds of one side's time over the other's in the
same round. Exit code 1 if a target was missed.

On a machine that does other things at the same time, threads that wait for each other by spinning can take
ten times as long: set OMP_WAIT_POLICY=PASSIVE there (or --threads 1), and look at the ratio by CPU time.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import timing
from rich.table import Table
from rows import Batches, Row, filter_rows, passes, resnet_rows, small_rows, start_rows, sweep_rows
from timing import Timed, packages, surroundings

from freqrobust.harness.devices import describe, resolve_device
from freqrobust.numerics.precision import full_precision

NAMES = ["torchattacks", "maximize", "foolbox", "loop", "small", "sweep", "lfc", "help", "passes"]


def arguments() -> argparse.Namespace:
    parser = timing.parser(__doc__, "peers.json")
    parser.add_argument("--images", type=int, default=250, help="first test images of CIFAR-10, at most 500")
    parser.add_argument("--peer-batch", type=int, default=125, help="batch size of torchattacks and Foolbox")
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda or cuda:1, for all sides; the targets are for the CPU"
    )
    parser.add_argument("--only", default=",".join(NAMES), help=f"rows: {','.join(NAMES)}")
    given = parser.parse_args()
    given.only = {name.strip() for name in given.only.split(",") if name.strip()}
    if unknown := given.only - set(NAMES):
        parser.error(f"unknown rows: {', '.join(sorted(unknown))} (known: {', '.join(NAMES)})")
    if not (given.shared / "checkpoints").is_dir():
        parser.error(f"{given.shared} holds no checkpoints; give --shared or set FREQROBUST_SHARED")
    return given


def table(rows: list[Row]) -> Table:
    shown = Table(title="freqrobust beside its peers: medians, sides in turns; PGD in Linf, eps 2/255 unless said")
    shown.add_column("what")
    for name in ("ours", "theirs", "ratio", "by CPU time", "target"):
        shown.add_column(name, justify="right", no_wrap=name != "what")
    shown.add_column("met")
    for row in rows:
        unit, sign = ("x faster", ">=") if row.faster else ("x the time", "<=")
        shown.add_row(
            row.what,
            f"{row.ours}\n{_seconds(row.times[row.ours])}",
            f"{row.theirs}\n{_seconds(row.times[row.theirs])}",
            f"{row.ratio:.2f}{unit}",
            f"{row.cpu_ratio:.2f}",
            f"{sign} {row.bound:g}" if row.bound is not None else "none",
            {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[row.met],
            end_section=True,
        )
    return shown


def _seconds(timed: Timed) -> str:
    return f"{timed.median:.2f} s" if timed.median >= 0.1 else f"{timed.median * 1000:.2f} ms"


def record(row: Row) -> dict[str, Any]:
    chosen = {"ours": row.times[row.ours], "theirs": row.times[row.theirs]}
    return {
        "name": row.name,
        "what": row.what,
        "sides": {"ours": row.ours, "theirs": row.theirs},
        "ratio_of": "theirs / ours" if row.faster else "ours / theirs",
        "ratio": row.ratio,
        "cpu_ratio": row.cpu_ratio,
        "target": row.bound,
        "met": row.met,
        "seconds": {key: timed.seconds for key, timed in chosen.items()},
        "cpu_seconds": {key: timed.cpu for key, timed in chosen.items()},
        "first_call_seconds": {key: timed.cold for key, timed in chosen.items()},
        "notes": row.notes,
    }


@full_precision()  # for all sides, as evaluate() has it: without, the others would round to TF32 on a GPU
def main() -> int:
    given = arguments()
    console = timing.screen(given.threads)
    before = surroundings()
    batches = Batches(
        given.shared, given.repeats, given.images, given.peer_batch, console.print, resolve_device(given.device)
    )
    batch = batches.batch_size
    versions = packages("freqrobust", "torch", "torchattacks", "foolbox", "numpy")
    console.print(f"{before['cpu']}, {before['threads']} threads, load {before['load_average']}; {versions}")
    console.print(f"batches: ours and the loops {batch} (auto), torchattacks and Foolbox {given.peer_batch}")
    rows: list[Row] = []
    if given.only & {"torchattacks", "maximize", "foolbox", "loop"}:
        rows += resnet_rows(batches, given.only)
    for name, measure in [("small", small_rows), ("sweep", sweep_rows), ("lfc", filter_rows), ("help", start_rows)]:
        if name in given.only:
            rows += measure(batches)
    counts = passes(batches) if "passes" in given.only else None
    if rows:
        console.print(table(rows))
    for row in rows:
        if row.notes:
            console.print(f"{row.ours} / {row.theirs}: {row.notes}")
    if counts is not None:
        equal = counts.pop("equal")
        for name, (forwards, backwards) in counts.items():
            console.print(f"passes, {name}: {forwards} forward, {backwards} backward")
        if equal is not None:
            console.print(f"reported passes are {'' if equal else 'not '}those that must happen")
        counts["equal"] = equal
    content = {
        "surroundings": before,
        "load_average_after": surroundings()["load_average"],
        "versions": versions,
        "options": {
            "device": describe(batches.device),
            "repeats": given.repeats,
            "images": given.images,
            "peer_batch": given.peer_batch,
            "our_batch": batch,
        },
        "rows": [record(row) for row in rows],
        "passes": counts,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    console.print(f"raw times: {given.json}")
    missed = [row.name for row in rows if row.met is False] + (
        ["passes"] if counts and counts["equal"] is False else []
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
