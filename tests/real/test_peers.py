"""PGD beside the libraries that everybody uses: same budget, same steps, same number of broken samples."""

from __future__ import annotations

import warnings

import pytest
import torch

from freqrobust import evaluate

N, BATCH, STEPS = 100, 50, 20
#: Budgets in 255ths.
CASES = [("resnet20", 2), ("cifar_small_36px", 2), ("cifar_small_36px", 8)]

# each of the peers, or what they import, uses interfaces that are announced to go
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated:UserWarning"),
]


def optional(name: str):
    """The peer, whatever it warns of when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed")


def robust(model, images, labels, adversarial) -> float:
    with torch.no_grad():
        right = model(images).argmax(dim=1) == labels
        kept = torch.cat([model(part).argmax(dim=1) for part in adversarial.split(BATCH)]) == labels
    return float((right & kept).float().mean())


@pytest.fixture(scope="module")
def samples(cifar):
    part = cifar.first(N)
    images, labels, _ = part.batch(torch.arange(N), torch.device("cpu"))
    return part, images, labels


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request, models, samples):
    """A network, a budget, and what freqrobust finds there."""
    name, in_255 = request.param
    eps = in_255 / 255
    attacks = [f"pgd:eps={eps},steps={STEPS}", f"fgsm:eps={eps}"]
    return models[name], eps, evaluate(models[name], samples[0], attacks=attacks, device="cpu", batch_size=BATCH)


def test_torchattacks_pgd(samples, case) -> None:
    peer = optional("torchattacks")
    (_, images, labels), (model, eps, report) = samples, case
    torch.manual_seed(0)
    attack = peer.PGD(model, eps=eps, alpha=2.5 * eps / STEPS, steps=STEPS, random_start=True)
    adversarial = torch.cat([attack(images[i : i + BATCH], labels[i : i + BATCH]) for i in range(0, N, BATCH)])
    assert abs(report.cells[1].accuracy - robust(model, images, labels, adversarial)) <= 0.02


def test_foolbox_pgd(samples, case) -> None:
    peer = optional("foolbox")
    (_, images, labels), (model, eps, report) = samples, case
    torch.manual_seed(0)
    wrapped = peer.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = peer.attacks.LinfPGD(abs_stepsize=2.5 * eps / STEPS, steps=STEPS, random_start=True)
    parts = [attack(wrapped, images[i : i + BATCH], labels[i : i + BATCH], epsilons=eps)[1] for i in range(0, N, BATCH)]
    assert abs(report.cells[1].accuracy - robust(model, images, labels, torch.cat(parts))) <= 0.02


def test_torchattacks_fgsm_is_the_same_sample_by_sample(samples, case) -> None:
    """No randomness: all but samples that floating-point ties decide are the same."""
    peer = optional("torchattacks")
    (_, images, labels), (model, eps, report) = samples, case
    adversarial = peer.FGSM(model, eps=eps)(images, labels)
    with torch.no_grad():
        right = (model(images).argmax(dim=1) == labels) & (model(adversarial).argmax(dim=1) == labels)
    assert (right.numpy() != report.cells[2].right()).sum() <= 1


def test_foolbox_l2_pgd(models, samples) -> None:
    peer = optional("foolbox")
    part, images, labels = samples
    model, eps = models["cifar_small_36px"], 0.5
    report = evaluate(model, part, attacks=[f"pgd:eps={eps},norm=l2,steps={STEPS}"], device="cpu", batch_size=BATCH)
    torch.manual_seed(0)
    attack = peer.attacks.L2PGD(abs_stepsize=2.5 * eps / STEPS, steps=STEPS, random_start=True)
    wrapped = peer.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, adversarial, _ = attack(wrapped, images, labels, epsilons=eps)
    assert abs(report.cells[1].accuracy - robust(model, images, labels, adversarial)) <= 0.02
