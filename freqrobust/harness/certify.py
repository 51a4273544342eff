"""Measuring certificates: every one on every defense that it says something about, through the journal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from freqrobust.core.errors import FreqRobustError, ImageFileError, PluginError
from freqrobust.core.files import identity
from freqrobust.core.progress import fail, finish, skip
from freqrobust.core.source_hash import code_hash
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.harness.blocks import Block
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.run import DefenseRun, Measured
from freqrobust.harness.run_plan import certificate_label
from freqrobust.plugins.certificate import Certificate, CertificateContext, Certified
from freqrobust.plugins.selection import refusal
from freqrobust.plugins.specs import DefenseChain, PluginSpec
from freqrobust.results.certificates import decode_radii, encode_radii
from freqrobust.results.outcomes import pack, unpack

#: The code that certificates are measured by, beside that of every cell; what it imports counts as well.
MEASURING = ("freqrobust.harness.certify",)


@cache
def certificate_code() -> str:
    """Hash of the code that measures certificates; in one process it does not change."""
    return code_hash(MEASURING)


@dataclass
class CertifiedSamples:
    """What one certificate found for one defense.

    Attributes:
        certified: proved to be predicted as the label within the threat, bool ``(n,)``.
        radii: the largest certified budget, float32 ``(n,)``; None where it decides for one budget only.
        abstained: samples that it could not decide, bool ``(n,)``; None where it always decides.
        seconds: that it took.
        forwards: passes that it made, in images.
        shared: the spec of the certificate whose measurement this is, where that was another eps.
    """

    certified: np.ndarray
    radii: np.ndarray | None = None
    abstained: np.ndarray | None = None
    seconds: float = 0.0
    forwards: int = 0
    shared: str | None = None

    def to_piece(self) -> dict[str, Any]:
        """JSON-like content, for the journal."""
        return {
            "n": len(self.certified),
            "certified": pack(self.certified),
            "radii": encode_radii(self.radii) if self.radii is not None else None,
            "abstained": pack(self.abstained) if self.abstained is not None else None,
            "seconds": self.seconds,
            "forwards": self.forwards,
        }

    @classmethod
    def from_piece(cls, piece: Mapping[str, Any]) -> CertifiedSamples:
        """The inverse of :meth:`to_piece`."""
        return cls(
            certified=unpack(piece["certified"], piece["n"]),
            radii=decode_radii(piece["radii"]) if piece["radii"] is not None else None,
            abstained=unpack(piece["abstained"], piece["n"]) if piece["abstained"] is not None else None,
            seconds=piece["seconds"],
            forwards=piece["forwards"],
        )

    @classmethod
    def joined(cls, parts: Sequence[CertifiedSamples], plugin_spec: PluginSpec[Certificate]) -> CertifiedSamples:
        """What was found on all samples, from what was found on consecutive blocks.

        Raises:
            PluginError: the certificate returned radii for some of them only.
        """
        return cls(
            certified=np.concatenate([part.certified for part in parts]),
            radii=_joined([part.radii for part in parts], plugin_spec, "radius"),
            abstained=_joined([part.abstained for part in parts], plugin_spec, "abstained"),
            seconds=round(sum(part.seconds for part in parts), 4),
            forwards=sum(part.forwards for part in parts),
        )


#: A certificate, and what it found or why it failed.
_Found = tuple[PluginSpec[Certificate], CertifiedSamples | str]


@dataclass
class Certification:
    """What all certificates found for one defense; those that say nothing about it are not there."""

    chain: DefenseChain
    found: list[_Found]


def certify(run: DefenseRun, measured: Measured, chosen: Sequence[PluginSpec[Certificate]]) -> Certification:
    """Measure every certificate on one defense; the failure of one keeps the others.

    Args:
        run: the defense.
        measured: its cells, of which the clean predictions are used.
        chosen: the certificates.
    """
    found: list[_Found] = []
    known: dict[str, tuple[str, CertifiedSamples | FreqRobustError]] = {}  # a sweep may be one measurement
    for plugin_spec in chosen:
        label = certificate_label(run.chain, plugin_spec)
        try:
            if measured.error is not None:
                raise PluginError(measured.error)
            reason = refusal(plugin_spec, run.chain)
            if reason is not None:
                run.run.progress.say(f"{label}: not applicable: {reason}")
                continue
            found.append((plugin_spec, _certified(run, measured.clean, plugin_spec, known, label)))
        except ImageFileError:  # the data of all cells
            raise
        except FreqRobustError as error:
            reason = one_line(error)
            fail(run.run.progress, f"{label}: failed: {reason}")
            found.append((plugin_spec, reason))
        finally:
            finish(run.run.progress, label)
    return Certification(run.chain, found)


def _certified(
    run: DefenseRun,
    clean: Outcome,
    plugin_spec: PluginSpec[Certificate],
    known: dict[str, tuple[str, CertifiedSamples | FreqRobustError]],
    label: str,
) -> CertifiedSamples:
    """From the same sweep, whose measurement may have failed, or from :func:`_all_blocks`."""
    key = certificate_key(run, plugin_spec)
    if key in known:
        first, shared = known[key]
        if isinstance(shared, FreqRobustError):
            raise shared
        samples = CertifiedSamples(shared.certified, shared.radii, shared.abstained, shared=first)
        return _at_eps(plugin_spec, samples)
    try:
        samples = _all_blocks(run, clean, plugin_spec, label)
    except ImageFileError:  # the data of all cells
        raise
    except FreqRobustError as error:
        known[key] = plugin_spec.spec, error
        raise
    known[key] = plugin_spec.spec, samples
    return _at_eps(plugin_spec, samples)


def _all_blocks(run: DefenseRun, clean: Outcome, plugin_spec: PluginSpec[Certificate], label: str) -> CertifiedSamples:
    """From the journal, or measured and put there."""
    progress = run.run.progress
    every = run.run.blocks(plugin_spec)
    keys = [certificate_key(run, plugin_spec, block) for block in every]
    pieces = [run.run.journal.load(one) for one in keys]
    if None in pieces:
        run.run.check_failure(keys)
        _begin(run, plugin_spec, label)
    parts: list[CertifiedSamples] = []
    for block, piece in zip(every, pieces, strict=True):
        if piece is None:
            parts.append(certify_block(run, clean.part(block.start, block.stop), plugin_spec, block))
            continue
        parts.append(CertifiedSamples.from_piece(piece))
        if None in pieces:
            skip(progress, len(block))
    samples = CertifiedSamples.joined(parts, plugin_spec)
    note = "" if None in pieces else " (from the journal)"
    certified = _at_eps(plugin_spec, samples).certified.mean()
    progress.end(f"{label}: certified {certified:.1%} in {samples.seconds:.1f} s{note}")
    return samples


def certify_block(
    run: DefenseRun, clean: Outcome, plugin_spec: PluginSpec[Certificate], block: Block
) -> CertifiedSamples:
    """Measure a certificate on one block of samples, and put it into the journal.

    Args:
        run: the defense.
        clean: its clean pass on the block.
        plugin_spec: the certificate.
        block: the samples.

    Raises:
        PluginError: the certificate failed, or what it returned is not what it should return.
    """
    samples = _measured(run, clean, plugin_spec, block)
    run.run.keep(run.run.journal, certificate_key(run, plugin_spec, block), samples.to_piece())
    return samples


def _begin(run: DefenseRun, plugin_spec: PluginSpec[Certificate], label: str) -> None:
    run.target_model()  # made before the clock starts
    with running_user_code(f"{plugin_spec.spec} failed"):
        passes = plugin_spec.plugin.passes()
    n = len(run.batches.data)
    if passes:
        run.run.progress.say(f"{label}: {n:,} images, at most {passes:,} forward passes for each")
    run.run.progress.begin(label, n)


def certificate_key(run: DefenseRun, plugin_spec: PluginSpec[Certificate], block: Block | None = None) -> str:
    """The identity of a measurement, or of one of its blocks; eps is no part of it where the radii do not depend on
    eps."""
    params = dict(plugin_spec.params)
    if plugin_spec.plugin.radius_decides:
        params.pop("eps", None)
    certificate = [plugin_spec.name, params, plugin_spec.code]
    clean = run.run.key(run.chain, None, None, "certificate", block)  # model, defense, data, seed, versions
    return identity({"cell": clean, "certificate": certificate, "code": certificate_code()})


def _at_eps(plugin_spec: PluginSpec[Certificate], samples: CertifiedSamples) -> CertifiedSamples:
    """The samples whose radius is at least the eps of this certificate, where radii decide."""
    threat = plugin_spec.plugin.threat()
    if not plugin_spec.plugin.radius_decides or threat is None or samples.radii is None:
        return samples
    certified = (samples.radii > 0) & (samples.radii >= np.float32(threat.eps))
    return CertifiedSamples(
        certified, samples.radii, samples.abstained, samples.seconds, samples.forwards, samples.shared
    )


def _measured(run: DefenseRun, clean: Outcome, plugin_spec: PluginSpec[Certificate], block: Block) -> CertifiedSamples:
    """One certificate on the samples of a block, with their clean pass.

    Raises:
        PluginError: it failed, or what it returned is not what it should return.
    """
    n, plugin = len(block), plugin_spec.plugin
    target_model = run.target_model()
    batches = run.expanded(plugin.expansion).part(block)
    parts: dict[int, tuple[np.ndarray, np.ndarray | None, np.ndarray | None, int]] = {}

    def work(chunk: torch.Tensor) -> None:
        images, labels, ids = batches.data.batch(chunk, batches.device)
        correct = torch.from_numpy(clean.right[chunk.numpy()]).to(batches.device)
        context = CertificateContext(ids, run.run.seed, tuple(run.chain.defenses), correct)
        with running_user_code(f"{plugin_spec.spec} failed", memory_passes=True):
            result = plugin.certify(target_model.exact, images, labels, context)
        parts[int(chunk[0])] = _checked(result, plugin_spec, len(images))

    start = time.perf_counter()
    batches.each(torch.arange(n), work)
    ordered = [parts[position] for position in sorted(parts)]
    return CertifiedSamples(
        certified=np.concatenate([part[0] for part in ordered]),
        radii=_joined([part[1] for part in ordered], plugin_spec, "radius"),
        abstained=_joined([part[2] for part in ordered], plugin_spec, "abstained"),
        seconds=round(time.perf_counter() - start, 4),
        forwards=sum(part[3] for part in ordered),
    )


def _joined(parts: Sequence[np.ndarray | None], plugin_spec: PluginSpec[Certificate], name: str) -> np.ndarray | None:
    given = [part for part in parts if part is not None]
    if given and len(given) < len(parts):
        raise PluginError(f"{plugin_spec.spec} should return {name} for all batches or for none")
    return np.concatenate(given) if given else None


def _checked(
    result: Any, plugin_spec: PluginSpec[Certificate], n: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, int]:
    """What a certificate returned for a batch of ``n`` images, as arrays.

    Raises:
        PluginError: it is not what it should be.
    """
    name = plugin_spec.spec
    if not isinstance(result, Certified):
        raise PluginError(f"{name} should return a freqrobust.Certified, but returned a {type(result).__name__}")
    arrays: dict[str, np.ndarray | None] = {}
    for key in ("certified", "radius", "abstained"):
        values = getattr(result, key)
        if values is None and key != "certified":
            arrays[key] = None
            continue
        if not isinstance(values, torch.Tensor) or values.shape != (n,):
            got = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
            raise PluginError(f"{name}: {key} should be a tensor of shape ({n},), but got {got}")
        if key != "radius" and values.dtype != torch.bool:
            raise PluginError(f"{name}: {key} should be bool, but is {values.dtype}")
        arrays[key] = values.detach().cpu().numpy()
    certified, radius, abstained = arrays["certified"], arrays["radius"], arrays["abstained"]
    assert certified is not None
    if radius is not None:
        radius = radius.astype(np.float32)
        if np.isnan(radius).any() or (radius < 0).any():
            raise PluginError(f"{name}: a radius should be 0 or more, but some are negative or not a number")
        threat = plugin_spec.plugin.threat()
        if threat is not None and (radius[certified] < np.float32(threat.eps)).any():
            raise PluginError(f"{name}: the radius of a certified sample should be at least eps {threat.eps_text}")
    if abstained is not None and (abstained & certified).any():
        raise PluginError(f"{name}: a sample is both certified and abstained on")
    if plugin_spec.plugin.radius_decides and radius is None:
        raise PluginError(f"{name}: a certificate with radius_decides should return radii")
    return certified, radius, abstained, int(result.forwards)
