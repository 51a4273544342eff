"""Models that return more than a tensor: tuples, dictionaries, and outputs with logits."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from freqrobust import FreqRobustError, analyze, attack, evaluate, load_model, train, verify, wrap
from freqrobust.core.errors import ModelError
from freqrobust.harness.save_adversarial import save_adversarial
from freqrobust.models.outputs import LogitsOnly, logits_of
from support.networks import Tiny, tiny

Named = namedtuple("Named", ["loss", "logits"])
Z, FEATURES, AUXILIARY = torch.rand(4, 10), torch.rand(4, 32), torch.rand(4, 10)


class Wrapped(nn.Module):
    """A network whose logits are put into another output."""

    def __init__(self, network: nn.Module, form: str) -> None:
        super().__init__()
        self.inner, self.form = network, form

    def forward(self, x: torch.Tensor) -> Any:
        return FORMS[self.form](self.inner(x))


FORMS: dict[str, Callable[[torch.Tensor], Any]] = {
    "tuple": lambda z: (z, z + 1),
    "list": lambda z: [z],
    "dictionary": lambda z: {"features": z.new_zeros(len(z), 7), "logits": z},
    "one entry": lambda z: {"out": z, "loss": None},
    "attribute": lambda z: Named(None, z),
}


@pytest.mark.parametrize(
    "output",
    [
        Z,
        (Z,),
        (Z, AUXILIARY),
        (Z, None, torch.rand(4, 7, 3)),
        {"logits": Z, "features": FEATURES},
        {"out": Z, "loss": None},
        Named(None, Z),
        type("Output", (), {"logits": Z})(),
    ],
)
def test_the_logits_are_found(output: Any) -> None:
    assert logits_of(output) is Z


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((Z, FEATURES), r"returned a tuple of \(4, 10\), \(4, 32\); expected a tensor of logits"),
        ((torch.rand(4, 7, 3), Z), r"returned a tuple of \(4, 7, 3\), \(4, 10\)"),
        ((), "returned a tuple of nothing"),
        ({"a": Z, "b": FEATURES}, r"returned a dict with 'a' \(4, 10\), 'b' \(4, 32\)"),
        ({"out": torch.rand(4, 10, 8, 8)}, r"returned a dict with 'out' \(4, 10, 8, 8\)"),
        ({"logits": None}, "returned a dict with 'logits' NoneType"),
        (None, "returned a NoneType"),
        ("text", "returned a str"),
    ],
)
def test_what_is_not_clear_is_refused(output: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        logits_of(output)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_outputs_of_hugging_face() -> None:
    transformers = pytest.importorskip("transformers.modeling_outputs")
    assert logits_of(transformers.ImageClassifierOutput(loss=None, logits=Z)) is Z
    with pytest.raises(ModelError, match="'last_hidden_state'"):
        logits_of(transformers.BaseModelOutputWithPooling(torch.rand(4, 7, 3), FEATURES))


def test_outputs_of_torchvision() -> None:
    from torchvision.models import GoogLeNetOutputs, InceptionOutputs

    assert logits_of(InceptionOutputs(Z, AUXILIARY)) is Z
    assert logits_of(GoogLeNetOutputs(Z, AUXILIARY, AUXILIARY)) is Z


def test_gradients_pass() -> None:
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    network = Tiny().eval()
    for form in FORMS:
        gradients = torch.autograd.grad(LogitsOnly(Wrapped(network, form))(images).sum(), images)
        assert torch.equal(gradients[0], torch.autograd.grad(network(images).sum(), images)[0])


@pytest.mark.parametrize("form", list(FORMS))
def test_a_report_is_that_of_the_logits(form: str) -> None:
    """With folded batch norm, a defense that looks for kernels, and one that changes the images."""
    network, data = tiny(n=12)
    model = Wrapped(network, form)
    options: Any = {"attacks": ["pgd:eps=0.03,steps=3"], "device": "cpu", "diagnose": None}
    options["defenses"] = ["smooth", "lowpass:radius=3"]
    expected, report = evaluate(network, data, **options), evaluate(model, data, **options)
    assert [cell.correct for cell in report.cells] == [cell.correct for cell in expected.cells]
    assert [cell.forwards for cell in report.cells] == [cell.forwards for cell in expected.cells]
    assert (report.models[0].arch, report.status) == ("Wrapped", "complete")
    images = [attack(one, data.images, data.labels, "fgsm", device="cpu").images for one in (network, model)]
    assert torch.equal(*images)


def test_every_function_takes_them(tmp_path: Path) -> None:
    network, data = tiny(n=6)
    model = Wrapped(network, "attribute")
    several = evaluate({"a": model, "b": network}, data, attacks=["fgsm"], device="cpu", diagnose=None)
    assert [cell.correct for cell in several.cells[:2]] == [cell.correct for cell in several.cells[2:]]
    record = analyze(model, data, "sensitivity", device="cpu")
    (found,), (expected,) = record.results, analyze(network, data, "sensitivity", device="cpu").results
    assert found.model_dump(exclude={"label", "seconds"}) == expected.model_dump(exclude={"label", "seconds"})
    save_adversarial(model, data, tmp_path / "sets", attacks=["fgsm"], device="cpu")
    (verified,) = verify(tmp_path / "sets", model, data, device="cpu")
    assert (verified.same_model, verified.same_predictions) == (True, 6)
    run = train(Wrapped(Tiny(), "tuple"), data=data, epochs=1, out=tmp_path / "run", hold_out=0, device="cpu", probe=[])
    assert run.model(data.images).shape == (6, 10)


def test_models_from_code_and_the_trial_of_normalisations(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Linear):\n    def forward(self, x):\n"
        "        return {'logits': super().forward(x.flatten(1))}\n\n\ndef net():\n    torch.manual_seed(0)\n"
        "    return Net(48, 3)\n"
    )
    images = torch.rand(8, 3, 4, 4)
    model = load_model(f"{tmp_path / 'nets.py'}:net")
    report = evaluate(model, (images, model(images).argmax(dim=1)), attacks=["clean"], device="cpu")
    assert report.cells[0].accuracy == 1
    other = load_model(f"{tmp_path / 'nets.py'}:net", data=None, normalize="half")
    torch.testing.assert_close(other(images), model((images - 0.5) / 0.5))
    normalised = wrap(Wrapped(Tiny(), "tuple").eval(), 0.5, 0.5)
    assert normalised(torch.rand(2, 3, 8, 8)).shape == (2, 10)


def test_an_output_that_is_not_clear_is_one_line() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x.flatten(1), x.flatten(1)[:, :3]

    images, labels = torch.rand(4, 3, 4, 4), torch.zeros(4, dtype=torch.int64)
    for run in (
        lambda: evaluate(Two(), (images, labels), attacks=["fgsm"], device="cpu"),
        lambda: attack(Two(), images, labels, "fgsm", device="cpu"),
    ):
        with pytest.raises(FreqRobustError, match=r"the model returned a tuple of \(2, 48\), \(2, 3\)") as error:
            run()
        assert "\n" not in str(error.value)
