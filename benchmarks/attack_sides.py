"""The attacks of the benchmark: this package's and those of other libraries, called with a recording model.

Each is a function ``(model, images, labels, eps)`` that returns its examples. Attacks with a budget are run once for
each eps. Minimum-norm attacks search the nearest adversarial example, do not depend on eps, and are run once.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timing import packages
from torch import nn

from freqrobust.core.source_hash import source_hash
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.selection import parse_attacks

Perturb = Callable[[nn.Module, torch.Tensor, torch.Tensor, float], torch.Tensor]
LIBRARIES = ("torch", "torchattacks", "foolbox", "adv-lib", "pyautoattack")


@dataclass(frozen=True)
class Side:
    """One attack.

    Attributes:
        perturb: the attack.
        minimum: searches the nearest example, whatever eps is.
        code: what a stored result of it depends on: the version of a library, or the hash of the plugin's code.
        slow: not part of a quick run.
    """

    perturb: Perturb
    minimum: bool
    code: str
    slow: bool = False


#: This package's attacks; {eps} and {step} are filled in.
OURS = {
    "fgsm": "fgsm:eps={eps}",
    **{f"pgd-{steps}": f"pgd:eps={{eps}},steps={steps}" for steps in (10, 20, 50, 100)},
    "pgd-20 1x": "pgd:eps={eps},steps=20,step_size={step}",
    "pgd-20 5x": "pgd:eps={eps},steps=20,step_size={step}",
    "pgd-50 12.5x": "pgd:eps={eps},steps=50,step_size={step}",
    "pgd-20 clean": "pgd:eps={eps},steps=20,random_start=false",
    "pgd-20 clean 5x": "pgd:eps={eps},steps=20,random_start=false,step_size={step}",
    "pgd-20 clean 10x": "pgd:eps={eps},steps=20,random_start=false,step_size={step}",
    "pgd-20 clean 5x margin": "pgd:eps={eps},steps=20,random_start=false,step_size={step},loss=margin",
    "pgd-20 x5": "pgd:eps={eps},steps=20,restarts=5",
    "pgd-10 x10": "pgd:eps={eps},steps=10,restarts=10",
    "pgd-20 dlr": "pgd:eps={eps},steps=20,loss=dlr",
    "pgd-20 margin": "pgd:eps={eps},steps=20,loss=margin",
    "pgd-20 pm": "pgd:eps={eps},steps=20,loss=pm",
    "pgd-20 5x margin": "pgd:eps={eps},steps=20,step_size={step},loss=margin",
    "pgd-100 margin": "pgd:eps={eps},steps=100,loss=margin",
    **{f"apgd-{steps}": f"apgd:eps={{eps}},steps={steps}" for steps in (10, 20, 40, 100)},
    "apgd-20 clean": "apgd:eps={eps},steps=20,random_start=false",
    "apgd-20 ce": "apgd:eps={eps},steps=20,loss=ce",
    "apgd-20 margin": "apgd:eps={eps},steps=20,loss=margin",
    "apgd-20 x2": "apgd:eps={eps},steps=20,restarts=2",
    "apgd-20 t3": "apgd:eps={eps},steps=20,targets=3",
    "apgd-20 t9": "apgd:eps={eps},steps=20,targets=9",
    **{f"fmn-{steps}": f"fmn:steps={steps}" for steps in (50, 200)},
    "aa": "aa:eps={eps}",
    "square-500": "square:eps={eps},queries=500",
}


def _ours(template: str, factor: float | None, model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float) -> Any:
    attack = _plugin(template, factor, eps)
    return attack.perturb(model, x, y, AttackContext(torch.arange(len(x)), seed=0, goal="decide"))


def _plugin(template: str, factor: float | None, eps: float) -> Attack:
    steps = int(template.partition("steps=")[2].partition(",")[0] or 1)
    plugin = parse_attacks([template.format(eps=eps, step=(factor or 0) * eps / steps)])[0].plugin
    assert isinstance(plugin, Attack)
    return plugin


@contextmanager
def _library() -> Iterator[None]:
    """Another library's code: seeded, quiet, without lasting changes of the generators."""
    with (
        torch.random.fork_rng(devices=[]),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield


def _torchattacks(
    name: str, params: dict[str, Any], model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float
) -> Any:
    import torchattacks

    if "steps" in params and name == "PGD":
        params = {**params, "alpha": 2.5 * eps / params["steps"]}
    with _library():
        return getattr(torchattacks, name)(model, eps=eps, **params)(x, y)


def _foolbox(name: str, params: dict[str, Any], model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float) -> Any:
    from foolbox import attacks
    from foolbox.models.pytorch import PyTorchModel

    budget = None if "FMN" in name else eps
    with _library():
        return getattr(attacks, name)(**params)(PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=budget)[1]


def _adversarial_library(
    name: str, params: dict[str, Any], model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float
) -> Any:
    import adversarial_library

    budget = {} if name == "fmn" else {"ε" if name == "pgd_linf" else "eps": eps}
    norm = {} if name == "pgd_linf" else {"norm": float("inf")}
    with _library():
        return getattr(adversarial_library, name)(model, x, y, **budget, **norm, **params)


def sides() -> dict[str, Side]:
    """All attacks of this package and of the libraries that are installed, by name.

    A number after the name is the number of steps, ``xN`` stands for N restarts, ``tN`` for runs towards N classes, and
    ``Nx`` for a step size of ``N * eps / steps``. ``clean`` starts at the clean image, all other attacks of this package
    in the ball.
    """
    found = {}
    for name, template in OURS.items():
        factor = next((float(word[:-1]) for word in name.split()[1:] if word.endswith("x")), None)
        code = f"{template} {factor} {source_hash(type(_plugin(template, factor, 1 / 255)))}"
        found[name] = Side(partial(_ours, template, factor), template.startswith("fmn"), code)
    versions = packages(*LIBRARIES)
    others: list[tuple[str, str, str, Any, dict[str, Any]]] = [
        ("PGD-20", "torchattacks", "PGD", _torchattacks, {"steps": 20}),
        ("APGD-50 ce", "torchattacks", "APGD", _torchattacks, {"steps": 50, "loss": "ce"}),
        ("APGD-50 dlr", "torchattacks", "APGD", _torchattacks, {"steps": 50, "loss": "dlr"}),
        ("Square-500", "torchattacks", "Square", _torchattacks, {"n_queries": 500}),
        ("PGD-20", "foolbox", "LinfPGD", _foolbox, {"steps": 20, "rel_stepsize": 2.5 / 20}),
        ("FMN-50", "foolbox", "LInfFMNAttack", _foolbox, {"steps": 50}),
        ("PGD-40", "adv-lib", "pgd_linf", _adversarial_library, {"steps": 40}),
        ("APGD-50 ce", "adv-lib", "apgd", _adversarial_library, {"n_iter": 50, "loss_function": "ce"}),
        ("APGD-50 dlr", "adv-lib", "apgd", _adversarial_library, {"n_iter": 50, "loss_function": "dlr"}),
        ("APGD-T-20", "adv-lib", "apgd_targeted", _adversarial_library, {"n_iter": 20}),
        ("FMN-50", "adv-lib", "fmn", _adversarial_library, {"steps": 50}),
        ("FMN-200", "adv-lib", "fmn", _adversarial_library, {"steps": 200}),
    ]
    for name, library, attack, call, params in others:
        if versions[library] is None:
            continue
        code = f"{library} {versions[library]} {attack} {sorted(params.items())}"
        found[f"{library} {name}"] = Side(partial(call, attack, params), "FMN" in name, code)
    code = f"autoattack:eps={{eps}} {versions['pyautoattack']}"
    found["autoattack"] = Side(partial(_ours, "autoattack:eps={eps}", None), False, code, slow=True)
    return found
