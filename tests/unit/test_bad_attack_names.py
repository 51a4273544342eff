"""Unknown names and parameters, and libraries that are not there: one clear line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from freqrobust.cli.main import main
from freqrobust.core.errors import SpecError
from freqrobust.plugins.registry import Registry, attacks
from support.waiting import PATIENCE


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("torchattacks", "torchattacks is a family of attacks: name one, for example torchattacks:.*DeepFool"),
        ("torchattacks:", "name one"),
        ("torchattacks:PGDD", r"torchattacks has no attack 'PGDD'; did you mean 'PGD'\? \(attacks: .*DeepFool"),
        ("torchattacks:cw", "did you mean 'CW'"),
        ("torchattacks:MultiAttack", "torchattacks has no attack 'MultiAttack'"),
        ("torchattacks:CW:stps=5", r"torchattacks:CW: unknown parameter 'stps'; did you mean 'steps'\? .*kappa"),
        ("torchattacks:APGD:seed=3", "unknown parameter 'seed'"),
        ("torchattacks:PGD:eps=8", "did you mean 8/255"),
        ("torchattacks:PGD:steps=0", "'steps' should be greater than or equal to 1"),
        ("torchattacks:APGD:norm=L7", "'norm' should be 'Linf' or 'L2', but got 'L7'"),
        ("torchattacks:CW:steps", "expected key=value"),
        ("torchattack:CW", "did you mean 'torchattacks'"),
    ],
)
def test_torchattacks(spec, match) -> None:
    pytest.importorskip("torchattacks", reason="the extra 'zoo' is not installed")
    with pytest.raises(SpecError, match=match) as caught:
        attacks.parse(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("autoattack:eps=8", "did you mean 8/255"),
        ("autoattack:version=custom", "'version' should be 'standard', 'plus' or 'rand'"),
        ("autoattack:norm=l3", "'norm' should be 'linf', 'l2' or 'l1'"),
        ("square:queries=0", "'queries' should be greater than or equal to 1"),
        ("autoatack", "did you mean 'autoattack'"),
    ],
)
def test_autoattack(spec, match) -> None:
    with pytest.raises(SpecError, match=match):
        attacks.parse(spec)


def test_a_missing_torchattacks_names_the_extra(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    line = "torchattacks:NAME needs torchattacks, which is not installed: pip install 'freqrobust[zoo]'"
    for spec in ("torchattacks:CW", "torchattacks"):
        with pytest.raises(SystemExit) as stop:
            main(["eval", "--attack", spec, "--quiet"])
        assert stop.value.code == 2
        assert capsys.readouterr().err == f"freqrobust: {line}\n"
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        main(["list", "attacks"])
    assert stop.value.code == 0
    assert line in capsys.readouterr().out


def test_a_missing_pyautoattack_names_the_extra(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(SystemExit) as stop:
        main(["eval", "--attack", "autoattack", "--quiet"])
    assert stop.value.code == 2
    line = "freqrobust: autoattack needs pyautoattack, which is not installed: pip install 'freqrobust[zoo]'\n"
    assert capsys.readouterr().err == line


def test_names_do_not_hold_families_and_need_no_library() -> None:
    code = (
        "import sys; from freqrobust.plugins.registry import attacks; "
        "assert 'torchattacks' not in attacks.names() and attacks.families() == ['torchattacks']; "
        "attacks.parse('pgd:steps=3'); attacks.parse('autoattack'); attacks.parse('square'); "
        "print([m for m in ('torch', 'torchattacks', 'pyautoattack') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_list_shows_the_members(capsys, monkeypatch) -> None:
    pytest.importorskip("torchattacks", reason="the extra 'zoo' is not installed")
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["list", "attacks"])
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert {f"torchattacks:{name}" for name in attacks.family("torchattacks").members()} <= listed
    with pytest.raises(SystemExit):
        main(["list"])
    assert "SparseFool" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ("[freqrobust.attack_families]\npgd = other:Family", "both named 'pgd'"),
        (
            "[freqrobust.attack_families]\nfine = freqrobust.attacks.pgd:PGD",
            "fine.* expected a subclass|is not a family",
        ),
        ("[freqrobust.attack_families]\nfine = no_such_module_q:F", "the family 'fine' .* cannot be loaded"),
    ],
)
def test_broken_families(tmp_path, monkeypatch, entries, match) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "other-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(entries + "\n")
    with pytest.raises(Exception, match=match):
        Registry("attack", "freqrobust.attacks", attacks.base, "perturb").find("fine:X")
