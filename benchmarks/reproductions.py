"""Seconds of every registered experiment at the scale digits, one after the other, without a cache: what CI runs.

    OMP_NUM_THREADS=1 python benchmarks/reproductions.py [NAME ...]

Prints a row for each experiment and the sum, which should be below three minutes on an idle core. Processor time stands
beside the time that passed, as that of a busy machine says little. Ends with exit code 1 where an experiment failed or
processor time exceeds the limit.
"""

from __future__ import annotations

import sys
import time

import torch

from freqrobust.core.errors import FreqRobustError
from freqrobust.experiments.experiment import experiments
from freqrobust.experiments.reproduce import reproduce
from freqrobust.experiments.text import verdict_line

LIMIT = 180.0


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    seconds = processor = 0.0
    failed = []
    print(f"{'experiment':24} {'seconds':>8} {'processor':>9}  verdicts")
    for name in names or experiments.names():
        start, used = time.perf_counter(), time.process_time()
        try:
            text = verdict_line(reproduce(name, device="cpu"))
        except FreqRobustError as error:
            text = f"failed: {error}"
            failed.append(name)
        took, worked = time.perf_counter() - start, time.process_time() - used
        seconds, processor = seconds + took, processor + worked
        print(f"{name:24} {took:8.1f} {worked:9.1f}  {text}", flush=True)
    print(f"{'all':24} {seconds:8.1f} {processor:9.1f}  limit {LIMIT:g} s: {'kept' if processor <= LIMIT else 'exceeded'}")
    return 1 if failed or processor > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
