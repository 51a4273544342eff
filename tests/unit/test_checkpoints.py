"""Checkpoint files as they are found in the wild: keys, prefixes, formats, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from freqrobust import FreqRobustError, evaluate, load_model, save_model
from freqrobust.core.errors import ModelError
from freqrobust.models.architectures import ARCHITECTURES

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return ARCHITECTURES["resnet20"].build().eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IMAGES)


def renamed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


CONTAINERS = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "best_prec1": 91.7, "epoch": 3},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer": {"state": {}}},
    "model": lambda state: {"model": state, "args": {"lr": 0.1}},
    "net": lambda state: {"net": state, "acc": 95.0, "epoch": 1},
    "ema": lambda state: {"ema": state, "step": 10},
    "list of one": lambda state: {"state_dict": [state], "err": 0.1},
    "bare list of one": lambda state: [state],
    "model in state_dict": lambda state: {"state": 1, "model": {"state_dict": state}},
    "lightning": lambda state: {
        "epoch": 9,
        "global_step": 100,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": renamed(state, "model."),
        "loops": {},
        "callbacks": {"checkpoint": {"best": 0.9}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.1},
    },
    **{
        prefix: lambda state, prefix=prefix: {"state_dict": renamed(state, prefix)}
        for prefix in ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model.module."]
    },
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_weights_are_found_under_the_usual_keys_and_prefixes(network, tmp_path, container) -> None:
    path = tmp_path / "model.pth"
    torch.save(CONTAINERS[container](network.state_dict()), path)
    model = load_model(path, normalize="none")
    assert model.arch == "resnet20"
    assert torch.equal(logits(model), logits(network))
    assert not model.training


@pytest.mark.parametrize("suffix", [".pt", ".th", ".ckpt"])
def test_every_suffix_is_read(network, tmp_path, suffix) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(network.state_dict(), path)
    assert torch.equal(logits(load_model(str(path), normalize="none")), logits(network))


def test_averaged_models_and_old_batch_norms(network, tmp_path) -> None:
    """``n_averaged`` is not a weight, and ``num_batches_tracked`` was not always there."""
    torch.save(AveragedModel(network).state_dict(), tmp_path / "averaged.pt")
    state = {key: value for key, value in network.state_dict().items() if "num_batches_tracked" not in key}
    torch.save(state, tmp_path / "old.pt")
    torch.save(network.state_dict(), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    for name in ("averaged", "old", "legacy"):
        assert torch.equal(logits(load_model(tmp_path / f"{name}.pt", normalize="none")), logits(network))


def test_safetensors(network, tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(renamed(network.state_dict(), "module."), path)
    assert torch.equal(logits(load_model(path, normalize="none")), logits(network))
    path.write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        load_model(path, normalize="none")


def test_exported_program_with_any_batch_size(tmp_path) -> None:
    torch.manual_seed(0)
    network = ARCHITECTURES["small_cnn"].build(in_channels=3).eval()
    batch = torch.export.Dim("batch", min=1, max=512)
    program = torch.export.export(network, (torch.rand(2, 3, 16, 16),), dynamic_shapes={"x": {0: batch}})
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    with pytest.raises(ModelError, match="--trust-checkpoint"):
        load_model(path, normalize="half")
    model = load_model(path, normalize="half", trust=True)
    for n in (1, 3):
        with torch.no_grad():
            expected = network((IMAGES[:n] - 0.5) / 0.5)
            torch.testing.assert_close(model(IMAGES[:n]), expected, atol=1e-5, rtol=1e-5)
    images, labels = IMAGES, logits(model).argmax(dim=1)
    report = evaluate(model, (images, labels), attacks=["pgd:eps=8/255,steps=3"], device="cpu")
    assert report.cell("clean").correct == 3
    assert report.cell("pgd").backwards > 0
    assert "train-mode-layers" not in [warning.code for warning in report.warnings]  # programs have no modes
    path.write_bytes(b"not a program")
    with pytest.raises(ModelError, match=r"not a torch.export program"):
        load_model(path, normalize="half", trust=True)


# ---------------------------------------------------------------- saving


@pytest.mark.parametrize("normalize", ["cifar10", "0.1,0.2,0.3/0.4,0.5,0.6", "none"])
def test_save_and_load_round_trip(network, tmp_path, normalize) -> None:
    torch.save(network.state_dict(), tmp_path / "in.pt")
    first = load_model(tmp_path / "in.pt", normalize=normalize)
    save_model(first, tmp_path / "out.pt")
    again = load_model(tmp_path / "out.pt")
    assert (again.normalization.mean, again.normalization.std) == (first.normalization.mean, first.normalization.std)
    assert (again.arch, again.normalization.source) == ("resnet20", "checkpoint")
    assert torch.equal(logits(again), logits(first))


def test_what_cannot_be_saved_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="only a network with its normalisation can be saved"):
        save_model(nn.Flatten(), tmp_path / "out.pt")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- refused files


class Payload:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_a_file_that_runs_code_is_refused_and_does_not_run(tmp_path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(2)}, "x": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="--trust-checkpoint"):
        load_model(tmp_path / "evil.pt", normalize="none")
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_needs_trust(tmp_path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 4)).eval()
    torch.save(network, tmp_path / "whole.pt")
    with pytest.raises(ModelError, match=r"contains more than weights \(it contains [\w.]+\).*--trust-checkpoint"):
        load_model(tmp_path / "whole.pt", normalize="none")
    assert torch.equal(logits(load_model(tmp_path / "whole.pt", normalize="none", trust=True)), logits(network))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"hello", "not a checkpoint|truncated"),
        (b"PK\x03\x04 cut off", "not a checkpoint|truncated"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, match) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=match):
        load_model(path, normalize="none")


def test_truncated_and_odd_files_are_refused(network, tmp_path) -> None:
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ModelError, match="truncated or not a checkpoint"):
        load_model(path, normalize="none")
    for content, match in [
        ({"weird": {"a": 1}}, "no state dict found"),
        ([{}, {}], "list of 2"),
        (torch.zeros(3), "contains a Tensor"),
        ({}, "it contains nothing"),
    ]:
        torch.save(content, path)
        with pytest.raises(ModelError, match=match):
            load_model(path, normalize="none")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "not a model")
    with pytest.raises(ModelError):
        load_model(path, normalize="none")


@pytest.mark.parametrize("spec", ["missing.pt", "no/such/file.safetensors", "unknown", "missing.py:f", "nomodule_x:f"])
def test_unknown_specs_are_one_clear_error(spec) -> None:
    with pytest.raises(FreqRobustError, match=r"does not exist|unknown model|cannot import"):
        load_model(spec, normalize="none")


def test_of_several_networks_the_first_is_taken_and_it_is_said(network, tmp_path) -> None:
    torch.manual_seed(1)
    other = {key: torch.rand_like(value) for key, value in network.state_dict().items() if value.is_floating_point()}
    path = tmp_path / "cascade.pt"
    torch.save({"state_dict": [network.state_dict(), other]}, path)
    loaded = load_model(path, normalize="none")
    torch.testing.assert_close(loaded.network.state_dict(), network.state_dict())
    images = torch.rand(4, 3, 8, 8)
    report = evaluate(loaded, (images, torch.arange(4)), attacks=["fgsm"], device="cpu")
    assert "2 networks" in next(w.message for w in report.warnings if w.code == "several-networks")


def test_a_checkpoint_does_not_choose_what_is_imported(network, tmp_path, monkeypatch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": network.state_dict(), "freqrobust": {"arch": "evil:factory"}}, "model.pt")
    with pytest.raises(ModelError, match="--trust-checkpoint"):
        load_model("model.pt", normalize="none")


@pytest.mark.parametrize(
    "about", [{"normalize": {"mean": [0.5]}}, {"normalize": {"mean": [0], "std": [0]}}, {"arch": 3}]
)
def test_broken_metadata_is_one_clear_error(network, tmp_path, about) -> None:
    torch.save({"state_dict": network.state_dict(), "freqrobust": about}, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"the metadata under .freqrobust. is damaged"):
        load_model(tmp_path / "model.pt")
