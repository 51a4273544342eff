"""What an evaluation asks for: plugins are parsed first, then models and data are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from freqrobust import EvalConfig, FreqRobustError, check, evaluate
from freqrobust.core.config import SaveConfig
from freqrobust.core.errors import SpecError
from freqrobust.core.progress import Silent
from freqrobust.harness.request import Request

CPU = torch.device("cpu")
NETS = """
from support.networks import tiny


def net():
    return tiny(n=8)[0]


def data():
    return tiny(n=8)[1].images, tiny(n=8)[1].labels


def images():
    raise AssertionError("the data was loaded")
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def config(**options: Any) -> EvalConfig:
    return EvalConfig(**{"model": ["nets.py:net"], "data": "nets.py:data", **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attacks": ["pdg"]}, "did you mean 'pgd'"),
        ({"defenses": ["smoth"]}, "did you mean 'smooth'"),
        ({"certify": ["crwn"]}, "did you mean 'crown'"),
        ({"defenses": ["madry"]}, "needs training data"),
    ],
)
def test_wrong_plugins_are_refused_before_anything_is_loaded(nets: None, options: dict[str, Any], message: str) -> None:
    """Also where a project file names them."""
    with pytest.raises(SpecError, match=message):
        Request.of(config(data="nets.py:images", **options)).load(CPU, None, Silent())
    lines = ["[eval]", 'model = "nets.py:net"', 'data = "nets.py:images"', "[thresholds]", "clean = 0"]
    name, value = next(iter(options.items()))
    lines.insert(3, f"{name} = {value}")
    Path("freqrobust.toml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(FreqRobustError, match=message):
        check()


def test_the_settings_are_those_of_the_evaluation(nets: None) -> None:
    given = config(attacks=["lfc:radius=2", "clean"], defenses=["smooth"], seed=3, device="cpu", diagnose=None)
    request = Request.of(given).load(CPU, None, Silent())
    assert [chain.spec for chain in request.chains] == ["undefended", "smooth"]
    settings = request.settings(oblivious=False)
    assert settings.keys() <= EvalConfig.model_fields.keys()
    assert (settings["seed"], settings["suite"], settings["oblivious"]) == (3, None, False)
    report = evaluate(request.models, request.data, **settings)
    expected = evaluate("nets.py:net", "nets.py:data", given)
    assert [cell.outcomes for cell in report.cells] == [cell.outcomes for cell in expected.cells]
    assert len(report.cells) == 4
    assert SaveConfig(**request.settings(SaveConfig)).attacks == request.attacks


def test_a_suite_is_of_the_size_of_the_images(nets: None) -> None:
    request = Request.of(config(suite="frequency"))
    assert request.attacks is None
    loaded = request.load(CPU, None, Silent())
    side = min(loaded.data.shape[1:])
    radii = [spec.params["radius"] for spec in loaded.attacks if spec.name == "lfc"]
    assert radii == [radius * side / 32 for radius in (4, 8, 12, 16)]


def test_only_clean_images(nets: None) -> None:
    loaded = Request.of(config(attacks=["clean"])).load(CPU, None, Silent())
    assert loaded.attacks == []
    assert loaded.settings()["attacks"] == ["clean"]
