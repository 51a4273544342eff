"""Progress in notebooks: one display that is updated, and what stays of it."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from freqrobust import analyze, evaluate, save_adversarial, verify
from freqrobust.core.notebook_progress import NotebookProgress, in_notebook
from freqrobust.core.progress import Screen, as_progress
from freqrobust.core.schedule import Piece
from support.waiting import PATIENCE

LABELS = torch.tensor([0, 1, 2, 0])


class Displayed:
    """Takes the place of IPython's displays: every display with all of its contents."""

    def __init__(self) -> None:
        self.displays: list[list[str]] = []

    def display(self, content: str, display_id: bool) -> Any:
        assert display_id
        contents = [content]
        self.displays.append(contents)
        return SimpleNamespace(update=contents.append)

    @property
    def last(self) -> str:
        return html.unescape(re.sub("<[^>]*>", " ", self.displays[-1][-1]))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Displayed]:
    shown = Displayed()
    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    vars(package)["get_ipython"] = lambda: SimpleNamespace(kernel=object())
    vars(module).update(HTML=lambda text: text, display=shown.display)
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(NotebookProgress, "INTERVAL", 0.0)
    monkeypatch.setattr("freqrobust.core.notebook_progress.time", SimpleNamespace(monotonic=lambda: 1.0))
    return shown


def test_a_kernel_gets_its_own_progress(notebook: Displayed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_notebook()
    with as_progress(True) as progress:
        assert isinstance(progress, NotebookProgress)
    vars(sys.modules["IPython"])["get_ipython"] = lambda: SimpleNamespace()  # IPython in a terminal
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    with as_progress(True) as progress:
        assert isinstance(progress, Screen)


def test_a_run_has_one_bar(notebook: Displayed, tmp_path: Path) -> None:
    model, data = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), (torch.rand(4, 1, 8, 8), LABELS)
    evaluate(model, data, attacks=["fgsm:eps=0.1"], diagnose=None, device="cpu", progress=True)
    assert len(notebook.displays) == 1
    assert "done: 2 steps" in notebook.last
    analyze(model, data, "spectrum:attacks=[fgsm]", device="cpu", progress=True)
    assert len(notebook.displays) == 2
    save_adversarial(model, data, tmp_path, attacks=["fgsm:eps=0.1"], device="cpu", progress=True)
    assert len(notebook.displays) == 3
    verify(tmp_path, model, data, device="cpu", progress=True)
    assert len(notebook.displays) == 4
    assert "done: 1 step " in notebook.last


def test_one_bar_that_ends_as_a_line(notebook: Displayed) -> None:
    with NotebookProgress() as progress:
        progress.begin("undefended / <pgd>", 4)
        progress.advance(1)
        assert "25 %" in notebook.last
        assert "undefended / <pgd>" in notebook.last
        progress.say("warning: some <b>words</b>")
        progress.say("warning: some <b>words</b>")
        progress.advance(3)
        progress.end("undefended / <pgd>: 4.0% in 1 s")
        progress.begin("smooth / fgsm", 4)
        progress.end("smooth / fgsm: failed: no gradient")
    assert len(notebook.displays) == 1
    assert "<pgd>" not in notebook.displays[0][2]
    assert re.fullmatch(
        r"\s*done: 2 steps in 0:00\s+warning: some <b>words</b>\s+smooth / fgsm: failed: no gradient\s*", notebook.last
    )


def test_the_bar_of_a_plan_is_that_of_the_run(notebook: Displayed) -> None:
    with NotebookProgress() as progress:
        progress.plan([Piece("a", 30.0), Piece("b", 10.0)])
        assert progress.schedule is not None
        now = [0.0]
        progress.schedule.clock = lambda: now[0]
        progress.schedule.started = progress.schedule.looked = 0.0
        progress.begin("a", 10)
        now[0] = 15.0
        progress.within(2.5)
        assert "18 %, cell 1 of 2, 0:15, about 1:05 left" in notebook.last
        progress.advance(5)  # 15 s for a half of it: as much again, and 10 s for the other piece
        assert progress.share() == pytest.approx(15 / 40)
        now[0] = 30.0
        progress.end("a: done")
        progress.finish("a")
        assert progress.share() == pytest.approx(30 / 40)
        progress.begin("b", 10)
        assert "cell 2 of 2" in notebook.last
        progress.fail("b: failed: reason")
        progress.finish("b")
        assert progress.share() == 1.0
        assert "100 %" in notebook.last
    assert "b: failed: reason" in notebook.last


def test_a_piece_without_a_plan_moves_inside_of_its_batches(notebook: Displayed) -> None:
    with NotebookProgress() as progress:
        progress.begin("made", 10)
        progress.advance(5)
        progress.within(2.5)
        assert "75 %" in notebook.last
        progress.within(0.0)  # the batch is repeated in halves
        assert "75 %" in notebook.last


@pytest.mark.parametrize(("error", "word"), [(KeyboardInterrupt, "interrupted"), (ValueError, "stopped")])
def test_it_says_that_it_did_not_finish(error: type[BaseException], word: str, notebook: Displayed) -> None:
    def interrupted() -> None:
        with NotebookProgress() as progress:
            progress.begin("a", 2)
            raise error

    with pytest.raises(error):
        interrupted()
    assert notebook.last.split() == [word, "after", "0", "steps,", "0:00"]


def test_many_warnings_are_counted(notebook: Displayed) -> None:
    with NotebookProgress() as progress:
        for number in range(NotebookProgress.LINES + 3):
            progress.say(f"warning: {number}")
    assert notebook.last.rstrip().endswith("and 3 more")
    assert notebook.displays[0][-1].count("warning") == NotebookProgress.LINES


@pytest.mark.slow
def test_in_a_real_notebook() -> None:
    """The stored outputs are one display and the table of the report, without warnings and lines of progress."""
    pytest.importorskip("nbclient")
    import warnings

    import nbformat
    from nbclient import NotebookClient

    code = "import torch\nfrom freqrobust import evaluate\ntorch.manual_seed(0)\nmodel = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    code += "evaluate(model, 'digits', first=20, attacks=['fgsm:eps=[0.05,0.1]'], progress=True, device='cpu')"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client, about event loops and missing ids
        NotebookClient(book, timeout=int(PATIENCE), kernel_name="python3").execute()
    outputs = book.cells[0].outputs
    assert [one.output_type for one in outputs] == ["display_data", "execute_result"], outputs
    assert "done: " in outputs[0].data["text/html"]
    assert "<table" in outputs[1].data["text/html"]
    assert outputs[1].data["text/plain"].startswith("<Report: ")
