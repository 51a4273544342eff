"""``robustbench:NAME``: weights in RobustBench's cache folder, published figures, and what is not there."""

from __future__ import annotations

import argparse
import io
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from freqrobust import ImageData, Report, evaluate, load_model, save_model
from freqrobust.core.errors import ModelError, SpecError
from freqrobust.data import robustbench_package
from freqrobust.models.sources import robustbench

if find_spec("robustbench") is None:
    pytest.skip("the extra 'zoo' is not installed", allow_module_level=True)

NAME = "Addepalli2021Towards_RN18"
SPEC = f"robustbench:{NAME}"


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """RobustBench's own architecture, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return robustbench_package.package("robustbench.model_zoo.architectures.resnet").ResNet18().eval()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and nothing that could be fetched."""
    monkeypatch.setenv("FREQROBUST_CACHE", str(tmp_path))

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(robustbench_package.package("robustbench.utils").gdown, "download", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    target = tmp_path / "robustbench" / "cifar10" / "Linf"
    target.mkdir(parents=True)
    return target


@pytest.fixture
def placed(folder: Path, network: torch.nn.Module) -> Path:
    """The weights where RobustBench looks for them."""
    torch.save(network.state_dict(), folder / f"{NAME}.pt")
    return folder


@pytest.fixture
def images() -> ImageData:
    return ImageData(torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(6), 10)


@pytest.mark.parametrize("spec", [SPEC, f"{SPEC}:dataset=cifar10,threat_model=linf"])
def test_logits_are_those_of_its_own_architecture(placed, network, images, spec) -> None:
    model = load_model(spec, data=images)
    assert (model.arch, model.normalization.source, model.normalization.preset) == (SPEC, "none", "none")
    assert model.sha256 == robustbench.find(NAME, "cifar10", "Linf").sha256
    with torch.no_grad():
        assert torch.equal(model(images.images), network(images.images))


@pytest.mark.slow
def test_an_evaluation_shows_the_published_figures(placed, images) -> None:
    info = placed.parents[1] / "model_info" / "cifar10" / "Linf" / f"{NAME}.json"
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"clean_acc": "80.24", "autoattack_acc": 51.06, "eps": "8/255", "name": "A paper"}))
    report = evaluate(SPEC, images, attacks=["fgsm:eps=1/255"], device="cpu")
    published = report.models[0].published
    assert published is not None
    assert (published.clean, published.autoattack, published.eps) == (0.8024, 0.5106, "8/255")
    assert published.source == f"RobustBench model_info/cifar10/Linf/{NAME}.json"
    assert Report.model_validate_json(report.dumps()) == report

    from freqrobust.results.reporter import reports

    text = io.StringIO()
    reports.get("table")().render(report, text)
    assert "published: clean 80.24%, AutoAttack (Linf 8/255) 51.06% (RobustBench model_info" in " ".join(
        text.getvalue().split()
    )


@pytest.mark.parametrize("text", ["", "[]", '{"clean_acc": "n/a"}', '{"venue": ""}'])
def test_no_figures_are_made_up(placed, text) -> None:
    info = placed.parents[1] / "model_info" / "cifar10" / "Linf" / f"{NAME}.json"
    info.parent.mkdir(parents=True)
    info.write_text(text)
    assert load_model(SPEC).published is None


def test_stand_ins_are_gone_after_the_import(placed) -> None:
    load_model(SPEC)
    assert "autoattack" not in sys.modules
    assert "autoattack.state" not in sys.modules
    # the real one may be there, from elsewhere
    assert "pkg_resources" not in sys.modules or hasattr(sys.modules["pkg_resources"], "working_set")
    with pytest.raises(ModelError, match="use freqrobust's attacks"):
        robustbench_package.package("robustbench.eval").AutoAttack()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "robustbench:Addepalli2021Towards_RN19",
            r"no model .* did you mean 'Addepalli2021Towards_RN18'\? \(\d+ models: ",
        ),
        ("robustbench:Augustin2020Adversarial", "it exists with dataset=cifar10,threat_model=L2"),
        (f"{SPEC}:dataset=cifar11", r"no dataset 'cifar11'; did you mean 'cifar10'\? \(cifar10, cifar100, imagenet\)"),
        (f"{SPEC}:threat_model=L1", r"no threat model 'L1'.*\(Linf, L2, corruptions\)"),
        (f"{SPEC}:threat=L2", "unknown parameter 'threat'; did you mean 'threat_model'"),
        (f"{SPEC}:dataset=cifar10,dataset=cifar10", "given twice"),
        (f"{SPEC}:L2", "expected key=value"),
    ],
)
def test_unknown_models(folder, spec, message) -> None:
    with pytest.raises(SpecError, match=message):
        load_model(spec)


def test_weights_that_cannot_be_fetched(folder) -> None:
    with pytest.raises(ModelError, match=rf"cannot be downloaded \(expected as .*{NAME}\.pt\): no network"):
        load_model(SPEC)
    with pytest.raises(ModelError, match=r"XCiT-S12:.* cannot be downloaded: no network"):
        load_model("robustbench:Debenedetti2022Light_XCiT-S12")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_damaged_weights(folder, content) -> None:
    (folder / f"{NAME}.pt").write_bytes(content)
    with pytest.raises(ModelError, match=rf"{NAME}.*(cannot be loaded|more than tensors)"):
        load_model(SPEC)


def test_weights_for_another_network(folder) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, folder / f"{NAME}.pt")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(SPEC)


def test_files_that_can_run_code_need_trust(folder, network, images, monkeypatch) -> None:
    torch.save({"state_dict": network.state_dict(), "args": argparse.Namespace(lr=0.1)}, folder / f"{NAME}.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # not a reason to trust this one
    with pytest.raises(ModelError, match="give --trust-checkpoint"):
        load_model(SPEC)
    model = load_model(SPEC, trust=True)
    with torch.no_grad():
        assert torch.equal(model(images.images), network(images.images))


def test_it_cannot_be_saved_as_weights(placed, tmp_path) -> None:
    with pytest.raises(ModelError, match="models from robustbench cannot be saved"):
        save_model(load_model(SPEC), tmp_path / "out.pt")


def test_the_missing_extra_is_named(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "robustbench"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'freqrobust\[zoo\]'"):
        load_model(SPEC)
