"""All attacks of the library torchattacks (Kim 2020, arXiv 2010.01950).

``torchattacks:CW:c=1,steps=50``: names and parameters are those of the installed version. Its attacks draw from the
global generators, so that a result depends on the other samples of the batch; they are seeded by the seed of the
run and the samples of the batch.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, create_model, model_validator

from freqrobust.attacks.isolation import any_batch, batch_seed, isolated, require, settle
from freqrobust.core.errors import PluginError
from freqrobust.core.numbers import MOST, Number
from freqrobust.numerics.threat import Norm, Threat, check_eps
from freqrobust.plugins.base import Attack, AttackFamily

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext

PREFIX = "torchattacks"
#: Take other attacks or training data, and no model.
WRAPPERS = ("MultiAttack", "LGV")
#: Set by the adapter and not by the user.
OURS = ("self", "model", "device", "seed", "verbose")
#: Attacks without a parameter ``norm`` that have a budget: its norm and the name of the parameter.
#: Draws over which AutoAttack's version for randomised models averages by itself.
RAND_DRAWS = 20
BUDGETS: dict[str, tuple[Norm, str]] = {
    **dict.fromkeys(
        [
            *("FGSM", "BIM", "RFGSM", "PGD", "EOTPGD", "FFGSM", "TPGD", "MIFGSM", "UPGD", "DIFGSM", "TIFGSM"),
            *("Jitter", "NIFGSM", "PGDRS", "SINIFGSM", "VMIFGSM", "VNIFGSM", "SPSA"),
        ],
        ("linf", "eps"),
    ),
    "PIFGSM": ("linf", "max_epsilon"),
    "PIFGSMPP": ("linf", "max_epsilon"),
    "PGDL2": ("l2", "eps"),
    "PGDRSL2": ("l2", "eps"),
}
NORMS: dict[str, Norm] = {"Linf": "linf", "L2": "l2"}
#: Attacks that use predictions without gradients, or no model at all.
WITHOUT_GRADIENT = ("VANILA", "GN", "SPSA", "OnePixel", "Pixle", "Square")
#: The accepted values of text parameters.
CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("*", "norm"): tuple(NORMS),
    ("APGD", "loss"): ("ce", "dlr"),
    ("UPGD", "loss"): ("ce", "margin", "dlr"),
    ("Square", "loss"): ("margin", "ce"),
    ("*", "noise_type"): ("guassian", "uniform"),
    ("*", "kernel_name"): ("gaussian", "linear", "uniform"),
    ("*", "version"): ("standard", "plus", "rand"),
    ("*", "pixel_mapping"): ("random", "similarity", "similarity_random", "distance", "distance_random"),
}
#: Parameters that are real numbers although their default is an integer.
REAL = ("c", "kappa", "lam", "scale")
#: Parameters that have to be at least 0; every other integer is at least 1, every other number is not bounded.
NOT_NEGATIVE = ("eps", "max_epsilon", "alpha", "std", "noise_sd", "c", "kappa", "overshoot")


class _Member(Attack):
    """The base class of all of them; the subclasses are made from the library's signatures."""

    batch_invariant: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = (PREFIX,)
    spec_name: ClassVar[str] = ""
    original: ClassVar[str] = ""

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        threat = self.threat()
        if threat is not None:
            check_eps(threat.norm, threat.eps)
        return self

    @property
    def averages_draws(self) -> bool:  # type: ignore[override]
        """True with an ``eot_iter`` above 1, and for AutoAttack's version for randomised models."""
        return getattr(self, "eot_iter", 1) > 1 or getattr(self, "version", None) == "rand"

    def eot_used(self, eot: int) -> int:
        """The attack's own number of draws where it averages by itself, else what the harness asks for."""
        return getattr(self, "eot_iter", RAND_DRAWS) if self.averages_draws else eot

    def threat(self) -> Threat | None:
        """The budget, where the attack has one."""
        fields = type(self).model_fields
        if "norm" in fields and "eps" in fields:
            return Threat(NORMS[getattr(self, "norm")], float(getattr(self, "eps")))  # noqa: B009
        if self.original in BUDGETS:
            norm, key = BUDGETS[self.original]
            return Threat(norm, float(getattr(self, key)))
        return None

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        threat = self.threat()
        if threat is not None and threat.eps == 0:  # several of them would divide by it
            return images.clone()
        library = require(PREFIX, self.spec_name)
        seed = batch_seed(context)
        view = any_batch(model, context)
        with isolated(self.spec_name, model, seed, images.device):
            classes = _classes(view, images) if self._asks_for_classes() else None
            self._check_classes(classes)
            attack = getattr(library, self.original)(view, **self._arguments(seed, classes))
            attack.set_device(images.device)
            if self.original == "JSMA" and classes is not None:  # its default targets assume ten classes
                attack.set_mode_targeted_by_function(lambda _, own: (own + 1) % classes, quiet=True)
            examples = attack(images.clone(), labels.clone())
        return settle(examples, images, *(threat or (None, None)))

    def _arguments(self, seed: int, classes: int | None) -> dict[str, Any]:
        signature = inspect.signature(getattr(require(PREFIX, self.spec_name), self.original).__init__)
        given = {key: getattr(self, key) for key in type(self).model_fields}
        if "n_classes" in given:
            given["n_classes"] = given["n_classes"] or classes
        if "seed" in signature.parameters:
            given["seed"] = seed
        return given

    def _asks_for_classes(self) -> bool:
        """Whether the number of classes is needed, for which the model has to predict one image."""
        return self._fewest_classes() > 2 or self.original == "JSMA" or "n_classes" in type(self).model_fields

    def _fewest_classes(self) -> int:
        """Differences of logits ratios (DLR) need the third largest logit, targeted ones the fourth."""
        if self.original in ("APGDT", "AutoAttack"):
            return 3 if getattr(self, "version", None) == "rand" else 4
        return 3 if getattr(self, "loss", None) == "dlr" else 2

    def _check_classes(self, classes: int | None) -> None:
        if classes is None:
            return
        fewest, wanted = self._fewest_classes(), getattr(self, "n_classes", None)
        if classes < fewest:
            raise PluginError(f"{self.spec_name} needs at least {fewest} classes, but the model has {classes}")
        if wanted is not None and wanted > classes:
            raise PluginError(f"{self.spec_name}: n_classes is {wanted}, but the model has {classes} classes")


def _classes(model: nn.Module, images: torch.Tensor) -> int:
    import torch

    with torch.no_grad():
        return int(model(images[:1]).shape[1])


class Torchattacks(AttackFamily):
    """The attacks of torchattacks."""

    def members(self) -> list[str]:
        library = require(PREFIX, f"{PREFIX}:NAME")
        return [name for name in library.__all__ if name not in WRAPPERS]

    def member(self, name: str) -> type[Attack]:
        return _member(name)


@cache
def _member(name: str) -> type[Attack]:
    """The plugin class of one attack, from the signature and the docstring of the library's class."""
    original = getattr(require(PREFIX, f"{PREFIX}:{name}"), name)
    text = inspect.cleandoc(original.__doc__ or "")
    descriptions = _descriptions(text)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(original.__init__).parameters.values():
        key = parameter.name
        if key in OURS or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        about = descriptions.get(key, f"as in {PREFIX}")
        if key == "n_classes":
            fields[key] = (
                int | None,
                Field(None, ge=2, le=MOST, description=f"{about}; default: as many as the model has"),
            )
        else:
            kind, bounds = _kind(name, key, parameter.default)
            fields[key] = (kind, Field(parameter.default, description=about, **bounds))
    made: type[_Member] = create_model(
        name, __base__=_Member, __module__=__name__, __doc__=_about(name, text), **fields
    )
    made.spec_name = f"{PREFIX}:{name}"
    made.original = name
    made.needs_gradient = name not in WITHOUT_GRADIENT
    return made


def _kind(name: str, key: str, default: Any) -> tuple[Any, dict[str, Any]]:
    """Type and bounds of a parameter, from its default value."""
    if isinstance(default, str):
        choices = CHOICES.get((name, key)) or CHOICES.get(("*", key))
        if choices is None or default not in choices:
            return str, {}
        return Annotated[Literal[choices], BeforeValidator(_spelling(choices))], {}
    if isinstance(default, bool):
        return bool, {}
    if isinstance(default, int) and key not in REAL:
        return int, {"ge": 1, "le": MOST}
    if isinstance(default, int | float):
        return Number, {"ge": 0} if key in NOT_NEGATIVE else {}
    if isinstance(default, tuple):
        return tuple[(int | float,) * len(default)], {}  # type: ignore[misc]
    return Any, {}


def _spelling(choices: tuple[str, ...]) -> Any:
    """``linf`` is accepted for ``Linf``."""
    return lambda value: next((c for c in choices if isinstance(value, str) and c.lower() == value.lower()), value)


def _descriptions(text: str) -> dict[str, str]:
    """``eps (float): maximum perturbation. (Default: 8/255)`` to ``{"eps": "maximum perturbation"}``."""
    descriptions = {}
    for key, about in re.findall(r"^\s+(\w+) ?\([^)]*\) ?: *(.*)$", text, re.MULTILINE):
        said = re.sub(r"\s*(\[[^]]*\]\s*)?(\(?Default:?.*)?$", "", about, flags=re.IGNORECASE)
        descriptions[key] = said.strip().rstrip(".,") or f"as in {PREFIX}"
    return descriptions


def _about(name: str, text: str) -> str:
    """The first paragraph of a docstring, on one line."""
    first = " ".join(text.split("\n\n")[0].split())
    return re.sub(r"\s*(Distance Measure|Arguments|Modified from).*$", "", first) or f"{name} of {PREFIX}."
