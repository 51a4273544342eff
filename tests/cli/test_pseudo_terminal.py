"""Every command in a terminal of 80 columns: no longer line, nothing left of the bar, the first line at once."""

from __future__ import annotations

import functools
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pty")

from rich.progress import Progress as Bar

from freqrobust.core.schedule import Schedule
from freqrobust.harness.pace import Pace
from support.terminal import Session, freqrobust, run
from support.waiting import PATIENCE

FREQROBUST = [sys.executable, "-c", "from freqrobust.cli.main import main; main()"]
#: What a bar is drawn with.
BAR = "\u2501\u2578\u257a"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a set of examples and a baseline, as the commands leave them to each other."""
    return tmp_path_factory.mktemp("terminal")


@pytest.fixture(autouse=True)
def _there(folder: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


def session(*arguments: object, columns: int = 80, code: int = 0) -> Session:
    shown = freqrobust([*map(str, arguments)], columns)
    text = "\n".join(shown.screen.lines)
    assert shown.code == code, text
    assert shown.screen.unknown == []
    assert shown.screen.wrapped == 0, text
    assert "Traceback" not in text
    return shown


def test_an_evaluation(base: list[str]) -> None:
    """The bar is there from the first cell on, moves on, and is gone at the end; then the table, and what to do next."""
    arguments = [*base, "--attack", "pgd:eps=[0.1,0.2],steps=5", "--defense", "smooth:rho=0.1", "--run-dir", "run"]
    shown = session(*arguments, "--save-adversarial", "adv")
    assert shown.screen.lines[0] == "evaluating digits.pt on digits60.npz"
    assert not set(BAR) & set("".join(shown.screen.lines))
    bars = [line for frame in shown.frames for line in frame if set(BAR) & set(line)]
    shares = [int(found[1]) for line in bars if (found := re.search(r"(\d+) %, ", line))]
    assert shares
    assert any("estimating the time" in line or " left" in line for line in bars[:3])
    planned = shares[: shares.index(max(shares)) + 1]
    assert planned == sorted(planned)
    assert max(shares) <= 100
    lines = shown.screen.lines
    assert "Accuracy in percent, 95 % interval" in lines
    assert "Every cell: accuracy in percent, 95 % interval" not in lines
    assert lines[-2:] == ["report: run/report.json", "next: freqrobust report run --full"]


def test_one_long_batch_moves(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar names the cell of the run, and follows the steps of an attack of which the cell is a single batch.

    Here every state of it is drawn, and a batch and each of its passes take a second of its clock.
    """
    Path("steps.py").write_text(
        "from freqrobust import Attack\nclass Steps(Attack):\n    steps: int = 40\n    eps: float = 0.0\n"
        "    norm: str = 'linf'\n    needs_gradient = False\n"
        "    def perturb(self, model, images, labels, context):\n        for _ in range(self.steps):\n"
        "            model(images)\n        return images\n",
        encoding="utf-8",
    )
    passed, begin, update = Pace.passed, Pace.begin, Bar.update
    now = [0.0]

    def ticking(function: Callable[..., None]) -> Callable[..., None]:
        def call(*given: object) -> None:
            now[0] += 1
            function(*given)

        return call

    def drawn(self: Bar, *given: object, **values: object) -> None:
        update(self, *given, **values)
        self.refresh()

    monkeypatch.setattr(Pace, "begin", ticking(begin))
    monkeypatch.setattr(Pace, "passed", ticking(passed))
    monkeypatch.setattr(Pace, "INTERVAL", 0.0)
    monkeypatch.setattr(Bar, "update", drawn)
    monkeypatch.setattr("freqrobust.core.progress.Schedule", functools.partial(Schedule, clock=lambda: now[0]))
    shown = session(*base, "--attack", "fgsm:eps=0.1", "--attack", "steps.py:Steps", "--run-dir", "steps")
    bars = [line for frame in shown.frames for line in frame if set(BAR) & set(line) and "Steps" in line]
    assert bars
    assert {found for line in bars for found in re.findall(r"cell (\d+ of \d+)\b", line)} == {"3 of 3"}
    shares = [int(found[1]) for line in bars if (found := re.search(r"(\d+) %, cell", line))]
    assert shares == sorted(shares)
    assert len(set(shares)) >= 30
    assert max(shares) - min(shares) >= 40


def test_all_tables_and_lines(base: list[str]) -> None:
    arguments = [*base, "--attack", "pgd:eps=[0.1,0.2],steps=5", "--defense", "smooth:rho=0.1", "--run-dir", "run"]
    shown = session(*arguments, "--full", "--verbose", "--no-progress", columns=120)
    assert not any(set(BAR) & set(line) for frame in shown.frames for line in frame)
    text = "\n".join(shown.screen.lines)
    assert "Every cell: accuracy in percent, 95 % interval" in text
    assert "Oblivious attacks (adversarial examples crafted on the undefended model)" in text
    assert "undefended / clean: " in text
    assert shown.screen.lines[-1] == "report: run/report.json"


def test_the_next_command_works(base: list[str]) -> None:
    arguments = [*base, "--attack", "fgsm:eps=0.1", "--run-dir", "another"]
    following = session(*arguments).screen.lines[-1]
    assert following == "next: freqrobust report another --full"
    assert "Every cell: accuracy in percent, 95 % interval" in session("report", "another", "--full").screen.lines


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        [
            "eval",
            "--first",
            "20",
            "--attack",
            "fgsm:eps=0.1",
            "--certify",
            "crown:eps=0.01",
            "--no-undefended",
            "--defense",
            "smooth:rho=0.05,layers=all,boundary=symmetric",
            "--defense",
            "smooth:rho=0.1+lowpass:radius=3",
        ],
        ["eval", "--first", "20", "--attack", "fgsm:eps=0.1", "--dry-run"],
        ["analyze", "heatmap", "--first", "10", "--model", "demo"],
        ["analyze", "spectrum", "--first", "10", "--model", "demo", "--dry-run"],
        ["train", "--data", "digits", "--first", "60", "--epochs", "1", "--probe-samples", "10", "--out", "trained"],
        ["train", "--first", "60", "--epochs", "1", "--dry-run"],
        ["reproduce", "--list"],
        ["report", "--help"],
        ["list", "attacks"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]) + (" dry run" if "--dry-run" in arguments else ""),
)
def test_commands_fit(arguments: list[str]) -> None:
    before = sorted(Path().rglob("*"))
    shown = session(*arguments)
    assert not set(BAR) & set("".join(shown.screen.lines))
    if "--dry-run" in arguments:
        assert shown.screen.lines[-1].startswith("dry run: nothing was ")
        assert any(line.startswith("time: ") for line in shown.screen.lines)
        assert sorted(Path().rglob("*")) == before


def test_the_gate(digits: Path, trained: Path) -> None:
    """init, check and compare; the last line says what the exit code means."""
    session("init", "--model", trained, "--data", digits, "--normalize", "none", "--ci", "none")
    project = Path("freqrobust.toml").read_text(encoding="utf-8")
    assert "[eval]" in project
    small = (
        f'[eval]\nmodel = "{trained}"\ndata = "{digits}"\nattacks = ["fgsm:eps=0.1"]\n[thresholds]\n"fgsm:eps=0.1" = '
    )
    Path("freqrobust.toml").write_text(f"{small}0.5\n", encoding="utf-8")
    assert session("check", "--dry-run").screen.lines[-1] == "dry run: nothing was measured or written"
    assert any(line.startswith("gate passed") for line in session("check").screen.lines)
    Path("freqrobust.toml").write_text(f"{small}1\n", encoding="utf-8")
    failed = session("check", "--run-dir", "failing", code=1)
    assert failed.screen.lines[-1] == "freqrobust: exit code 1: gate failed: 1 of 1 checks failed"
    report = "failing/report.json"
    compared = session("compare", report, report, "--gate", "fgsm")
    assert compared.screen.lines[-1] == f"next: freqrobust report {report} --full"
    assert not any("(continued)" in line for line in compared.screen.lines)
    assert any(line.startswith("columns that do not fit: p, newly correct,") for line in compared.screen.lines)


def test_saved_examples(base: list[str], digits: Path, trained: Path) -> None:
    if not Path("adv").exists():  # alone, or in another process than test_an_evaluation
        session(*base, "--attack", "fgsm:eps=0.1", "--save-adversarial", "adv")
    shown = session("verify", "adv", "--model", trained, "--data", digits)
    assert shown.screen.lines[0] == "verifying adv on digits.pt"
    assert any(line.startswith("Saved examples") for line in shown.screen.lines)
    assert "--attack replay:adv" in " ".join(shown.screen.lines[-3:])


#: Writes a line when one of these begins to be imported, each of which takes longer than everything before the first line.
WATCHED = """
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "scipy", "sklearn", "matplotlib", "pandas"):
            print("importing", name, file=sys.stderr, flush=True)
sys.meta_path.insert(0, Watch())
"""


@pytest.mark.slow
def test_the_first_line_comes_before_torch(base: list[str]) -> None:
    command = [sys.executable, "-c", f"{WATCHED}\n{FREQROBUST[2]}", *base, "--attack", "clean", "--dry-run"]
    lines = run(command).screen.lines
    assert lines[:2] == ["evaluating digits.pt on digits60.npz", "importing torch"]


@pytest.mark.slow
def test_interrupted_by_ctrl_c(base: list[str]) -> None:
    """The bar is removed, and one line says what happened; the signal comes while the second cell is attacked."""
    import select
    import signal
    import subprocess

    own, other = os.openpty()
    Path("slow.py").write_text(
        "import pathlib, time\nfrom freqrobust import Attack\nclass Slow(Attack):\n    kind = 'shift'\n"
        "    def perturb(self, model, images, labels, context):\n        pathlib.Path('started').touch()\n"
        "        time.sleep(3600)\n        return images\n",
        encoding="utf-8",
    )
    entry = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + FREQROBUST[2]
    process = subprocess.Popen(
        [sys.executable, "-c", entry, *base, "--attack", "slow.py:Slow", "--run-dir", "slow"],
        stdin=other,
        stdout=other,
        stderr=other,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(other)
    text, until, sent = "", time.monotonic() + PATIENCE, False
    while time.monotonic() < until:
        if select.select([own], [], [], 0.1)[0]:
            try:
                text += os.read(own, 65536).decode("utf-8", "ignore")
            except OSError:
                break
        if not sent and Path("started").exists() and "\u2501" in text:
            process.send_signal(signal.SIGINT)
            sent = True
    os.close(own)
    assert process.wait(timeout=PATIENCE) == 130
    from support.terminal import Screen

    screen = Screen(80)
    screen.feed(text)
    assert not set(BAR) & set("".join(screen.lines))
    assert "interrupted (exit code 130); finished cells are kept in slow" in " ".join(screen.lines)
