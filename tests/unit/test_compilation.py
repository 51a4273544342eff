"""Compiled passes: of which batches, when a model stays in eager mode, and what is decided once for a run."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from freqrobust import InputDefense, Report, evaluate
from freqrobust.data.loading import as_data
from freqrobust.harness import compilation, compiled_model
from freqrobust.harness.compilation import Compilation, Work
from freqrobust.harness.compiled_model import CompiledModel, NotCompiledError, Passes, logits_and_gradient, reduced
from freqrobust.harness.target_model import TargetModel
from freqrobust.plugins.selection import parse_chains

CPU = torch.device("cpu")
ATTACKS = ["pgd:eps=0.05,steps=3"]


class Net(nn.Module):
    """A small network with a convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.conv(x)).flatten(1))


class Viewing(Net):
    """One that cannot be laid out channels-last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.conv(x)).view(len(x), -1))


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return images, Net()(images).argmax(dim=1)


class Compiler:
    """Stands in for ``torch.compile``; counts the batches that its code gets."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits) -> None:
        self.models, self.sizes, self.change = 0, list[int](), change

    def __call__(self, passes: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        self.models += 1

        def code(x: torch.Tensor) -> torch.Tensor:
            self.sizes.append(len(x))
            return self.change(passes(x))

        return code


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    found = Compiler()
    monkeypatch.setattr(compiled_model, "compile_function", found)
    monkeypatch.setattr(compilation, "compiler_problem", lambda device: None)
    return found


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler of PyTorch that makes no C++ code, so that it is fast."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(compilation, "compiler_problem", lambda device: None)


def test_batches_of_every_size_are_compiled_once(monkeypatch, real) -> None:
    net, traced = Net().requires_grad_(False), list[int]()

    class Noted(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_compiling():
                traced.append(len(x))
            return super().forward(x)

    model = compiled_model.compile_model(Noted().requires_grad_(False), torch.rand(24, 1, 8, 8), CPU, "fp32").model
    traced.clear()
    for n in (1, 17, 24, 40, 200):
        images = torch.rand(n, 1, 8, 8)
        logits, gradient = logits_and_gradient(model, images)
        expected = logits_and_gradient(net, images)
        assert torch.allclose(logits, expected[0], atol=1e-6)
        assert torch.allclose(gradient, expected[1], atol=1e-6)
    assert traced == [1]  # in eager mode


def test_code_that_is_wrong_for_another_size_is_not_used(compiler) -> None:
    compiler.change = lambda logits: logits if len(logits) == 24 else logits * 1.1
    with pytest.raises(NotCompiledError, match="its logits differ"):
        compiled_model.compile_model(Net().requires_grad_(False), torch.rand(24, 1, 8, 8), CPU, "fp32")


@pytest.mark.parametrize(("of", "used"), [(16, True), (4, False)])
def test_gradients_of_few_images_may_differ_by_rounding(compiler, of: int, used: bool) -> None:
    """Half of the gradient of each 16th image is missing, as where rounding turns off a ReLU; or of each 4th image."""

    def change(logits: torch.Tensor) -> torch.Tensor:
        moved = (torch.arange(len(logits)) % of == 1).float()[:, None] * 0.5
        return logits.detach() * moved + logits * (1 - moved)

    compiler.change = change
    make = functools.partial(
        compiled_model.compile_model, Net().requires_grad_(False), torch.rand(64, 1, 8, 8), CPU, "fp32"
    )
    if used:
        make()
    else:
        with pytest.raises(NotCompiledError, match="its gradients differ"):
            make()


@pytest.mark.parametrize(("n", "wrong", "close"), [(10, 1, False), (20, 1, True), (64, 6, True), (64, 7, False)])
def test_at_most_a_tenth_of_the_gradients_may_differ(n: int, wrong: int, close: bool) -> None:
    exact = torch.rand(n, 1, 8, 8)
    found = exact.clone()
    found[-wrong:] *= -3
    assert (compiled_model._error(found, exact) < 1e-6) is close
    found[0, 0, 0, 0] = torch.inf
    assert not compiled_model._error(found, exact) < 1


def test_passes_of_one_image_and_without_gradients_are_eager() -> None:
    compiler = Compiler()
    model = CompiledModel(Net().requires_grad_(False), compiler(Net()))
    with torch.no_grad():
        model(torch.rand(8, 1, 8, 8))
    model(torch.rand(8, 1, 8, 8))
    logits_and_gradient(model, torch.rand(1, 1, 8, 8))
    assert compiler.sizes == []


def test_nothing_is_compiled_for_batches_of_one_image(compiler, data) -> None:
    images, labels = data
    report = evaluate(Net(), (images[:3], labels[:3]), attacks=ATTACKS, diagnose=None, compile="on", batch_size=1)
    (warning,) = [one for one in report.warnings if one.code == "not-compiled"]
    assert "one image" in warning.message
    assert compiler.models == 0


@pytest.mark.parametrize(("net", "channels_last"), [(Net, True), (Viewing, False)])
def test_bf16_is_laid_out_channels_last_where_the_model_allows_it(net: type[Net], channels_last: bool) -> None:
    model = net().eval().requires_grad_(False)
    images = torch.rand(6, 1, 8, 8)
    passes = reduced(model, images, CPU)
    assert passes.channels_last is channels_last
    assert model.conv.weight.is_contiguous()
    logits, gradient = logits_and_gradient(passes, images)
    exact = logits_and_gradient(model, images)
    assert logits.dtype == gradient.dtype == torch.float32
    assert 0 < float((logits - exact[0]).abs().max()) < 0.03 * float(exact[0].abs().max())


def test_gradients_that_attacks_get_are_contiguous_and_fp32(data) -> None:
    images, _ = data
    target = TargetModel(
        Net().requires_grad_(False), Net().requires_grad_(False), images[:4], device=CPU, precision="bf16"
    )
    _, gradient = logits_and_gradient(target.view, images)
    assert gradient.is_contiguous()
    assert gradient.dtype == torch.float32


def test_compiled_and_eager_runs_have_the_same_numbers_and_other_cells(compiler, data, tmp_path: Path) -> None:
    eager = evaluate(Net(), data, attacks=ATTACKS, diagnose=None, compile="off", run_dir=tmp_path)
    cells = set((tmp_path / "cells").iterdir())
    report = evaluate(Net(), data, attacks=ATTACKS, diagnose=None, compile="on", run_dir=tmp_path)
    assert report.models[0].compilation.compiled
    assert report.models[0].compilation.seconds >= 0
    assert set(compiler.sizes[:4]) == {64, 33}  # trials on the images, repeated
    assert compiler.sizes[4] == 40
    assert [cell.outcomes for cell in report.cells] == [cell.outcomes for cell in eager.cells]
    assert not report.warnings
    added = set((tmp_path / "cells").iterdir()) - cells
    assert len(added) == 1  # the attack; the clean pass is the same
    compiler.models = 0
    again = evaluate(Net(), data, attacks=ATTACKS, diagnose=None, compile="on", run_dir=tmp_path)
    assert compiler.models == 0
    assert again.models[0].compilation == report.models[0].compilation


WRONG = {
    "logits differ": (lambda logits: logits * 1.1, "its logits differ"),
    "NaN": (lambda logits: logits * float("nan"), "its logits differ"),
    "gradients differ": (lambda logits: logits.detach() + 0.5 * (logits - logits.detach()), "its gradients differ"),
}


@pytest.mark.parametrize("case", WRONG)
def test_compiled_code_that_is_wrong_is_not_used(monkeypatch, compiler, data, case: str) -> None:
    compiler.change, message = WRONG[case]
    expected = evaluate(Net(), data, attacks=ATTACKS, diagnose=None, compile="off")
    report = evaluate(Net(), data, attacks=ATTACKS, diagnose=None, compile="on")
    (warning,) = [one for one in report.warnings if one.code == "not-compiled"]
    assert message in warning.message
    assert [cell.outcomes for cell in report.cells] == [cell.outcomes for cell in expected.cells]
    assert set(compiler.sizes) <= {64, 33}  # only the trials


def test_an_error_of_the_compiler_is_a_reason(monkeypatch, compiler, data, tmp_path: Path) -> None:
    def fail(passes: nn.Module) -> None:
        raise RuntimeError("unknown operation")

    monkeypatch.setattr(compiled_model, "compile_function", fail)
    report = evaluate(Net(), data, attacks=ATTACKS, diagnose=None, compile="on", run_dir=tmp_path)
    (warning,) = report.warnings
    assert warning.message == "undefended is not compiled: compiling fails: RuntimeError: unknown operation"
    assert report.cells[1].status == "ok"
    monkeypatch.setattr(compiled_model, "compile_function", compiler)  # a resumed run does what was done before
    again = evaluate(Net(), data, attacks=[*ATTACKS, "fgsm:eps=0.1"], diagnose=None, compile="on", run_dir=tmp_path)
    assert compiler.models == 0
    assert [one.message for one in again.warnings] == [warning.message]


def traced(net: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.trace(net, torch.rand(2, 1, 8, 8))


REFUSED: dict[str, tuple[list[str], Callable[[nn.Module], nn.Module], str]] = {
    "random": (["gaussian-noise"], lambda net: net, "it is random"),
    "BPDA": (["bit-depth"], lambda net: net, "surrogate"),
    "TorchScript": ([], traced, "TorchScript"),
    "exported": ([], lambda net: torch.export.export(net, (torch.rand(2, 1, 8, 8),)).module(), "exported"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_some_models_stay_in_eager_mode(compiler, data, case: str) -> None:
    defenses, change, message = REFUSED[case]
    (chain,) = parse_chains(defenses or None, not defenses, False)
    model = change(Net().eval())
    target = TargetModel(model, model, data[0][:2], device=CPU, votes=3 if chain.stochastic else 1)
    assert message in compilation.refusal(chain, target)
    plain = TargetModel(Net(), Net(), data[0][:4], device=CPU)
    assert compilation.refusal(parse_chains(None, True, False)[0], plain) is None


def test_without_a_compiler_nothing_is_compiled(monkeypatch, data) -> None:
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert "no C++ compiler" in compilation.compiler_problem(CPU)
    report = evaluate(Net(), data, attacks=ATTACKS, diagnose=None, compile="on")
    (warning,) = report.warnings
    assert warning.code == "not-compiled"
    assert "g++" in warning.message
    assert not report.models[0].compilation.compiled
    assert not evaluate(Net(), data, attacks=ATTACKS, diagnose=None).warnings


def decide(monkeypatch, data, seconds: float, run_dir: Path | None, work: Work | None) -> Compilation:
    """A decision where a pass of 32 images takes so long."""
    monkeypatch.setattr(compilation, "seconds_of", lambda model, images: seconds)
    monkeypatch.setattr(compilation, "_forward_seconds", lambda *args: seconds / 32)
    made = Compilation("auto", run_dir=run_dir, work=work)
    made.decided(Net().requires_grad_(False), "net", as_data(data, "images"), 32)
    return made


@pytest.mark.parametrize(
    ("passes", "compiled"), [({}, False), ({"a": 0.0}, False), ({"a": 1e2}, False), ({"a": 1e2, "b": 1e5}, True)]
)
def test_auto_compiles_where_it_saves_more_than_it_takes(monkeypatch, compiler, data, passes, compiled) -> None:
    made = decide(monkeypatch, data, 0.1, None, Work(passes))
    assert made.decided_before() is compiled


class Blank(InputDefense):
    """Shows the network black images."""

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * x


def with_a_blank_defense(data, run_dir: Path) -> Callable[..., Report]:
    """Measures samples that are all misclassified as black images."""
    images, labels = data
    other = labels != Net()(torch.zeros(1, 1, 8, 8)).argmax()
    return functools.partial(
        evaluate,
        Net(),
        (images[other], labels[other]),
        attacks=["pgd:eps=0.001,steps=100"],
        defenses=[Blank()],
        diagnose=None,
        run_dir=run_dir,
    )


def always_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes take so long that compiling saves time."""
    for module in (compilation, compiled_model):
        monkeypatch.setattr(module, "seconds_of", lambda model, images: 40.0)
    monkeypatch.setattr(compilation, "_forward_seconds", lambda *args: 1.0)


def test_auto_compiles_only_the_models_for_which_it_saves_time(monkeypatch, compiler, data, tmp_path: Path) -> None:
    """Attacks are made for samples that a model classifies correctly; the second one has none."""
    always_worth(monkeypatch)
    measure = with_a_blank_defense(data, tmp_path)
    report = measure()
    assert report.cell("Blank/clean").accuracy == 0
    assert compiler.models == 1
    assert report.models[0].compilation.compiled
    assert "not-compiled" not in {one.code for one in report.warnings}
    assert measure().models[0].compilation == report.models[0].compilation
    alone = measure(undefended=False, oblivious=False, attacks=["pgd:eps=0.001,steps=101"]).models[0].compilation
    assert (alone.compiled, alone.reason) == (False, "too little work")
    assert compiler.models == 1


class Small(Net):
    """A network that takes up to eight images at once."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 8:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return super().forward(x)


def test_trials_take_no_larger_batches_than_attacks(monkeypatch, compiler, data) -> None:
    always_worth(monkeypatch)
    report = evaluate(Small(), data, attacks=["pgd:eps=0.01,steps=100"], diagnose=None, batch_size=8)
    assert [cell.status for cell in report.cells] == ["ok", "ok"]
    assert report.models[0].compilation.compiled
    assert max(compiler.sizes) == 8


class Undifferentiable(InputDefense):
    """Cannot be differentiated and does not say so."""

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            raise ValueError("no gradients")
        return x


def test_a_trial_that_fails_takes_nothing_from_other_cells(monkeypatch, compiler, data) -> None:
    always_worth(monkeypatch)
    attacks = ["pgd:eps=0.01,steps=100", "square:eps=0.01,queries=5"]
    given = {"attacks": attacks, "defenses": [Undifferentiable()], "undefended": False, "diagnose": None}
    report = evaluate(Net(), data, oblivious=False, **given)
    assert [cell.status for cell in report.cells] == ["ok", "failed", "ok"]
    assert "no gradients" in report.models[0].compilation.reason


def test_the_undefended_model_is_compiled_for_oblivious_attacks_where_that_is_asked(compiler, data) -> None:
    given = {"attacks": ATTACKS, "defenses": ["gaussian-noise"], "undefended": False, "diagnose": None}
    report = evaluate(Net(), data, compile="on", **given)
    assert compiler.models == 1
    assert report.models[0].compilation.compiled
    assert evaluate(Net(), data, **given).models[0].compilation.reason == "too little work"


def test_passes_are_expected_for_samples_that_are_classified_correctly(monkeypatch, compiler, data) -> None:
    """Of data in the order of their classes, too; and of a criterion, where it counts them as correct."""
    images, labels = data
    order = labels.argsort()
    wrong = labels[order].clone()
    wrong[:20] = (wrong[:20] + 1) % 5
    monkeypatch.setattr(compilation, "TRIAL", 10)
    model = TargetModel(Net().requires_grad_(False), Net().requires_grad_(False), images[:4], device=CPU)
    share = compilation._share_right(model, as_data((images[order], wrong), "images"), CPU, 4)
    assert share == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("kept", [True, False])
def test_the_first_of_several_processes_decides(monkeypatch, compiler, data, tmp_path: Path, kept: bool) -> None:
    """While one process compiles a model, another one writes down what it found."""
    (chain,) = parse_chains([], True, False)
    made = Compilation("on", run_dir=tmp_path, work=Work({chain.spec: 1.0}))
    made.decided(Net().requires_grad_(False), "net", as_data(data, "images"), 32)
    target = TargetModel(Net().requires_grad_(False), Net().requires_grad_(False), data[0][:4], device=CPU)
    original = target.compile

    def meanwhile(*args, **kwargs):
        made._once(made._identity_of(chain), lambda: {"compiled": kept, "reason": "" if kept else "it is slower"})
        return original(*args, **kwargs)

    monkeypatch.setattr(target, "compile", meanwhile)
    made.apply(target, chain, as_data(data, "images"), 32)
    assert isinstance(target.view.model, CompiledModel) is kept
    assert made.record([chain]).compiled is kept


def test_cells_of_a_model_that_stayed_eager_are_not_those_of_a_compiled_one(
    monkeypatch, compiler, data, tmp_path
) -> None:
    always_worth(monkeypatch)
    measure = with_a_blank_defense(data, tmp_path)
    measure()
    assert compiler.models == 1  # the undefended one
    cells = set((tmp_path / "cells").iterdir())
    report = measure(undefended=False, oblivious=False, compile="on")
    assert report.models[0].compilation.compiled
    assert set((tmp_path / "cells").iterdir()) > cells


@pytest.mark.parametrize("work", [None, Work({"a": 1e9}, timed=False)])
def test_auto_compiles_nothing_where_the_work_is_unknown_or_others_could_decide_otherwise(
    monkeypatch, compiler, data, work
) -> None:
    assert not decide(monkeypatch, data, 0.1, None, work).decided_before()


def test_the_first_decision_in_a_run_directory_stays(monkeypatch, compiler, data, tmp_path: Path) -> None:
    assert decide(monkeypatch, data, 0.1, tmp_path, Work({"a": 1e5})).decided_before()
    assert decide(monkeypatch, data, 1e-9, tmp_path, Work({"a": 1e2})).decided_before()
    (path,) = (tmp_path / "compilation").glob("*.json")
    assert json.loads(path.read_text().partition("\n")[2]) == {"compiled": True, "reason": "it saves time"}


def test_what_a_run_costs_is_read_from_the_decision(monkeypatch, compiler, data, tmp_path: Path) -> None:
    decide(monkeypatch, data, 0.1, tmp_path, Work({"a": 1e5}))
    made = Compilation("auto", run_dir=tmp_path, reading=True)
    assert made.decided(Net(), "net", as_data(data, "images"), 32)


def test_reading_writes_nothing(compiler, data, tmp_path: Path) -> None:
    made = Compilation("auto", run_dir=tmp_path, work=Work({"a": 1e9}), reading=True)
    assert not made.decided(Net(), "net", as_data(data, "images"), 32)
    assert not list(tmp_path.iterdir())


def test_slower_code_is_refused_where_that_was_asked(monkeypatch) -> None:
    images, net = torch.rand(8, 1, 8, 8), Net().requires_grad_(False)
    monkeypatch.setattr(compiled_model, "compile_function", Compiler())
    monkeypatch.setattr(compiled_model, "seconds_of", lambda model, images: 1.0 + isinstance(model, CompiledModel))
    assert isinstance(compiled_model.compile_model(net, images, CPU, "fp32").model, CompiledModel)
    with pytest.raises(NotCompiledError, match="slower"):
        compiled_model.compile_model(net, images, CPU, "fp32", faster=True)


def test_fp32_passes_are_those_of_the_model() -> None:
    images, net = torch.rand(3, 1, 8, 8), Net().requires_grad_(False)
    assert torch.equal(Passes(net, CPU, "fp32", channels_last=False)(images), net(images))


def test_compiled_code_can_be_differentiated_once_for_each_class(real) -> None:
    """As DeepFool and targeted attacks do; PyTorch compiles code that frees its buffers in the first pass by default."""
    model = Net().eval().requires_grad_(False)
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    compiled = compiled_model.compile_model(model, images, CPU, "fp32").model

    def jacobian(network: nn.Module) -> torch.Tensor:
        x = images.clone().requires_grad_(True)
        logits = network(x)
        return torch.stack([torch.autograd.grad(logits[:, k].sum(), x, retain_graph=k < 4)[0] for k in range(5)])

    assert torch.allclose(jacobian(compiled), jacobian(model), atol=1e-6)


def test_code_that_passes_backward_once_only_is_refused(monkeypatch, compiler) -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits: torch.Tensor) -> torch.Tensor:
            ctx.passed = False
            return logits.clone()

        @staticmethod
        def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
            if ctx.passed:
                raise RuntimeError("buffers are gone")
            ctx.passed = True
            return gradient

    compiler.change = Once.apply
    with pytest.raises(NotCompiledError, match="buffers are gone"):
        compiled_model.compile_model(Net().eval().requires_grad_(False), torch.rand(4, 1, 8, 8), CPU, "fp32")
