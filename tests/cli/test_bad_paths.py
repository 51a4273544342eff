"""Paths that no file system can hold, and numbers that nothing can be counted with: exit code 2 and one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Rejected = Callable[..., str]

DIGITS = "9" * 5000
PATHS = {
    "empty": "",
    "long": "x" * 5000,
    "long name": "folder/" + "n" * 300,
    "no such user": "~no-such-user/x",
    "NUL": "a\0b",
}


@pytest.fixture(params=list(PATHS))
def path(request: pytest.FixtureRequest) -> str:
    """A path that cannot be used."""
    return PATHS[request.param]


@pytest.mark.parametrize(
    "option", ["--run-dir", "--json", "--save-model", "--save-adversarial", "--data-dir", "--suite", "--mce-reference"]
)
def test_eval(option: str, path: str, base: list[str], rejected: Rejected) -> None:
    attack = [] if option == "--suite" else ["--attack", "corruption:name=fog,severity=1"]
    if option == "--save-adversarial":
        attack = ["--attack", "fgsm"]
    message = rejected(*base, "--defense", "smooth:rho=0.5", *attack, option, path)
    assert len(message) < 400


@pytest.mark.parametrize("ending", ["", ".npz", ".py:images"])
@pytest.mark.parametrize("prefix", ["", "folder:"])
def test_data(prefix: str, ending: str, path: str, trained: Path, rejected: Rejected) -> None:
    rejected("eval", "--model", trained, "--data", f"{prefix}{path}{ending}")


def test_corruption_files(path: str, trained: Path, rejected: Rejected) -> None:
    rejected("eval", "--model", trained, "--data", f"cifar10c:{path},name=fog,severity=3")


@pytest.mark.parametrize("ending", ["", ".pt", ".pt2", ".safetensors", ".py:make"])
def test_model(ending: str, path: str, digits: Path, rejected: Rejected) -> None:
    rejected("eval", "--model", f"{path}{ending}", "--data", digits)


@pytest.mark.parametrize("kind", ["attack", "defense"])
def test_plugin(kind: str, path: str, base: list[str], rejected: Rejected) -> None:
    rejected(*base, f"--{kind}", f"{path}.py:Mine")


def test_reports(path: str, base: list[str], rejected: Rejected) -> None:
    rejected(*base, "--attack", "fgsm", "--report", f"html={path}")
    rejected("report", path)
    rejected("compare", path, path)
    rejected("verify", path, "--model", "demo")


@pytest.mark.parametrize("option", ["--json", "--out", "--into"])
def test_analyze(option: str, path: str, base: list[str], rejected: Rejected) -> None:
    rejected("analyze", "kernels", *base[1:], option, f"{path}.png" if option == "--out" and path else path)


@pytest.mark.parametrize("spec", ["replay:dir={}", "corruption:name=frost,severity=1,frost={}", "corruption:files={}"])
def test_attacks_that_read_files(spec: str, path: str, base: list[str], rejected: Rejected) -> None:
    rejected(*base, "--attack", spec.format(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_that_may_not_be_looked_into(base: list[str], trained: Path, rejected: Rejected) -> None:
    closed = Path("closed")
    closed.mkdir(mode=0)
    try:
        for options in (["--model", trained, "--data", "closed/x.npz"], [*base[1:], "--json", "closed/x.json"]):
            assert "Permission denied" in rejected("eval", *options)
    finally:
        closed.chmod(0o700)


def test_a_home_is_expanded_and_a_file_may_begin_with_a_tilde(
    base: list[str], command: Callable[..., object], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(workspace / "home"))
    command(*base, "--attack", "lfc:radius=2", "--json", "~/out.json", "--run-dir", "./~run")
    assert Path("home/out.json").is_file()
    assert Path("./~run/report.json").is_file()


@pytest.mark.parametrize("option", ["--seed", "--limit", "--first", "--batch-size"])
@pytest.mark.parametrize("number", [DIGITS, "99999999999999999999", str(2**63), f"-{2**63 + 1}"])
def test_numbers_of_options(option: str, number: str, base: list[str], rejected: Rejected) -> None:
    message = rejected(*base, "--attack", "fgsm", option, number)
    assert option.strip("-").replace("-", "_") in message.replace("-", "_")


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63), 0])
def test_seeds_of_64_bits_are_good(seed: int, base: list[str], command: Callable[..., object]) -> None:
    done = command(*base, "--attack", "pgd:steps=1", "--attack", "noise:draws=1", "--limit", "20", "--seed", str(seed))
    assert done.code == 0, done


@pytest.mark.parametrize(
    "spec",
    [
        "pgd:steps={}",
        "pgd:restarts={}",
        "pgd:eot={}",
        "noise:draws={}",
        "fourier:samples={}",
        "fourier:directions={}",
        "corruption:name=fog,severity={}",
        "critical-band:center={}",
        "lfc:radius={}",
        "pgd:eps={}",
        "pgd:eps={}/255",
        "pgd:eps=1/{}",
        "critical-band:center=2,std={}",
        "fourier-noise:u={},v=1",
    ],
)
@pytest.mark.parametrize("number", [DIGITS, "99999999999999999999", "1000001"])
def test_numbers_of_attacks(spec: str, number: str, base: list[str], command: Callable[..., object]) -> None:
    """A count or a number without sense is refused; a size is as good as any other (a radius beyond the image)."""
    done = command(*base, "--limit", "10", "--no-oblivious", "--attack", spec.format(number), "--run-dir", "run")
    assert done.code in (0, 2), done
    assert "Traceback" not in done.err
    if spec.startswith(("pgd:steps", "pgd:restarts", "pgd:eot", "noise:draws", "fourier:")):
        assert done.code == 2
        assert len(done.error) < 400


@pytest.mark.parametrize(
    "spec",
    [
        "madry:steps={}",
        "madry:epochs={}",
        "madry:train_batch={}",
        "randomized-smoothing:copies={}",
        "post-averaging:directions={}",
    ],
)
def test_numbers_of_defenses(spec: str, base: list[str], rejected: Rejected) -> None:
    for number in (DIGITS, "99999999999999999999", "1000001"):
        assert len(rejected(*base, "--train-data", "digits", "--defense", spec.format(number))) < 400


def test_a_number_of_another_plugin_fits_into_64_bits(
    base: list[str], rejected: Rejected, write: Callable[[str, str], str]
) -> None:
    write(
        "mine.py",
        "from freqrobust import Attack\nclass Mine(Attack):\n    n: int = 1\n"
        "    def perturb(self, model, images, labels, context): return images\n",
    )
    assert "parameter 'n' should fit into 64 bits" in rejected(*base, "--attack", f"mine.py:Mine:n={10**30}")
