"""Every registered attack, third-party ones too, keeps to the rules of ``freqrobust.testing.check_attack``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from freqrobust.plugins.corruption_names import COMMON, EXTRA
from freqrobust.plugins.registry import attacks
from freqrobust.testing import attack_checks
from freqrobust.testing.attack_rules import ATTACKS

# they take minutes; test_autoattack.py and test_aa.py hold them to the same contract
NAMES = [name for name in attacks.names() if name not in ("aa", "autoattack")]
#: Further configurations of attacks, beside their defaults.
VARIANTS = {
    "pgd": [
        {"restarts": 3, "steps": 4},
        {"random_start": False, "steps": 5},
        {"loss": "margin", "steps": 5},
        {"loss": "dlr", "steps": 5},
        {"target": "least-likely", "steps": 5},
        {"target": "next", "steps": 5},
        {"target": "random", "steps": 5},
        {"step_size": 1.0, "steps": 3},
        {"norm": "l1", "eps": 2.0, "steps": 5},
        {"norm": "l1", "eps": 2.0, "steps": 4, "restarts": 2, "sparsity": 0.2},
    ],
    "apgd": [
        {"steps": 5, "targets": 2, "restarts": 2},
        {"steps": 5, "targets": 3, "untargeted": False, "loss": "dlr"},
        {"norm": "l1", "eps": 2.0, "steps": 6, "targets": 1},
        {"norm": "l2", "eps": 0.5, "steps": 6, "random_start": False},
    ],
    "fgsm": [{"norm": "l1", "eps": 2.0}],
    "noise": [{"distribution": "gaussian", "norm": "l2"}, {"distribution": "sign", "norm": "l1"}, {"draws": 1}],
    "lowfreq-pgd": [
        {"radius": 3, "steps": 5},
        {"radius": 3, "low": 1, "shape": "square", "restarts": 2, "steps": 3},
        {"radius": 3, "norm": "l2", "eps": 0.5, "steps": 5, "random_start": False},
    ],
    "square": [{"norm": "l2", "eps": 1.0}, {"norm": "l1", "eps": 6.0}, {"p_init": 0.05, "queries": 1}],
    "fourier": [{"norm": "l2", "eps": 1.0}, {"radius": 2, "directions": 5}],
    "lfc": [{"shape": "square"}, {"clip": True}, {"rescale": "max"}],
    "hfc": [{"shape": "square"}, {"keep_mean": True}],
    "corruption": [
        {"name": name, "severity": severity} for name in COMMON + EXTRA for severity in (2, 5) if name != "saturate"
    ]
    + [{"name": "glass_blur", "constants": "imagenet", "severity": 1}, {"name": "snow", "eight_bit": False}],
    "fourier-noise": [{"l2": 1.0, "clip": True}],
    "filtered-noise": [{"low": 2}, {"high": 3, "shape": "square"}],
    "critical-band": [{"grayscale": False}],
    "hybrid": [{"shape": "square", "clip": True}],
    "phase-swap": [{"keep": "amplitude"}],
}
CASES = [pytest.param(name, {}, id=name) for name in NAMES] + [
    pytest.param(name, given, id=f"{name}-{'-'.join(map(str, given.values()))}")
    for name in NAMES
    for given in VARIANTS.get(name, [])
]


def cases_of(rule: str) -> list[pytest.param]:
    """The attacks and configurations that a rule is checked for: all where that is fast."""
    cases = CASES
    if rule in ("budgets", "goals", "image_shapes"):  # the first sets the budgets itself
        cases = [case for case in CASES if not case.values[1]]
    elif rule == "zero_budget":
        cases = [case for case in CASES if not {"eps", "norm"} & set(case.values[1])]
    elif rule == "batch_sizes":
        # of a shift, `batches` shows for all configurations that the images are the same bits for any split, and then
        # so is all that the harness makes of them
        cases = [c for c in CASES if not c.values[1] or attacks.get(str(c.values[0])).kind == "adversarial"]
    return [
        pytest.param(rule, *case.values, id=f"{rule}-{case.id}", marks=marks(rule, *case.values))
        for case in cases
        if rule in REGARDLESS or may_apply(rule, str(case.values[0]))
        if (rule, case.values[0]) not in EXCEPT
    ]


def marks(rule: str, name: str, given: dict[str, object]) -> list[pytest.MarkDecorator]:
    """Further configurations of attacks, one sample at a time, take half a minute together."""
    several = rule in ("batches", "batch_sizes") and given and attacks.get(name).kind == "adversarial"
    return [pytest.mark.slow] if several else []


#: Replayed examples have the shape that they were saved with.
EXCEPT = {("image_shapes", "replay")}
#: Rules for attacks of all kinds.
REGARDLESS = {"declaration", "output", "randomness", "inputs_untouched", "image_shapes"}


def may_apply(rule: str, name: str) -> bool:
    """Whether a rule applies to a class; parameters decide nothing about it."""
    cls = attacks.get(name)
    if rule in ("batches", "batch_sizes"):
        return cls.batch_invariant
    adversarial = cls.kind == "adversarial"
    if rule == "goals":
        return adversarial
    return "eps" in cls.model_fields and (rule == "zero_budget" or adversarial)


@pytest.mark.parametrize(("rule", "name", "given"), [case for rule in ATTACKS.rules for case in cases_of(rule)])
def test_keeps_the_rule(make, setting, rule, name, given) -> None:
    if name == "fmn":  # its steps end where distances stop falling, which rounding moves on some processors
        setting = replace(setting, exact=False)
    (check,) = [check for check in attack_checks(make(attacks, name, **given), setting) if check.name == rule]
    check()


@pytest.mark.parametrize(("name", "given"), CASES)
def test_has_its_name_and_cannot_be_changed(make, name, given) -> None:
    attack = make(attacks, name, **given)
    plugin_spec = attacks.select(attack)
    assert plugin_spec.name == name
    (again,) = attacks.parse(plugin_spec.spec)
    assert again.params == pytest.approx(plugin_spec.params)
    with pytest.raises(Exception, match="frozen"):
        attack.__setattr__(next(iter(type(attack).model_fields)), 1)
