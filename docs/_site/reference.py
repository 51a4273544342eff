"""Write docs/reference/*.md: one page for each kind of plugin, with all parameters, and one with all options.

    python docs/_site/reference.py

The pages are committed, so that the site is built without torch; a test compares them with the code.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from freqrobust.core.config import AnalyzeConfig, EvalConfig
from freqrobust.core.text import one_line
from freqrobust.core.training_config import TrainConfig
from freqrobust.experiments.experiment import experiments
from freqrobust.harness.analysis import analyses
from freqrobust.plugins import registry
from freqrobust.plugins.help import field_default, field_type
from freqrobust.plugins.registry import Registry
from freqrobust.results.reporter import reports

OUT = Path(__file__).resolve().parents[1] / "reference"
EDITED = "<!-- Written by docs/_site/reference.py. -->\n"

#: For each kind: the title of its page, what its plugins do, and a page that says more.
KINDS: list[tuple[Registry[Any], str, str, str]] = [
    (registry.attacks, "Attacks", "`--attack SPEC`, in Python `attacks=[SPEC]`.", "attacks"),
    (registry.defenses, "Defenses", "`--defense SPEC`, in Python `defenses=[SPEC]`.", "writing-a-defense"),
    (registry.certificates, "Certificates", "`--certify SPEC`, in Python `certify=[SPEC]`.", "certificates"),
    (registry.criteria, "Criteria", "`--criterion SPEC`: when an example is adversarial.", "attacks"),
    (reports, "Reports", "`--report SPEC` and `freqrobust report --as SPEC`.", "reports"),
    (analyses, "Analyses", "`freqrobust analyze NAME`, in Python `analyze(NAME, ...)`.", "reading-frequency-results"),
    (registry.methods, "Training methods", "`freqrobust train --method SPEC`.", "adversarial-training"),
    (registry.augmentations, "Augmentations", "`freqrobust train --augment SPEC`.", "augmentations"),
    (registry.regularizers, "Regularizers", "`freqrobust train --regularizer SPEC`.", "augmentations"),
    (registry.optimizers, "Optimizers", "`freqrobust train --optimizer SPEC`.", "augmentations"),
    (registry.schedules, "Schedules", "`freqrobust train --schedule SPEC`.", "augmentations"),
    (experiments, "Experiments", "`freqrobust reproduce NAME`.", "reproductions"),
]
CONFIGS = [
    (EvalConfig, "evaluate", "`freqrobust eval` and `freqrobust.evaluate`"),
    (AnalyzeConfig, "analyze", "`freqrobust analyze` and `freqrobust.analyze`"),
    (TrainConfig, "train", "`freqrobust train` and `freqrobust.train`"),
]


def pages() -> dict[str, str]:
    """The text of every generated page, by its file name."""
    written = {f"{kind.plural}.md": kind_page(kind, *about) for kind, *about in KINDS}
    written["options.md"] = options_page()
    return written


def kind_page(plugins: Registry[Any], title: str, use: str, more: str) -> str:
    ours = [name for name in plugins.names() if plugins.origin(name).startswith("freqrobust ")]
    parts = [f"# {title}\n{EDITED}", f"{use} See [{more}.md](../{more}.md)."]
    for name in ours:
        cls = plugins.get(name)
        source = getattr(cls, "source", "")
        parts.append(f"## `{name}`")
        parts.append(prose(inspect.cleandoc(cls.__doc__ or "")))
        if isinstance(source, str) and source:
            parts.append(f"Source: {source}.")
        parts.append(f"Class: `{cls.__module__}.{cls.__qualname__}`.")
        if cls.model_fields:
            parts.append(table(cls))
    for family in plugins.families():
        parts += [f"## `{family}:NAME`", prose(inspect.cleandoc(type(plugins.family(family)).__doc__ or ""))]
    return "\n\n".join(parts) + "\n"


def options_page() -> str:
    parts = [
        f"# Options\n{EDITED}",
        "An option is declared once: it is a flag, an argument in Python and a key of a file.",
    ]
    for cls, anchor, title in CONFIGS:
        parts += [f"## {title} {{#{anchor}}}", table(cls)]
    return "\n\n".join(parts) + "\n"


def table(cls: type[Any]) -> str:
    rows = ["| parameter | type | default | |", "|---|---|---|---|"]
    for name, field in cls.model_fields.items():
        about = prose(one_line(field.description or ""))
        rows.append(f"| {' | '.join(map(cell, (f'`{name}`', kind(cls, name), default(cls, name), about)))} |")
    return "\n".join(rows)


def kind(cls: type[Any], name: str) -> str:
    """Type and range, without the largest numbers of 64 bits and the type of what Python alone can pass."""
    text = re.sub(r" and <= 9223372036854775807| >= -9223372036854775808", "", field_type(cls, name))
    return "spec or object" if text == "Any" else text


def default(cls: type[Any], name: str) -> str:
    field = cls.model_fields[name]
    if not field.is_required() and (field.default_factory is not None or field.default in (None, [], ())):
        return ""
    if isinstance(field.default, list | tuple) and len(field.default) == 1:
        return str(field.default[0])
    return field_default(cls, name)


def cell(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("|", "\\|")).strip()


def prose(text: str) -> str:
    """A docstring as Markdown: roles become code, and sections such as ``Raises:`` lists."""
    text = re.sub(r":(?:class|func|meth|mod|data|attr):`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return re.sub(r"^(Args|Raises|Returns|Example|Note):$", r"**\1:**\n", text, flags=re.MULTILINE)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for page, text in pages().items():
        (OUT / page).write_text(text, encoding="utf-8")
