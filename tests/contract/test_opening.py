"""What every command does before it measures, and undoes afterwards: arithmetic, modes, devices, checks, hashes."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from freqrobust import Defense, ImageData, analyze, evaluate
from freqrobust.cli import main
from freqrobust.core.config import EvalConfig
from freqrobust.core.errors import FreqRobustError, ModelError, SpecError
from freqrobust.harness import inputs, opening, run
from freqrobust.harness.opening import check_settings, open_run
from freqrobust.harness.save_adversarial import save_adversarial
from freqrobust.harness.verify import verify
from freqrobust.models.fingerprint import same_state, separate, state_hash
from freqrobust.numerics.precision import full_precision
from support.waiting import PATIENCE

ATTACK = "fgsm:eps=0.1"


class Spy(nn.Module):
    """A network that keeps the arithmetic and the modes that it saw."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.seen: set[tuple[bool, bool, bool]] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        self.seen.add((*tf32, self.training or any(p.requires_grad for p in self.parameters())))
        return self.network(x)


@pytest.fixture
def tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _evaluate(model: nn.Module, data: ImageData, folder: Path) -> None:
    evaluate(model, data, attacks=[ATTACK], device="cpu")


def _evaluate_two(model: nn.Module, data: ImageData, folder: Path) -> None:
    evaluate([model, model], data, attacks=[ATTACK], device="cpu")


def _analyze(model: nn.Module, data: ImageData, folder: Path) -> None:
    analyze([model, model], data, "sensitivity", device="cpu")


def _save(model: nn.Module, data: ImageData, folder: Path) -> None:
    assert not save_adversarial(model, data, attacks=[ATTACK], directory=folder, device="cpu").failed


def _verify(model: nn.Module, data: ImageData, folder: Path) -> None:
    seen = set(getattr(model, "seen", ()))
    _save(model, data, folder)
    if isinstance(model, Spy):
        model.seen = seen
    verify(folder, model, data=data, device="cpu")


COMMANDS = [_evaluate, _evaluate_two, _analyze, _save, _verify]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("tf32")
def test_fp32_is_exact_and_the_model_frozen_in_every_command(command, network, digits, tmp_path) -> None:
    model = Spy(network).train()
    model.network.conv1.weight.requires_grad_(True)
    command(model, digits.first(4), tmp_path)
    assert model.seen == {(False, False, False)}
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32
    assert model.training
    assert model.network.conv1.weight.requires_grad


@pytest.mark.parametrize(
    ("name", "value"),
    [("cuda.matmul", "tf32"), ("cudnn.conv", "ieee"), ("mkldnn.matmul", "bf16"), ("mkldnn.conv", "bf16")],
)
@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="PyTorch has one interface only")
def test_fp32_is_exact_where_the_newer_interface_chose_otherwise(name, value) -> None:
    """The older one raises then, as both do not say the same."""
    choice, older = attrgetter(name)(torch.backends), torch.backends.cudnn.allow_tf32
    before, choice.fp32_precision = choice.fp32_precision, value
    try:
        with full_precision():
            assert choice.fp32_precision in ("ieee", "none")
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
        assert choice.fp32_precision == value
    finally:
        torch.backends.cudnn.allow_tf32 = older
        choice.fp32_precision = before


@pytest.mark.parametrize(("first", "then"), [("ieee", "tf32"), ("tf32", "ieee")])
@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="PyTorch has one interface only")
def test_what_is_inherited_from_a_setting_for_all_operations_still_is(first, then) -> None:
    """In a process of its own, as the default of some operations differs from that of all and cannot be set again."""
    code = f"""
import torch
from freqrobust.numerics.precision import full_precision
torch.backends.fp32_precision = {first!r}
with full_precision():
    pass
torch.backends.fp32_precision = {then!r}
assert torch.backends.cuda.matmul.fp32_precision == {then!r}
assert torch.backends.cudnn.conv.fp32_precision == {then!r}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


@pytest.mark.parametrize("value", ["high", "medium"])
def test_fp32_is_exact_where_less_was_chosen_for_all_matrices(value) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(value)
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == value
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("tf32")
def test_everything_is_restored_when_it_fails(network, digits) -> None:
    model = Spy(network).train()
    model.network.conv1.weight.requires_grad_(True)

    def fail() -> None:
        with open_run(model, digits, check_settings(EvalConfig(device="cpu"))) as opened:
            assert not model.training
            assert not torch.backends.cudnn.allow_tf32
            assert opened.adaptive
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32
    assert model.training
    assert model.network.conv1.weight.requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_model_returns_to_its_device(network, digits) -> None:
    model = copy.deepcopy(network)
    with open_run(model, digits, check_settings(EvalConfig(device="cuda"))):
        assert all(p.is_cuda for p in model.parameters())
    assert not any(p.is_cuda for p in model.parameters())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_that_does_not_fit_is_refused_by_every_command(command, digits, tmp_path) -> None:
    class Infinite(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 10), float("nan"))

    with pytest.raises(ModelError, match="NaN or infinite"):
        command(Infinite(), digits.first(4), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size should be"),
        ({"batch_size": True}, "batch_size should be"),
        ({"precision": "fp16"}, "precision should be"),
        ({"device": "tpu"}, "unknown device"),
    ],
)
def test_settings_are_checked(settings, message) -> None:
    with pytest.raises(SpecError, match=message):
        check_settings(EvalConfig(**{"device": "cpu", **settings}))


# ---------------------------------------------------------------- once


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for owner, name in ((run, "fingerprint"), (opening, "check_fit"), (ImageData, "_hash")):
        count(owner, name)
    return counts


def test_models_and_data_are_hashed_and_tried_once(network, digits, calls) -> None:
    data = ImageData(digits.images, digits.labels, 10)
    evaluate(network, data, attacks=[ATTACK, "lfc:radius=2"], defenses=["smooth", "lowpass:radius=3"], device="cpu")
    assert calls == {"fingerprint": 1, "check_fit": 1, "_hash": 1}


def test_so_are_each_of_several_models(network, digits, calls) -> None:
    data = ImageData(digits.images, digits.labels, 10)
    evaluate([network, network], data, attacks=[ATTACK], device="cpu")
    assert calls == {"fingerprint": 2, "check_fit": 2, "_hash": 1}


def test_the_command_hashes_the_data_once(calls, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main.main(["eval", "--attack", "clean", "--first", "20", "--device", "cpu", "--quiet"])
    assert stop.value.code == 0
    assert calls == {"fingerprint": 1, "check_fit": 1, "_hash": 1}


def test_run_folders_are_named_by_file_architecture_and_normalisation() -> None:
    class Loaded:
        sha256, arch = "a" * 64, "resnet20"

        def __init__(self, mean: float, arch: str = "resnet20") -> None:
            self.arch = arch
            self.normalization = type("NormalizationChoice", (), {"mean": (mean,), "std": (1.0,)})

    assert inputs.named_by(Loaded(0.0)) == inputs.named_by(Loaded(0.0))
    assert inputs.named_by(Loaded(0.0)) != inputs.named_by(Loaded(0.5))
    assert inputs.named_by(Loaded(0.0)) != inputs.named_by(Loaded(0.0, "resnet32"))


def test_data_that_changed_is_hashed_again() -> None:
    data = ImageData(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), 2)
    before = data.sha256
    assert data.sha256 is before
    data.images[0, 0, 0, 0] = 1
    after = data.sha256
    assert after != before
    assert after == ImageData(data.images.clone(), data.labels, 2).sha256


def test_data_of_the_user_is_hashed_each_time(network) -> None:
    """Its arrays may be shared with NumPy, which does not tell torch what it writes."""
    array = torch.rand(4, 1, 8, 8).numpy()
    data = ImageData(torch.from_numpy(array), torch.tensor([0, 1, 2, 3]), 10)
    hashes = []
    for _ in range(2):
        hashes.append(evaluate(network, data, attacks=["clean"], device="cpu").data.sha256)
        array[0, 0, 0, 0] = 1 - array[0, 0, 0, 0]
    assert hashes[0] != hashes[1]


# ---------------------------------------------------------------- a defense that changes what it was given


class Change(Defense):
    """Changes the first convolution of the model in place."""

    how: str = "no_grad"

    def apply(self, model: nn.Module, context: Any) -> nn.Module:
        weight = model.conv1.weight
        if self.how == "no_grad":
            with torch.no_grad():
                weight.add_(1e-3)
        elif self.how == "data":
            weight.data.add_(1e-3)  # leaves the version counter alone
        elif self.how == "numpy":
            weight.detach().numpy()[0] += 1e-3
        elif self.how == "new":
            model.conv1.weight = nn.Parameter(weight + 1e-3)
        elif self.how == "buffer":
            model.register_buffer("more", torch.zeros(1))
        elif self.how == "sign of zero":
            weight.data[0, 0, 0, 0] = -0.0
        return copy.deepcopy(model)


HOWS = ["no_grad", "data", "numpy", "new", "buffer", "sign of zero"]


@pytest.mark.parametrize("how", HOWS)
def test_any_change_of_the_weights_is_found(network, digits, how) -> None:
    model = copy.deepcopy(network)
    model.conv1.weight.data[0, 0, 0, 0] = 0.0
    report = evaluate(model, digits.first(4), attacks=["clean"], defenses=[Change(how=how)], device="cpu")
    assert "changed the model it was given" in str(report.cells[-1].error)


class Keeps(nn.Module):
    """Copies of it share its weights, or are itself."""

    kind: ClassVar[str] = "itself"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.conv1 = network.conv1
        self.rest = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(x)

    def __deepcopy__(self, memo: dict[int, Any]) -> Keeps:
        return self if self.kind == "itself" else type(self)(self.rest)


class Shares(Keeps):
    kind: ClassVar[str] = "shares"


@pytest.mark.parametrize("make", [Keeps, Shares])
@pytest.mark.parametrize("how", ["data", "numpy"])
def test_also_of_models_that_cannot_be_copied(network, digits, make, how) -> None:
    model = make(copy.deepcopy(network))
    report = evaluate(model, digits.first(4), attacks=["clean"], defenses=[Change(how=how)], device="cpu")
    assert "changed the model it was given" in str(report.cells[-1].error)


def test_comparing_is_as_strict_as_hashing(network) -> None:
    same = copy.deepcopy(network)
    assert same_state(network, same)
    assert separate(network, same)
    assert not separate(network, network)
    same.conv1.weight.data[0, 0, 0, 0] = float("nan")
    also = copy.deepcopy(same)
    assert same_state(same, also)  # NaN is not equal to itself, its bits are
    assert state_hash(same) == state_hash(also)
    assert not same_state(network, same)
    also.conv1.weight.data = also.conv1.weight.data.double()
    assert not same_state(same, also)


# ---------------------------------------------------------------- parameters of the wrong type


class Sized:
    """A dataset with a length of its own choice."""

    def __init__(self, length: Any, samples: int = 6) -> None:
        self.length = length
        self.samples = [(torch.rand(1, 8, 8), i % 10) for i in range(samples)]

    def __len__(self) -> Any:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


LABELS = torch.tensor([0, 1])
BAD_DATA: list[Callable[[], Any]] = [
    lambda: (torch.zeros(2, 1, 8, 8).to_sparse(), LABELS),
    lambda: (torch.zeros(2, 1, 8, 8, device="meta"), LABELS),
    lambda: (torch.zeros(2, 1, 8, 8), LABELS.to_sparse()),
    lambda: (torch.zeros(2, 1, 8, 8), LABELS.to("meta")),
    lambda: (torch.zeros(2, 1, 8, 8, dtype=torch.complex64), LABELS),
    lambda: (torch.zeros(2, 1, 8, 8), LABELS.to(torch.complex64)),
    lambda: (torch.nested.as_nested_tensor([torch.zeros(1, 8, 8)] * 2, layout=torch.jagged), LABELS),
    lambda: ImageData("images", LABELS, 2),  # type: ignore[arg-type]
    lambda: ImageData(torch.zeros(2, 1, 8, 8, device="meta"), LABELS, 2),
    lambda: [(torch.zeros(1, 8, 8, device="meta"), 0), (torch.zeros(1, 8, 8), 1)],
    lambda: [(torch.zeros(1, 8, 8).to_sparse(), 0), (torch.zeros(1, 8, 8), 1)],
    lambda: torch.zeros(2, 1, 8, 8),
    lambda: Sized(9),
    lambda: Sized(4),
    lambda: Sized(0),
    lambda: Sized(-1),
    lambda: Sized("six"),
    lambda: Sized(6.0),
    lambda: Sized(2**70),
    lambda: {"images": 1, "labels": 2},
    lambda: 5,
    lambda: None,
]


@pytest.mark.parametrize("number", range(len(BAD_DATA)))
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, about prototypes
def test_data_that_are_none(network, number) -> None:
    with pytest.raises(FreqRobustError) as error:
        evaluate(network, BAD_DATA[number](), attacks=["clean"], device="cpu")
    assert "\n" not in str(error.value)


def test_a_dataset_that_makes_up_its_samples_has_no_end(network) -> None:
    class Endless(Sized):
        def __getitem__(self, index: int) -> Any:
            return self.samples[index % len(self.samples)]

    assert evaluate(network, Endless(4), attacks=["clean"], device="cpu").data.n == 4
    assert evaluate(network, Sized(6), attacks=["clean"], device="cpu").data.n == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attacks": 5}, "attacks should be a list of specs"),
        ({"attacks": [5]}, "each of the attacks should be"),
        ({"attacks": [None]}, "each of the attacks should be"),
        ({"attacks": {"pgd": 1}}, "attacks should be a list of specs"),
        ({"attacks": []}, "attacks is empty"),
        ({"attacks": ["clean"], "defenses": 5}, "defenses should be a list of specs"),
        ({"attacks": ["clean"], "defenses": [Change]}, "the class Change; make an object of it"),
        ({"attacks": ["clean"], "defenses": [[Change(), 3]]}, "each of the defenses should be"),
        ({"attacks": ["clean"], "progress": 3}, "progress should be True, False, or an object"),
        ({"attacks": ["clean"], "progress": "yes"}, "progress should be True, False, or an object"),
    ],
)
def test_parameters_of_the_wrong_type(network, digits, options, message) -> None:
    with pytest.raises(SpecError, match=message) as error:
        evaluate(network, digits, device="cpu", **options)
    assert "\n" not in str(error.value)


def test_no_defenses_is_none(network, digits) -> None:
    report = evaluate(network, digits.first(4), attacks=["clean"], defenses=None, device="cpu")
    assert [cell.defense for cell in report.cells] == ["undefended"]
    found = analyze(network, digits.first(4), "sensitivity", defenses=None, device="cpu")
    assert len(found.results) == 1


# ---------------------------------------------------------------- progress


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def begin(self, label: str, total: int) -> None:
        self.heard.append(f"begin {label}")

    def advance(self, amount: int) -> None:
        self.heard.append("advance")

    def end(self, summary: str) -> None:
        self.heard.append("end")

    def say(self, message: str) -> None:
        self.heard.append("say")


def _told(progress: Any, network: nn.Module, data: ImageData, what: str, folder: Path) -> None:
    if what == "evaluate":
        evaluate(network, data, attacks=["clean"], device="cpu", progress=progress)
    elif what == "analyze":
        analyze(network, data, "sensitivity", device="cpu", progress=progress)
    else:
        save_adversarial(network, data, attacks=[ATTACK], directory=folder, device="cpu", progress=progress)


@pytest.mark.parametrize("what", ["evaluate", "analyze", "save"])
def test_progress(network, digits, what, tmp_path, capsys) -> None:
    data = digits.first(4)
    for silent in (None, False):
        _told(silent, network, data, what, tmp_path)
        assert capsys.readouterr() == ("", "")
    _told(True, network, data, what, tmp_path)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) >= 1
    listener = Listener()
    _told(listener, network, data, what, tmp_path)
    assert {"advance", "end"} <= set(listener.heard)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(SpecError, match="the class Listener"):
        _told(Listener, network, data, what, tmp_path)
