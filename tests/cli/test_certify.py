"""``--certify`` on the command line: tables, exit codes, and the list of certificates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.command import Result

Command = Callable[..., Result]
Report = Callable[..., dict[str, Any]]

CERTIFICATES = """
import torch
from freqrobust import Certificate, Certified

class Base(Certificate):
    eps: float = 0.3
    norm: str = "linf"
    def statement(self): return "everything is certified"
class Wrong(Base):
    def certify(self, model, images, labels, context): return Certified(context.correct)
class Fails(Base):
    def certify(self, model, images, labels, context): raise KeyError("no such layer")
class Silent(Certificate):
    def statement(self): return "nothing"
"""


@pytest.fixture
def file(write: Callable[[str, str], str]) -> str:
    return write("mine.py", CERTIFICATES)


@pytest.mark.slow
def test_certified_and_attacked_side_by_side(base: list[str], report: Report, command: Command) -> None:
    options = ["--first", "12", "--attack", "pgd:eps=0.1,norm=l2,steps=2", "--no-oblivious", "--no-undefended"]
    options += ["--defense", "randomized-smoothing:sigma=0.25,copies=3"]
    options += ["--certify", "smoothing:eps=[0.1,0.2],n=60,n0=20", "--run-dir", "r"]
    found = report(*base, *options)
    assert [c["certificate_spec"] for c in found["certificates"]] == [
        "smoothing:eps=0.1,n=60,n0=20",
        "smoothing:eps=0.2,n=60,n0=20",
    ]
    assert found["config"]["certify"] == ["smoothing:eps=[0.1,0.2],n=60,n0=20"]
    again = command(*base, *options)
    assert again.code == 0
    assert "at most 80 forward passes for each" not in again.err
    assert "certified L2 0.1" in again.out
    assert "worst case L2 0.1" in again.out
    assert command("report", "r").out == again.out


def test_a_directory_of_its_own(base: list[str], report: Report) -> None:
    options = ["--first", "5", "--attack", "clean", "--defense", "lowpass:radius=3"]
    for certify in ([], ["--certify", "band"]):
        report(*base, *options, *certify)
    assert len(list(Path("runs").iterdir())) == 2


def test_a_contradiction_is_no_result(base: list[str], command: Command, file: str) -> None:
    options = ["--attack", "fgsm:eps=0.3", "--certify", f"{file}:Wrong", "--run-dir", "r", "--json", "out.json"]
    result = command(*base, *options, "--report", "out.md")
    assert result.code == 3
    assert result.out == ""
    assert "Wrong certifies it, but fgsm:eps=0.3 found an adversarial example within Linf 0.3" in result.error
    assert not Path("out.json").exists()
    assert not Path("out.md").exists()
    assert not Path("r/report.json").exists()


def test_a_certificate_that_fails_is_exit_code_3(base: list[str], command: Command, file: str) -> None:
    options = ["--first", "5", "--attack", "clean", "--certify", f"{file}:Fails", "--json", "out.json", "--quiet"]
    result = command(*base, *options)
    assert result.code == 3
    assert result.err.splitlines() == [
        "freqrobust: undefended / Fails failed: Fails failed: KeyError: 'no such layer'",
        "freqrobust: exit code 3: 1 of 1 certificates failed",
    ]
    assert Path("out.json").exists()


@pytest.mark.parametrize(
    ("certify", "message"),
    [
        ("smoothing:eps=0.1,alpha=2", "smoothing: parameter 'alpha' should be less than 1, but got '2'"),
        ("smoothing:eps=0.1,n=10", "smoothing: parameter 'n' should be at least n0 = 100, but got 10"),
        ("smoothing:eps=0.1,norm=linf", "smoothing: parameter 'norm' should be 'l2', but got 'linf'"),
        ("smoothing:eps=0.1", "certifies none of the models: smoothing needs Gaussian noise in the outermost defense"),
        ("band", "certifies none of the models: band needs a filter of the input"),
        ("nothing", "unknown certificate 'nothing'"),
        ("mine.py:Silent", "mine.py:Silent does not implement certify()"),
    ],
)
def test_bad_input(base: list[str], rejected: Callable[..., str], file: str, certify: str, message: str) -> None:
    assert message in rejected(*base, "--certify", certify)


def test_the_list(command: Command) -> None:
    result = command("list", "certificates")
    assert result.code == 0
    assert "smoothing" in result.out
    assert "probability, for each sample, that its radius is wrong" in " ".join(result.out.split())
    assert "certificates" in command("list", "--help").out


def test_thresholds_are_checked_without_certificates(base: list[str], command: Command, write: Any) -> None:
    model, data = base[2], base[4]
    write(
        "freqrobust.toml",
        f'[eval]\nmodel = "{model}"\ndata = "{data}"\nattacks = ["clean"]\ndefenses = ["lowpass:radius=3"]\n'
        'certify = ["band"]\n[thresholds]\nclean = 0.1\n',
    )
    assert "certified (band)" in command("check").out
    sequential = command("check", "--sequential")
    assert sequential.code == 0
    assert "certified" not in sequential.out
