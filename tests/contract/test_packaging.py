"""What is installed: the wheel of this project, and a plugin package of somebody else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
THIRD_PARTY = ROOT / "tests" / "thirdparty_plugin"


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False, **options
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.mark.slow
def test_the_wheel_holds_everything_under_one_name(tmp_path) -> None:
    pytest.importorskip("build", reason="the extra 'dev' is not installed")
    tree = tmp_path / "tree"  # building in the project would leave files there
    for name in ("freqrobust", "attacks", "defenses", "reports"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix in ("", ".toml", ".md") and not path.name.startswith("."):
            shutil.copy(path, tree)
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", tree)
    (wheel,) = (tmp_path / "dist").glob("freqrobust-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entries,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert {
        "freqrobust/harness/evaluate.py",
        "freqrobust/py.typed",
        "freqrobust/analyses/heatmap.py",
        "freqrobust/attacks/pgd.py",
        "freqrobust/attacks/__init__.py",
        "freqrobust/defenses/kernel_smoothing.py",
        "freqrobust/reports/table.py",
        "freqrobust/reports/templates/report.html",
        "freqrobust/reports/templates/report.css",
        "freqrobust/reports/templates/report.js",
    } <= set(names)
    assert {name.split("/")[0] for name in names} == {
        "freqrobust",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }
    assert "pgd = freqrobust.attacks.pgd:PGD" in entries
    assert "freqrobust = freqrobust.cli.main:main" in entries
    # and it works from where it was installed
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import freqrobust.attacks.pgd as m, freqrobust.plugins.registry as r; print(m.__file__, r.attacks.get('pgd').__module__)"
    done = run("-c", code, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, cwd=tmp_path)
    assert done.stdout.split() == [
        str(tmp_path / "site" / "freqrobust" / "attacks" / "pgd.py"),
        "freqrobust.attacks.pgd",
    ]


def test_the_plugins_are_beside_the_engine_for_tools_that_read_files() -> None:
    """Type checkers, editors and a plain path on ``sys.path`` know nothing of the mapping that setuptools has."""
    mapping = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
    assert {"freqrobust.attacks", "freqrobust.defenses", "freqrobust.reports"} <= mapping.keys()
    for name, folder in mapping.items():
        assert ROOT.joinpath(*name.split(".")).resolve() == (ROOT / folder).resolve(), name


USER = """
from freqrobust import evaluate
from freqrobust.attacks.pgd import PGD
from freqrobust.defenses.kernel_smoothing import KernelSmoothing
from freqrobust.reports.table import Table

reveal_type(PGD(eps=0.1))
reveal_type(PGD(eps=0.1).steps)
reveal_type(KernelSmoothing(rho=1.0).rho)
reveal_type(Table())
reveal_type(evaluate("demo", "digits"))
PGD(eps=0.1).nothing
"""

MYPY = """
[mypy]
plugins = pydantic.mypy
[mypy-torch.*,torchvision.*,numpy.*,scipy.*,sklearn.*]
follow_imports = skip
"""


@pytest.mark.slow
def test_an_editable_install_shows_its_types(tmp_path) -> None:
    """What a user of ``pip install -e .`` sees, in an environment of its own and away from the repository."""
    pytest.importorskip("mypy", reason="the extra 'dev' is not installed")
    tree, user = tmp_path / "tree", tmp_path / "user"
    for name in ("freqrobust", "attacks", "defenses", "reports"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    (site,) = (tmp_path / "venv").rglob("site-packages")
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (site / "shared.pth").write_text("".join(f"{path}\n" for path in shared))
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    run("-m", "pip", "--python", python, "install", *quiet, "-e", tree)
    user.mkdir()
    (user / "script.py").write_text(USER)
    (user / "mypy.ini").write_text(MYPY)
    code = "import freqrobust.attacks.pgd as m, freqrobust.plugins.registry as r; print(m.__file__, r.attacks.get('pgd').__module__)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, cwd=user)
    assert done.stdout.split() == [str(tree / "freqrobust" / "attacks" / "pgd.py"), "freqrobust.attacks.pgd"]
    options = ["--python-executable", python, "--cache-dir", tmp_path / "cache", "--hide-error-codes"]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "script.py"], capture_output=True, text=True, check=False, cwd=user
    )
    assert checked.stdout.splitlines()[:-1] == [
        'script.py:7: note: Revealed type is "freqrobust.attacks.pgd.PGD"',
        'script.py:8: note: Revealed type is "int"',
        'script.py:9: note: Revealed type is "float"',
        'script.py:10: note: Revealed type is "freqrobust.reports.table.Table"',
        'script.py:11: note: Revealed type is "freqrobust.results.report.Report"',
        'script.py:12: error: "PGD" has no attribute "nothing"',
    ]


#: Installed before the others, by the Makefile.
BESIDE = ("setuptools", "wheel")


def name_of(requirement: Requirement) -> str:
    """A name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", requirement.name).lower()


def test_the_constraints_pin_what_the_project_asks_for() -> None:
    """Every dependency and extra is pinned, to a version that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        pin = Requirement(line)
        (exact,) = pin.specifier
        assert exact.operator == "==", line
        pins[name_of(pin)] = exact.version
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    asked = [Requirement(text) for text in texts if not text.startswith("freqrobust[")]
    asked = [one for one in asked if one.name not in BESIDE and (one.marker is None or one.marker.evaluate())]
    assert {name_of(one) for one in asked} <= pins.keys()
    assert [str(one) for one in asked if pins[name_of(one)] not in one.specifier] == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The third-party package, installed for real into a folder of its own."""
    pytest.importorskip("pip", reason="installing needs pip")
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(THIRD_PARTY, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    target = tmp_path_factory.mktemp("site")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index"]
    run("-m", "pip", "install", *quiet, "--no-deps", "--no-build-isolation", "--target", target, source)
    return target


def with_plugins(installed: Path) -> dict[str, str]:
    paths = [str(installed), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.slow
def test_third_party_plugins_keep_the_same_contracts(installed) -> None:
    """The contract tests again, where the package is installed, for its plugins alone."""
    kinds = ("attacks", "defenses", "reports", "analyses", "methods", "training_parts")
    files = [ROOT / "tests" / "contract" / f"test_{kind}.py" for kind in kinds]
    plugins = ["-p", "no:cacheprovider", "-p", "no:xdist"]
    done = run("-m", "pytest", *files, *plugins, "-rA", "-k", "example_", env=with_plugins(installed), cwd=ROOT)
    found = re.findall(r"^PASSED \S+::(\w+)\[(?:(\S*)-)?(example_\w+)", done.stdout, re.MULTILINE)
    passed = {(rule if test == "test_keeps_the_rule" else test, plugin) for test, rule, plugin in found}
    assert "failed" not in done.stdout.splitlines()[-1]
    for test, plugin in [
        ("zero_budget", "example_noise"),
        ("budgets", "example_noise"),
        ("batch_sizes", "example_noise"),
        ("randomness", "example_brightness"),
        ("model_untouched", "example_bits"),
        ("batches", "example_scale"),
        ("gradients", "example_scale"),
        ("output", "example_lines"),
        ("test_a_record_is_complete_and_comes_back", "example_margins"),
        ("test_the_same_again_and_whatever_the_batch_size", "example_margins"),
        ("test_losses_of_every_sample_and_gradients_in_every_parameter", "example_vertices"),
        ("test_an_adversarial_method_trains_on_images_within_its_budget", "example_vertices"),
        ("test_losses_of_every_sample_and_gradients_in_every_parameter", "example_focal"),
        ("test_an_augmented_batch_is_a_batch", "example_erasing"),
        ("test_a_sample_does_not_depend_on_the_other_samples", "example_erasing"),
        ("test_a_penalty_can_be_differentiated_and_leaves_the_network", "example_sparse"),
    ]:
        assert (test, plugin) in passed, f"{test} did not run for {plugin}"


def test_third_party_plugins_are_found_by_their_names(installed) -> None:
    code = """
import sys, torch
from freqrobust import evaluate
from freqrobust.plugins.registry import attacks, defenses
from freqrobust.results.reporter import reports

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
images = torch.rand(20, 1, 8, 8)
report = evaluate(model, (images, model(images).argmax(dim=1)), attacks=["example_noise:eps=[0.1,0.3]"],
                  defenses=["example_bits:bits=2+example_scale"], device="cpu")
print(attacks.origin("example_noise"))
reports.get("example_lines")().render(report, sys.stdout)
"""
    done = run("-c", code, env=with_plugins(installed), cwd=installed)
    first, *lines = done.stdout.splitlines()
    assert first == "freqrobust-example-plugins 0.3.0"
    assert list(dict.fromkeys(tuple(line.split("\t")[:2]) for line in lines)) == [
        (defense, attack)
        for defense in ("undefended", "example_bits:bits=2+example_scale")
        for attack in ("clean", "example_noise:eps=0.1", "example_noise:eps=0.3")
    ]
    assert lines[0].split("\t")[2] == "1.000"


def test_a_criterion_of_another_package_decides_everywhere(installed) -> None:
    """On two linear classes PGD reaches the closed form: the margin grows by ``eps * ||w_1 - w_0||_1``."""
    code = """
import torch
from freqrobust import evaluate

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
images = 0.3 + 0.4 * torch.rand(60, 1, 8, 8)
weight, logits = model[1].weight.detach()[1] - model[1].weight.detach()[0], model(images).detach()
reachable = 0.05 * weight.abs().sum() - (logits.max(dim=1).values - logits.min(dim=1).values)
data = images, logits.argmax(dim=1)
for confidence in (0.5, 0.6):
    needed = torch.logit(torch.tensor(confidence))
    report = evaluate(model, data, attacks=["pgd:eps=0.05", "example_noise:eps=0.05"], diagnose="full", device="cpu",
                      criterion=f"example_confident:confidence={confidence}")
    print(report.criterion, report.cell("clean").correct, report.cell("pgd").correct, int((reachable < needed).sum()))
    assert report.cell("example_noise").correct >= report.cell("pgd").correct
    status = {check.name: check.status for check in report.diagnostics[0].checks}
    print(status["plain PGD"], status["another loss"], status["nearest classes"])
"""
    done = run("-c", code, env=with_plugins(installed), cwd=installed)
    one, checks, other, _ = (line.split(maxsplit=3) for line in done.stdout.splitlines())
    assert [one[0], other[0]] == ["example_confident:confidence=0.5", "example_confident:confidence=0.6"]
    assert one[1:3] == ["60", one[3]]
    assert other[1:3] == ["60", other[3]]
    assert int(one[3]) < int(other[3])
    assert checks[0] == "passed"
    assert " ".join(checks[1:]) == "not applicable not applicable"


@pytest.mark.slow
def test_third_party_sources_are_found_by_their_names(installed) -> None:
    environment = {**with_plugins(installed), "COLUMNS": "120"}
    base = ["-m", "freqrobust"]
    for what, form in (("datasets", "example_stripes:N"), ("models", "example_linear:CLASSES")):
        assert form in run(*base, "list", what, env=environment, cwd=installed).stdout
    specs = ["--model", "example_linear:2", "--data", "example_stripes:6", "--normalize", "none"]
    done = run(*base, "eval", *specs, "--attack", "fgsm:eps=0.1", "--json", "out.json", env=environment, cwd=installed)
    assert "example_linear:2" in done.stdout + done.stderr
    report = json.loads((installed / "out.json").read_text(encoding="utf-8"))
    assert (report["data"]["spec"], report["data"]["n"], report["models"][0]["arch"]) == (
        "example_stripes:6",
        6,
        "linear",
    )


def test_the_package_is_not_installed_here() -> None:
    """Otherwise the tests above would prove nothing."""
    from freqrobust.plugins.registry import attacks

    if os.environ.get("PYTHONPATH"):
        pytest.skip("PYTHONPATH is set")
    assert not [name for name in attacks.names() if name.startswith("example_")]
