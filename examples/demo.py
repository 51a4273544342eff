"""The story of ``make demo``: a defense that looks robust and is not, and one that helps."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from freqrobust import FreqRobustError, Report, evaluate
from freqrobust.core.files import cache_root
from freqrobust.reports.html import HTML

ATTACK = "apgd:eps=0.15"
JPEG = "jpeg:quality=20"
MADRY = "madry:eps=0.15,steps=3,epochs=10,augment=none"
SAMPLES = 200


def measured(folder: Path, *defenses: str, examples: int = 0) -> Report:
    """The report of these defenses; what an earlier call measured is taken from the journal in ``folder``."""
    return evaluate(
        "demo",
        "digits",
        attacks=[ATTACK],
        defenses=list(defenses),
        train_data="digits",
        limit=SAMPLES,
        run_dir=folder,
        cache_dir=cache_root(),
        examples=examples,
    )


def accuracy(report: Report, reference: str) -> str:
    cell = report.cell(reference)
    assert cell.accuracy is not None
    assert cell.ci95 is not None
    low, high = cell.ci95
    return f"{cell.accuracy:.0%} [{low:.0%}, {high:.0%}]"


def main(folder: Path) -> None:
    started = time.monotonic()
    print(f"A small network that reads handwritten digits, {SAMPLES} test images, accuracies with 95 % intervals.\n")

    print("1. The network", flush=True)
    report = measured(folder)
    print(f"   clean images                     {accuracy(report, 'clean')}")
    print(f"   Auto-PGD, Linf 0.15              {accuracy(report, 'apgd')}")
    print("   The images are changed by at most 0.15 per pixel, and most of them are misclassified.\n")

    print("2. A defense that looks robust: JPEG compression of every image", flush=True)
    report = measured(folder, JPEG)
    print(f"   the adversarial images of step 1 {accuracy(report, 'jpeg/apgd@oblivious')}")
    print("   They were made for the network without JPEG. This attack is oblivious of the defense.")
    print(f"   Auto-PGD on network and JPEG     {accuracy(report, 'jpeg/apgd')}")
    print("   This attack is adaptive, and shows how robust the defense is.\n")

    print("3. A defense that helps: adversarial training (10 epochs)", flush=True)
    report = measured(folder, JPEG, MADRY, examples=4)
    print(f"   clean images                     {accuracy(report, 'madry/clean')}")
    print(f"   Auto-PGD, adaptive               {accuracy(report, 'madry/apgd')}\n")

    print("4. The verdicts: are these accuracies overestimated?")
    print("   Other attacks were run on the same images, to see whether they misclassify more of them.")
    for diagnosis in report.diagnostics:
        print(f"   {diagnosis.defense.partition(':')[0]:<12} {diagnosis.verdict}")
    print("   'No problem found' is about the accuracy under the adaptive attack: for JPEG it is low, and correct.")
    page = folder / "report.html"
    with page.open("w", encoding="utf-8") as file:
        HTML().render(report, file)
    print(f"\nThe report, with every number: {page}  ({time.monotonic() - started:.0f} s)")
    command = f'freqrobust eval --limit {SAMPLES} --attack {ATTACK} --defense {JPEG} --defense "{MADRY}"'
    print(f"The same from the command line: {command}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
    except FreqRobustError as error:
        sys.exit(f"demo: {error}")
