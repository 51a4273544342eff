"""Commands that ask for what cannot be: exit code 2, one line that says what would work, and nothing written."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Rejected = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--attack fgms", "unknown attack 'fgms'; did you mean 'fgsm'?"),
        ("--attack quantum", "(attacks: aa, apgd, autoattack, bandpass, corruption, "),
        ("--attack smooth", "unknown attack 'smooth'"),
        ("--attack=", "empty attack spec"),
        (
            "--attack fgsm:epz=0.1",
            "fgsm: unknown parameter 'epz'; did you mean 'eps'? (parameters: eps, norm, eight_bit)",
        ),
        ("--attack fgsm:eps=large", "fgsm: parameter 'eps' should be a valid number"),
        ("--attack fgsm:eps=8", "did you mean 8/255?"),
        ("--attack pgd:eps=8", "did you mean 8/255?"),
        ("--attack pgd:eps=[1/255,8]", "did you mean 8/255?"),
        ("--attack fgsm:eps=8/0", "cannot divide by zero"),
        ("--attack fgsm:eps=nan", "fgsm: parameter 'eps' should be a finite number"),
        ("--attack fgsm:eps=-1/255", "fgsm: parameter 'eps' should be greater than or equal to 0"),
        ("--attack fgsm:norm=l7", "fgsm: parameter 'norm' should be 'linf', 'l2' or 'l1', but got 'l7'"),
        ("--attack fgsm:eps", "expected key=value, but got 'eps'"),
        ("--attack fgsm:eps=0.1,eps=0.2", "parameter 'eps' is given twice"),
        ("--attack pgd:steps=0", "pgd: parameter 'steps' should be greater than or equal to 1, but got '0'"),
        ("--attack pgd:steps=1.5", "pgd: parameter 'steps'"),
        ("--attack pgd:random_start=perhaps", "pgd: parameter 'random_start' should be a valid boolean"),
        ("--attack pgd:seed=1", "pgd: unknown parameter 'seed'"),
        ("--attack pgd:restarts=3,random_start=false", "every restart is the same"),
        ("--attack lfc", "lfc: parameter 'radius' is required, for example lfc:radius=12"),
        ("--attack bandpass:low=3,high=2", "'high' (2) should be greater than 'low' (3)"),
        ("--attack pgd:eps=[1/255,2/255", "the brackets do not match"),
        ("--attack pgd:eps=1/255]", "the brackets do not match"),
        ("--attack pgd:eps=[]", "is not a list"),
        ("--attack pgd:eps=[1/255,]", "is not a list"),
        ("--attack pgd:eps=]1/255[", "pgd"),
        ("--attack fmn --defense gaussian-noise", "needs a deterministic model"),
        ("--attack fgsm --suite quick", "give either --attack or --suite, not both"),
        ("--suite standrad", "unknown suite 'standrad'; did you mean 'standard'? (standard, quick, frequency"),
        ("--suite empty.txt", "empty.txt contains no attack specs"),
        ("--suite wrong.txt", "unknown attack 'fgms'"),
        ("--suite binary.txt", "binary.txt cannot be read as a suite"),
        ("--defense smoth", "unknown defense 'smoth'; did you mean 'smooth'?"),
        ("--defense pgd", "unknown defense 'pgd'"),
        ("--defense=", "empty defense spec"),
        ("--defense smooth+", "unknown defense 'smooth+'; did you mean 'smooth'?"),
        ("--defense +smooth", "empty defense spec"),
        ("--defense smooth:rho=-1", "smooth: parameter 'rho' should be greater than or equal to 0, but got '-1'"),
        ("--defense smooth --rho -1", "smooth: parameter 'rho' should be greater than or equal to 0, but got '-1'"),
        ("--defense smooth --rho=much", "smooth: parameter 'rho' should be a valid number"),
        ("--defense smooth --layers some", "smooth: parameter 'layers' should be 'first' or 'all', but got 'some'"),
        ("--defense smooth --rescale perhaps", "smooth: parameter 'rescale' should be a valid boolean"),
        (
            "--defense smooth --radius 3",
            "--radius is a parameter of the defenses highpass, kernel-lowpass, lowpass, post-averaging, one of which has to be named",
        ),
        ("--defense smooth:rho=1 --rho 0.5", "parameter 'rho' is given twice, in the spec and as an option"),
        ("--defense smooth --rho 0.5 --rho", "option '--rho' requires an argument"),
        ("--defense smooth:rho=[0.5", "the brackets do not match"),
        ("--defense lowpass", "lowpass: parameter 'radius' is required"),
        ("--defense madry", "needs training data: give --train-data"),
        ("--defense smooth --recalibrate-bn", "needs training data: give --train-data"),
        ("--no-undefended", "--no-undefended needs --defense"),
        ("--no-baseline", "--no-undefended needs --defense"),
        (
            "--rho 0.5",
            "--rho is a parameter of the defense smooth, which has to be named on the command line: --defense smooth --rho",
        ),
        ("--defense", "option '--defense' requires an argument"),
        ("--device gpu", "unknown device 'gpu' (auto, cpu, cuda, cuda:1, mps)"),
        ("--device cuda:99", "device 'cuda:99' is not there"),
        ("--device meta", "unknown device 'meta'"),
        ("--precision fp16", "--precision should be 'fp32' or 'bf16', but got 'fp16'"),
        ("--batch-size 0", "--batch-size should be auto or at least 1, but got '0'"),
        ("--batch-size -5", "--batch-size should be auto or at least 1, but got '-5'"),
        ("--batch-size big", "--batch-size should be auto or at least 1, but got 'big'"),
        ("--batch-size ²", "--batch-size should be auto or at least 1"),
        ("--seed one", "--seed should be a whole number, but got 'one'"),
        ("--json", "option '--json' requires an argument"),
        ("surplus", "unexpected extra argument"),
        ("--save-model out.pt", "--save-model needs exactly one --defense, but there are 0"),
        ("--defense smooth:rho=[0.5,1] --save-model out.pt", "exactly one --defense, but there are 2"),
    ],
)
def test_bad_request(arguments: str, expected: str, base: list[str], rejected: Rejected) -> None:
    Path("empty.txt").write_text("# nothing but a comment\n\n", encoding="utf-8")
    Path("wrong.txt").write_text("fgsm\nfgms\n", encoding="utf-8")
    Path("binary.txt").write_bytes(bytes(range(256)))
    assert expected in rejected(*base, *arguments.split())


def test_a_device_that_is_not_there(base: list[str], rejected: Rejected) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert "this machine has 0 CUDA devices; use --device cpu" in rejected(*base, "--device", "cuda")


def test_an_option_of_two_defenses_is_ambiguous(base: list[str], rejected: Rejected) -> None:
    message = rejected(*base, "--defense", "lowpass", "--defense", "highpass", "--radius", "2")
    assert message.startswith("--radius: several of the given defenses have it (lowpass, highpass)")
    assert "--defense lowpass:radius=2" in message


def test_an_option_of_two_parts_of_a_chain_is_ambiguous(base: list[str], rejected: Rejected) -> None:
    message = rejected(*base, "--defense", "lowpass+highpass", "--radius", "2")
    assert message.startswith("--radius: several of the given defenses have it (lowpass, highpass)")


@pytest.mark.parametrize("option", ["--json", "--save-model", "--run-dir"])
@pytest.mark.parametrize(
    "target",
    ["folder", "file/below", "file/far/below", "n" * 300, "folder/" + "n" * 300],
)
def test_output_that_cannot_be_written(option: str, target: str, base: list[str], rejected: Rejected) -> None:
    if (option, target) == ("--run-dir", "folder"):
        target = "file"
    Path("folder").mkdir()
    Path("file").touch()
    message = rejected(*base, "--attack", "fgsm", "--defense", "smooth:rho=0.5", option, target)
    assert "cannot" in message
    assert target.partition("/")[0][:40] in message


def test_output_on_a_read_only_file_system(base: list[str], rejected: Rejected) -> None:
    """Found out before the run, not after it."""
    folder = Path("/proc/self/fdinfo")
    if not folder.is_dir():
        pytest.skip("no /proc on this system")
    assert "cannot write" in rejected(*base, "--attack", "fgsm", "--json", folder / "report.json")


def test_a_pipe_is_not_replaced_by_a_file(base: list[str], command: Callable[..., Any]) -> None:
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)  # so that a writer does not wait
    try:
        command(*base, "--attack", "lfc:radius=2", "--json", "pipe")
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(Path("pipe").lstat().st_mode)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["list", "atacks"], "unknown list 'atacks'; did you mean 'attacks'?"),
        (["list", "attacks", "pgd", "defenses"], "unexpected extra argument"),
        (["evl"], "no such command 'evl'. Did you mean 'eval'?"),
        (["--evil"], "no such option: --evil"),
        (["eval", "--modle", "x.pt"], "no such option: --modle"),
    ],
)
def test_bad_command(arguments: list[str], expected: str, rejected: Rejected) -> None:
    assert expected in rejected(*arguments)


@pytest.mark.parametrize("arguments", [["--attack", "fgms"], ["--defense", "smooth:rho=-1"], ["--data", "x.npz"]])
def test_debug_shows_the_traceback(arguments: list[str], trained: Path, command: Callable[..., Any]) -> None:
    result = command("eval", "--model", trained, *arguments, "--debug")
    assert result.code == 2
    assert "Traceback (most recent call last)" in result.err
    assert result.error.startswith("freqrobust: ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--verbose", "--quiet"], "give either --verbose or --quiet, not both"),
        (["-v", "-q"], "give either --verbose or --quiet, not both"),
        (["--full", "-q"], "give either --full or --quiet, not both"),
        (["--full=yes"], "does not take a value"),
        (["-x"], "no such option: -x"),
        (["--no-progess"], "no such option: --no-progess"),
        (["--dry-run", "--attack", "nothing"], "unknown attack 'nothing'"),
        (["--dry-run", "--fail-under", "nothing>=0.5"], "nothing"),
    ],
    ids=" ".join,
)
def test_what_is_printed(arguments: list[str], expected: str, base: list[str], rejected: Callable[..., str]) -> None:
    assert expected in rejected(*base, *arguments)
