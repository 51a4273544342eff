"""What is installed: the wheel of this project, and a plugin package of somebody else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from freqrobust import __version__
from support.waiting import PATIENCE

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
THIRD_PARTY = ROOT / "tests" / "thirdparty_plugin"


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=False, **options
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this project, and with the wheel that is made of it."""
    pytest.importorskip("build", reason="the extra 'dev' is not installed")
    folder = tmp_path_factory.mktemp("built")
    tree = folder / "tree"  # building in the project would leave files there
    for name in ("freqrobust", "attacks", "defenses", "reports", "docs", "tests"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix in ("", ".toml", ".md", ".in", ".cff", ".txt") and path.name[0] != ".":
            shutil.copy(path, tree)
    run("-m", "build", "--no-isolation", "--outdir", folder / "dist", tree)
    return folder / "dist"


@pytest.mark.slow
def test_the_wheel_contains_everything_under_one_name(built: Path) -> None:
    (wheel,) = built.glob("freqrobust-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entries,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert {name.split("/")[0] for name in names} == {"freqrobust", f"freqrobust-{__version__}.dist-info"}
    # all code and all data that is in the packages, once, and nothing else
    files = [path for path in (ROOT / "freqrobust").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    files += [
        path
        for name in ("attacks", "defenses", "reports")
        for path in (ROOT / "freqrobust" / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    packaged = sorted(name for name in names if name.startswith("freqrobust/"))
    assert packaged == sorted({path.relative_to(ROOT).as_posix() for path in files})
    assert "pgd = freqrobust.attacks.pgd:PGD" in entries
    assert "freqrobust = freqrobust.cli.main:main" in entries


@pytest.mark.slow
def test_the_sdist_contains_what_is_needed_and_no_tests(built: Path) -> None:
    (sdist,) = built.glob("freqrobust-*.tar.gz")
    assert sdist.name == f"freqrobust-{__version__}.tar.gz"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "pyproject.toml"}
    assert needed | {"attacks/pgd.py", "reports/templates/report.html", "freqrobust/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]


@pytest.mark.slow
def test_the_metadata_is_valid(built: Path) -> None:
    pytest.importorskip("twine", reason="the extra 'dev' is not installed")
    done = run("-m", "twine", "check", "--strict", *built.iterdir())
    assert done.stdout.count("PASSED") == 2


#: Packages of the extras, which are made impossible to import.
WITHOUT_EXTRAS = """
import sys

for name in ("matplotlib", "jinja2", "torchattacks", "robustbench", "pyautoattack", "timm", "huggingface_hub",
             "transformers", "tensorboard", "wandb", "mlflow", "lightning", "ipywidgets", "pandas"):
    sys.modules[name] = None
from freqrobust.cli.main import main

main(sys.argv[1:])
"""


@pytest.mark.slow
def test_the_wheel_works_where_it_is_installed_without_the_extras(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("freqrobust-*.whl")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    run("-m", "pip", "install", *quiet, "--target", tmp_path / "site", wheel)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "COLUMNS": "120"}
    code = "import freqrobust.attacks.pgd as m, freqrobust.plugins.registry as r; print(m.__file__, r.attacks.get('pgd').__module__)"
    done = run("-c", code, env=environment, cwd=tmp_path)
    assert done.stdout.split() == [
        str(tmp_path / "site" / "freqrobust" / "attacks" / "pgd.py"),
        "freqrobust.attacks.pgd",
    ]
    shown = run("-c", WITHOUT_EXTRAS, "--version", env=environment, cwd=tmp_path)
    assert shown.stdout.split()[-1] == __version__
    assert "apgd" in run("-c", WITHOUT_EXTRAS, "list", "attacks", env=environment, cwd=tmp_path).stdout
    evaluated = run(
        "-c", WITHOUT_EXTRAS, "eval", "--limit", "20", "--attack", "fgsm:eps=0.1", env=environment, cwd=tmp_path
    )
    assert "worst case" in evaluated.stdout


def test_the_plugins_are_beside_the_engine_for_tools_that_read_files() -> None:
    """Type checkers, editors and a plain path on ``sys.path`` know nothing of the mapping that setuptools has."""
    mapping = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
    assert {"freqrobust.attacks", "freqrobust.defenses", "freqrobust.reports"} <= mapping.keys()
    for name, folder in mapping.items():
        assert ROOT.joinpath(*name.split(".")).resolve() == (ROOT / folder).resolve(), name


USER = """
import torch
from torch import nn

import freqrobust
from freqrobust import analyze, attack, check, compare, evaluate, save_adversarial, train, verify, wrap
from freqrobust.attacks.pgd import PGD
from freqrobust.defenses.kernel_smoothing import KernelSmoothing
from freqrobust.reports.table import Table

model = wrap(nn.Flatten(), mean=0.5, std=0.25, size=(32, 32), labels=["cat", "dog"])
images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
result = attack(model, images, labels, PGD(eps=0.1), goal="decide", progress=True)
report = evaluate(model, (images, labels), attacks=["pgd"], diagnose="full", batch_size=8, first=1, normalize="none")
reveal_type(PGD(eps=0.1))
reveal_type(PGD(eps=0.1).steps)
reveal_type(KernelSmoothing(rho=1.0).rho)
reveal_type(Table())
reveal_type(report)
reveal_type(result)
reveal_type(result.distances["l2"])
reveal_type(result.passes.backwards)
reveal_type(analyze(model, "digits", "spectrum", seed=1))
reveal_type(compare(report, "new.json", max_drops={"clean": 0.01}).passed)
reveal_type(check("freqrobust.toml", sequential=True).gate.thresholds)
reveal_type(save_adversarial(model, "digits", "sets", attacks=["pgd"]))
reveal_type(verify("sets", model, defense="none"))
reveal_type(train(data="digits", epochs=2).model)
PGD(eps=0.1).nothing
evaluate(model, "digits", atacks=["pgd"])
evaluate(model, "digits", seed="one")
attack(model, images, labels)
compare(report, report, max_drops=3)
freqrobust.atack
"""

#: What mypy says of it; the numbers are those of the lines.
SAID = """
15: note: Revealed type is "freqrobust.attacks.pgd.PGD"
16: note: Revealed type is "int"
17: note: Revealed type is "float"
18: note: Revealed type is "freqrobust.reports.table.Table"
19: note: Revealed type is "freqrobust.results.report.Report"
20: note: Revealed type is "freqrobust.harness.attack_images.AttackResult"
21: note: Revealed type is "torch._tensor.Tensor"
22: note: Revealed type is "int"
23: note: Revealed type is "freqrobust.results.analysis_record.AnalysisRecord"
24: note: Revealed type is "bool"
25: note: Revealed type is "list[freqrobust.results.gate_record.ThresholdRow]"
26: note: Revealed type is "freqrobust.harness.save_adversarial.Saving"
27: note: Revealed type is "list[freqrobust.harness.verify.Verified]"
28: note: Revealed type is "freqrobust.models.classifier.Classifier"
29: error: "PGD" has no attribute "nothing"
30: error: Unexpected keyword argument "atacks" for "evaluate"; did you mean "attacks"?
31: error: Argument "seed" to "evaluate" has incompatible type "str"; expected "int"
32: error: Missing positional argument "spec" in call to "attack"
33: error: Argument "max_drops" to "compare" has incompatible type "int"; expected "Mapping[str, float | str] | None"
34: error: Module has no attribute "atack"; maybe "attack"?
""".strip().splitlines()

MYPY = """
[mypy]
plugins = pydantic.mypy
[mypy-torchvision.*,scipy.*,sklearn.*]
follow_imports = skip
"""


@pytest.mark.slow
@pytest.mark.parametrize("editable", [True, False])
def test_an_install_shows_its_types(editable: bool, tmp_path) -> None:
    """What a user of ``pip install`` sees, in an environment of its own and away from the repository."""
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
    # last on the path: freqrobust may be installed there as well
    (site / "shared.pth").write_text("".join(f"{path}\n" for path in shared))
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    run("-m", "pip", "--python", python, "install", *quiet, "--ignore-installed", *["-e"] * editable, tree)
    user.mkdir()
    (user / "script.py").write_text(USER)
    (user / "mypy.ini").write_text(MYPY)
    code = "import freqrobust.attacks.pgd as m, freqrobust.plugins.registry as r; print(m.__file__, r.attacks.get('pgd').__module__)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, cwd=user)
    home = tree if editable else site
    assert done.stdout.split() == [str(home / "freqrobust" / "attacks" / "pgd.py"), "freqrobust.attacks.pgd"]
    options = ["--python-executable", python, "--cache-dir", tmp_path / "cache", "--hide-error-codes"]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "script.py"], capture_output=True, text=True, check=False, cwd=user
    )
    lines = [line for line in checked.stdout.splitlines() if " note: Revealed" in line or " error: " in line]
    assert [line.removeprefix("script.py:") for line in lines] == SAID


#: Installed before the others, by the Makefile.
BESIDE = ("setuptools", "wheel")


def name_of(requirement: Requirement) -> str:
    """A name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", requirement.name).lower()


def pins_of(file: Path) -> dict[str, str]:
    """The pinned version of every package."""
    pins = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        pin = Requirement(line)
        (exact,) = pin.specifier
        assert exact.operator == "==", line
        pins[name_of(pin)] = exact.version
    return pins


def check_pins(texts: list[str], pins: dict[str, str]) -> None:
    """Every requirement is pinned, to a version that it allows."""
    asked = [Requirement(text) for text in texts if not text.startswith("freqrobust[")]
    asked = [one for one in asked if one.name not in BESIDE and (one.marker is None or one.marker.evaluate())]
    assert {name_of(one) for one in asked} <= pins.keys()
    assert [str(one) for one in asked if pins[name_of(one)] not in one.specifier] == []


def test_the_constraints_pin_what_the_project_asks_for() -> None:
    """The dependencies and all extras; that of the documentation has an environment and a file of its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = dict(project["optional-dependencies"])
    check_pins(extras.pop("docs"), pins_of(ROOT / "docs" / "constraints.txt"))
    texts = [*project["dependencies"], *(text for extra in extras.values() for text in extra)]
    check_pins(texts, pins_of(ROOT / "constraints.txt"))


def test_the_constraints_pin_what_the_makefile_installs_for_mlflow() -> None:
    """MLflow's dependencies, each at a version that MLflow allows; pip does not check this."""
    try:
        needed = [Requirement(text) for text in metadata.requires("mlflow-skinny") or []]
    except metadata.PackageNotFoundError:
        pytest.skip("MLflow is not installed")
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    pins = pins_of(ROOT / "constraints.txt")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = makefile.partition("MLFLOW_NEEDS := ")[2].partition("\n\n")[0].replace("\\", " ").split()
    installed = {name_of(Requirement(name)) for name in [*listed, "databricks-sdk"]} | {"requests", "pydantic"}
    assert {name_of(one) for one in needed} <= installed <= pins.keys()
    assert [str(one) for one in needed if pins[name_of(one)] not in one.specifier] == []


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


@pytest.mark.slow
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


@pytest.mark.slow
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
