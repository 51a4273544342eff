"""Every registered defense, third-party ones too, keeps to the rules of ``freqrobust.testing.check_defense``."""

from __future__ import annotations

import pytest
import torch

from freqrobust import evaluate
from freqrobust.harness.defend import defend
from freqrobust.plugins.context import DefenseContext
from freqrobust.plugins.registry import defenses
from freqrobust.testing import defense_checks
from freqrobust.testing.defense_rules import DEFENSES, logits

NAMES = defenses.names()
VARIANTS = {
    "smooth": [
        {"layers": "all", "boundary": "symmetric"},
        {"rho": 0.3, "rescale": True},
        {"rho": 0.3, "recalibrate_bn": True},
    ],
    "lowpass": [{"shape": "square"}],
    "highpass": [{"keep_mean": True}],
    "madry": [{"start": "scratch", "augment": "none"}, {"norm": "l2", "eps": 0.5}],
}
SLOW = ("post-averaging", "randomized-smoothing", "madry")
CASES = [pytest.param(name, {}, id=name) for name in NAMES] + [
    pytest.param(name, given, id=f"{name}-{'-'.join(map(str, given.values()))}")
    for name in NAMES
    for given in VARIANTS.get(name, [])
]


def may_apply(rule: str, name: str) -> bool:
    """Whether a rule applies to a class; parameters decide nothing about it."""
    return rule != "training_data" or defenses.get(name).trains


@pytest.mark.parametrize(
    ("rule", "name", "given"),
    [
        pytest.param(
            rule,
            *case.values,
            id=f"{rule}-{case.id}",
            # several copies of each image, and a network that is trained, take seconds
            marks=[pytest.mark.slow] if rule == "batches" and (case.values[1] or case.values[0] in SLOW) else [],
        )
        for rule in DEFENSES.rules
        for case in CASES
        if may_apply(rule, str(case.values[0]))
    ],
)
def test_keeps_the_rule(make, setting, rule, name, given) -> None:
    (check,) = [check for check in defense_checks(make(defenses, name, **given), setting) if check.name == rule]
    check()


IDENTITIES = {
    "smooth:rho=0": "exact",
    "smooth:rho=0,layers=all,boundary=symmetric": "exact",
    "smooth:rho=0,rescale=true": "exact",
    "lowpass:radius=100": "exact",
    "lowpass:radius=100,shape=square": "exact",
    "highpass:radius=0": "exact",
    "highpass:radius=0,keep_mean=true": "exact",
    "smooth:rho=0+lowpass:radius=100": "exact",
    "undefended": "exact",
}


@pytest.mark.parametrize("spec", IDENTITIES)
def test_identities_change_nothing(network, digits, spec) -> None:
    specs = [] if spec == "undefended" else [spec]
    report = evaluate(network, digits, attacks=["pgd:eps=0.1,steps=3"], defenses=specs, device="cpu")
    base = [cell for cell in report.cells if cell.defense == "undefended"]
    same = [cell for cell in report.cells if cell.defense_spec == spec and cell.knowledge == "adaptive"]
    assert len(base) == len(same) == 2
    for cell in report.cells:  # examples of the undefended model, shown to what is the same model
        if cell.knowledge == "oblivious":
            assert cell.outcomes == base[1].outcomes
    assert [cell.outcomes for cell in base] == [cell.outcomes for cell in same]
    if specs:
        assert all(cell.difference.points == 0 for cell in same)
        from freqrobust.plugins.selection import parse_defenses

        exact, _ = defend(network, parse_defenses(specs)[0], DefenseContext())
        assert torch.equal(logits(exact, digits), logits(network, digits))


@pytest.mark.parametrize(("name", "given"), CASES)
def test_has_its_name(make, name, given) -> None:
    plugin_spec = defenses.select(make(defenses, name, **given))
    assert plugin_spec.name == name
    (again,) = defenses.parse(plugin_spec.spec)
    assert again.params == plugin_spec.params


@pytest.mark.parametrize("name", [name for name in NAMES if defenses.get(name).trains])
def test_without_training_data_the_error_says_what_to_give(network, digits, name) -> None:
    with pytest.raises(Exception, match=f"{name}.* needs training data: give --train-data"):
        evaluate(network, digits, attacks=["clean"], defenses=[name], device="cpu")


def test_chains_apply_the_left_one_first(network, digits) -> None:
    """``smooth + lowpass``: the kernels are smoothed, then the filter is put in front."""
    from freqrobust.plugins.selection import parse_defenses

    chain = parse_defenses(["smooth:rho=0.5+lowpass:radius=2"])[0]
    exact, attackable = defend(network, chain, DefenseContext())
    assert exact is attackable
    smoothed = defenses.parse("smooth:rho=0.5")[0].plugin.apply(network, DefenseContext())
    images, _, _ = digits.batch(torch.arange(len(digits)), torch.device("cpu"))
    with torch.no_grad():
        expected = smoothed(defenses.parse("lowpass:radius=2")[0].plugin.transform(images))
    assert torch.equal(logits(exact, digits), expected)
    assert chain.name == "smooth+lowpass"
    assert chain.params["smooth.rho"] == 0.5
    assert chain.params["lowpass.radius"] == 2
