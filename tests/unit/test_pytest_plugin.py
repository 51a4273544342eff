"""The pytest plugin, in test sessions of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import freqrobust
from freqrobust.gate.regression import compare
from freqrobust.gate.thresholds import Threshold, threshold_rows
from freqrobust.results.gate_record import GateRecord
from freqrobust.results.rendering import parse_outputs, rendered
from support.waiting import PATIENCE

pytest_plugins = ["pytester"]

MODEL = """
import pytest, torch
from torch import nn

class Net(nn.Module):
    calls = 0
    def __init__(self, noise=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 4)
        with torch.no_grad():
            self.linear.weight += noise * torch.randn(4, 16)
    def forward(self, x):
        Net.calls += 1
        return self.linear(x.flatten(1))

torch.manual_seed(1)
IMAGES = torch.rand(120, 1, 4, 4)
LABELS = Net()(IMAGES).argmax(1)
OPTIONS = dict(attacks=["pgd:eps=[0.01,0.1],steps=2"], device="cpu")
"""


#: Warnings are errors in the inner sessions too; the plugins that are left out have no part, and take time to import.
OPTIONS = ("-W", "error", *(f"-pno:{name}" for name in ("xdist", "cacheprovider", "hypothesispytest")))


@pytest.fixture(scope="module")
def _imported() -> None:
    """Import all that an evaluation and a comparison need: pytester forgets modules that an inner session imports."""
    report = freqrobust.evaluate(
        torch.nn.Flatten(), (torch.rand(4, 1, 2, 2), torch.arange(4)), attacks=["pgd:steps=1"], device="cpu"
    )
    threshold_rows(report, [Threshold("clean", 0.0)], False)
    (output,) = parse_outputs(["table:show=gate=-"], "--report")
    report.gate = GateRecord(passed=True, comparison=compare(report, report))
    rendered(output, {"": report})


@pytest.fixture
def session(pytester: pytest.Pytester, _imported: None):
    """Run a test file in an inner session, in this process: importing torch once more would take seconds."""

    def run(body: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=MODEL + body)
        return pytester.runpytest_inprocess(*OPTIONS, *options)

    return run


@pytest.mark.slow
def test_accuracy(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, as users run it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pytester.makepyfile(
        test_it=MODEL
        + """
def test_reached(freqrobust_eval):
    result = freqrobust_eval(Net(), (IMAGES, LABELS), **OPTIONS)
    assert result.report.cell("clean").accuracy == 1.0
    result.assert_accuracy("clean", at_least=1.0)
    result.assert_accuracy("clean", at_least=0.95, confident=True)

def test_not_reached(freqrobust_eval):
    freqrobust_eval(Net(), (IMAGES, LABELS), **OPTIONS).assert_accuracy("pgd", at_least=0.999)

def test_not_with_confidence(freqrobust_eval):
    freqrobust_eval(Net(), (IMAGES, LABELS), **OPTIONS).assert_accuracy("clean", at_least=0.99, confident=True)

def test_no_such_cell(freqrobust_eval):
    freqrobust_eval(Net(), (IMAGES, LABELS), **OPTIONS).assert_accuracy("pdg", at_least=0.1)

def test_no_share(freqrobust_eval):
    freqrobust_eval(Net(), (IMAGES, LABELS), **OPTIONS).assert_accuracy("pgd", at_least=45)
"""
    )
    result = pytester.runpytest_subprocess(*OPTIONS)
    result.assert_outcomes(passed=1, failed=4)
    result.stdout.fnmatch_lines(
        ["*Thresholds: accuracy in percent*", "*pgd*0.1*failed*", "*gate failed: 2 of 2 checks failed*"]
    )
    result.stdout.fnmatch_lines(["*failed*low end 99*"])
    result.stdout.fnmatch_lines(["*threshold 'pdg' names no cell; did you mean 'pgd'?*"])
    result.stdout.fnmatch_lines(["*did you mean 0.45?*"])
    assert "pytest_plugin.py" not in result.stdout.str()  # what failed is the test, not the plugin


def test_baseline(session, pytester: pytest.Pytester) -> None:
    body = """
import os
def test_robust(freqrobust_eval):
    noise = float(os.environ.get("NOISE", "0"))
    freqrobust_eval(Net(noise), (IMAGES, LABELS), **OPTIONS).assert_no_regression("baseline.json", cells=["clean", "worst"])
"""
    missing = session(body)
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(
        ["*there is no baseline baseline.json: run pytest --freqrobust-update-baselines once to write it*"]
    )
    assert not (pytester.path / "baseline.json").exists()
    written = session(body, "--freqrobust-update-baselines")
    written.assert_outcomes(passed=1)
    written.stdout.fnmatch_lines(["*freqrobust: baseline written: baseline.json*"])
    before = (pytester.path / "baseline.json").read_bytes()
    session(body).assert_outcomes(passed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOISE", "0.3")
        worse = session(body)
    worse.assert_outcomes(failed=1)
    worse.stdout.fnmatch_lines(
        ["*Changes from the baseline baseline.json*worst first*", "*clean*regression*100.0*", "*gate failed*"]
    )
    assert (pytester.path / "baseline.json").read_bytes() == before
    (pytester.path / "baseline.json").write_bytes(before[:100])
    broken = session(body)
    broken.assert_outcomes(failed=1)
    broken.stdout.fnmatch_lines(["*baseline.json is not JSON*"])


def test_equal_arguments_are_evaluated_once(session) -> None:
    session("""
def test_first(freqrobust_eval):
    net = Net()
    result = freqrobust_eval(net, (IMAGES, LABELS), **OPTIONS)
    calls = Net.calls
    assert freqrobust_eval(net, (IMAGES.clone(), LABELS), **OPTIONS) is result
    assert freqrobust_eval(Net(), (IMAGES, LABELS), **OPTIONS) is result
    assert Net.calls == calls
    assert freqrobust_eval(net, (IMAGES, LABELS), **OPTIONS, seed=1) is not result
    assert freqrobust_eval(net, (IMAGES[:50], LABELS[:50]), **OPTIONS) is not result
    with torch.no_grad():
        net.linear.bias += 1
    assert freqrobust_eval(net, (IMAGES, LABELS), **OPTIONS) is not result
    Net.calls_of_the_first_test = Net.calls

def test_second(freqrobust_eval):
    freqrobust_eval(Net(), (IMAGES, LABELS), **OPTIONS)
    assert Net.calls == Net.calls_of_the_first_test
""").assert_outcomes(passed=2)


def test_the_plugin_is_there_and_costs_nothing() -> None:
    """It is loaded by its entry point, and brings neither torch nor the engine into a session that does not use it."""
    code = """
import sys
def test_cheap(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("freqrobust")
    heavy = ["torch", "numpy", "pydantic", "rich", "freqrobust.harness", "freqrobust.results"]
    assert [name for name in heavy if name in sys.modules] == []
"""
    program = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        Path(folder, "test_cheap.py").write_text(code)
        # plugins of others that this environment happens to have may import what they like
        options = [
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-p",
            "no:hypothesispytest",
            "-p",
            "no:anyio",
            "test_cheap.py",
        ]
        done = subprocess.run(
            [sys.executable, "-c", program, *options],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stdout


def test_help_names_the_option(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--help")
    result.stdout.fnmatch_lines(["robustness of image classifiers:", "*--freqrobust-update-baselines*"])
