"""How an evaluation scales with the number of processes: two of them as measured, 8 and 64 of them as simulated.

    python benchmarks/scaling.py [--shared ../shared] [--small] [--rounds 3] [--times FILE]

1. One process, two processes that ``torchrun`` starts, and two shards measure the same, each with one thread, in turns.
   The measuring part of each is timed, from the first process that has loaded model and data to the last one that is
   done. Beside the ratio of the wall-clock times is that of the processor times (of one process, divided by that of the
   busier one of two), which other programs on the machine hardly change.
2. The tasks of a smaller run are timed one by one (processor time, one thread), and extrapolated to 10,000 images: the
   time of a block is the sum of times that are drawn from the measured ones of the same attack and defense. With these
   times the queue of ``torchrun``, shards in one directory and the fixed shares of shards without one are simulated. All
   take the tasks in the order of their expected work, which is not that of their times; processes prepare the models that
   they need, wait for all cells before the checks begin, and read them. The efficiency is the time of all tasks, divided
   by processes times makespan; also with the time in which every process starts and loads model and data. With
   ``--times FILE`` the times are kept in a file, and not measured again.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Samples of a measured block of the second part, of a block of the run that it is extrapolated to, and of that run.
MEASURED, BLOCK, SAMPLES = 64, 256, 10_000
#: Names the folder for times to the processes of the first part.
TIMES = "FREQROBUST_BENCHMARK_TIMES"


# -- two processes ------------------------------------------------------------------------------------------------


def worker(arguments: list[str]) -> None:
    """``freqrobust ARGUMENTS`` in this process; the times of its measuring part go to a file."""
    from freqrobust.cli import main
    from freqrobust.harness.evaluate import Evaluation

    measure = Evaluation._report

    def timed(self: Evaluation, *given: Any) -> Any:
        cpu, start = time.process_time(), time.time()
        try:
            return measure(self, *given)
        finally:
            times = {"start": start, "end": time.time(), "cpu": time.process_time() - cpu}
            Path(os.environ[TIMES], f"{os.getpid()}.json").write_text(json.dumps(times))

    Evaluation._report = timed  # type: ignore[method-assign]
    main.main(arguments)


@dataclass
class Took:
    """Seconds of one way of running: the whole command, its measuring part, and the busiest process in it."""

    whole: float
    measuring: float
    cpu: float


def timed_commands(commands: Sequence[list[str]], folder: Path) -> Took:
    """Run commands at the same time, each process with one thread."""
    folder.mkdir()
    environment = {**os.environ, TIMES: str(folder), "OMP_NUM_THREADS": "1"}
    start = time.time()
    running = [subprocess.Popen(one, env=environment, stdout=subprocess.DEVNULL) for one in commands]
    codes = [one.wait() for one in running]
    if any(codes):
        raise SystemExit(f"a process failed: exit codes {codes}")
    times = [json.loads(path.read_text()) for path in folder.iterdir()]
    measuring = max(one["end"] for one in times) - min(one["start"] for one in times)
    return Took(time.time() - start, measuring, max(one["cpu"] for one in times))


def two_processes(shared: Path, images: int, rounds: int) -> None:
    """The first part: print the times of one process, of two in a queue, and of two shards."""
    data = shared / "data" / "cifar10" / "train_4000.npz"
    options = ["eval", "--model", str(shared / "checkpoints" / "resnet20-12fca82f.th"), "--data", str(data)]
    options += ["--first", str(images), "--suite", "quick", "--device", "cpu", "--quiet", "--compile", "off"]
    own = [sys.executable, str(Path(__file__).resolve()), "--worker"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *own[1:]]
    found: dict[str, list[Took]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        for round_ in range(rounds):
            at = Path(name, f"{round_}")
            at.mkdir()
            runs = {way: ["--run-dir", str(at / way)] for way in ("one", "queue", "shards")}
            found["one process"].append(timed_commands([[*own, *options, *runs["one"]]], at / "a"))
            found["torchrun"].append(timed_commands([[*torchrun, *options, *runs["queue"]]], at / "b"))
            shards = [[*own, *options, *runs["shards"], "--shard", f"{k}/2"] for k in (1, 2)]
            found["two shards"].append(timed_commands(shards, at / "c"))
    one = found["one process"]
    print(f"\n{images} images, ResNet-20, suite quick, one thread for each process; {rounds} rounds in turns\n")
    print("| processes | whole command | measuring part | ratio of measuring parts | ratio of processor times |")
    print("|---|---|---|---|---|")
    for way, several in found.items():
        whole, measuring = (statistics.median(getattr(t, key) for t in several) for key in ("whole", "measuring"))
        row = [f"{whole:.1f} s", f"{measuring:.1f} s"]
        for key in ("measuring", "cpu"):
            ratios = [getattr(a, key) / getattr(b, key) for a, b in zip(one, several, strict=True)]
            row.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"| {way} | {' | '.join(row)} |")


# -- a simulated plan ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A task of the simulated run: what its model is, its expected work, and how long it takes."""

    model: str
    work: float
    seconds: float


@dataclass
class Measured:
    """What was timed.

    Attributes:
        cells: the seconds of blocks, by the kind of task; all blocks are of :data:`MEASURED` samples.
        work: the expected work for one sample, by the kind of task.
        checks: the stage, the kind, the expected work and the seconds of the checks.
        models: the defense that a kind of task is about.
        prepare: seconds to make each of the models.
        start: seconds until a process begins to measure.
        report: seconds to read all blocks and make the report; before the checks every process reads them as well.
        blocks: the blocks of each cell in it.
    """

    cells: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    work: dict[str, float] = field(default_factory=dict)
    checks: list[tuple[str, str, float, float]] = field(default_factory=list)
    prepare: dict[str, float] = field(default_factory=dict)
    start: float = 0.0
    report: float = 0.0
    blocks: int = 1


def model_of(label: str) -> str:
    """The defense that a task is about."""
    if ", made on the undefended model" in label:
        return "all models"
    return label.removeprefix("checking ").partition(" / ")[0].partition(", ")[0]


class OneByOne:
    """Measures all tasks one after the other, and times each of them."""

    reports, kind, environment = True, None, None

    def __init__(self, measured: Measured) -> None:
        self.measured = measured

    def opened(self, *about: Any) -> AbstractContextManager[None]:
        """Nobody else takes part."""
        return nullcontext()

    def measure(self, name: str, tasks: Sequence[Any], journal: Any, failures: Any) -> bool:
        """Perform and time all tasks."""
        from freqrobust.harness.tasks import perform

        for task in tasks:
            start = time.process_time()
            reason = perform(task, journal, failures)
            seconds = time.process_time() - start
            if reason is not None:
                raise SystemExit(f"{task.label} failed: {reason}")
            kind, _, about = task.label.rpartition(", ")
            if name.startswith("checks"):
                self.measured.checks.append((name, task.label, task.work, seconds))
            elif about.startswith("samples"):
                first, last = (int(word) for word in about.split()[1::2])
                if last - first + 1 == MEASURED:
                    self.measured.cells[kind].append(seconds)
                    self.measured.work[kind] = task.work / MEASURED
        self.done = time.process_time()
        return True


def timed_tasks(shared: Path, images: int, suite: str, defenses: list[str], diagnose: str | None) -> Measured:
    """Time the tasks of a real run, one by one."""
    import torch

    torch.set_num_threads(1)
    from freqrobust import EvalConfig
    from freqrobust.core.progress import Silent
    from freqrobust.harness import blocks
    from freqrobust.harness.evaluate import Evaluation
    from freqrobust.harness.run import DefenseRun

    blocks.SAMPLES["cpu"] = MEASURED
    measured = Measured(blocks=-(-images // MEASURED))
    make = DefenseRun.target_model

    def timed(self: DefenseRun) -> Any:
        known, start = self.chain.spec in measured.prepare, time.process_time()
        model = make(self)
        if not known:
            measured.prepare[self.chain.spec] = time.process_time() - start
        return model

    DefenseRun.target_model = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        config = EvalConfig.of(
            EvalConfig(),
            {
                "suite": suite,
                "defenses": defenses,
                "first": images,
                "device": "cpu",
                "diagnose": diagnose,
                "run_dir": folder,
                "compile": "off",
            },
        )
        model, data = (shared / "checkpoints" / "resnet20-12fca82f.th", shared / "data" / "cifar10" / "train_4000.npz")
        sharing = OneByOne(measured)
        evaluation = Evaluation(str(model), str(data), config, Silent())
        measured.start = time.process_time()  # of this process, its imports included
        evaluation.report(sharing)
        measured.report = time.process_time() - sharing.done
    return measured


def extrapolated(measured: Measured, draws: random.Random) -> list[list[Job]]:
    """The tasks of the cells of the large run, and the stages of its checks; longest expected work first."""
    cells = []
    for kind, seconds in measured.cells.items():
        for start in range(0, SAMPLES, BLOCK):
            samples = min(BLOCK, SAMPLES - start)
            drawn = [draws.choice(seconds) for _ in range(-(-samples // MEASURED))]
            spent = sum(drawn) * samples / (len(drawn) * MEASURED)
            cells.append(Job(model_of(kind), measured.work[kind] * samples, spent))
    checks: dict[str, list[Job]] = {}
    for stage, kind, work, taken in measured.checks:
        checks.setdefault(stage, []).append(Job(model_of(kind), work, taken))
    return [sorted(stage, key=lambda job: -job.work) for stage in (cells, *checks.values())]


#: How the tasks are distributed: by a queue; to shards that take over tasks of others; to shards with directories of
#: their own.
WAYS = ("queue", "shards", "shards apart")


def makespan(stages: list[list[Job]], measured: Measured, workers: int, way: str) -> float:
    """Seconds from when the processes have loaded model and data to the report.

    Args:
        stages: the tasks; each stage begins when the one before it is done.
        measured: preparation and report.
        workers: the number of processes.
        way: one of :data:`WAYS`.
    """
    ready, read = [0.0] * workers, measured.report * -(-SAMPLES // BLOCK) / measured.blocks
    known: list[set[str]] = [set() for _ in range(workers)]

    def perform(number: int, job: Job) -> None:
        needed = set(measured.prepare) if job.model == "all models" else {job.model}
        ready[number] += job.seconds + sum(measured.prepare.get(one, 0.0) for one in needed - known[number])
        known[number] |= needed

    def take_in_turn(dealt: list[tuple[Job, int]]) -> None:
        """Whoever is free takes the longest job that is left; of equal ones its own."""
        free = [(seconds, index) for index, seconds in enumerate(ready)]
        heapq.heapify(free)
        while dealt:
            _, index = heapq.heappop(free)
            equal = takewhile(lambda one: one[0].work == dealt[0][0].work, dealt)
            place = next((at for at, (_, owner) in enumerate(equal) if owner == index), 0)
            perform(index, dealt.pop(place)[0])
            heapq.heappush(free, (ready[index], index))

    for number, stage in enumerate(stages):
        if number and way != "queue":  # the shard that ends last makes the checks
            for job in stage:
                perform(0, job)
        elif way == "queue":
            take_in_turn([(job, -1) for job in stage])
        elif way == "shards":
            take_in_turn(shares(stage, workers))
        else:
            for job, owner in shares(stage, workers):
                perform(owner, job)
        before_checks = number == 0 and len(stages) > 1
        ready = [max(ready) + (read if before_checks else 0.0)] * workers
    return ready[0] + read


def shares(jobs: Sequence[Job], workers: int) -> list[tuple[Job, int]]:
    """Every job with the shard that has the least work before it."""
    work, dealt = [0.0] * workers, []
    for job in jobs:
        least = work.index(min(work))
        work[least] += job.work
        dealt.append((job, least))
    return dealt


def simulated(measured: Measured, runs: int = 20) -> None:
    """The second part: print what was measured, and the efficiencies."""
    total = sum(map(sum, measured.cells.values())) + sum(one[-1] for one in measured.checks)
    print(
        f"\nTimed tasks: {sum(map(len, measured.cells.values()))} of cells, {len(measured.checks)} of checks, {total:.0f} s"
    )
    print(f"start of a process {measured.start:.1f} s, report {measured.report:.1f} s, models ", end="")
    print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in measured.prepare.items()))
    print(f"\n| task | blocks of {MEASURED} | seconds | expected work per sample | microseconds per unit of work |")
    print("|---|---|---|---|---|")
    for kind, seconds in sorted(measured.cells.items(), key=lambda item: -sum(item[1])):
        mean, work = statistics.mean(seconds), measured.work[kind]
        print(
            f"| {kind} | {len(seconds)} | {mean:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {work:.0f} "
            f"| {1e6 * mean / (work * MEASURED):.0f} |"
        )
    for _, kind, work, spent in measured.checks:
        print(f"| {kind} | | {spent:.2f} | {work:.0f} in all | {1e6 * spent / work:.0f} |")
    print(f"\nExtrapolated to {SAMPLES:,} images, median of {runs} draws:\n")
    heads = [f"{way}: makespan | efficiency | with start-up" for way in WAYS]
    print(f"| processes | tasks | time of all tasks | longest task | {' | '.join(heads)} |")
    print(f"|{'---|' * (4 + 3 * len(WAYS))}")
    for workers in (2, 8, 64):
        rows = []
        for seed in range(runs):
            stages = extrapolated(measured, random.Random(seed))
            jobs = [job for stage in stages for job in stage]
            spent = sum(job.seconds for job in jobs)
            row = [float(len(jobs)), spent, max(job.seconds for job in jobs)]
            for way in WAYS:
                seconds = makespan(stages, measured, workers, way)
                started = seconds + measured.start
                row += [seconds, spent / (workers * seconds), spent / (workers * started)]
            rows.append(row)
        tasks, spent, longest, *found = map(statistics.median, zip(*rows, strict=True))
        shown = [f"{workers}", f"{tasks:.0f}", f"{spent:.0f} s", f"{longest:.1f} s"]
        for seconds, efficiency, started in (found[at : at + 3] for at in range(0, len(found), 3)):
            shown += [f"{seconds:.0f} s", f"{efficiency:.2f}", f"{started:.2f}"]
        print(f"| {' | '.join(shown)} |")


def main() -> None:
    """Run what the command line asks for."""
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="the folder of real data")
    parser.add_argument("--small", action="store_true", help="fewer images, the suite quick, one round")
    parser.add_argument("--rounds", type=int, default=None, help="rounds of the first part (default: 3, or 1)")
    parser.add_argument("--only", choices=("real", "simulated"), help="one of the two parts")
    parser.add_argument("--suite", default=None, help="of the second part (default: standard, or quick)")
    parser.add_argument("--times", type=Path, default=None, help="the file of the times of the second part")
    parser.add_argument("--diagnose", choices=("none", "quick", "full"), default="quick")
    given = parser.parse_args()
    if given.only != "simulated":
        two_processes(given.shared, 1024 if given.small else 4000, given.rounds or (1 if given.small else 3))
    if given.only != "real":
        images, suite = (256, "quick") if given.small else (512, "standard")
        depth = None if given.diagnose == "none" else given.diagnose
        if given.times is not None and given.times.exists():
            measured = Measured(**json.loads(given.times.read_text()))
        else:
            measured = timed_tasks(given.shared, images, given.suite or suite, ["smooth"], depth)
            if given.times is not None:
                given.times.write_text(json.dumps(asdict(measured), indent=1))
        simulated(measured)


if __name__ == "__main__":
    main()
