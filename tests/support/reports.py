"""Reports to show, harmless and hostile ones; and a browser without a window, which shows what a reader would see."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from freqrobust import Report, evaluate
from freqrobust.results.analysis import AnalysisResult, AnalysisTable, PictureRecord
from freqrobust.results.analysis_record import AnalysisRecord
from freqrobust.results.certificates import CertificateRecord, encode_radii
from freqrobust.results.corruptions import CorruptionRow, CorruptionSummary
from freqrobust.results.diagnosis import Check, Diagnosis
from freqrobust.results.distances import DistanceRecord
from freqrobust.results.examples import Example, ExamplePicture, ExampleSet, Kind
from freqrobust.results.gate_record import Comparison, GateRecord, RegressionRow, ThresholdRow
from freqrobust.results.records import ThreatRecord, Warned
from freqrobust.results.reporter import reports
from support.networks import untrained
from support.waiting import PATIENCE

#: Names, paths and messages that try to be more than text, in one format or another.
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src="http://evil.example/x.png" onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "</style></script><script>alert(2)</script><style>",
    "]]></testcase><failure/><!--",
    "{{ 7 * 7 }}{% raw %}",
    "a|b \\| c || d",
    "`one` ``two`` ```",
    "[link](javascript:alert(1)) ![image](http://evil.example/x.png) <http://evil.example>",
    "first\n\n# heading\n\n- item\n\n</details></details>\n| a | b |\n",
    "*stars* _lines_ ~~gone~~ **bold** #1 @everyone",
    "\\end{tabular}\\input{/etc/passwd} $x_1^2$ %comment ~ # & {",
    "}} \\\\ \\hline [1ex] -- --- ,, '' `` << >> ?` !`",
    "=cmd|'/c calc'!A0",
    "+1+1;=2+2",
    "@SUM(A1:A9)",
    "-2+3",
    "\x00\x07\x1b[31mred\x08\x7f",
    "\u202egnp.exe \u200b\ufeff \ufffe",
    "&lt;b&gt; &#60;i&#62; &amp;",
    "tail\\",
    "\u4e2d\u6587 \U0001f600 e\u0301",
]

#: A picture of 2 x 2 pixels.
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR4nGP4zwAE/xkgFAAb8gP91pbyKwAAAABJRU5ErkJggg=="

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
#: Where the browser listens and speaks, which are not the numbers that this process has for the pipes.
AT_3_AND_4 = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for number, pipe in zip((3, 4), pipes):
    os.dup2(pipe, number)
    os.close(pipe)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    """Of Chromium's kind: named by the environment, on the path, or in Playwright's folder."""
    given = os.environ.get("FREQROBUST_CHROMIUM")
    if given:
        return given
    kept = sorted(Path.home().glob(".cache/ms-playwright/chromium*/chrome-linux*/*"))
    return next(filter(None, map(shutil.which, NAMES)), None) or next(
        (str(path) for path in kept if path.name in ("chrome", "headless_shell")), None
    )


class Browser:
    """The debugging protocol, as null-terminated JSON through file descriptors 3 and 4."""

    def __init__(self, program: str, profile: Path) -> None:
        hears, self._to = os.pipe()
        self._from, says = os.pipe()
        flags = ["--headless", "--remote-debugging-pipe", "--disable-gpu", f"--user-data-dir={profile}"]
        flags += ["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage", "--hide-scrollbars"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        self._process = subprocess.Popen(
            [sys.executable, "-c", AT_3_AND_4, str(hears), str(says), program, *flags, "about:blank"],
            pass_fds=(hears, says),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(hears)
        os.close(says)
        self._numbers = itertools.count(1)
        self._rest = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command, wait for its answer; events that come before it are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)
        raise AssertionError("unreachable")

    def wait(self, method: str, session: str) -> dict[str, Any]:
        """The next event of that kind, or the first that is already there."""
        for event in self.events:
            if (event.get("method"), event.get("sessionId")) == (method, session):
                return event
        for event in self._messages():
            self.events.append(event)
            if (event.get("method"), event.get("sessionId")) == (method, session):
                return event
        raise AssertionError("unreachable")

    def _messages(self) -> Iterator[dict[str, Any]]:
        end = time.monotonic() + PATIENCE
        while True:
            head, found, rest = self._rest.partition(b"\0")
            if found:
                self._rest = rest
                yield json.loads(head)
                continue
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self._from, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("the browser does not answer")
            self._rest += chunk

    def close(self) -> None:
        os.close(self._to)
        os.close(self._from)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Page:
    """One page, open in the browser."""

    def __init__(self, browser: Browser, path: Path, width: int, height: int, scheme: str) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session: str = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.prefer(scheme)
        self.call("Page.navigate", url=path.as_uri())
        browser.wait("Page.loadEventFired", self._session)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def prefer(self, scheme: str) -> None:
        """What the reader's system says about light and dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def settle(self) -> None:
        """Wait for what is on its way: events, and listeners that are called with the next frame."""
        self.evaluate("new Promise(done => setTimeout(done, 50))")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key, as from a keyboard."""
        text = {"Enter": "\r"}.get(key, "")
        code = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "Escape": 27}[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def move(self, x: float, y: float) -> None:
        """The mouse, in the units of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path: Path, whole: bool = False) -> None:
        """A screenshot."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.settle()
        return [
            e["params"]
            for e in self._browser.events
            if e.get("method") == method and e.get("sessionId") == self._session
        ]

    @property
    def requests(self) -> list[str]:
        """Addresses that the page asked for; what is inside of it has none."""
        urls = [e["request"]["url"] for e in self._events("Network.requestWillBeSent")]
        return [url for url in urls if not url.startswith("data:")]

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings on the console, uncaught exceptions, breaches of the content policy."""
        entries = [e["entry"] for e in self._events("Log.entryAdded")]
        said = [e["text"] for e in entries if e["level"] in ("warning", "error")]
        said += [str(e["args"]) for e in self._events("Runtime.consoleAPICalled") if e["type"] != "log"]
        return said + [str(e["exceptionDetails"]) for e in self._events("Runtime.exceptionThrown")]

    @property
    def dialogs(self) -> int:
        """How often the page opened an alert."""
        return len(self._events("Page.javascriptDialogOpening"))


@pytest.fixture(scope="session")
def measured() -> Report:
    """Two models under a defense, with eps sweeps in two norms and filters at two radii."""
    models = {"first": untrained(0), "second": untrained(1)}
    torch.manual_seed(2)
    images = torch.rand(60, 1, 8, 8)
    labels = torch.cat([models["second"](images[:40]), models["first"](images[40:])]).argmax(dim=1)
    return evaluate(
        models,
        (images, labels),
        attacks=["pgd:eps=[0.01,0.05],steps=2", "fgsm:eps=0.5,norm=l2", "lfc:radius=[2,3]", "hfc:radius=[2,3]"],
        defenses=["lowpass:radius=3"],
        device="cpu",
    )


def decorated(report: Report, text: str) -> Report:
    """The report with every kind of part, and ``text`` wherever a report can hold text of others."""
    found = report.model_copy(deep=True)
    spec = f"lowpass:{text}"
    for model in found.models:
        model.name, model.spec, model.arch = f"{text} {model.name}", text, text
    found.data.spec, found.data.split = text, text
    found.environment.device, found.environment.git = text, text
    for one in [*found.cells, *found.worst_case]:
        one.defense_spec = spec if one.defense_spec != "undefended" else "undefended"
    for cell in found.cells:
        if cell.attack == "pgd":
            cell.attack_spec = f"{text} {cell.attack_spec}"
    for cell in (c for c in found.cells if c.model == 0 and c.attack_params.get("eps") == 0.05):  # a comment has limits
        cell.distances = DistanceRecord.of("linf", np.linspace(0, 0.1, cell.n))
    found.cells[1].notes, found.cells[1].breakdown = [text], {text: 1}
    found.worst_case[0].by_checks = 1
    broken = next(cell for cell in found.cells if cell.attack == "hfc")
    broken.status, broken.error, broken.outcomes, broken.correct, broken.difference = "failed", text, None, 0, None
    found.status = "partial"
    found.warnings = [
        Warned(code="some-code", message=text, defense=spec),
        Warned(code=text, message="words", model=1, attack=text),
    ]
    checks = [
        Check(
            name=text,
            status="failed",
            measured=0.5,
            threshold=0.25,
            unit="share",
            attack=text,
            reason=text,
            source=text,
        ),
        Check(name="b", status="passed", source="Athalye et al. 2018"),
        Check(name="c", status="not applicable", reason=text, source="s"),
    ]
    defended = next(cell for cell in found.cells if cell.defense_spec == spec)
    certified = CertificateRecord(
        model=1,
        defense=defended.defense,
        defense_spec=spec,
        defense_params=defended.defense_params,
        certificate="smoothing",
        certificate_spec=f"smoothing:{text}",
        certificate_params={},
        threat=ThreatRecord(norm="l2", eps=0.5),
        guarantee="statistical",
        statement=text,
        alpha=0.001,
        n=60,
        correct=defended.correct,
        outcomes=defended.outcomes,
        radii=encode_radii(np.where(defended.right(), 0.75, 0.0)),
        abstained=0,
        notes=[text],
    )
    failed = {"status": "failed", "error": text, "correct": 0, "outcomes": None, "radii": None, "abstained": None}
    found.certificates = [certified, certified.model_copy(update={"certificate_spec": f"{text}:eps=0.5", **failed})]
    found.diagnostics = [
        Diagnosis(
            model=1,
            defense=defended.defense,
            defense_spec=spec,
            defense_params=defended.defense_params,
            verdict="overestimated",
            sentence=text,
            checks=checks,
        )
    ]
    rows = [
        RegressionRow(name=text, passed=False, measured=0.2, required=0.01, p_adjusted=0.001, text=text, n=60),
        RegressionRow(name="other", passed=None, text="information", n=60),
    ]
    found.gate = GateRecord(
        passed=False,
        comparison=Comparison(baseline=text, passed=False, alpha=0.05, max_drop=0.01, rows=rows, notes=[text]),
        thresholds=[ThresholdRow(name="pgd", passed=True, measured=0.5, required=0.45, text=text, n=60)],
    )
    row = CorruptionRow(name=text, accuracies={"1": 0.75, "5": 0.25}, accuracy=0.5, ce=1.25)
    found.corruptions = [
        CorruptionSummary(
            defense=defended.defense,
            defense_spec=spec,
            defense_params=defended.defense_params,
            part="common",
            source="generated",
            complete=False,
            n=60,
            rows=[row],
            mean_accuracy=0.5,
            mce=1.25,
            reference=text,
        )
    ]
    found.analyses = [
        AnalysisRecord(
            freqrobust_version=found.freqrobust_version,
            created=found.created,
            seed=0,
            name="heatmap",
            spec=f"heatmap:{text}",
            params={},
            models=found.models,
            data=found.data,
            environment=found.environment,
            results=[AnalysisResult(label=text, defense_spec=spec, reading="low", sentence=text)],
            tables=[AnalysisTable(title=text, columns=["frequency", text], rows=[["1", text], ["2", "b"]])],
            picture=PictureRecord(format="png", base64=PICTURE, alt=text),
        )
    ]
    pictures = [
        ExamplePicture(kind=kind, base64=PICTURE, prediction=n - 1, name=text) for n, kind in enumerate(get_args(Kind))
    ]
    found.examples = [
        ExampleSet(
            model=1,
            defense=defended.defense,
            defense_spec=spec,
            attack_spec=f"pgd:{text}",
            threat=ThreatRecord(norm="linf", eps=0.05),
            radius=3,
            magnified=5,
            width=300,
            height=2,
            samples=[Example(id=7, label=0, name=text, adversarial=False, pictures=pictures)],
        )
    ]
    return Report.model_validate(found.model_dump())


@pytest.fixture(scope="session")
def decorate(measured: Report) -> Callable[[str], Report]:
    """``decorate(text)``: a report with every kind of part, and the text wherever text of others can be."""
    return lambda text: decorated(measured, text)


@pytest.fixture(scope="session")
def shown() -> Callable[..., str]:
    """``shown(name, report, **options)``: what a reporter makes of one report, or of several by name."""

    def render(name: str, found: Report | dict[str, Report], **options: Any) -> str:
        target = io.StringIO()
        reporter: Any = reports.get(name)(**options)
        if isinstance(found, dict):
            reporter.render_many(found, target)
        else:
            reporter.render(found, target)
        return target.getvalue()

    return render


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium or Chrome on this machine (set FREQROBUST_CHROMIUM)")
    running = Browser(program, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture
def show(browser: Browser) -> Callable[..., Page]:
    """``show(path)``: the file, open in the browser; 1280 x 900 and light unless asked otherwise."""

    def opened(path: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> Page:
        return Page(browser, path, width, height, scheme)

    return opened


@pytest.fixture(params=HOSTILE, ids=range(len(HOSTILE)))
def hostile(request: pytest.FixtureRequest) -> str:
    """Text that tries to break out of what holds it."""
    return str(request.param)


@pytest.fixture(scope="session")
def all_hostile() -> list[str]:
    return HOSTILE
