"""What ``--dry-run`` says, compared with runs; and the time of a command of which everything is in the run directory.

    python benchmarks/cost.py [--shared FOLDER] [--only demo curve robust finished]

Each workload is estimated, run, and estimated again, in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
LINF = ",".join(f"{k}/255" for k in range(1, 16))


def workloads(shared: Path) -> dict[str, list[str]]:
    """The arguments of ``freqrobust eval``, by name."""
    data = ["--data", str(shared / "data/cifar10/test_500.npz")]
    resnet = ["--model", str(shared / "checkpoints/resnet20-12fca82f.th"), "--arch", "resnet20", *data]
    robust = ["--model", str(shared / "checkpoints/cifar_small_36px.pth"), *data, "--first", "100"]
    robust += ["--arch", f"{HERE / 'cifar_small.py'}:build", "--normalize", "0.485,0.456,0.406/0.225,0.225,0.225"]
    attacks = ["pgd:eps=[2/255,8/255],steps=20", "square:eps=8/255,queries=100", "lfc:radius=8"]
    cells = [f"fgsm:eps=[{LINF}]", "lfc:radius=[4,6,8,10,12,14,16]", "hfc:radius=[4,6,8,10,12,14,16]"]
    return {
        "demo": ["--defense", "smooth:rho=0.1", "--first", "200"],
        "curve": [*resnet, "--first", "128", *_each("--attack", attacks), "--defense", "smooth:rho=0.25"],
        "robust": [*robust, "--attack", "aa:norm=l2,eps=36/255"],
        "finished": [*resnet, *_each("--attack", cells), "--defense", "smooth:rho=0.1", "--no-oblivious"],
    }


def _each(flag: str, values: list[str]) -> list[str]:
    return [part for value in values for part in (flag, value)]


def evaluate(arguments: list[str]) -> tuple[float, float, float]:
    """Wall-clock seconds and CPU seconds of a command, and its largest memory in MiB."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def compared(arguments: list[str], folder: Path) -> str:
    """A row: the estimates before and after a run, as ratios to what it took."""
    run, plan, report = folder / "run", folder / "plan.json", folder / "report.json"
    command = ["-m", "freqrobust", "eval", *arguments, "--device", "cpu"]
    plans = []
    for _ in range(2):
        evaluate([*command, "--run-dir", str(folder / "nothing"), "--dry-run", "--json", str(plan)])
        plans.append(json.loads(plan.read_text(encoding="utf-8")))
        if len(plans) == 1:
            *_, memory = evaluate([*command, "--run-dir", str(run), "--json", str(report)])
    found = json.loads(report.read_text(encoding="utf-8"))
    measured = [*found["cells"], *found["diagnostics"]]
    seconds = sum(one["seconds"] for one in measured)
    passes = sum(one["forwards"] + 2 * one["backwards"] for one in measured)
    disk = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    ratios = [
        [plan["total"][key] / true for plan in plans]
        for key, true in (("seconds", seconds), ("most_seconds", seconds), ("passes", passes), ("most", passes))
    ]
    texts = [f"{len(found['cells'])}", f"{seconds:.0f} s", *(f"{min(one):.2f} to {max(one):.2f}" for one in ratios)]
    texts += [f"{plans[0]['memory'] / 2**20 / memory:.2f}", f"{plans[0]['disk'] / disk:.2f}"]
    assert plans[0]["total"]["cells"] == len(found["cells"])
    return " | ".join(texts)


def finished(arguments: list[str], folder: Path, rounds: int = 3) -> str:
    """The CPU seconds of a finished run, and those of ``import torch``, in turn."""
    command = ["-m", "freqrobust", "eval", *arguments, "--device", "cpu", "--run-dir", str(folder / "run")]
    evaluate(command)
    found = [(evaluate(command), evaluate(["-c", "import torch"])) for _ in range(rounds)]
    wall, spent, alone = (
        sorted(values)[rounds // 2] for values in zip(*((a[0], a[1], b[1]) for a, b in found), strict=True)
    )
    return (
        f"finished run: {wall:.1f} s, of which {spent:.2f} s of CPU time; import torch alone: {alone:.2f} s of CPU time"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("FREQROBUST_SHARED", "../shared")))
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    print("| workload | cells | seconds | time | time at most | passes | passes at most | memory | disk |")
    print(f"|{'---|' * 9}")
    for name, arguments in workloads(given.shared.resolve()).items():
        if given.only and name not in given.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            if name == "finished":
                print(finished(arguments, Path(folder)))
            else:
                print(f"| {name} | {compared(arguments, Path(folder))} |", flush=True)


if __name__ == "__main__":
    main()
