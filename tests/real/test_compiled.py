"""Compiled passes and bf16 on a real network: the same verdicts as eager fp32."""

from __future__ import annotations

import shutil

import pytest

from freqrobust import evaluate


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")
def test_the_compiled_network_gives_the_same_verdicts(cifar, models, tmp_path_factory, monkeypatch) -> None:
    """Robust accuracies of 100 images are the same up to samples at the decision boundary, and so is the verdict."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
    attacks = ["pgd:eps=0.5/255,steps=10", "pgd:eps=2/255,steps=10"]
    reports = {
        (compile, precision): evaluate(
            models["cifar_small_36px"], cifar.part(0, 100), attacks=attacks, compile=compile, precision=precision
        )
        for compile in ("off", "on")
        for precision in ("fp32", "bf16")
    }
    eager = reports["off", "fp32"]
    for (compile, precision), report in reports.items():
        assert report.models[0].compilation.compiled is (compile == "on")
        assert [one.message for one in report.warnings if one.code == "not-compiled"] == []
        assert [cell.attack_spec for cell in report.cells] == [cell.attack_spec for cell in eager.cells]
        for ours, theirs in zip(report.cells, eager.cells, strict=True):
            assert abs(ours.correct - theirs.correct) <= (1 if precision == "bf16" else 0)
        assert [one.verdict for one in report.diagnostics] == [one.verdict for one in eager.diagnostics]
        assert report.cells[0].outcomes == eager.cells[0].outcomes
    assert reports["on", "fp32"].models[0].compilation.seconds > 0


@pytest.mark.slow
def test_bf16_gives_the_same_robust_accuracy(cifar, models) -> None:
    """PGD-20 on ResNet-20; at most one sample of 100 differs."""
    found = [
        evaluate(
            models["resnet20"],
            cifar.part(0, 100),
            attacks=["pgd:eps=0.5/255,steps=20"],
            precision=precision,
            compile="off",
            diagnose=None,
        ).cells[1]
        for precision in ("fp32", "bf16")
    ]
    assert abs(found[0].correct - found[1].correct) <= 1
