"""Thresholds of ``eval``, and ``compare``, ``check`` and ``init``: the verdict, the exit code, and what is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from freqrobust import Report
from freqrobust.cli import gate, init
from freqrobust.gate.project import read_project
from freqrobust.models.architectures import SmallCNN
from support.waiting import PATIENCE

Command = Callable[..., Any]
ATTACKS = "pgd:eps=[4/255,16/255],steps=2"


@pytest.fixture
def worse(trained: Path, workspace: Path) -> Path:
    """The trained network with noise on its weights: it still works, but less well."""
    from safetensors.torch import save_file

    from freqrobust import load_model

    model = load_model(trained)
    torch.manual_seed(1)
    network = SmallCNN(num_classes=10, in_channels=1)
    state = {key.removeprefix("network."): value for key, value in model.state_dict().items()}
    kept = {key: state[key] for key in network.state_dict()}
    noisy = {
        key: value + 0.35 * value.std() * torch.randn_like(value) if value.dim() > 1 else value
        for key, value in kept.items()
    }
    path = workspace / "worse.safetensors"
    save_file({key: value.contiguous() for key, value in noisy.items()}, path)
    return path


@pytest.fixture
def project(trained: Path, digits: Path, workspace: Path) -> Callable[..., Path]:
    """Write a project file, with more lines in [eval] and more tables."""

    def write(top: str = "", tables: str = "", model: Path = trained, baseline: str = "baseline.json") -> Path:
        gate = f'[gate]\nbaseline = "{baseline}"' if baseline else "[gate]"
        lines = [
            "[eval]",
            f'model = "{model}"',
            'normalize = "none"',
            f'data = "{digits}"',
            f'attacks = ["{ATTACKS}"]',
            top,
            tables.replace("[gate]", gate) if "[gate]" in tables else f"{gate}\n{tables}",
        ]
        path = workspace / "freqrobust.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


# thresholds of eval


def test_thresholds_decide_the_exit_code(base: list[str], command: Command, workspace: Path) -> None:
    run = [*base, "--attack", ATTACKS, "--json", "r.json"]
    good = command(*run, "--fail-under", "clean>=0.8", "--fail-under", "pgd:eps=4/255>=0.5")
    assert good.code == 0, good.err
    assert "gate passed: " in good.out
    bad = command(*run, "--fail-under", "clean>=0.8", "--fail-under", "worst>=0.99")
    assert bad.code == 1, bad.err
    assert "gate failed: 2 of 3 checks failed" in bad.out
    record = Report.from_json(workspace / "r.json").gate
    assert record is not None
    assert {row.name: row.passed for row in record.thresholds} == {
        "undefended / clean": True,
        "undefended / worst-linf-4/255": False,
        "undefended / worst-linf-16/255": False,
    }
    assert all(row.kind == "threshold" and row.required in (0.8, 0.99) for row in record.thresholds)


def test_confident_judges_the_low_end(base: list[str], command: Command, workspace: Path) -> None:
    run = [*base, "--attack", "lfc:radius=3", "--json", "r.json"]
    command(*run, "--quiet")
    clean = Report.from_json(workspace / "r.json").cell("clean")
    assert clean.accuracy is not None
    assert clean.ci95 is not None
    between = (clean.accuracy + clean.ci95[0]) / 2
    assert command(*run, "--fail-under", f"clean>={between}").code == 0
    assert command(*run, "--fail-under", f"clean>={between}", "--confident").code == 1
    assert command(*run, "--fail-under", f"clean>={clean.ci95[0] - 1e-6}", "--confident").code == 0


def test_a_cell_that_failed_does_not_reach_its_threshold(
    base: list[str], command: Command, write: Callable[[str, str], str]
) -> None:
    write(
        "mine.py",
        "from freqrobust import Attack\nclass Broken(Attack):\n    def perturb(self, *all): raise OSError('no')\n",
    )
    run = [*base, "--attack", "mine.py:Broken"]
    assert command(*run).code == 3
    failed = command(*run, "--fail-under", "Broken>=0")
    assert failed.code == 1
    assert "could not be measured: Broken: OSError: no" in failed.out
    assert command(*run, "--fail-under", "clean>=0").code == 3


@pytest.mark.parametrize("sequential", [False, True])
def test_a_defense_that_failed_reaches_nothing(
    sequential: bool, project: Callable[..., Path], command: Command, write: Callable[[str, str], str]
) -> None:
    write(
        "mine.py",
        "from freqrobust import Defense\nclass Broken(Defense):\n    def apply(self, *all): raise OSError('no')\n",
    )
    thresholds = '[thresholds]\nclean = 0.1\n"Broken/worst" = 0\n"Broken/clean" = 0'
    project('defenses = ["mine.py:Broken"]', thresholds, baseline="")
    result = command("check", "--json", "r.json", *(["--sequential"] if sequential else []))
    assert result.code == 1, result.err
    gate = Report.from_json("r.json").gate
    assert gate is not None
    verdicts = {row.name: row.passed for row in gate.thresholds}
    assert verdicts == {
        "undefended / clean": True,
        "Broken / worst-linf-4/255": False,
        "Broken / worst-linf-16/255": False,
        "Broken / clean": False,
    }
    assert all("OSError: no" in row.text for row in gate.thresholds if not row.passed)


@pytest.mark.parametrize(
    ("thresholds", "said"),
    [
        (["pdg>=0.5"], "threshold 'pdg' names no cell; did you mean 'pgd'?"),
        (["smooth/pgd>=0.5"], "names no cell"),
        (["clean=0.5"], "expected CELL>=SHARE"),
        ([">=0.5"], "expected CELL>=SHARE"),
        (["clean>=much"], "expected a number after >=, but got 'much'"),
        (["clean>=90"], "did you mean 0.9?"),
        (["clean>=-0.1"], "a share in [0, 1]"),
        (["clean>=nan"], "a share in [0, 1]"),
        (["clean>=0.5", "worst-l2>=0.5"], "threshold 'worst-l2' names no cell"),
    ],
)
def test_bad_thresholds_are_said_before_anything_is_measured(
    base: list[str], rejected: Callable[..., str], thresholds: list[str], said: str
) -> None:
    options = [part for threshold in thresholds for part in ("--fail-under", threshold)]
    assert said in rejected(*base, "--attack", ATTACKS, *options)


def test_confident_alone_is_refused(base: list[str], rejected: Callable[..., str]) -> None:
    assert "--confident needs --fail-under" in rejected(*base, "--confident")
    assert "--confident needs --fail-under" in rejected("merge", "runs", "--confident")


# compare


@pytest.fixture
def two(base: list[str], digits: Path, worse: Path, command: Command, workspace: Path) -> tuple[Path, Path]:
    """The reports of the good and of the worse network."""
    old, new = workspace / "old.json", workspace / "new.json"
    assert command(*base, "--attack", ATTACKS, "--json", old, "--quiet").code == 0
    second = ["eval", "--model", str(worse), "--normalize", "none", "--data", str(digits), "--attack", ATTACKS]
    assert command(*second, "--json", new, "--quiet").code == 0
    return old, new


def test_compare(two: tuple[Path, Path], command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = two
    monkeypatch.setenv("COLUMNS", "80")
    worse = command("compare", old, new, "--json", "verdict.json")
    assert worse.code == 1, worse.out
    assert "gate failed: " in worse.out
    last, following = worse.err.splitlines()
    assert last.startswith("freqrobust: exit code 1: gate failed: ")
    assert following == f"next: freqrobust report {new} --full"
    assert max(map(len, worse.out.splitlines())) <= 80
    judged = Report.from_json("verdict.json")
    assert judged.gate is not None
    assert judged.gate.comparison is not None
    assert judged.gate.comparison.baseline == str(old)
    names = [row.name for row in judged.gate.comparison.rows if row.passed is not None]
    assert sorted(names) == ["undefended / clean", "undefended / worst-linf-16/255", "undefended / worst-linf-4/255"]
    better = command("compare", new, old)
    assert better.code == 0
    assert "gate passed: " in better.out
    same = command("compare", old, old, "--strict", "--quiet")
    assert (same.code, same.out) == (0, "")


def test_compare_writes_every_report(two: tuple[Path, Path], command: Command, workspace: Path) -> None:
    """The new report with the gate in it, by whatever reporter; the terminal shows only the gate."""
    files = ["gate.html", "pr.md", "gate.tex", "gate.csv", "gate.xml", "gate.json", "gate.txt"]
    result = command("compare", *two, *(part for name in files for part in ("--report", name)))
    assert result.code == 1, result.err
    assert result.err.splitlines()[: len(files)] == [f"written: {name}" for name in files]
    assert "Changes from the baseline" in result.out
    assert "Accuracy in percent" not in result.out
    for name in files:
        text = (workspace / name).read_text(encoding="utf-8")
        assert "regression" in text, name
        assert "worst-linf-16/255" in text, name
    assert "Accuracy in percent" in (workspace / "gate.txt").read_text(encoding="utf-8")
    printed = command("compare", *two, "--report", "markdown=-", "--quiet")
    assert (printed.code, printed.out) == (1, (workspace / "pr.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("out.docx", "no form of report is written to files ending in .docx"),
        ("json=old.json", "old.json is already taken"),
        ("html=.", "cannot write .: it is a directory"),
    ],
)
def test_compare_refuses_reports_early(
    two: tuple[Path, Path], rejected: Callable[..., str], target: str, said: str
) -> None:
    before = two[0].read_bytes()
    assert said in rejected("compare", *two, "--report", target)
    assert two[0].read_bytes() == before


def test_compare_with_limits(two: tuple[Path, Path], command: Command) -> None:
    assert command("compare", *two, "--max-drop", "1").code == 0
    assert command("compare", *two, "--max-drop", "1", "--max-drop", "worst=0").code == 1
    assert command("compare", *two, "--alpha", "1e-30").code == 0
    only = command(
        "compare", *two, "--gate", "sweep", "--gate", "clean", "--max-drop", "1", "--max-drop", "sweep-pgd=0.01"
    )
    assert only.code == 1
    assert "gate failed: 1 of 2" in only.out


def test_comparing_needs_no_torch() -> None:
    """It is to answer at once."""
    import subprocess
    import sys

    code = "import sys, freqrobust.cli.gate, freqrobust.gate.thresholds, freqrobust.reports.table; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gate", "pdg"], "gate cell 'pdg' names no cell; did you mean 'pgd'?"),
        (["--max-drop", "much"], "max-drop 'much': expected SHARE or CELL=SHARE"),
        (["--max-drop", "pdg=0.1"], "max-drop 'pdg' names no cell"),
        (["--max-drop", "5"], "did you mean 0.05?"),
        (["--alpha", "2"], "alpha should be between 0 and 1"),
        (["--json", "."], "cannot write .: it is a directory"),
    ],
)
def test_bad_rules(two: tuple[Path, Path], rejected: Callable[..., str], options: list[str], said: str) -> None:
    assert said in rejected("compare", *two, *options)


# check


@pytest.mark.slow
def test_init_check_update(command: Command, workspace: Path) -> None:
    """The whole way of a new user, on the embedded demo."""
    first = command("init")
    assert first.code == 0, first.err
    assert "freqrobust check --update-baseline also lists the gate cells for which no regression" in first.out
    assert first.err.splitlines()[0] == "measuring demo on digits"
    *_, project, workflow, following = first.out.splitlines()
    assert project == "written: freqrobust.toml"
    assert workflow == "written: .github/workflows/robustness.yml"
    assert following.startswith("next: edit freqrobust.toml, then run freqrobust check --update-baseline")
    missing = command("check")
    assert missing.code == 2
    assert "no baseline robustness-baseline.json: freqrobust check --update-baseline writes it" in missing.err
    written = command("check", "--update-baseline")
    assert written.code == 0, written.err
    assert "baseline written: robustness-baseline.json" in written.out
    assert "the minimum detectable drop is " in written.out
    assert written.err.splitlines()[-1].startswith("next: freqrobust ")
    baseline = Report.from_json("robustness-baseline.json")
    assert baseline.gate is None
    passed = command("check", "--json", "r.json")
    assert passed.code == 0, passed.err
    assert "gate passed: " in passed.out
    gate = Report.from_json("r.json").gate
    assert gate is not None
    assert gate.passed


def test_gate_cells_that_cannot_fail_are_said_when_the_baseline_is_written(
    project: Callable[..., Path], command: Command
) -> None:
    path = project()
    path.write_text(path.read_text(encoding="utf-8").replace(ATTACKS, "pgd:eps=1,steps=3"), encoding="utf-8")
    written = command("check", "--update-baseline")
    assert written.code == 0, written.err
    assert Report.from_json("baseline.json").worst_case[0].correct == 0  # any image is within that eps
    line = "no regression can be detected in undefended / worst-linf-1: the accuracy in the baseline is 0.0%, which cannot drop"
    assert [x for x in written.out.splitlines() if x.startswith("no regression")] == [line]
    checked = command("check", "--json", "r.json")
    assert checked.code == 0, checked.err
    assert f"note: {line}" in " ".join(checked.out.split())
    gate = Report.from_json("r.json").gate
    assert gate is not None
    assert gate.comparison is not None
    assert gate.comparison.notes == [line]
    compared = command("compare", "baseline.json", "r.json", "--strict")  # it is no difference of the two
    assert compared.code == 0, compared.err
    assert f"note: {line}" in " ".join(compared.out.split())
    path.unlink()
    Path("baseline.json").rename(init.BASELINE)
    again = command("init", "--ci", "none", "--no-measure")
    assert again.code == 0, again.err
    assert line in again.out.splitlines()


def test_init_beside_a_broken_baseline(command: Command, workspace: Path) -> None:
    Path(init.BASELINE).write_text("{", encoding="utf-8")
    found = command("init", "--ci", "none", "--no-measure")
    assert found.code == 0, found.err
    assert f"{init.BASELINE} already exists, but cannot be used: " in found.out
    assert Path(init.BASELINE).read_text(encoding="utf-8") == "{"


@pytest.mark.slow
def test_check_fails_when_the_model_gets_worse(project: Callable[..., Path], worse: Path, command: Command) -> None:
    project()
    assert command("check", "--update-baseline", "--quiet").code == 0
    assert command("check").code == 0
    project(model=worse)
    failed = command("check")
    assert failed.code == 1, failed.err
    assert "gate failed: " in failed.out
    before = Path("baseline.json").read_bytes()
    shown = command("check", "--update-baseline")
    assert shown.code == 0
    assert "Changes from the baseline baseline.json (replaced)" in shown.out
    assert "regression" in shown.out
    assert Path("baseline.json").read_bytes() != before
    assert command("check").code == 0


def test_check_in_a_folder_below(
    project: Callable[..., Path], command: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tables="[thresholds]\nclean = 0.5")
    below = workspace / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    result = command("check", "--update-baseline", "--json", "r.json", "--report", "json=s.json")
    assert result.code == 0, result.err
    assert (below / "r.json").exists()
    assert (below / "s.json").exists()
    assert (workspace / "baseline.json").exists()
    assert Path.cwd() == below


def test_thresholds_of_the_project(project: Callable[..., Path], command: Command) -> None:
    project(tables='[thresholds]\nclean = 0.5\n"pgd:eps=16/255" = 0.999')
    assert command("check", "--update-baseline").code == 1  # written all the same: it is what was asked for
    failed = command("check", "--json", "r.json")
    assert failed.code == 1
    gate = Report.from_json("r.json").gate
    assert gate is not None
    assert gate.comparison is not None
    assert gate.comparison.passed
    assert [row.passed for row in gate.thresholds] == [True, False]


def test_a_sequential_check_says_what_it_saved(base: list[str], project: Callable[..., Path], command: Command) -> None:
    project(
        tables='[thresholds]\nclean = 0.5\n"pgd:eps=4/255" = 0.3\n"pgd:eps=16/255" = 0.95\nworst-linf-16 = 0.97\n'.replace(
            "worst-linf-16 ", '"worst-linf-16/255" '
        )
    )
    full = command("check", "--update-baseline", "--json", "full.json")
    early = command("check", "--sequential", "--json", "early.json")
    assert early.code == full.code == 1, early.err
    whole, part = Report.from_json("full.json"), Report.from_json("early.json")
    assert whole.gate is not None
    assert part.gate is not None
    verdicts = {row.name: row.passed for row in whole.gate.thresholds}
    assert {row.name: row.passed for row in part.gate.thresholds} == verdicts
    seen = {row.name: row.sequential for row in part.gate.thresholds}
    assert all(one is not None and one.of == 60 for one in seen.values())
    assert any(one is not None and one.seen < 60 for one in seen.values())
    assert sum(c.forwards + c.backwards for c in part.cells) < sum(c.forwards + c.backwards for c in whole.cells)
    assert "warning sequential: " in early.out
    assert [warning.message.endswith("saved)") for warning in part.warnings if warning.code == "sequential"] == [True]
    assert "the report was not compared with the baseline baseline.json" in early.out
    # what was measured is what the full check measured of the same samples
    for row in part.gate.thresholds:
        assert row.sequential is not None
        if row.sequential.seen == 60:
            assert row.accuracy == next(r.accuracy for r in whole.gate.thresholds if r.name == row.name)
    refused = command("compare", "full.json", "early.json")
    assert refused.code == 2
    assert "sequential check" in refused.err


def test_update_keeps_the_baseline_where_cells_failed(
    project: Callable[..., Path], command: Command, write: Callable[[str, str], str]
) -> None:
    write(
        "mine.py",
        "from freqrobust import Attack\nclass Broken(Attack):\n    def perturb(self, *all): raise OSError('no')\n",
    )
    path = project()
    path.write_text(path.read_text().replace(ATTACKS, "mine.py:Broken"))
    result = command("check", "--update-baseline")
    assert result.code == 3
    assert "is not replaced, because some cells failed" in result.err
    assert not Path("baseline.json").exists()


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        values = json.loads(text)
        change(values)
        return json.dumps(values)

    return apply


BROKEN_REPORTS = {
    "truncated": (lambda text: text[: len(text) // 2], "is not JSON"),
    "empty": (lambda text: "", "is not JSON"),
    "another file": (lambda text: "[1, 2]", "expected a report of schema version 2, but got None"),
    "newer": (edit(lambda v: v.update(schema_version=3)), "it was written by a newer freqrobust: upgrade to read it"),
    "no version": (edit(lambda v: v.pop("schema_version")), "expected a report of schema version 2, but got None"),
    "a version that never was": (edit(lambda v: v.update(schema_version=0)), "schema version 2, but got 0"),
    "counts that do not match": (
        edit(lambda v: v["cells"][0].update(correct=3, accuracy=None, ci95=None)),
        "the outcomes count",
    ),
    "an edited rate": (edit(lambda v: v["cells"][0].update(accuracy=0.123)), "contradicts"),
    "too few outcomes": (edit(lambda v: v["cells"][0].update(outcomes="AAAA")), "expected the outcomes of 60 samples"),
    "an edited verdict": (edit(lambda v: v.update(gate={"passed": False})), "the gate says passed = False"),
    "other data": (edit(lambda v: v["data"].update(sha256="0" * 64)), "made on other data"),
}


@pytest.mark.parametrize("how", BROKEN_REPORTS)
def test_a_broken_baseline(
    how: str, project: Callable[..., Path], command: Command, rejected: Callable[..., str]
) -> None:
    """Refused by check and by compare, and never overwritten by an update that cannot read it."""
    project()
    assert command("check", "--update-baseline", "--quiet", "--json", "good.json").code == 0
    path = Path("baseline.json")
    change, said = BROKEN_REPORTS[how]
    path.write_text(change(path.read_text()))
    assert said in rejected("check")
    assert said in rejected("compare", "baseline.json", "good.json")
    assert said in rejected("compare", "good.json", "baseline.json", "--json", "good.json")
    broken = path.read_bytes()
    update = command("check", "--update-baseline")
    if how == "other data":  # readable: replaced, and that they cannot be compared is said
        assert update.code == 0
        assert "the replaced baseline: cannot compare" in update.out
    else:
        assert update.code == 2
        assert "is not overwritten, because it cannot be read" in update.err
        assert path.read_bytes() == broken


BAD_PROJECTS = {
    "an unknown key": ("modle = 1", "", "line 6: unknown key 'eval.modle'; did you mean 'model'?"),
    "a key of eval with an underscore": (
        "batch_size = 1",
        "",
        "line 6: unknown key 'eval.batch_size'; did you mean 'batch-size'?",
    ),
    "a key in the wrong table": ("alpha = 0.1", "", "line 6: unknown key 'eval.alpha'; it belongs into [gate]"),
    "an unknown key of a table": (
        "",
        "[gate]\nmax_drop = 0.1",
        "line 9: unknown key 'gate.max_drop'; did you mean 'max-drop'?",
    ),
    "an unknown table": ("", "[treshold]\nclean = 0.1", "line 9: unknown key 'treshold'; did you mean 'thresholds'?"),
    "a wrong type": ('seed = "x"', "", "line 6: eval.seed should be a whole number, but got 'x'"),
    "a wrong type in a table": ("", '[gate]\n\nalpha = "x"', "line 10: gate.alpha should be a valid number"),
    "a threshold that is no number": ("", '[thresholds]\nclean = "x"', "line 10: thresholds.clean should be a number"),
    "two attacks": ('suite = "quick"', "", "line 1: give either eval.attacks or eval.suite, not both"),
    "nothing to evaluate": ("undefended = false", "", "eval.undefended = false needs eval.defenses"),
    "no TOML": ("x = = 1", "", "is not TOML"),
    "a limit of nothing": ("limit = 0", "", "line 6: eval.limit should be at least 1"),
    "two choices": ("limit = 5\nfirst = 5", "", "give either eval.limit or eval.first, not both"),
    "a threshold out of range": (
        "",
        "[thresholds]\nclean = 90",
        "threshold 'clean>=90': an accuracy is a share in [0, 1]; did you mean 0.9?",
    ),
    "a threshold that names nothing": (
        "",
        "[thresholds]\npdg = 0.9",
        "threshold 'pdg' names no cell; did you mean 'pgd'?",
    ),
    "a gate cell that names nothing": (
        "",
        '[gate]\ncells = ["pdg"]',
        "gate cell 'pdg' names no cell; did you mean 'pgd'?",
    ),
    "alpha out of range": ("", "[gate]\nalpha = 5.0", "alpha should be between 0 and 1"),
}


@pytest.mark.parametrize("how", BAD_PROJECTS)
def test_a_bad_project(how: str, project: Callable[..., Path], command: Command, rejected: Callable[..., str]) -> None:
    project()
    if "names nothing" in how:
        assert command("check", "--update-baseline", "--quiet").code == 0
    top, tables, said = BAD_PROJECTS[how]
    project(top, tables)
    assert said in rejected("check")


def test_without_a_project(rejected: Callable[..., str]) -> None:
    assert "there is no freqrobust.toml in" in rejected("check")


@pytest.mark.parametrize(
    ("options", "top", "said"),
    [
        ([], "", "has neither a baseline nor [thresholds]: there is nothing to check"),
        (["--update-baseline"], "", "names no baseline to update"),
        (["--sequential"], "", "a sequential check needs thresholds, but there are none"),
        (["--update-baseline", "--sequential"], '[gate]\nbaseline = "b.json"', "--update-baseline needs every sample"),
    ],
)
def test_nothing_to_check(
    options: list[str], top: str, said: str, workspace: Path, rejected: Callable[..., str]
) -> None:
    (workspace / "freqrobust.toml").write_text(f'[eval]\nmodel = "demo"\ndata = "digits"\n{top}\n')
    assert said in rejected("check", *options)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('model = "demo"', "line 1: 'model' belongs into the table [eval]: move it below the line [eval]"),
        ("batch-size = 5", "line 1: 'batch-size' belongs into the table [eval]"),
        ('baseline = "b.json"', "line 1: 'baseline' belongs into the table [gate]"),
        ("eval = 3", "line 1: 'eval' should be a table: write [eval]"),
        (
            "modle = 1",
            "line 1: unknown key 'modle'; did you mean 'model'? (tables: eval, gate, sequential, thresholds)",
        ),
    ],
)
def test_keys_outside_of_the_tables(line: str, said: str, workspace: Path, rejected: Callable[..., str]) -> None:
    (workspace / "freqrobust.toml").write_text(f"{line}\n")
    assert said in rejected("check")


# init


@pytest.mark.parametrize("ci", ["github", "gitlab", "none"])
def test_init_writes_what_can_be_read(ci: str, command: Command, workspace: Path) -> None:
    assert command("init", "--ci", ci, "--no-measure").code == 0
    project = read_project(workspace / "freqrobust.toml")
    assert (project.eval.model, project.eval.data, project.eval.normalize) == (["demo"], "digits", ["none"])
    assert project.gate == type(project.gate)(baseline=init.BASELINE)  # the file shows the defaults
    assert project.sequential == type(project.sequential)()
    files = {str(path.relative_to(workspace)) for path in workspace.rglob("*") if path.is_file()}
    expected = {"freqrobust.toml"} | ({str(init.WORKFLOWS[ci][0])} if ci != "none" else set())
    assert files == expected
    for name in expected - {"freqrobust.toml"}:
        assert yaml.safe_load((workspace / name).read_text())


def test_init_pins_what_it_recognises(command: Command, trained: Path, digits: Path, workspace: Path) -> None:
    assert command("init", "--model", trained, "--data", digits, "--ci", "none").code == 0
    project = read_project(workspace / "freqrobust.toml")
    assert project.eval.model == [str(trained)]
    assert project.eval.normalize == ["none"]


def test_init_chooses_budgets_at_which_the_gate_can_fail(
    command: Command, trained: Path, digits: Path, workspace: Path
) -> None:
    """What is written is what `check` evaluates, and lies between 20 and 80 percent."""
    done = command("init", "--model", trained, "--data", digits, "--ci", "none")
    assert done.code == 0, done.err
    text = (workspace / "freqrobust.toml").read_text(encoding="utf-8")
    attacks = read_project(workspace / "freqrobust.toml").eval.attacks
    assert f"chosen: {', '.join(attacks)}" in done.out
    assert [attack.partition(":")[0] for attack in attacks] == ["lfc", "hfc", "pgd"]
    (shown,) = re.findall(r"^#   PGD-10, Linf, by eps: (.*)$", text, re.MULTILINE)
    assert f"measured PGD-10, Linf, by eps: {shown}" in done.out
    measured = {eps: float(share) / 100 for eps, share in re.findall(r"([\d.]+/255) (\d+)%", shown)}
    chosen = re.findall(r"[\d.]+/255", attacks[-1])
    assert chosen
    assert all(0.2 <= measured[eps] <= 0.8 for eps in chosen)
    assert command("check", "--update-baseline").code == 0
    worst = Report.from_json(init.BASELINE).worst_case
    assert len(worst) == len(chosen)
    assert all(0.1 <= row.accuracy <= 0.9 for row in worst)


def test_init_quotes(command: Command, workspace: Path) -> None:
    odd = 'a "b" \\ c.pt'
    assert (
        command("init", "--model", odd, "--normalize", "half", "--data", "x.npz", "--ci", "none", "--no-measure").code
        == 0
    )
    assert read_project(workspace / "freqrobust.toml").eval.model == [odd]


@pytest.mark.parametrize("there", ["freqrobust.toml", ".github/workflows/robustness.yml"])
def test_init_never_overwrites(there: str, workspace: Path, rejected: Callable[..., str]) -> None:
    path = workspace / there
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    assert f"{there} already exists, and init never overwrites a file; nothing was written" in rejected("init")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ci", "githib"], "did you mean 'github'?"),
        (["--model", "net.pt"], "init with --model also needs --data"),
        (["--model", "none.pt", "--data", "digits"], "does not exist"),
        (["--norm", "l7"], "unknown norm 'l7'"),
        (["--norm", "l2", "--no-measure"], "--norm and --no-measure exclude each other"),
        (["--model", "none.pt", "--data", "digits"], "--no-measure writes the file without"),
        (["--model", "a\nb", "--data", "digits", "--normalize", "none"], "control characters"),
    ],
)
def test_bad_init(options: list[str], said: str, rejected: Callable[..., str]) -> None:
    assert said in rejected("init", *options)


@pytest.mark.parametrize("name", ["compare", "init"])
def test_help_of_the_gate(name: str, command: Command) -> None:
    result = command(name, "--help")
    assert result.code == 0
    import inspect

    parameters = inspect.signature(getattr(gate, name)).parameters
    options = [f"--{p.replace('_', '-')}" for p in parameters if p not in ("baseline", "new")]
    assert [option for option in options if option not in result.out] == []
