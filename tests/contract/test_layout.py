"""The layout: few modules at the top, files that can be read, and a source hash that covers what measures."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from freqrobust.core import source_hash
from freqrobust.core.source_hash import code_hash, covered
from freqrobust.harness.run import ENGINE
from support.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
CODE = [ROOT / folder for folder in ("freqrobust", "attacks", "defenses", "reports")]
FILES = sorted({path.resolve() for folder in CODE for path in folder.rglob("*.py")})
LONGEST = 400


def test_few_modules_lie_at_the_top() -> None:
    assert len(list((ROOT / "freqrobust").glob("*.py"))) <= 6


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_or_says_why_not(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    reason = "One file:" in (ast.get_docstring(ast.parse(text)) or "")
    assert lines <= LONGEST or reason, (
        f"{lines} lines; split it, or give the reason in its docstring as 'One file: ...'"
    )


def test_the_contracts_of_the_layers_are_kept() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_engine_hash_covers_what_measures() -> None:
    modules = {name.removeprefix("freqrobust.") for name in covered(ENGINE)}
    expected = {"harness.run", "harness.cell", "harness.target_model", "numerics.noise", "numerics.norms"}
    expected |= {"models.batch_norm_folding", "plugins.bpda", "data.dataset", "harness.diagnosis.examine"}
    assert expected <= modules
    shown = {name for name in modules if name.split(".")[0] in ("cli", "gate", "analyses", "attacks", "reports")}
    assert not shown | (modules & {"results.report", "results.summary", "plugins.help"})


def edited(monkeypatch: pytest.MonkeyPatch, path: Path, old: str, new: str) -> str:
    """The engine hash, were the file different."""
    content = path.read_text(encoding="utf-8")
    assert old in content
    real = Path.read_bytes
    changed = content.replace(old, new, 1).encode()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", lambda self: changed if self == path else real(self))
        source_hash._parsed.cache_clear()
        result = code_hash(ENGINE)
    source_hash._parsed.cache_clear()
    return result


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("freqrobust/numerics/threat.py", "TOLERANCE = 1e-6", "TOLERANCE = 1e-5", False),
        ("freqrobust/harness/cell.py", "SIGN_BYTES = 64", "SIGN_BYTES = 65", False),
        ("freqrobust/numerics/norms.py", '"""', '"""Another docstring. ', True),
        ("freqrobust/numerics/threat.py", "TOLERANCE = 1e-6", "# a comment\nTOLERANCE = 1e-6", True),
        ("freqrobust/cli/main.py", "import", "import os\nimport", True),
        ("reports/html.py", "import", "import os\nimport", True),
        ("freqrobust/plugins/help.py", "import", "import os\nimport", True),
    ],
)
def test_the_engine_hash_changes_with_the_code_that_measures(
    monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, same: bool
) -> None:
    path = (ROOT / file).resolve()
    assert (edited(monkeypatch, path, old, new) == code_hash(ENGINE)) == same
