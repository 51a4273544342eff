"""Certificates beside attacks: contradictions between them, and their records in the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from freqrobust.core.errors import ContradictionError
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.harness.certify import Certification, CertifiedSamples
from freqrobust.harness.diagnosis.examine import Examined
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.run import Measured
from freqrobust.numerics.statistics import paired_difference
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.specs import DefenseChain, PluginSpec
from freqrobust.results.certificates import CertificateRecord, encode_radii
from freqrobust.results.outcomes import pack
from freqrobust.results.records import Difference, ThreatRecord

#: The name by which a contradiction calls the clean image, which is within every budget.
CLEAN = "the clean image"


def check_contradictions(
    certification: Certification, measured: Measured, examined: Examined | None, ids: torch.Tensor
) -> None:
    """Compare deterministic certificates with every adversarial example of the same defense.

    Args:
        certification: what the certificates found.
        measured: the cells of the defense.
        examined: the additional attacks of its diagnosis.
        ids: dataset indices of the samples, ``(n,)``.

    Raises:
        ContradictionError: a certified sample is misclassified, or has an adversarial example within the threat.
    """
    for plugin_spec, samples in certification.found:
        plugin = plugin_spec.plugin
        if isinstance(samples, str) or plugin.guarantee != "deterministic":
            continue
        threat = plugin.threat()
        attacks = [(CLEAN, ~measured.clean.right)]
        if threat is not None:
            attacks += [(name, o.adversarial_within(threat)) for name, o in _attacks(measured, examined)]
        for name, adversarial in attacks:
            wrong = np.flatnonzero(samples.certified & adversarial)
            if not len(wrong):
                continue
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            what = (
                "the clean image is misclassified"
                if name is CLEAN
                else f"{name} found an adversarial example within {threat}"
            )
            raise ContradictionError(
                f"sample {int(ids[wrong[0]])}{more} on {certification.chain.spec}: {plugin_spec.spec} certifies it, but "
                f"{what}; the certificate or the engine is wrong, so nothing is reported"
            )


def _attacks(measured: Measured, examined: Examined | None) -> Iterable[tuple[str, Outcome]]:
    """Every attack on a defense with its outcome: adaptive, oblivious, and of the diagnosis."""
    for plugin_spec, outcome in measured.cells:
        if isinstance(outcome, Outcome):
            yield plugin_spec.spec, outcome
    for plugin_spec, outcome in measured.oblivious:
        if isinstance(outcome, Outcome):
            yield f"{plugin_spec.spec}, made on the undefended model,", outcome
    for outcome in examined.found if examined is not None else []:
        yield "a check of the diagnosis", outcome


def records(
    certifications: Sequence[Certification], measured: Sequence[Measured], examined: Sequence[Examined | None]
) -> list[CertificateRecord]:
    """The certificates as the report has them, with paired differences from the undefended model."""
    undefended = {
        _name(plugin_spec): samples.certified
        for certification in certifications
        if not certification.chain.parts
        for plugin_spec, samples in certification.found
        if isinstance(samples, CertifiedSamples)
    }
    found = []
    for certification, cells, checks in zip(certifications, measured, examined, strict=True):
        for plugin_spec, samples in certification.found:
            record = _record(certification.chain, plugin_spec, samples, len(cells.clean.right))
            if isinstance(samples, CertifiedSamples):
                if record.guarantee == "statistical":
                    _count_contradicted(record, plugin_spec, samples, cells, checks)
                base = undefended.get(_name(plugin_spec))
                if certification.chain.parts and base is not None:
                    record.difference = _difference(samples.certified, base)
            found.append(record)
    return found


def _name(plugin_spec: PluginSpec[Certificate]) -> str:
    return f"{plugin_spec.name} {sorted(plugin_spec.params.items())}"


def _record(
    chain: DefenseChain, plugin_spec: PluginSpec[Certificate], samples: CertifiedSamples | str, n: int
) -> CertificateRecord:
    plugin = plugin_spec.plugin
    threat, alpha = plugin.threat(), getattr(plugin, "alpha", None)
    with running_user_code(f"{plugin_spec.spec} failed"):
        statement = one_line(plugin.statement_about(chain.defenses))
    values: dict[str, Any] = {
        "defense": chain.name,
        "defense_spec": chain.spec,
        "defense_params": chain.params,
        "certificate": plugin_spec.name,
        "certificate_spec": plugin_spec.spec,
        "certificate_params": plugin_spec.params,
        "threat": ThreatRecord(norm=threat.norm, eps=threat.eps) if threat is not None else None,
        "guarantee": plugin.guarantee,
        "statement": statement,
        "alpha": alpha if plugin.guarantee == "statistical" else None,
        "n": n,
    }
    if isinstance(samples, str):
        return CertificateRecord(**values, correct=0, outcomes=None, status="failed", error=samples)
    return CertificateRecord(
        **values,
        correct=int(samples.certified.sum()),
        outcomes=pack(samples.certified),
        radii=encode_radii(samples.radii) if samples.radii is not None else None,
        abstained=int(samples.abstained.sum()) if samples.abstained is not None else None,
        seconds=samples.seconds,
        forwards=samples.forwards,
        shared_with=samples.shared,
    )


def _count_contradicted(
    record: CertificateRecord,
    plugin_spec: PluginSpec[Certificate],
    samples: CertifiedSamples,
    measured: Measured,
    examined: Examined | None,
) -> None:
    """Count the certified samples that an attack on the defended model, another object, has misclassified."""
    threat = plugin_spec.plugin.threat()
    if threat is None:
        return
    attacked = np.zeros(len(samples.certified), dtype=bool)
    for _, outcome in _attacks(measured, examined):
        attacked |= outcome.adversarial_within(threat)
    record.contradicted = int((samples.certified & attacked).sum())
    if record.contradicted:
        count = f"{record.contradicted} certified sample{'s' if record.contradicted > 1 else ''}"
        record.notes.append(
            f"attacks on the defended model found adversarial examples within {threat} for {count}; the certificate is "
            f"about another object, see its statement"
        )


def _difference(certified: np.ndarray, base: np.ndarray) -> Difference:
    points, interval = paired_difference(
        int((certified & base).sum()),
        int((certified & ~base).sum()),
        int((~certified & base).sum()),
        int((~certified & ~base).sum()),
    )
    return Difference(points=points, ci95=interval)
