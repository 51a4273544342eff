"""Seconds of every registered experiment at the scale digits, one after the other, without a cache: what CI runs.

    OMP_NUM_THREADS=1 python benchmarks/reproductions.py [--update docs/reproductions.md] [NAME ...]

Prints a row for each experiment and the sum, which should be below three minutes on an idle core. Processor time stands
beside the time that passed, as that of a busy machine says little. With --update, verdicts and processor time replace the
last two cells of the experiment's row in the table of that page. Ends with exit code 1 where an experiment failed or the
processor time exceeds the limit.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

import torch

from freqrobust.core.errors import FreqRobustError
from freqrobust.experiments.experiment import experiments
from freqrobust.experiments.reproduce import reproduce
from freqrobust.experiments.text import counts, verdict_line

LIMIT = 180.0


def updated(page: str, name: str, verdicts: str, seconds: float) -> str:
    """The text of a page with other values in the last two cells of an experiment's row.

    Raises:
        ValueError: the table has no such row.
    """
    row = re.compile(rf"^(\| \[`{re.escape(name)}`\].*\|)[^|\n]*\|[^|\n]*\|$", re.MULTILINE)
    if not row.search(page):
        raise ValueError(f"the page has no row for {name}")
    return row.sub(lambda match: f"{match[1]} {verdicts} | {seconds:.0f} |", page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--update", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds = processor = 0.0
    failed = []
    print(f"{'experiment':24} {'seconds':>8} {'processor':>9}  verdicts")
    for name in arguments.names or experiments.names():
        start, used = time.perf_counter(), time.process_time()
        try:
            findings = reproduce(name, device="cpu")
            text = verdict_line(findings)
        except FreqRobustError as error:
            findings, text = None, f"failed: {error}"
            failed.append(name)
        took, worked = time.perf_counter() - start, time.process_time() - used
        seconds, processor = seconds + took, processor + worked
        print(f"{name:24} {took:8.1f} {worked:9.1f}  {text}", flush=True)
        if arguments.update is not None and findings is not None:
            verdicts = " / ".join(map(str, counts(findings).values()))
            page = arguments.update.read_text(encoding="utf-8")
            arguments.update.write_text(updated(page, name, verdicts, worked), encoding="utf-8")
    print(
        f"{'all':24} {seconds:8.1f} {processor:9.1f}  limit {LIMIT:g} s: {'kept' if processor <= LIMIT else 'exceeded'}"
    )
    return 1 if failed or processor > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
