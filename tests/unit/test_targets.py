"""Names of cells: what they stand for, and what is said when they stand for nothing."""

from __future__ import annotations

import numpy as np
import pytest

from freqrobust.core.errors import SpecError
from freqrobust.gate.planned import planned
from freqrobust.plugins.selection import parse_attacks, parse_defenses
from freqrobust.results.cell_reference import (
    find,
    reference_to_cell,
    reference_to_worst_case,
    references_in,
    sweep_references,
)
from freqrobust.results.cells import Cell

ATTACKS = ["lfc:radius=12", "pgd:eps=[2/255,8/255],steps=5", "pgd:eps=0.5,norm=l2", "fgsm"]
CELLS = {
    f"{defense}{attack}": 50
    for defense in ("", "smooth:rho=0.5|", "smooth:rho=1|", "lowpass:radius=12+smooth|")
    for attack in (
        "clean",
        "lfc:radius=12",
        "pgd:eps=2/255,steps=5",
        "pgd:eps=8/255,steps=5",
        "pgd:eps=0.5,norm=l2",
        "fgsm",
    )
}


@pytest.fixture(scope="module")
def known(make_report):
    return references_in(make_report({**CELLS, "smooth:rho=0.5|fgsm@oblivious": 70}))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("clean", ["undefended / clean"]),
        ("pgd:eps=8/255", ["undefended / pgd:eps=8/255,steps=5"]),
        ("pgd:eps=0.03137254901960784", ["undefended / pgd:eps=8/255,steps=5"]),
        ("pgd:eps=[2/255,8/255]", ["undefended / pgd:eps=2/255,steps=5", "undefended / pgd:eps=8/255,steps=5"]),
        ("pgd:norm=l2", ["undefended / pgd:eps=0.5,norm=l2"]),
        ("pgd:random_start=true,norm=l2", ["undefended / pgd:eps=0.5,norm=l2"]),
        (
            "pgd",
            [
                "undefended / pgd:eps=2/255,steps=5",
                "undefended / pgd:eps=8/255,steps=5",
                "undefended / pgd:eps=0.5,norm=l2",
            ],
        ),
        ("worst", ["undefended / worst-linf-2/255", "undefended / worst-linf-8/255", "undefended / worst-l2-0.5"]),
        ("worst-l2", ["undefended / worst-l2-0.5"]),
        ("worst-linf-8/255", ["undefended / worst-linf-8/255"]),
        ("smooth:rho=0.5/worst-linf-8/255", ["smooth:rho=0.5 / worst-linf-8/255"]),
        ("smooth:rho=1/clean", ["smooth:rho=1 / clean"]),
        ("smooth/clean", ["smooth:rho=0.5 / clean", "smooth:rho=1 / clean"]),
        ("smooth:rho=0.5/pgd:eps=8/255", ["smooth:rho=0.5 / pgd:eps=8/255,steps=5"]),
        ("lowpass+smooth/fgsm", ["lowpass:radius=12+smooth / fgsm"]),
        ("none/fgsm", ["undefended / fgsm"]),
        (" none / fgsm ", ["undefended / fgsm"]),
        ("smooth/fgsm@oblivious", ["smooth:rho=0.5 / fgsm@oblivious"]),
        ("fgsm@oblivious", ["smooth:rho=0.5 / fgsm@oblivious"]),
        ("sweep", ["undefended / sweep-pgd:steps=5"]),
        ("sweep-pgd", ["undefended / sweep-pgd:steps=5"]),
    ],
)
def test_a_name_stands_for_all_that_it_fits(known, text, names) -> None:
    assert [target.name for target in find(text, known, "threshold")] == names


def test_a_star_is_every_defense(known) -> None:
    assert len(find("*/clean", known, "threshold")) == 4
    assert len(find("*/worst-linf-8/255", known, "threshold")) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pdg", "did you mean 'pgd'?"),
        ("pgd:eps=7/255", "names no cell"),
        ("worst-linf-4/255", "did you mean 'worst-linf-"),
        ("wurst", "did you mean 'worst'?"),
        ("smoooth:rho=0.5/fgsm", "did you mean 'smooth"),
        ("fgsm/smooth", "defenses: undefended, smooth:rho=0.5, smooth:rho=1, lowpass:radius=12+smooth"),
        ("pgd:epz=8/255", "cells: clean, lfc:radius=12"),
        ("pgd:eps=x", "names no cell"),
        ("", "names no cell"),
    ],
)
def test_a_name_of_nothing_is_explained(known, text, said) -> None:
    with pytest.raises(SpecError, match=r"threshold .* names no cell") as error:
        find(text, known, "threshold")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_without_the_undefended_model_a_bare_name_is_of_every_defense(make_report) -> None:
    report = make_report({"smooth|clean": 10, "lowpass:radius=4|clean": 20})
    assert len(find("clean", references_in(report), "threshold")) == 2


def test_what_is_planned_is_what_the_report_has() -> None:
    """By name and by key, for a run with everything: sweeps, two norms, defenses, oblivious cells."""
    import torch
    from torch import nn

    from freqrobust import evaluate

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    images = torch.rand(20, 1, 8, 8)
    attacks = ["lfc:radius=2", "pgd:eps=[0.01,0.05],steps=2", "pgd:eps=0.5,norm=l2,steps=2"]
    chains = parse_defenses(["none", "lowpass:radius=3", "bit-depth:bits=3+lowpass:radius=3"])
    report = evaluate(model, (images, model(images).argmax(1)), attacks=attacks, defenses=chains, device="cpu")
    ahead = planned(chains, parse_attacks(attacks), oblivious=True)
    found = [target for target in references_in(report) if target.what != "sweep"]
    assert {t.key for t in ahead} == {t.key for t in found}
    assert {t.name for t in ahead} == {t.name for t in found}
    assert len({t.key for t in found}) == len(found)


def test_keys_tell_parameters_apart_that_specs_do_not_show(make_report) -> None:
    one = references_in(make_report({"clean": 1, "fgsm": np.ones(100)}))
    two = references_in(make_report({"clean": 1, "fgsm:eps=8/255": np.ones(100)}))
    three = references_in(make_report({"clean": 1, "fgsm:eps=4/255": np.ones(100)}))
    assert [t.key for t in one] == [t.key for t in two]  # the default, given
    assert not {t.key for t in one if t.attack == "fgsm"} & {t.key for t in three}


def test_a_worst_case_is_no_sweep(make_report) -> None:
    report = make_report({"clean": 1, "fgsm:eps=4/255": 1, "pgd:eps=8/255": 1})  # two threats, no sweep
    assert [t.name for t in references_in(report) if t.what == "sweep"] == []
    assert [t.name for t in sweep_references(references_in(report))] == []


@pytest.fixture(scope="module")
def report(make_report):
    return make_report({**CELLS, "smooth:rho=0.5|fgsm@oblivious": 70, "smooth:rho=0.5|lfc:radius=4": 60}, models=2)


@pytest.mark.parametrize(
    ("text", "options", "name"),
    [
        ("clean", {}, "undefended / clean"),
        ("pgd:eps=2/255", {}, "undefended / pgd:eps=2/255,steps=5"),
        ("pgd:eps=8/255,random_start=true", {}, "undefended / pgd:eps=8/255,steps=5"),
        ("smooth:rho=0.5/pgd:eps=2/255", {}, "smooth:rho=0.5 / pgd:eps=2/255,steps=5"),
        ("smooth:rho=0.50/pgd:eps=2/255", {}, "smooth:rho=0.5 / pgd:eps=2/255,steps=5"),
        ("pgd:norm=l2", {"model": 1}, "undefended / pgd:eps=0.5,norm=l2"),
        ("worst-linf-2/255", {}, "undefended / worst-linf-2/255"),
        ("lowpass+smooth/worst-l2", {}, "lowpass:radius=12+smooth / worst-l2-0.5"),
        ("smooth:rho=1.0/worst-l2", {"model": 1}, "smooth:rho=1 / worst-l2-0.5"),
        ("fgsm@oblivious", {}, "smooth:rho=0.5 / fgsm@oblivious"),
        ("smooth:rho=0.5/fgsm@oblivious", {}, "smooth:rho=0.5 / fgsm@oblivious"),
        ("smooth/lfc:radius=4", {}, "smooth:rho=0.5 / lfc:radius=4"),
    ],
)
def test_a_report_takes_the_same_names(report, text, options, name) -> None:
    found = report.cell(text, **options)
    target = reference_to_cell(found) if isinstance(found, Cell) else reference_to_worst_case(found)
    assert target.name == name
    assert found.model == options.get("model", 0)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("pgd", {}, "'pgd' names 3 cells, name one of them: undefended / pgd:eps=2/255,steps=5, undefended / pgd"),
        ("worst", {}, "names 3 cells"),
        ("smooth/clean", {}, "names 2 cells"),
        ("*/clean", {}, "'\\*/clean' names 4 cells, name one of them: undefended / clean, smooth"),
        ("pgd:eps=3/255", {}, "names no cell"),
        ("clean", {"model": 2}, "no cells of a model at position 2"),
        ("jpeg/clean", {}, "names no cell"),
        ("sweep", {}, "names no cell"),
        ("worst@oblivious", {}, "names no cell"),
        (None, {}, "should be text such as 'pgd' or 'smooth/worst', but got NoneType"),
    ],
)
def test_a_report_has_one_cell_for_a_name_or_raises(report, text, options, message) -> None:
    with pytest.raises(KeyError, match=message):
        report.cell(text, **options)


def test_the_plain_spec_is_meant_where_it_is_there(make_report) -> None:
    report = make_report({"fgsm": 50, "fgsm:eps=1/255": 60})
    assert report.cell("fgsm").attack_spec == "fgsm"
