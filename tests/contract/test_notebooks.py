"""The notebooks of the documentation are executed, and are stored as they were executed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.pages import ROOT
from support.waiting import PATIENCE, processor_seconds_of_children

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["defense", "evaluate", "gate"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_outputs(path: Path) -> None:
    cells = [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert len(outputs) >= 3
    text = path.read_text(encoding="utf-8")
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert "\\u001b" not in text
    assert path.stat().st_size < 200_000
    assert "/root" not in text
    assert "/home" not in text


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the extra 'dev' is not installed")
    nbclient = pytest.importorskip("nbclient", reason="the extra 'dev' is not installed")
    pytest.importorskip("ipykernel", reason="the extra 'dev' is not installed")
    pytest.importorskip("matplotlib", reason="the extra 'plots' is not installed")
    # the kernel is this Python, whatever kernels the user has installed
    kernel = tmp_path / "kernels" / "here"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "here", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=int(PATIENCE), kernel_name="here", resources={"metadata": {"path": str(tmp_path)}}
    )
    before = processor_seconds_of_children()
    client.execute()
    assert 0 < processor_seconds_of_children() - before < 180
    assert [cell["source"] for cell in notebook.cells] == ["".join(cell["source"]) for cell in read(path)["cells"]]
