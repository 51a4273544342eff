"""``freqrobust new`` writes packages that work as they are: from the command to a verdict in five commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from freqrobust.cli.new import KINDS, names, package_files
from freqrobust.core.errors import SpecError
from support.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"defense": "box-blur", "attack": "one_step", "analysis": "confident", "report": "tabs"}


def run(*arguments: object, cwd: Path, site: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=cwd,
        env=environment,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_from_new_to_a_result_in_five_commands(command, tmp_path, monkeypatch, kind) -> None:
    """The commands that ``new`` prints; the package goes to a folder of its own, and not into this environment."""
    pytest.importorskip("pip", reason="installing needs pip")
    monkeypatch.chdir(tmp_path)
    name, site = NAMES[kind], tmp_path / "site"
    written = command("new", kind, name)
    assert written.code == 0, written.err
    steps = [line.strip() for line in written.out.partition("next:\n")[2].splitlines()]
    assert steps == [f"cd {name}", "pip install -e .", "pytest", KINDS[kind].command.format(name)]
    assert 1 + len(steps) == 5
    package = tmp_path / name
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    run("pip", "install", *quiet, "--target", site, package, cwd=tmp_path, site=site)
    tested = run("pytest", "-q", "-p", "no:cacheprovider", "-W", "error", cwd=package, site=site)
    assert re.search(r"\b\d+ passed", tested.stdout)
    done = run(*steps[-1].split(), "--first", "60", cwd=tmp_path, site=site)
    shown = done.stdout + done.stderr
    expected = {
        "defense": r"no problem found|inconclusive|overestimated|not meaningful",
        "attack": "attacks: one_step",
        "analysis": "Confident predictions",
        "report": r"demo\tundefended\tclean\t[01]\.\d{3}\n",
    }
    assert re.search(expected[kind], shown), shown


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_complete(command, tmp_path, monkeypatch, kind) -> None:
    """What it contains, that it is clean by its own settings, and that it is never overwritten."""
    pytest.importorskip("ruff", reason="the extra 'dev' is not installed")
    monkeypatch.chdir(tmp_path)
    name = NAMES[kind]
    assert command("new", kind, name).code == 0
    module, class_name = names(kind, name)
    files = {str(path.relative_to(name)) for path in Path(name).rglob("*") if path.is_file()}
    assert files == {
        "pyproject.toml",
        "README.md",
        f"src/{module}/__init__.py",
        f"src/{module}/{kind}.py",
        f"tests/test_{module}.py",
    }
    assert f"class {class_name}(" in Path(name, f"src/{module}/{kind}.py").read_text()
    assert "$" not in "".join(Path(name, file).read_text() for file in files)
    for check in (("check",), ("format", "--check")):
        run("ruff", *check, "--no-cache", ".", cwd=Path(name), site=tmp_path)
    before = Path(name, "README.md").read_text()
    again = command("new", kind, name)
    assert (again.code, Path(name, "README.md").read_text()) == (2, before)
    assert "already exists, and new never overwrites anything" in again.error


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (
            "defence",
            "blur",
            "unknown kind of plugin 'defence'; did you mean 'defense'? (defense, attack, analysis, report)",
        ),
        ("defense", "smooth", "there is already one of the defenses named 'smooth' (freqrobust "),
        ("attack", "torchattacks", "there is already one of the attacks named 'torchattacks'"),
        ("analysis", "heatmap", "there is already one of the analyses named 'heatmap'"),
        ("report", "html", "there is already one of the reports named 'html'"),
        ("attack", "clean", "the name 'clean' is reserved"),
        ("defense", "undefended", "the name 'undefended' is reserved"),
        ("defense", "class", "'class' cannot be used: it is a keyword of Python"),
        ("defense", "torch", "there is already a Python module 'torch'"),
        ("defense", "random", "there is already a Python module 'random'"),
        ("defense", "freqrobust", "there is already a Python module 'freqrobust'"),
        ("attack", "attack", "the module imports another Attack"),
        ("defense", "input-defense", "the module imports another InputDefense"),
        ("defense", "MyDefense", "expected lower-case letters, digits, and single - or _ between them"),
        ("defense", "2bit", "expected lower-case letters"),
        ("defense", "a--b", "expected lower-case letters"),
        ("defense", "../elsewhere", "expected lower-case letters"),
        ("defense", "blur.py", "expected lower-case letters"),
        ("defense", "", "expected lower-case letters"),
        ("defense", "caf\u00e9", "expected lower-case letters"),
    ],
)
def test_names_that_cannot_be_used(kind, name, said) -> None:
    with pytest.raises(SpecError) as refused:
        package_files(kind, name)
    assert said in str(refused.value)


def test_a_name_that_cannot_be_used_writes_nothing(command, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("new", "defense", "smooth")
    assert done.code == 2
    assert "there is already one of the defenses named 'smooth'" in done.error
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "blur").symlink_to("nowhere")
    assert command("new", "defense", "blur").code == 2
    assert not (tmp_path / "nowhere").exists()
