"""Analyses of the two real networks: counts that are known, and what was published about networks like them."""

from __future__ import annotations

import pytest
from torch import nn

from freqrobust import ImageData, analyze


def test_misalignment_has_the_reference_counts(models: dict[str, nn.Module], cifar: ImageData) -> None:
    """Counts of an independent NumPy reference; one may differ by one."""
    record = analyze(models["resnet20"], cifar, "misalignment:radii=[4,12],gallery=2", device="cpu")
    (found,) = record.results
    assert found.clean_correct == pytest.approx(455, abs=1)
    narrow, wide = found.table
    counts = [part.count for part in (wide.both, wide.only_lfc, wide.only_hfc, wide.neither, wide.lfc, wide.hfc)]
    assert counts == pytest.approx([54, 350, 22, 74, 404, 76], abs=1)
    assert [narrow.lfc.count, narrow.hfc.count] == pytest.approx([92, 222], abs=1)
    assert wide.hfc.by_chance == pytest.approx(50, abs=5)
    assert wide.lfc_agreement > 400
    assert found.gallery_candidates >= len(found.gallery) == 2
    for example in found.gallery:
        assert example.predictions[0] == example.label == example.predictions[2] != example.predictions[1]
        assert all(0.1 <= confidence <= 1 for confidence in example.confidences)


def test_perturbations_are_spread_out_or_low(models: dict[str, nn.Module], cifar: ImageData) -> None:
    """Those of the natural network go over all frequencies, those of the robust one stay low (Yin et al. 2019)."""
    spec = "spectrum:shifts=[none],attacks=[[pgd:eps=8/255,steps=5]]"
    record = analyze(dict(sorted(models.items(), reverse=True)), cifar.first(40), spec, device="cpu")
    shares = {one.label: one.spectra[-1].above for one in record.results}
    assert shares["resnet20"] > 0.6
    assert shares["cifar_small_36px"] < 0.25


def test_the_heat_map_of_the_robust_network_is_flat_at_high_frequencies(
    models: dict[str, nn.Module], cifar: ImageData
) -> None:
    record = analyze(models["cifar_small_36px"], cifar.first(25), "heatmap", device="cpu")
    (found,) = record.results
    assert found.directions == 514
    assert abs(found.high_error - found.clean_error) < 0.03
