"""Certificates in the harness: measured, kept, compared with attacks, and shown in every form of report."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from freqrobust import Certificate, Certified, EvalConfig, Report, evaluate
from freqrobust.certificates.band import Band
from freqrobust.certificates.smoothing import Smoothing
from freqrobust.core.errors import ContradictionError, FreqRobustError, SpecError
from freqrobust.defenses.input_filter import LowPass
from freqrobust.harness.cell import unattacked
from freqrobust.harness.certificate_records import check_contradictions
from freqrobust.harness.certify import Certification, CertifiedSamples
from freqrobust.harness.diagnosis.examine import Examined
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.run import Measured
from freqrobust.plugins.registry import attacks, certificates
from freqrobust.plugins.specs import DefenseChain
from freqrobust.results.analysis_record import ReportError
from freqrobust.results.certificates import CertificateRecord
from freqrobust.results.leaderboard import board
from freqrobust.results.reporter import reports
from freqrobust.results.summary import headline
from freqrobust.results.view import footnotes

NOISY = "randomized-smoothing:sigma=0.25,copies=3"
SMALL = "smoothing:eps=[0.05,0.3],n=60,n0=20,alpha=0.01"


def run(network, data, certify, against=("clean",), defenses=(NOISY,), **options) -> Report:
    given = {"oblivious": False, "diagnose": None, "device": "cpu", "batch_size": 32, "undefended": False}
    return evaluate(network, data, attacks=against, defenses=defenses or None, certify=certify, **{**given, **options})


class Everything(Certificate):
    """Certifies every sample, which is wrong."""

    eps: float = 0.3
    norm: str = "linf"
    calls: ClassVar[list[int]] = []

    def certify(self, model, images, labels, context):
        self.calls.append(len(images))
        return Certified(torch.ones(len(images), dtype=torch.bool))

    def statement(self):
        return "no perturbation within the budget changes the prediction"


class Correct(Everything):
    """Certifies the samples that are correct on the clean image."""

    def certify(self, model, images, labels, context):
        return Certified(context.correct)


class Statistical(Correct):
    """The same about another object."""

    guarantee: ClassVar[str] = "statistical"


class Fails(Correct):
    """Fails in the way that ``how`` names."""

    how: str = "raises"

    def certify(self, model, images, labels, context):
        n = len(images)
        yes = torch.zeros(n, dtype=torch.bool)
        if self.how == "raises":
            raise KeyError("no such layer")
        if self.how == "spec error":
            raise SpecError("the layer Softmax is not supported")
        return {
            "nothing": None,
            "floats": Certified(yes.float()),
            "shape": Certified(yes[:, None]),
            "negative": Certified(yes, radius=torch.full((n,), -1.0)),
            "nan": Certified(yes, radius=torch.full((n,), float("nan"))),
            "small radius": Certified(~yes, radius=torch.full((n,), 0.1)),
            "both": Certified(~yes, abstained=~yes),
        }[self.how]


def test_the_record_says_what_was_measured(network, digits) -> None:
    report = run(network, digits, [SMALL])
    small, large = report.certificates
    assert (small.certificate, small.certificate_spec) == ("smoothing", "smoothing:eps=0.05,n=60,n0=20,alpha=0.01")
    assert small.certificate_params == {"eps": 0.05, "norm": "l2", "n": 60, "n0": 20, "alpha": 0.01}
    assert (small.defense, small.defense_spec) == ("randomized-smoothing", NOISY)
    assert small.threat is not None
    assert (small.threat.norm, small.threat.eps, small.guarantee, small.alpha) == ("l2", 0.05, "statistical", 0.01)
    assert "another object than the defended model" in small.statement
    assert small.n == 64
    assert 64 > small.certified == small.right().sum() > large.certified
    radii = small.certified_radii()
    assert radii is not None
    assert np.array_equal(small.right(), radii >= np.float32(0.05))
    assert np.array_equal(large.right(), radii >= np.float32(0.3))
    assert small.abstained == large.abstained
    assert small.abstained <= 64 - small.certified
    assert small.accuracy == small.certified / 64
    # one measurement for both budgets, counted once
    assert large.shared_with == small.certificate_spec
    assert (large.forwards, large.seconds) == (0, 0.0)
    assert small.forwards == 64 * 20 + 60 * int((radii > 0).sum() + small.abstained)
    assert report.status == "complete"


def test_the_batch_size_changes_nothing(network, digits) -> None:
    data = digits.first(12)
    one, other = (run(network, data, [SMALL], batch_size=size).certificates for size in (1, 64))
    drop = {"seconds"}
    assert [r.model_dump(exclude=drop) for r in one] == [r.model_dump(exclude=drop) for r in other]


def test_the_same_noise_has_the_same_radii_whatever_takes_the_votes(network, digits) -> None:
    """The smoothed classifier depends on the noise and on the model behind it only."""
    chains = ["randomized-smoothing:sigma=0.25,copies=2", "gaussian-noise:sigma=0.25"]
    report = run(network, digits.first(8), ["smoothing:eps=0.1,n=40,n0=20"], defenses=chains)
    one, other = report.certificates
    assert one.radii == other.radii
    assert one.certified > 0


def test_what_is_measured_is_kept_and_found_again(network, digits, tmp_path) -> None:
    """Also for another eps, as radii do not depend on it; not for another number of draws or another seed."""
    lines: list[str] = []

    class Lines:
        def begin(self, label, total):
            lines.append(f"begin {label}")

        def advance(self, amount): ...

        def end(self, summary):
            if "journal" in summary:
                lines.append(summary)

        def say(self, message):
            lines.append(message)

    def again(certify, **options):
        lines.clear()
        report = run(network, digits.first(20), [certify], run_dir=tmp_path, progress=Lines(), **options)
        return report.certificates[0], [line for line in lines if "smoothing:" in line.partition(" / ")[2]]

    first, said = again("smoothing:eps=0.05,n=60,n0=20")
    label = f"{NOISY} / smoothing:eps=0.05,n=60,n0=20"
    assert said == [f"{label}: 20 images, at most 80 forward passes for each", f"begin {label}"]
    same, said = again("smoothing:eps=0.05,n=60,n0=20")
    assert same == first
    (line,) = said
    assert line.startswith(f"{label}: certified ")
    assert line.endswith("(from the journal)")
    other, (line,) = again("smoothing:eps=0.2,n=60,n0=20")
    assert "journal" in line
    assert other.radii == first.radii
    assert "80 forward" not in line
    assert "90 forward" in again("smoothing:eps=0.05,n=70,n0=20")[1][0]
    assert "80 forward" in again("smoothing:eps=0.05,n=60,n0=20", seed=1)[1][0]


def test_a_certificate_of_the_model_itself_is_measured_on_all_defenses(network, digits) -> None:
    report = run(network, digits, [Correct(eps=1e-4), Band()], defenses=["lowpass:radius=3"], undefended=True)
    found = {(r.defense_spec, r.certificate): r for r in report.certificates}
    assert set(found) == {("undefended", "Correct"), ("lowpass:radius=3", "Correct"), ("lowpass:radius=3", "band")}
    clean = {cell.defense_spec: cell for cell in report.cells}
    for (defense, _), record in found.items():
        assert record.outcomes == clean[defense].outcomes
    defended = found["lowpass:radius=3", "Correct"]
    assert defended.difference is not None
    assert clean["lowpass:radius=3"].difference is not None
    assert defended.difference == clean["lowpass:radius=3"].difference
    assert found["undefended", "Correct"].difference is None
    band = found["lowpass:radius=3", "band"]
    assert (band.threat, band.guarantee, band.alpha, band.forwards) == (None, "deterministic", None, 0)
    assert "distances of 3 or more cycles" in band.statement
    assert report.config["certify"] == ["Correct:eps=0.0001", "band"]


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        ("fgsm:eps=0.3", {}),
        ("fgsm:eps=0.2", {}),  # a smaller budget is within the threat
        ("pgd:eps=0.3,norm=l2,steps=5", {}),  # and so is the L2 ball
    ],
)
def test_an_adversarial_example_for_a_certified_sample_stops_the_run(network, digits, attack, options) -> None:
    report = run(network, digits, None, [attack], defenses=[], undefended=True)
    clean, attacked = report.cells
    first = int(digits.ids[np.flatnonzero(clean.right() & ~attacked.right())[0]])
    with pytest.raises(ContradictionError) as stop:
        run(network, digits, [Correct()], [attack], defenses=[], undefended=True, **options)
    assert str(stop.value).startswith(f"sample {first}")
    for part in (attack, "Correct", "undefended", "Linf 0.3"):
        assert part in str(stop.value)


def test_a_larger_budget_is_no_contradiction(network, digits) -> None:
    report = run(network, digits, [Correct(eps=1e-4)], ["fgsm:eps=0.3"], defenses=[], undefended=True)
    certified, worst = report.certificates[0], report.worst_case[0]
    assert certified.accuracy is not None
    assert worst.accuracy is not None
    assert certified.accuracy > worst.accuracy


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("cells", "fgsm:eps=0.2 found"),
        ("oblivious", "fgsm:eps=0.2, made on the undefended model, found"),
        ("checks", "a check of the diagnosis found"),
    ],
)
def test_every_attack_on_the_defense_counts(part, said) -> None:
    """One adversarial example, at the distance 0.2 of the second sample; exactly at the budget is within it."""
    (fgsm,) = attacks.parse("fgsm:eps=0.2")
    clean = Outcome(np.array([True, True, False]), np.zeros(3, dtype=np.int32))
    nothing, found = unattacked(clean), unattacked(clean)
    found.examples["linf"][1] = 0.2
    outcomes = {name: found if name == part else nothing for name in ("cells", "oblivious", "checks")}
    cells, oblivious = ([(fgsm, outcomes[name])] for name in ("cells", "oblivious"))
    measured = Measured(DefenseChain(), clean, cells, oblivious=oblivious)
    examined = Examined("quick", found=[outcomes["checks"]])

    def check(eps: float, certified: list[bool]) -> None:
        samples = CertifiedSamples(np.array(certified))
        certification = Certification(DefenseChain(), [(certificates.select(Correct(eps=eps)), samples)])
        check_contradictions(certification, measured, examined, torch.tensor([70, 71, 72]))

    check(0.2, [True, False, False])
    check(0.19, [True, True, False])
    with pytest.raises(ContradictionError, match=f"sample 71 on undefended: Correct:eps=0.2 certifies it, but {said}"):
        check(0.2, [True, True, False])


def test_the_clean_image_is_within_every_budget(network, digits) -> None:
    report = run(network, digits, None, defenses=["lowpass:radius=2"])
    assert not report.cells[0].right().all()
    with pytest.raises(ContradictionError, match="Everything certifies it, but the clean image is misclassified"):
        run(network, digits, [Everything()], defenses=["lowpass:radius=2"])


def test_a_statistical_certificate_is_about_another_object(network, digits) -> None:
    report = run(network, digits, [Statistical()], ["fgsm:eps=0.3"], defenses=[], undefended=True)
    (record,) = report.certificates
    clean, attacked = report.cells
    wrong = int((clean.right() & ~attacked.right()).sum())
    assert record.contradicted == wrong > 1
    assert f"adversarial examples within Linf 0.3 for {wrong} certified samples" in record.notes[0]
    assert record.notes[0] in " ".join(shown("table", report, full=True).split())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", "KeyError: 'no such layer'"),
        ("spec error", "the layer Softmax is not supported"),
        ("nothing", "should return a freqrobust.Certified, but returned a NoneType"),
        ("floats", "certified should be bool, but is torch.float32"),
        ("shape", r"certified should be a tensor of shape \(32,\), but got \(32, 1\)"),
        ("negative", "a radius should be 0 or more"),
        ("nan", "a radius should be 0 or more"),
        ("small radius", "the radius of a certified sample should be at least eps 0.3"),
        ("both", "a sample is both certified and abstained on"),
    ],
)
def test_a_certificate_that_fails_keeps_the_others(network, digits, how, message) -> None:
    report = run(network, digits, [Fails(how=how), Correct()], defenses=[], undefended=True)
    failed, good = report.certificates
    assert (failed.status, failed.accuracy, failed.outcomes) == ("failed", None, None)
    assert failed.error is not None
    assert re.search(message, failed.error)
    assert (good.status, good.certified) == ("ok", report.cells[0].correct)
    assert report.status == "partial"
    for name in ("table", "markdown", "junit", "csv"):
        assert "failed" in shown(name, report)
    assert len([note for note in footnotes(report) if "lower bound:" in note.text]) == 1  # of the one that did not fail


def test_bounds_are_not_measured_for_defenses_that_change_the_images(network, digits) -> None:
    report = run(network, digits, ["ibp:eps=0.01"], defenses=["lowpass:radius=3", "smooth"], undefended=True)
    assert [(r.defense_spec, r.status) for r in report.certificates] == [("undefended", "ok"), ("smooth", "ok")]
    with pytest.raises(SpecError, match="has bounds for networks only, but LowPass changes the images"):
        run(network, digits, ["crown:eps=0.01"], defenses=["lowpass:radius=3"])


def test_a_defense_that_fails_fails_its_certificates(network, digits) -> None:
    class Broken(LowPass):
        def transform(self, images):
            raise ValueError("nothing")

    report = run(network, digits, ["band"], defenses=[[Broken(radius=3)]])
    (record,) = report.certificates
    assert record.status == "failed"
    assert record.error == report.cells[0].error


@pytest.mark.parametrize(
    ("certify", "defenses", "message"),
    [
        (["smoothing:eps=0.1,alpha=0"], [NOISY], "parameter 'alpha' should be greater than 0, but got '0'"),
        (["smoothing:eps=0.1,alpha=1"], [NOISY], "parameter 'alpha' should be less than 1, but got '1'"),
        (["smoothing:eps=0.1,n=50"], [NOISY], "parameter 'n' should be at least n0 = 100, but got 50"),
        (["smoothing:eps=0.1,norm=linf"], [NOISY], "parameter 'norm' should be 'l2', but got 'linf'"),
        (["smoothing:eps=0"], [NOISY], "parameter 'eps' should be greater than 0"),
        (["smoothing"], [NOISY], "parameter 'eps' is required, for example smoothing:eps=0.25"),
        (["smoothing:eps=0.1"], ["lowpass:radius=3"], "certifies none of the models: smoothing needs Gaussian noise"),
        (["smoothing:eps=0.1"], [f"{NOISY}+lowpass:radius=3"], "smoothing needs Gaussian noise in the outermost"),
        (["smoothing:eps=2"], [NOISY], "certifies at most the radius 0.6158 for sigma=0.25, but eps is 2"),
        (["band"], [NOISY], "band needs a filter of the input as the outermost defense"),
        ([Correct()], [NOISY], "Correct certifies deterministic models, but RandomizedSmoothing is stochastic"),
        (["smooting:eps=1"], [NOISY], "unknown certificate 'smooting'; did you mean 'smoothing'?"),
        ([LowPass(radius=3)], [NOISY], "each of the certificates should be a spec or an object of Certificate"),
        ([Correct(norm="l7")], ["lowpass:radius=3"], "the norm of a threat should be one of linf, l2, l1, but is 'l7'"),
    ],
)  # fmt: skip
def test_what_is_known_to_be_wrong_is_refused_before_anything_is_measured(
    network, digits, monkeypatch, certify, defenses, message
) -> None:
    monkeypatch.setattr(type(network), "forward", lambda *arguments: pytest.fail("the model was called"))
    with pytest.raises(FreqRobustError, match=re.escape(message)):
        run(network, digits, certify, defenses=defenses)


def test_certificates_need_the_criterion_misclassification(network, digits) -> None:
    with pytest.raises(SpecError, match="band certifies under the criterion misclassification only, not topk:k=2"):
        run(network, digits, ["band"], defenses=["lowpass:radius=3"], criterion="topk:k=2")


def shown(name: str, report: Report, **options: object) -> str:
    target = io.StringIO()
    reports.get(name)(**options).render(report, target)
    return target.getvalue()


@pytest.fixture(scope="module")
def certified(trained, digits) -> Report:
    network = trained.eval().requires_grad_(False)
    chains = ["lowpass:radius=3", NOISY]
    against = ["pgd:eps=0.3,norm=l2,steps=2"]
    return run(network, digits.first(30), ["smoothing:eps=0.3,n=60,n0=20", "band"], against, chains, undefended=True)


def test_the_headline_has_both_bounds_of_a_threat_below_each_other(certified) -> None:
    labels = [measure.label for measure in headline(certified)]
    assert labels == ["clean", "worst case L2 0.3", "certified L2 0.3 (smoothing:n=60,n0=20)", "certified (band)"]


@pytest.mark.parametrize("name", ["table", "markdown", "html", "latex", "csv", "junit", "json"])
def test_every_form_shows_the_certified_numbers(certified, name) -> None:
    text = shown(name, certified, **({"full": True} if name == "table" else {}))
    smoothing, band = sorted(certified.certificates, key=lambda record: record.threat is None)
    for record in (smoothing, band):
        assert record.accuracy is not None
        number = repr(record.accuracy) if name in ("csv", "json") else f"{100 * record.accuracy:.1f}"
        assert number in text
        statement = record.statement if name != "latex" else record.statement[:40]
        assert " ".join(statement.split()) in " ".join(text.replace("&#39;", "'").split())
    assert 0 < smoothing.certified < 30
    assert "abstained" in text


def test_the_table_fits_80_columns(certified) -> None:
    lines = shown("table", certified, width=80, details=True).splitlines()
    assert max(map(len, lines)) <= 80
    assert "certified L2 0.3" in "\n".join(lines)
    assert "certified <= true <= attacked" in " ".join(lines)


def test_several_reports_side_by_side(certified) -> None:
    found = board({"a": certified, "b": certified})
    assert found.by == "worst case L2 0.3"  # a certificate is a lower bound: it ranks only where it is asked for
    assert "certified (band)" in found.labels
    by = board({"a": certified, "b": certified}, "certified (band)")
    assert by.standings[0].measures["certified (band)"].accuracy is not None
    target = io.StringIO()
    reports.get("table")().render_many({"a": certified, "b": certified}, target)
    assert "certified (band)" in target.getvalue()


def test_several_models_keep_their_certificates(network, digits) -> None:
    report = run({"a": network, "b": network}, digits.first(10), ["band"], defenses=["lowpass:radius=3"])
    assert [record.model for record in report.certificates] == [0, 1]


def test_a_report_comes_back(certified, tmp_path) -> None:
    path = tmp_path / "report.json"
    certified.to_json(path)
    assert Report.from_json(path).certificates == certified.certificates


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"certified": 3}, "certified 3 contradicts correct"),
        ({"accuracy": 0.99}, "accuracy 0.99 contradicts"),
        ({"correct": 1, "certified": 1, "accuracy": None, "ci95": None}, "the outcomes count"),
        ({"abstained": 30}, "abstained 30 contradicts"),
        ({"radii": ""}, "expected the radii of 30 samples, but got 0"),
        ({"radii": "AACAvw=="}, "radii should be 0 or more"),
        ({"threat": {"norm": "l2", "eps": 3.0}}, "certified samples should have a radius of at least 3"),
        ({"outcomes": None}, "should have outcomes"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(certified, tmp_path, change, message) -> None:
    path = tmp_path / "report.json"
    certified.to_json(path)
    content = json.loads(path.read_text())
    (position,) = [i for i, record in enumerate(content["certificates"]) if record["threat"] is not None]
    content["certificates"][position].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(ReportError, match=message):
        Report.from_json(path)


def test_older_reports_have_no_certificates(certified, tmp_path) -> None:
    path = tmp_path / "report.json"
    certified.to_json(path)
    content = json.loads(path.read_text())
    del content["certificates"]
    path.write_text(json.dumps(content))
    assert Report.from_json(path).certificates == list[CertificateRecord]()


def test_the_option_takes_specs_and_objects() -> None:
    assert EvalConfig(certify="band").certify == ["band"]
    plugin = Smoothing(eps=0.1)
    assert EvalConfig(certify=[plugin]).certify == [plugin]


PAGE = Path(__file__).parents[2] / "docs" / "certificates.md"


def test_every_certificate_is_documented() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in certificates.names():
        if certificates.origin(name).startswith("freqrobust "):
            assert re.search(rf"^\| `{name}` \|", text, re.MULTILINE), name
            assert re.search(rf"^### .*`{name}`", text, re.MULTILINE), name


def test_the_documented_certificate(network, digits, tmp_path) -> None:
    """On a linear model whose largest singular value is the constant."""
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    file = tmp_path / "lipschitz.py"
    file.write_text(code, encoding="utf-8")
    torch.manual_seed(0)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    constant = float(torch.linalg.matrix_norm(linear[1].weight.detach(), 2))
    images = torch.rand(40, 1, 8, 8)
    data = (images, linear(images).argmax(dim=1))
    spec = f"{file}:Lipschitz:eps=0.05,constant={constant}"
    report = run(linear, data, [spec], ["pgd:eps=0.05,norm=l2,steps=20"], [], undefended=True)
    certified, worst = report.certificates[0], report.worst_case[0]
    assert 0 < certified.certified <= worst.correct < 40
