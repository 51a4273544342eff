"""What the shell completes: the values of options and arguments.

Names are read from the entry points of installed packages; no plugin is imported, and neither is torch.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from typing import Any

#: The variable by which a shell asks for completions, and those in which it passes the command line.
REQUEST, WORDS, CURRENT, ARGUMENTS = (
    "_FREQROBUST_COMPLETE",
    "COMP_WORDS",
    "COMP_CWORD",
    "_TYPER_COMPLETE_ARGS",
)
#: The lists of ``freqrobust list`` whose entries are plugins, by their entry-point groups.
PLUGINS = (
    "attacks",
    "certificates",
    "criteria",
    "defenses",
    "reports",
    "analyses",
    "methods",
    "augmentations",
    "regularizers",
    "optimizers",
    "schedules",
    "experiments",
)
OTHERS = ("recipes", "suites", "models", "archs", "datasets")


def completing() -> bool:
    """Whether a shell asks for completions, instead of running a command."""
    return os.environ.get(REQUEST, "").startswith("complete_")


def words_so_far() -> list[str]:
    """The arguments that are on the command line before the one that is completed."""
    if os.environ.get(REQUEST) == "complete_bash":
        words = _split(os.environ.get(WORDS, ""))
        given = os.environ.get(CURRENT, "")
        return words[1 : int(given) if given.isascii() and given.isdigit() else len(words)]
    text = os.environ.get(ARGUMENTS, "")
    words = _split(text)[1:]
    return words if text.endswith(" ") else words[:-1]


def _split(text: str) -> list[str]:
    """The words of a command line; the last one may be incomplete, with a quote that is still open."""
    for closing in ("", "'", '"'):
        try:
            return shlex.split(text + closing)
        except ValueError:
            continue
    return text.split()


def plugins(kind: str) -> Callable[[str], list[str]]:
    """A function that completes names of plugins of one kind, ``kind`` as of ``freqrobust list``."""
    return lambda incomplete: _beginning(plugin_names(kind), incomplete)


def plugin_names(kind: str) -> list[str]:
    """The names of the plugins of a kind, and of their families, each with a colon."""
    from importlib.metadata import entry_points

    names = {entry.name for entry in entry_points(group=f"freqrobust.{kind}")}
    families = (
        {entry.name for entry in entry_points(group="freqrobust.attack_families")} if kind == "attacks" else set()
    )
    return [*sorted(names), *(f"{family}:" for family in sorted(families))]


def recipes(incomplete: str) -> list[str]:
    """Names of recipes."""
    from freqrobust.training.recipes import recipe_names

    return _beginning(recipe_names(), incomplete)


def suites(incomplete: str) -> list[str]:
    """Names of suites."""
    from freqrobust.plugins.suites import SUITES

    return _beginning(SUITES, incomplete)


def datasets(incomplete: str) -> list[str]:
    """Names of datasets that need no path, and of forms that take one."""
    return _beginning(DATASETS, incomplete)


def archs(incomplete: str) -> list[str]:
    """Names of architectures."""
    return _beginning(ARCHS, incomplete)


def models(incomplete: str) -> list[str]:
    """The beginnings of model specs; the shell adds the names of files."""
    return _beginning(MODELS, incomplete)


def lists(incomplete: str) -> list[str]:
    """What ``freqrobust list`` takes."""
    return _beginning([*PLUGINS, *OTHERS], incomplete)


def list_entries(ctx: Any, incomplete: str) -> list[str]:
    """The entries of the list that was named before."""
    what = ctx.params.get("what")
    if what in PLUGINS:
        return _beginning(plugin_names(what), incomplete)
    others: dict[str, Callable[[str], list[str]]] = {
        "recipes": recipes,
        "suites": suites,
        "models": models,
        "archs": archs,
        "datasets": datasets,
    }
    return others[what](incomplete) if what in others else []


def codes(incomplete: str) -> list[str]:
    """What ``freqrobust explain`` explains."""
    from freqrobust.results.explanations import EXPLANATIONS
    from freqrobust.results.glossary import defined

    return _beginning([*EXPLANATIONS, *(name for term in defined() for name in term.names())], incomplete)


def choices(values: Iterable[str]) -> Callable[[str], list[str]]:
    """A function that completes one of a few values."""
    known = list(values)
    return lambda incomplete: _beginning(known, incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


DATASETS = (
    "digits",
    "cifar10",
    "cifar100",
    "mnist",
    "fashion_mnist",
    "svhn",
    "imagenet",
    "folder:",
    "cifar10c:",
    "cifar100c:",
    "imagenetc:",
    "robustbench:",
)
ARCHS = (
    "auto",
    "resnet8",
    "resnet14",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "cifar_resnet18",
    "preact_resnet32",
    "small_cnn",
    "torchvision:",
)
MODELS = ("demo", "torchvision:", "timm:", "robustbench:")

#: What completes the values of an option, by its name in the classes of options.
VALUES: dict[str, Callable[[str], list[str]]] = {
    "attacks": plugins("attacks"),
    "defenses": plugins("defenses"),
    "certify": plugins("certificates"),
    "criterion": plugins("criteria"),
    "reports": lambda incomplete: [f"{name}=" for name in plugins("reports")(incomplete)],
    "analysis": plugins("analyses"),
    "method": plugins("methods"),
    "augment": plugins("augmentations"),
    "regularizer": plugins("regularizers"),
    "optimizer": plugins("optimizers"),
    "schedule": plugins("schedules"),
    "name": plugins("experiments"),
    "train_shift": plugins("attacks"),
    "probe": plugins("attacks"),
    "suite": suites,
    "recipe": recipes,
    "model": models,
    "arch": archs,
    "data": datasets,
    "train_data": datasets,
    "device": choices(["auto", "cpu", "cuda", "mps"]),
    "precision": choices(["fp32", "bf16"]),
    "split": choices(["test", "train"]),
    "normalize": choices(["auto", "none", "imagenet", "cifar10", "cifar100", "half"]),
    "labels": choices(["true", "shuffled", "corrupted:p="]),
    "pixels": choices(["true", "shuffled", "random", "gaussian"]),
    "scale": choices(["digits", "cpu", "paper"]),
}
