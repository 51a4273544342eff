"""``freqrobust init``: a commented project file, and a CI workflow that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.core.text import near_miss, one_line, print_line
from freqrobust.gate.project import NAME, UPDATE_COMMAND

if TYPE_CHECKING:
    from freqrobust.gate.budgets import Chosen

BASELINE = "robustness-baseline.json"
INSTALL = "python -m pip install -r requirements.txt"
PROJECT = """\
# What `freqrobust check` evaluates, and what the result is compared with. Paths are relative to this file.
#
#   freqrobust check                     run the evaluation; exit code 1 if the gate fails
#   freqrobust check --update-baseline   replace the baseline by the new report, and show the differences
#   freqrobust check --sequential        check only the thresholds, with as few samples as possible

# The options of `freqrobust eval`.
[eval]
model = {model}
# The normalisation is fixed here, so that it cannot change together with the checkpoint:
# a preset (imagenet, cifar10, half, ...), "none", or "m1,m2,m3/s1,s2,s3".
normalize = {normalize}
# arch = "resnet20"                      # if the architecture is not recognised; or "file.py:factory"

data = {data}
# limit = 500                            # samples drawn with the seed, with the same share of each class
{attacks}
# defenses = ["smooth:rho=0.1"]          # the model is also evaluated with each of these
seed = 0

[gate]
# The report with which a new one is compared. Keep it under version control.
baseline = "{baseline}"
# The cells that can fail the gate; all others are only shown. "default" is the clean accuracy, the
# low-frequency component at radius 12 and the worst case per threat. Others: "pgd:eps=2/255", "smooth/worst",
# "sweep-pgd" (the smallest eps at which each sample is misclassified).
cells = ["default"]
alpha = 0.05                             # probability of a false alarm, over all gate cells together
max-drop = 0.01                          # a smaller drop is allowed, even if it is significant
# confident = true                       # compare the lower end of the 95 % interval with [thresholds]

# [gate.max-drops]
# clean = 0.005

# The accuracy that a cell has to reach, with or without a baseline.
[thresholds]
# clean = 0.9
# "pgd:eps=2/255" = 0.45

# The probabilities that `--sequential` decides differently than all samples would.
[sequential]
false-pass = 0.05
false-fail = 0.05
"""
QUICK = 'suite = "quick"                          # or attacks = ["pgd:eps=[1/255,2/255],steps=20"]'
GITHUB = """\
# Fails when a change makes the model less robust than {baseline}.
name: robustness
on: [pull_request]

jobs:
  robustness:
    runs-on: ubuntu-latest
    timeout-minutes: 60
    steps:
      - uses: actions/checkout@v4
        with:
          lfs: true  # checkpoints
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
          cache: pip
      - run: {install}  # the requirements include freqrobust
      - uses: actions/cache@v4  # finished cells are not measured again
        with:
          path: |
            .freqrobust
            runs
          key: freqrobust-${{{{ github.sha }}}}
          restore-keys: freqrobust-
      - run: freqrobust check --json robustness.json --report markdown=robustness.md --report junit=robustness.xml
        env:
          FREQROBUST_CACHE: .freqrobust
      - run: cat robustness.md >> "$GITHUB_STEP_SUMMARY"
        if: ${{{{ !cancelled() && hashFiles('robustness.md') != '' }}}}
      - uses: actions/upload-artifact@v4
        if: ${{{{ !cancelled() }}}}
        with:
          name: robustness
          path: robustness.*
          if-no-files-found: ignore
"""
GITLAB = """\
# Fails when a change makes the model less robust than {baseline}.
# Include it in .gitlab-ci.yml with:  include: ".gitlab/robustness.yml"
robustness:
  image: python:3.11
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
  timeout: 1h
  variables:
    FREQROBUST_CACHE: .freqrobust
    PIP_CACHE_DIR: .pip
  cache:  # finished cells are not measured again
    key: freqrobust
    paths: [.freqrobust, .pip, runs]
  script:
    - {install}  # the requirements include freqrobust
    - freqrobust check --json robustness.json --report markdown=robustness.md --report junit=robustness.xml
  artifacts:
    when: always
    paths: [robustness.json, robustness.md]
    reports:
      junit: robustness.xml
"""
#: Where the workflow of each CI system goes, and what is in it.
WORKFLOWS = {
    "github": (Path(".github/workflows/robustness.yml"), GITHUB),
    "gitlab": (Path(".gitlab/robustness.yml"), GITLAB),
}


def workflow(ci: str) -> str:
    """The workflow of a CI system."""
    return WORKFLOWS[ci][1].format(baseline=BASELINE, install=INSTALL)


def project_text(model: str, normalize: str, data: str, chosen: Chosen | None = None) -> str:
    """A commented project file, with the attacks that were chosen by measuring."""
    texts = {key: _quoted(value) for key, value in (("model", model), ("normalize", normalize), ("data", data))}
    return PROJECT.format(**texts, baseline=BASELINE, attacks=_attacks(chosen))


def _attacks(chosen: Chosen | None) -> str:
    """The line of the attacks, with the accuracies that were measured."""
    lines = []
    if chosen is not None:
        lines = ["# Measured by `freqrobust init`; gate cells with an accuracy from 20 to 80 % can drop and rise:"]
        lines += [f"#   {one_line(comment)}" for comment in chosen.comments]
        lines += [f"# warning: {one_line(warning)}" for warning in chosen.warnings]
    if chosen is None or not chosen.attacks:
        return "\n".join([*lines, QUICK])
    specs = "".join(f"    {_quoted(spec)},\n" for spec in chosen.attacks)
    return "\n".join([*lines, f"attacks = [\n{specs}]"])


def _quoted(text: str) -> str:
    """A TOML string."""
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise SpecError(f"{text!r} has control characters, which {NAME} cannot contain")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def execute(
    *,
    model: str,
    data: str | None,
    normalize: str | None,
    ci: str,
    measure: bool = True,
    norms: Sequence[str] = ("linf",),
) -> int:
    """One ``freqrobust init``; the exit code.

    Raises:
        FreqRobustError: a file is there already, or the model cannot be loaded.
    """
    from freqrobust.cli.lines import first_line
    from freqrobust.core.files import check_writable, write_atomically

    if ci not in (*WORKFLOWS, "none"):
        raise SpecError(f"unknown CI system {ci!r}{near_miss(ci, WORKFLOWS)} ({', '.join(WORKFLOWS)} or none)")
    if data is None and model != "demo":
        raise SpecError("init with --model also needs --data, for example --data test.npz")
    files = {Path(NAME): ""}
    if ci != "none":
        files[WORKFLOWS[ci][0]] = workflow(ci)
    for path in files:
        if path.exists() or path.is_symlink():
            raise SpecError(f"{path} already exists, and init never overwrites a file; nothing was written")
        check_writable(path)
    project_text(
        model, normalize or "none", data or "digits"
    )  # says what cannot be written before anything is measured
    pinned, chosen = normalize, None
    if measure:
        first_line("measuring", [model], data or "digits", quiet=False)
        pinned, chosen = _measured(model, data or "digits", normalize, norms)
    files[Path(NAME)] = project_text(model, pinned or _pinned(model, data), data or "digits", chosen)
    for path, text in files.items():
        write_atomically(path, text)
    for line in [*_measurement(chosen), *_undetectable(), *map("written: {}".format, files)]:
        print_line(line)
    print_line(f"next: edit {NAME}, then run {UPDATE_COMMAND} and keep {BASELINE} under version control")
    return 0


def _measured(model: str, data: str, normalize: str | None, norms: Sequence[str]) -> tuple[str, Chosen]:
    """The normalisation, and the cells of the gate.

    Raises:
        FreqRobustError: the model or the data cannot be loaded or measured.
    """
    import torch

    from freqrobust.core.config import EvalConfig
    from freqrobust.gate.budgets import check_norms, choose
    from freqrobust.harness.inputs import open_inputs

    check_norms(norms)
    try:
        (loaded,), images = open_inputs([model], data, EvalConfig(normalize=[normalize or "auto"]), torch.device("cpu"))
        assert images is not None  # it is given
        chosen = choose(loaded, images, norms)
    except FreqRobustError as error:
        raise SpecError(f"{error} (init measures the model; --no-measure writes the file without)") from error
    return normalize or ("none" if model == "demo" else str(loaded.normalization)), chosen


def _measurement(chosen: Chosen | None) -> list[str]:
    """What was measured and chosen, as lines for the screen."""
    if chosen is None:
        return []
    attacks = ", ".join(chosen.attacks) if chosen.attacks else "the suite quick"
    lines = [f"measured {line}" for line in chosen.comments]
    return [one_line(line) for line in (*lines, f"chosen: {attacks}", *(f"warning: {w}" for w in chosen.warnings))]


def _undetectable() -> list[str]:
    """For which gate cells of the project no regression can be detected, if it has a baseline already."""
    if not Path(BASELINE).is_file():
        return [f"{UPDATE_COMMAND} also lists the gate cells for which no regression can be detected"]
    from freqrobust.gate.project import read_project
    from freqrobust.gate.regression import undetectable_cells
    from freqrobust.results.report import Report

    try:
        return [
            one_line(line) for line in undetectable_cells(Report.from_json(BASELINE), read_project(Path(NAME)).rules)
        ]
    except FreqRobustError as error:  # a baseline of something else: check says what is wrong with it
        return [one_line(f"{BASELINE} already exists, but cannot be used: {error}")]


def _pinned(model: str, data: str | None) -> str:
    """The normalisation that is recognised from the model, as a value that does not depend on recognition."""
    if model == "demo":
        return "none"
    import torch

    from freqrobust.core.config import EvalConfig
    from freqrobust.harness.inputs import open_inputs

    (network,), _ = open_inputs([model], data, EvalConfig(), torch.device("cpu"))
    return str(network.normalization)
