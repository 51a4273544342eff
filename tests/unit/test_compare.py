"""Two reports in, a comparison out: what is paired, what is judged, and what is said."""

from __future__ import annotations

import numpy as np
import pytest

from freqrobust.core.errors import GateError, SpecError
from freqrobust.gate.pairing import model_pairs
from freqrobust.gate.regression import CHURN, Rules, compare, expected_drop, undetectable_cells
from freqrobust.numerics.statistics import detectable_drop, holm, mcnemar, sign_flip
from freqrobust.results.diagnosis import Diagnosis
from freqrobust.results.summary import headline_radius

N = 200


def shifted(lost: int, gained: int, right: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes before and after, with so many lost and gained."""
    before = np.arange(N) < right
    after = before.copy()
    after[:lost] = False
    after[right : right + gained] = True
    return before, after


@pytest.fixture
def pair(make_report):
    """Two reports from ``{cell: (before, after)}``."""

    def make(cells, **changes):
        old, new = ({name: found[i] for name, found in cells.items()} for i in (0, 1))
        return make_report(old, N), make_report(new, N, **changes)

    return make


def row(comparison, name):
    return next(r for r in comparison.rows if r.name == name)


def test_what_is_judged_and_how(pair) -> None:
    cells = {
        "clean": shifted(12, 2),
        "lfc:radius=12": shifted(5, 5),
        "lfc:radius=4": shifted(40, 0),
        "pgd:eps=8/255": shifted(30, 4),
    }
    found = compare(*pair(cells), name="before.json")
    assert not found.passed
    judged = ["undefended / worst-linf-8/255", "undefended / clean", "undefended / lfc:radius=12"]
    assert [r.name for r in found.rows] == [*judged, "undefended / lfc:radius=4", "undefended / pgd:eps=8/255"]
    assert [r.passed for r in found.rows] == [False, False, True, None, None]
    p_values = [mcnemar(30, 4), mcnemar(12, 2), mcnemar(5, 5)]
    assert [r.p_value for r in found.rows[:3]] == pytest.approx(p_values)
    assert [r.p_adjusted for r in found.rows[:3]] == pytest.approx(holm(p_values))
    clean = row(found, "undefended / clean")
    assert (clean.newly_misclassified, clean.newly_correct, clean.n) == (12, 2, N)
    assert (clean.baseline, clean.new) == (0.75, 0.70)
    assert clean.measured == pytest.approx(0.05)
    assert clean.required == 0.01
    assert clean.churn == CHURN  # two of 200 improved
    assert clean.minimum_detectable_drop == detectable_drop(N, 0.05 / 3, CHURN, 0.8)
    assert row(found, "undefended / lfc:radius=12").churn == 5 / N
    assert row(found, "undefended / lfc:radius=4").p_adjusted is None
    assert found.models == ["resnet20 (net0.pt) -> resnet20 (net0.pt), paired by fingerprint"]
    assert found.notes == []


def test_a_drop_has_to_be_both_significant_and_large(pair) -> None:
    small_but_sure = pair({"clean": shifted(5, 0)})
    assert compare(*small_but_sure, Rules(("clean",), max_drop=0.02)).rows[0].p_adjusted == pytest.approx(1 / 32)
    assert not compare(*small_but_sure, Rules(("clean",), max_drop=0.02)).passed  # 2.5 points
    assert compare(*small_but_sure, Rules(("clean",), max_drop=0.025)).passed  # no more than allowed
    assert compare(*small_but_sure, Rules(("clean",), alpha=0.03)).passed
    large_but_unsure = pair({"clean": shifted(30, 20)})
    assert compare(*large_but_unsure, Rules(("clean",))).passed
    better = pair({"clean": shifted(0, 30)})
    assert compare(*better, Rules(("clean",))).passed


def test_more_gate_cells_make_each_stricter(pair) -> None:
    cells = {"clean": shifted(7, 1), **{f"lfc:radius={r}": shifted(0, 0) for r in (4, 8, 12, 16)}}
    assert mcnemar(7, 1) < 0.05 < 5 * mcnemar(7, 1)
    assert not compare(*pair(cells), Rules(("clean",))).passed
    assert compare(*pair(cells), Rules(("clean", "lfc"))).passed


def test_limits_of_single_cells(pair) -> None:
    cells = {"clean": shifted(20, 0), "pgd:eps=8/255": shifted(20, 0), "lfc:radius=4": shifted(20, 0)}
    allowed = Rules(("clean",), max_drops=(("clean", 0.2), ("pgd", 0.05)))
    found = compare(*pair(cells), allowed)
    assert row(found, "undefended / clean").passed
    assert row(found, "undefended / pgd:eps=8/255").passed is False  # declared by its own limit
    assert row(found, "undefended / lfc:radius=4").passed is None
    later = Rules(("clean",), max_drops=(("clean", 0.01), ("clean", 0.2)))
    assert compare(*pair(cells), later).passed


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (("clena",), "gate cell 'clena' names no cell; did you mean 'clean'?"),
        (("smooth/clean",), "gate cell 'smooth/clean' names no cell"),
    ],
)
def test_gate_cells_that_are_not_there(pair, rules, said) -> None:
    with pytest.raises(SpecError, match=said.replace("?", r"\?")):
        compare(*pair({"clean": shifted(0, 0)}), Rules(rules))


def test_limits_that_name_nothing(pair) -> None:
    with pytest.raises(SpecError, match="max-drop 'pgd' names no cell"):
        compare(*pair({"clean": shifted(0, 0)}), Rules(max_drops=(("pgd", 0.1),)))


@pytest.mark.parametrize(
    ("rules", "said"), [({"alpha": 0.0}, "alpha"), ({"alpha": 1.0}, "alpha"), ({"max_drop": 3.0}, "mean 0.03")]
)
def test_rules_out_of_range(rules, said) -> None:
    with pytest.raises(SpecError, match=said):
        Rules(**rules)


def test_the_sweep_sees_below_the_floor(pair) -> None:
    """At no single eps anything moves much, and at the largest the accuracy is zero before and after."""
    generator = np.random.default_rng(0)
    breaking = generator.integers(0, 6, size=N)  # of the levels 1/255 to 6/255, how many are survived
    earlier = np.maximum(breaking - (generator.random(N) < 0.12), 0)
    specs = [f"pgd:eps={k}/255,steps=5" for k in range(1, 7)]
    cells = {"clean": shifted(0, 0)}
    cells |= {spec: (breaking > k, earlier > k) for k, spec in enumerate(specs)}
    found = compare(*pair(cells), Rules(("clean", "sweep")))
    sweep = row(found, "undefended / sweep-pgd:steps=5")
    difference = breaking - earlier
    assert sweep.test == "sign-flip"
    assert sweep.p_value == pytest.approx(sign_flip({1: int(difference.sum()), 0: N - int(difference.sum())}))
    assert (sweep.newly_misclassified, sweep.newly_correct) == (int(difference.sum()), 0)
    assert sweep.baseline == pytest.approx(breaking.mean() / 6)
    assert sweep.measured == pytest.approx(difference.mean() / 6)
    assert sweep.passed is False
    assert sweep.minimum_detectable_drop is None
    assert not (breaking > 5).any()


def test_a_sweep_counts_up_to_the_first_break(pair) -> None:
    """A sample that holds again at a larger eps is broken all the same."""
    holds = {1: [1, 1, 0], 2: [0, 1, 0], 3: [1, 1, 0]}  # three samples at eps 1, 2, 3 /255
    before = {f"fgsm:eps={k}/255": np.resize(np.array(v, bool), N) for k, v in holds.items()}
    after = {spec: np.zeros(N, dtype=bool) for spec in before}
    cells = {spec: (before[spec], after[spec]) for spec in before}
    sweep = row(compare(*pair(cells), Rules(("sweep",))), "undefended / sweep-fgsm")
    survived = np.resize([1, 3, 0], N)
    assert sweep.baseline == pytest.approx(survived.mean() / 3)


def test_oblivious_cells_are_paired_with_oblivious_ones(pair) -> None:
    cells = {
        "clean": shifted(0, 0),
        "smooth|clean": shifted(0, 0),
        "smooth|fgsm": shifted(0, 0, right=20),
        "smooth|fgsm@oblivious": shifted(60, 0),
    }
    found = compare(*pair(cells))
    assert row(found, "smooth / fgsm@oblivious").passed is None
    assert row(found, "smooth / fgsm@oblivious").newly_misclassified == 60
    assert row(found, "smooth / fgsm").newly_misclassified == 0
    assert not compare(*pair(cells), Rules(("smooth/fgsm@oblivious",))).passed


def test_the_same_attack_with_other_parameters_is_another_cell(make_report) -> None:
    old = make_report({"clean": 100, "pgd:eps=8/255,steps=10": 50}, N)
    new = make_report({"clean": 100, "pgd:eps=8/255,steps=20": 40}, N)
    found = compare(old, new)
    assert [r.name for r in found.rows] == ["undefended / clean"]
    assert found.notes == [
        "cells missing in the new report: undefended / pgd:eps=8/255,steps=10",
        "cells missing in the baseline: undefended / pgd:eps=8/255,steps=20",
        "undefended / worst-linf-8/255 is not compared: the two reports have no attack in common",
    ]
    with pytest.raises(GateError, match="worst-linf-8/255 is not compared: the two reports have no attack in common"):
        compare(old, new, Rules(("clean", "worst")))
    with pytest.raises(GateError, match=r"strict: .* differ: cells missing"):
        compare(old, new, Rules(strict=True))


def test_a_stronger_attack_in_the_new_report_is_no_regression(make_report) -> None:
    """The worst case is then taken over the attacks that both have."""
    old = make_report({"clean": 150, "fgsm:eps=8/255": 100}, N)
    new = make_report({"clean": 150, "fgsm:eps=8/255": 99, "pgd:eps=8/255": 0}, N)
    found = compare(old, new)
    worst = row(found, "undefended / worst-linf-8/255")
    assert (worst.baseline, worst.new, worst.newly_misclassified) == (0.5, 0.495, 1)
    assert found.passed
    assert "undefended / worst-linf-8/255 is compared over the attacks that both reports contain" in found.notes


def test_failed_cells(make_report) -> None:
    """One that is information is said; one that is judged cannot be."""
    good, bad = (
        make_report({"clean": 100, "fgsm": 50}, N),
        make_report({"clean": 100, "fgsm": None}, N, status="partial"),
    )
    for old, new, where in ((good, bad, "the new report"), (bad, good, "the baseline")):
        found = compare(old, new, Rules(("clean",)))
        assert [r.name for r in found.rows] == ["undefended / clean"]
        assert f"undefended / fgsm failed in {where}" in found.notes
        with pytest.raises(GateError, match=f"the gate cell undefended / fgsm failed in {where}: it broke"):
            compare(old, new, Rules(("fgsm",)))


def test_conditions_that_differ_are_said_and_with_strict_an_error(make_report) -> None:
    old = make_report({"clean": 100}, N)
    environment = {"python": "3.12", "torch": "3", "device": "cuda", "precision": "bf16"}
    new = make_report({"clean": 100}, N, seed=1, freqrobust_version="9", environment=environment)
    notes = compare(old, new).notes
    assert notes == [
        "seed: 0 in the baseline, 1 in the new report",
        "freqrobust version: 0.1.0 in the baseline, 9 in the new report",
        "torch version: 2 in the baseline, 3 in the new report",
        "device: cpu in the baseline, cuda in the new report",
        "precision: fp32 in the baseline, bf16 in the new report",
    ]
    with pytest.raises(GateError, match="seed: 0 in the baseline, 1 in the new report"):
        compare(old, new, Rules(strict=True))
    assert compare(old, old, Rules(strict=True)).passed


def test_checks_that_only_one_report_ran_are_said(make_report) -> None:
    """What a diagnosis breaks counts in the worst case, so that one cannot be held against none."""
    old, new = make_report({"clean": 100}, N), make_report({"clean": 100}, N)
    found = Diagnosis(
        defense="undefended",
        defense_spec="undefended",
        defense_params={},
        verdict="no problem found",
        sentence="",
        depth="full",
        checks=[],
    )
    new.diagnostics = [found]
    assert "diagnosis: none in the baseline, full in the new report" in compare(old, new, Rules()).notes
    old.diagnostics = [found]
    assert not [note for note in compare(old, new, Rules()).notes if "diagnosis" in note]


def test_another_normalisation_is_said(make_report) -> None:
    old, new = make_report({"clean": 100}, N), make_report({"clean": 100}, N)
    new.models[0].normalize.mean, new.models[0].normalize.std = [0.5], [0.25]
    assert compare(old, new).notes == [
        "normalisation of resnet20 (net0.pt): none in the baseline, 0.5/0.25 in the new report"
    ]


def test_other_data_cannot_be_compared(make_report) -> None:
    old, new = make_report({"clean": 100}, N), make_report({"clean": 100}, N)
    other = new.model_copy(update={"data": new.data.model_copy(update={"sha256": "e" * 64})})
    with pytest.raises(GateError, match=r"made on other data \(the images, labels or chosen samples differ\)"):
        compare(old, other, name="b.json")
    shorter = make_report({"clean": 10}, 50)
    shorter.data.sha256 = "f" * 64
    with pytest.raises(GateError, match=r"n = 200, is not test\.npz \[test\], n = 50"):
        compare(old, shorter)


def test_reports_of_sequential_checks_cannot_be_compared(make_report) -> None:
    old, new = make_report({"clean": 100}, N), make_report({"clean": 100}, N)
    early = new.model_copy(update={"cells": make_report({"clean": 30}, 50).cells})
    for pair in ((old, early), (early, old)):
        with pytest.raises(GateError, match="sequential check"):
            compare(*pair)


def test_nothing_in_common(make_report) -> None:
    old, new = make_report({"lfc:radius=3": 100}, N), make_report({"lfc:radius=3": 100}, N)
    with pytest.raises(GateError, match="no gate cell in common"):
        compare(old, new)
    assert compare(old, new, Rules(("lfc",))).passed


def test_every_defense_is_judged(pair) -> None:
    cells = {"clean": shifted(0, 0), "smooth|clean": shifted(40, 0)}
    found = compare(*pair(cells))
    assert row(found, "undefended / clean").passed
    assert row(found, "smooth / clean").passed is False
    assert compare(*pair(cells), Rules(("clean",))).passed  # named without a defense: the undefended model


def test_several_models(make_report) -> None:
    """By fingerprint and name where the same ones are there, in whatever order."""
    old, new = make_report({"clean": 100}, N, models=2), make_report({"clean": 100}, N, models=2)
    new.models.reverse()
    worse = make_report({"clean": 60}, N).cells[0]
    new.cells[0] = worse.model_copy(update={"model": 0})  # that is net1 now
    found = compare(old, new)
    assert {r.name: r.passed for r in found.rows} == {
        "net1: undefended / clean": False,
        "net0: undefended / clean": True,
    }
    assert found.models == [
        "resnet20 (net1.pt) -> resnet20 (net1.pt), paired by fingerprint",
        "resnet20 (net0.pt) -> resnet20 (net0.pt), paired by fingerprint",
    ]
    one = make_report({"clean": 100}, N)
    notes = compare(old, one).notes
    assert "number of models: 2 in the baseline, 1 in the new report" in notes
    assert (
        "model net1.pt (resnet20) is not compared: no other model of the new report has its fingerprint or its name"
        in notes
    )


def models(make_report, *of: tuple[str, str] | tuple[str, str, str]):
    """A report of models with these specs, fingerprints and names; the clean accuracy tells them apart."""
    report = make_report({"clean": 100}, N, models=len(of))
    for record, (spec, sha256, *name) in zip(report.models, of, strict=True):
        record.spec, record.sha256, record.name = spec, sha256, name[0] if name else None
    return report


PAIRS = {
    "renamed, in another order": (
        [("a.pt", "1"), ("b.pt", "2")],
        [("new-b.pt", "2"), ("new-a.pt", "1")],
        [(1, 0, "fingerprint"), (0, 1, "fingerprint")],
    ),
    "one trained again, one renamed": (
        [("a.pt", "1"), ("b.pt", "2"), ("c.pt", "3")],
        [("new-c.pt", "3"), ("x.pt", "9"), ("a.pt", "8")],
        [(2, 0, "fingerprint"), (0, 2, "name")],
    ),
    "the fingerprint decides before the name": (
        [("a.pt", "1"), ("b.pt", "2")],
        [("a.pt", "2"), ("b.pt", "1")],
        [(1, 0, "fingerprint"), (0, 1, "fingerprint")],
    ),
    "named by the user": (
        [("x.pt", "1", "plain"), ("y.pt", "2", "smooth")],
        [("v.pt", "3", "smooth"), ("w.pt", "4", "plain")],
        [(1, 0, "name"), (0, 1, "name")],
    ),
    "one name for all": (
        [("Net", "1"), ("Net", "2")],
        [("Net", "2"), ("Net", "3")],
        [(1, 0, "fingerprint"), (0, 1, "name")],
    ),
    "one name and new weights": (
        [("Net", "1"), ("Net", "2")],
        [("Net", "3"), ("Net", "4")],
        [(0, 0, "name"), (1, 1, "name")],
    ),
    "one name, and one more": (
        [("Net", "1"), ("Net", "2"), ("a.pt", "3")],
        [("Net", "4"), ("Net", "5"), ("Net", "6"), ("b.pt", "3")],
        [(2, 3, "fingerprint")],
    ),
    "a single one": ([("a.pt", "1")], [("b.pt", "2")], [(0, 0, "position")]),
    "one more": ([("a.pt", "1")], [("b.pt", "2"), ("c.pt", "1")], [(0, 1, "fingerprint")]),
}


@pytest.mark.parametrize("how", PAIRS)
def test_models_are_paired_by_fingerprint_then_name(make_report, how) -> None:
    before, after, expected = PAIRS[how]
    old, new = models(make_report, *before), models(make_report, *after)
    assert [(pair.baseline, pair.new, pair.by) for pair in model_pairs(old.models, new.models)] == expected
    assert compare(old, new).models == [
        f"resnet20 ({before[b][0]}) -> resnet20 ({after[n][0]}), paired by {by}" for b, n, by in expected
    ]


def test_models_without_a_partner_are_named(make_report) -> None:
    old = models(make_report, ("a.pt", "1"), ("b.pt", "2"))
    new = models(make_report, ("a.pt", "3"), ("c.pt", "4"))
    found = compare(old, new)
    assert found.models == ["resnet20 (a.pt) -> resnet20 (a.pt), paired by name"]
    assert [note for note in found.notes if "not compared" in note] == [
        "model b.pt (resnet20) is not compared: no other model of the new report has its fingerprint or its name",
        "model c.pt (resnet20) is not compared: no other model of the baseline has its fingerprint or its name",
    ]
    with pytest.raises(GateError, match=r"strict: .* model b\.pt .* is not compared"):
        compare(old, new, Rules(strict=True))


def test_reports_without_a_common_model_cannot_be_compared(make_report) -> None:
    old = models(make_report, ("a.pt", "1"), ("b.pt", "2"))
    new = models(make_report, ("c.pt", "3", "mine"), ("d.pt", "4"))
    with pytest.raises(GateError) as refused:
        compare(old, new, name="old.json")
    assert str(refused.value) == (
        "cannot compare with old.json: it has the models a.pt, b.pt, and the new report has mine, d.pt; no two of them have "
        "the same fingerprint or the same name"
    )


def test_renamed_models_are_compared_with_themselves(make_report) -> None:
    """Paired by position, each would be held against the other."""
    old = models(make_report, ("a.pt", "1"), ("b.pt", "2"))
    old.cells[1] = make_report({"clean": 50}, N).cells[0].model_copy(update={"model": 1})
    new = models(make_report, ("new-b.pt", "2"), ("new-a.pt", "1"))
    new.cells[0] = old.cells[1].model_copy(update={"model": 0})
    found = compare(old, new)
    assert found.passed
    assert all((r.newly_misclassified, r.newly_correct) == (0, 0) for r in found.rows)


UNDETECTABLE = {
    # right of 200 samples, allowed drop: what is said, with two gate cells
    (0, 0.01): "the accuracy in the baseline is 0.0%, which cannot drop",
    (2, 0.01): "the accuracy in the baseline is 1.0%, and drops of up to 1 points are allowed",
    (3, 0.01): "the accuracy in the baseline is 1.5%, and a drop to 0% of this cell alone would not be significant",
    (5, 0.0): "the accuracy in the baseline is 2.5%, and a drop to 0% of this cell alone would not be significant",
    (6, 0.0): "the accuracy in the baseline is 3.0%, which is less than the minimum detectable drop (it is 5.6 points)",
    (6, 0.03): "the accuracy in the baseline is 3.0%, and drops of up to 3 points are allowed",
    (
        6,
        0.029,
    ): "the accuracy in the baseline is 3.0%, which is less than the minimum detectable drop (it is 5.6 points)",
    (40, 0.01): None,
}


@pytest.mark.parametrize(("right", "allowed"), UNDETECTABLE)
def test_gate_cells_that_cannot_fail_are_said(make_report, right, allowed) -> None:
    """What is said agrees with the gate's own verdict on a drop to zero."""
    rules = Rules(max_drop=allowed, strict=True)
    old = make_report({"clean": 150, "pgd:eps=8/255": right}, N)
    zero = make_report({"clean": 150, "pgd:eps=8/255": 0}, N)
    reason = UNDETECTABLE[right, allowed]
    hard = right == 6 and allowed < 0.03  # less than 80 % power, but a drop to zero is detected
    what = "a regression can hardly" if hard else "no regression can"
    said = [] if reason is None else [f"{what} be detected in undefended / worst-linf-8/255: {reason}"]
    assert compare(old, old, rules).notes == compare(old, zero, rules).notes == said
    assert undetectable_cells(old, rules) == said
    assert compare(old, zero, rules).passed == (bool(said) and not hard)


def test_a_filter_at_chance_is_said(make_report) -> None:
    """20 of 200 samples of ten classes are what guessing gives; under an attack, they are an accuracy."""
    report = make_report({"clean": 150, "lfc:radius=12": 20, "pgd:eps=8/255": 20}, N)
    assert undetectable_cells(report, Rules()) == [
        "a regression can hardly be detected in undefended / lfc:radius=12: the accuracy in the baseline is 10.0%, which is "
        "not above chance (10.0%)"
    ]


def test_a_sweep_that_cannot_fail_is_said(make_report) -> None:
    rules = Rules(cells=("sweep",), max_drop=0)
    attacks = ("pgd:eps=1/255", "pgd:eps=2/255")
    floor = make_report({"clean": 150} | dict.fromkeys(attacks, 3), N)
    (said,) = undetectable_cells(floor, rules)
    assert said.startswith(
        "no regression can be detected in undefended / sweep-pgd: the accuracy in the baseline is 1.5%"
    )
    above = make_report({"clean": 150, attacks[0]: 40, attacks[1]: 0}, N)
    assert undetectable_cells(above, rules) == []
    zero = make_report({"clean": 150} | dict.fromkeys(attacks, 0), N)
    assert compare(floor, zero, rules).passed
    assert not compare(above, zero, rules).passed


def test_the_verdict_is_a_part_of_the_report(pair, tmp_path) -> None:
    from freqrobust import Report
    from freqrobust.results.gate_record import GateRecord

    old, new = pair({"clean": shifted(40, 0), "pgd:eps=8/255": shifted(4, 4)})
    comparison = compare(old, new)
    new.gate = GateRecord(passed=comparison.passed, comparison=comparison)
    new.to_json(tmp_path / "r.json")
    assert Report.from_json(tmp_path / "r.json").gate == new.gate


def test_what_will_be_seen_is_known_before() -> None:
    assert expected_drop(500, 4, 0.05) == detectable_drop(500, 0.0125, CHURN, 0.8)
    assert expected_drop(3, 4, 0.05) is None


def test_headline_radius_is_that_of_the_gate(make_report) -> None:
    report = make_report(
        {"clean": 10, "lfc:radius=12": 10, "lfc:radius=12,shape=square": 10, "lfc:radius=12,clip=true": 9}, N
    )
    assert headline_radius(report) == 12
    judged = [r.name for r in compare(report, report).rows if r.passed is not None]
    assert judged == ["undefended / clean", "undefended / lfc:radius=12"]
