"""``freqrobust list KIND NAME``: everything about one plugin, on one page."""

from __future__ import annotations

import inspect
import re
import shlex
from typing import Any, Literal, get_args, get_origin

from freqrobust.core.text import one_line
from freqrobust.plugins.base import Attack
from freqrobust.plugins.help import field_default, field_type
from freqrobust.plugins.plugin import Plugin
from freqrobust.plugins.registry import Registry

#: What runs a plugin of each kind, on the demo where a model is needed.
COMMANDS = {
    "attacks": "eval --attack {}",
    "certificates": "eval --certify {}",
    "criteria": "eval --attack pgd --criterion {}",
    "defenses": "eval --attack pgd --defense {}",
    "reports": "eval --suite quick --report {}=-",
    "analyses": "analyze {}",
    "methods": "train --method {} --epochs 2",
    "augmentations": "train --augment {} --epochs 2",
    "regularizers": "train --regularizer {} --epochs 2",
    "optimizers": "train --optimizer {} --epochs 2",
    "schedules": "train --schedule {} --epochs 2",
    "experiments": "reproduce {}",
}
#: Plugins for which the command above is not enough: on the demo they can do nothing, or need another option.
OTHER_COMMANDS = {
    ("attacks", "replay"): "eval --model OTHER.pt --data DATA.npz --attack {}",
    ("attacks", "corruption"): "eval --model MODEL.pt --data cifar10 --attack {}",
    ("attacks", "autoattack"): "eval --attack {} --limit 50",
    ("certificates", "smoothing"): "eval --defense randomized-smoothing --certify {} --attack clean --limit 20",
    ("certificates", "band"): "eval --defense lowpass:radius=3 --certify {} --attack clean",
    ("defenses", "jpeg"): "eval --model MODEL.pt --data cifar10 --attack pgd --defense {}",
    ("reports", "html"): "eval --suite quick --report report.html",
    ("analyses", "aum"): "analyze {} --data digits",
}
#: The page of the documentation that is about a kind, and the pages about single plugins.
PAGES = {
    "attacks": "docs/attacks.md",
    "certificates": "docs/certificates.md",
    "criteria": "docs/concepts/threat-models.md",
    "defenses": "docs/reference/defenses.md",
    "reports": "docs/reports.md",
    "analyses": "docs/reading-frequency-results.md",
    "methods": "docs/adversarial-training.md",
    "augmentations": "docs/augmentations.md",
    "regularizers": "docs/augmentations.md",
    "optimizers": "docs/augmentations.md",
    "schedules": "docs/augmentations.md",
}
OTHER_PAGES = {
    ("attacks", "corruption"): "docs/corruptions.md",
    ("defenses", "smooth"): "docs/kernel-smoothing.md",
    ("defenses", "randomized-smoothing"): "docs/certificates.md",
    ("analyses", "robustness-curve"): "docs/robustness-curve.md",
    ("analyses", "aum"): "docs/reproductions/aum.md",
}
_SOURCE = re.compile(r"\s\s\((?P<source>[^()]*(?:\([^()]*\)[^()]*)*)\)\s*$")


def print_plugin_page(console: Any, kind: str, registry: Registry[Any], spec: str) -> None:
    """Print what a plugin does, where it comes from, its threat model, its parameters and a command that runs it.

    Args:
        console: where it is printed.
        kind: the list that it is in.
        registry: the plugins of this kind.
        spec: its name, ``FAMILY:MEMBER``, ``module:attr`` or ``file.py:attr``.

    Raises:
        SpecError: there is no such plugin.
    """
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    name, cls, _, origin = registry.find(spec)
    texts, sources = described(cls)
    console.print(Text.assemble((name, "bold"), f"  ({registry.kind}, {origin})"))
    console.print()
    for text in texts:
        console.print(Padding(Text(text), (0, 0, 1, 2)))
    facts = [("source", "; ".join(sources))] if sources else []
    facts += attack_facts(cls) if issubclass(cls, Attack) else []
    facts.append(("example", example(kind, name, cls)))
    page = documentation(kind, name, origin)
    if page is not None:
        facts.append(("documentation", page))
    if cls.model_fields:
        console.print(Padding(Text("parameters", style="bold"), (0, 0, 0, 2)))
        for key in cls.model_fields:
            default = field_default(cls, key)
            stated = default if default in ("required", "see text") else f"default {default}"
            console.print(Padding(Text.assemble((key, "bold"), f"  {field_type(cls, key)}; {stated}"), (0, 0, 0, 4)))
            about = one_line(cls.model_fields[key].description or "")
            if about:
                console.print(Padding(Text(about), (0, 0, 0, 8)))
        console.print()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("fact", no_wrap=True, style="bold")
    table.add_column("text", overflow="fold")
    for fact, text in facts:
        table.add_row(Text(fact), Text(text))
    console.print(Padding(table, (0, 0, 0, 2)))


def described(cls: type[Plugin]) -> tuple[list[str], list[str]]:
    """The paragraphs of the docstring, and the papers that stand in parentheses at their ends."""
    texts, sources = [], []
    doc = inspect.cleandoc(cls.__doc__ or "")
    for paragraph in re.split(r"\n\s*\n", doc) if doc else []:
        found = _SOURCE.search(paragraph)
        if found is not None:
            sources.append(one_line(found["source"]))
            paragraph = paragraph[: found.start()]
        texts.append(one_line(paragraph).replace("``", ""))
    stated = getattr(cls, "source", None)  # of an experiment
    if isinstance(stated, str) and stated:
        sources.insert(0, one_line(stated))
    return texts, sources


def attack_facts(cls: type[Attack]) -> list[tuple[str, str]]:
    """The threat model of an attack and what it needs of the model."""
    facts = [("threat model", threat_model(cls))]
    if cls.kind == "adversarial":
        needs = "gradients of the model" if cls.needs_gradient else "scores of the model, no gradients"
        facts.append(("needs", f"{needs}{'; a deterministic model' if cls.deterministic_only else ''}"))
        if not cls.any_criterion:
            facts.append(("criterion", "misclassification only"))
    return facts


def threat_model(cls: type[Attack]) -> str:
    """What the perturbations of an attack are limited by, in words."""
    if cls.kind == "shift":
        return "none: a shift, which changes every image in the same way, whatever the model predicts"
    norms = _norms(cls)
    if cls.minimizes is not Attack.minimizes:
        return f"no budget: it minimises the {norms or 'L2'} norm of the perturbation"
    if "eps" in cls.model_fields and norms:
        return f"{norms}, at most eps (default {field_default(cls, 'eps')})"
    return "that of its parameters; see the text"


def _norms(cls: type[Attack]) -> str:
    field = cls.model_fields.get("norm")
    if field is None:
        stated = getattr(cls, "norm", None)
        names = [stated] if isinstance(stated, str) else []
    else:
        names = list(get_args(field.annotation)) if get_origin(field.annotation) is Literal else []
    names = [name.capitalize() for name in map(str, names)]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def example(kind: str, name: str, cls: type[Plugin]) -> str:
    """A command that runs the plugin with its defaults; required parameters have the values of their examples."""
    given = []
    for key, field in cls.model_fields.items():
        if field.is_required():
            value = next(iter(field.examples or ["VALUE"]))
            given.append(f"{value}" if key == cls.positional else f"{key}={value}")
    spec = shlex.quote(f"{name}:{','.join(given)}" if given else name)
    form = OTHER_COMMANDS.get((kind, name), COMMANDS[kind])
    return f"freqrobust {form.format(spec)}"


def documentation(kind: str, name: str, origin: str) -> str | None:
    """The page of the documentation that is about a plugin of freqrobust itself; None for those of others."""
    if not origin.startswith("freqrobust ") and ":" not in name:
        return None
    if kind == "experiments":
        return f"docs/reproductions/{name}.md"
    return OTHER_PAGES.get((kind, name), PAGES[kind])
