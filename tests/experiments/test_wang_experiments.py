"""The experiments of Wang et al. on the digits: trends with a wide margin, and what has to be so whatever is learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust.experiments.bench import Bench
from freqrobust.experiments.reproduce import reproduce
from freqrobust.numerics.frequency import directions, fourier_basis
from freqrobust.reproductions import _wang
from freqrobust.reproductions.wang_misalignment import WangMisalignment
from freqrobust.reproductions.wang_smoothing import kernel_shares
from freqrobust.results.findings import Findings, Trend

slow = pytest.mark.slow
Run = Callable[[str], Findings]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs an experiment once; networks are shared."""
    cache: Path = tmp_path_factory.mktemp("networks")
    known: dict[str, Findings] = {}

    def once(spec: str) -> Findings:
        if spec not in known:
            known[spec] = reproduce(spec, cache_dir=cache)
        return known[spec]

    return once


def trend(findings: Findings, *words: str) -> Trend:
    """The only trend whose statement contains all of these words."""
    (found,) = [t for t in findings.trends if all(word in t.statement for word in words)]
    return found


@slow
def test_networks_trained_on_lfc_have_the_higher_accuracy(run: Run) -> None:
    """At r = 12 and 16; at 8 pixels, smaller radii leave the LFC image almost nothing."""
    found = run("wang-table1")
    for radius in (12, 16):
        judged = trend(found, f"r = {radius},")
        assert judged.verdict == "reproduced"
        assert judged.ci95 is not None
        assert judged.ci95[0] > 0.3
    values = {m.name: m for m in found.measured}
    assert values["test accuracy, trained on LFC r=16"].value > 0.85
    assert all(m.published is not None and m.ci95 is not None for m in found.measured)


@slow
def test_shuffled_labels_are_learned_more_slowly(run: Run) -> None:
    found = run("wang-fig3")
    judged = trend(found, "more slowly")
    assert judged.verdict == "reproduced"
    assert judged.ci95 is not None
    assert judged.ci95[0] > 0.4
    assert trend(found, "After the first epoch, LFC").verdict == "reproduced"
    epochs = {curve.panel: len(curve.x) - 1 for curve in found.curves}
    assert epochs["shuffled labels"] == 3 * epochs["natural labels"]


@slow
def test_small_batches_give_the_higher_accuracy(run: Run) -> None:
    found = run("wang-fig4")
    assert trend(found, "higher test accuracy").verdict == "reproduced"
    assert [row[0] for row in found.tables[0].rows] == ["10", "50", "250", "1000"]


@slow
def test_the_batch_norm_panel_depends_on_the_statistics(run: Run) -> None:
    found = run("wang-fig5")
    for rescale in ("none", "max"):
        running, batch = (trend(found, "Batch norm", f"rescale={rescale}, bn={bn}") for bn in ("running", "batch"))
        assert batch.verdict == "reproduced"
        assert batch.estimate > running.estimate + 0.05
    panels = {curve.panel for curve in found.curves}
    assert panels == {"plain", "dropout", "mixup", "batch norm (bn=running)", "batch norm (bn=batch)", "adversarial"}


@slow
def test_both_conventions_of_figure_6_are_in_one_table(run: Run) -> None:
    found = run("wang-fig6")
    table = found.tables[0]
    assert {(row[1], row[2]) for row in table.rows} == {(r, b) for r in ("none", "max") for b in ("running", "batch")}
    assert trend(found, "r = 8", "learns faster (rescale=none, bn=batch)").verdict == "reproduced"


@slow
def test_the_contingency_table_is_consistent(run: Run) -> None:
    found = run("wang-misalignment")
    rows = {row[0]: [float(cell.split(" ")[0]) for cell in row[1:]] for row in found.tables[0].rows}
    assert len(rows) == 8
    for shares in rows.values():
        assert sum(shares[:4]) == pytest.approx(100, abs=0.3)
    only_lfc, only_hfc, both, _ = rows["0"][:4]
    assert both + only_lfc < 15  # the LFC image is black, so that one class is predicted
    assert both + only_hfc > 85  # the HFC image is the original
    assert rows["16"][0] > 60
    assert trend(found, "from the LFC than from the HFC").verdict == "reproduced"


@slow
def test_adaptive_attacks_are_at_least_as_strong_as_oblivious_ones(run: Run) -> None:
    found = run("wang-smoothing")
    for table in found.tables[1:]:
        for row in table.rows:
            pairs = [tuple(map(float, cell.split(" / "))) for cell in row[2:] if "/" in cell]
            assert all(accuracy <= float(row[1]) for pair in pairs for accuracy in pair)
            if row[0] == "0":  # one network, one attack
                assert pairs[0][0] == pairs[0][1]
            if row[0] == "1":
                assert pairs[-1][0] < pairs[-1][1] - 5
    assert {"oblivious", "adaptive"} <= {word for t in found.trends for word in t.statement.split()}


def test_a_given_model_is_not_trained(tmp_path: Path) -> None:
    code = "from freqrobust.models.architectures import SmallCNN\n\n\ndef build():\n    return SmallCNN()\n"
    (tmp_path / "untrained.py").write_text(code)
    found = reproduce(WangMisalignment(model=f"{tmp_path / 'untrained.py'}:build"))
    assert "training" not in found.settings
    assert any("nothing was trained" in note for note in found.notes)
    assert len(found.tables[0].rows) == 8


@pytest.mark.slow
def test_adversarial_training_lowers_the_high_frequency_energy_of_kernels() -> None:
    """Digits with a wave of 0.05 in the highest frequencies that gives the class away, which an eps of 0.1 can replace.

    One layer of 8 x 8 kernels; each kernel is compared with the kernel that started from the same weights.
    """
    bench = Bench()
    data = bench.train.limit(400)
    waves = torch.stack([fourier_basis(8, 8, *frequency) for frequency in directions(8, 8)[-10:]])
    waves /= waves.abs().amax(dim=(1, 2), keepdim=True)
    data = replace(data, images=0.1 + 0.8 * data.images + 0.05 * waves[data.labels][:, None])

    def shares(method: str) -> np.ndarray:
        recipe = _wang.recipe(bench, epochs=8, method=method)
        return np.concatenate(
            [
                kernel_shares(
                    bench.fit(
                        lambda: nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()),
                        data,
                        recipe,
                        name="one layer",
                        normalize=False,
                        seed=seed,
                    ).model
                )[0]
                for seed in range(3)
            ]
        )

    difference = shares("natural") - shares("madry:eps=0.1,steps=2")
    judged = _wang.mean_over_samples("Adversarial training lowers the energy.", difference, "difference of the shares")
    assert judged.verdict == "reproduced"


def test_the_share_of_every_filter_is_that_of_its_kernel() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False))
    with torch.no_grad():
        network[0].weight[0] = 1.0
        network[0].weight[1] = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
        network[0].weight[2] = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
    (shares,) = kernel_shares(network)
    white = np.mean([(u * u + v * v) >= 8**2 for u in range(-16, 16) for v in range(-16, 16)])
    assert shares[0] < 0.3
    assert shares[1] == pytest.approx(white)  # a single weight has the same energy at every frequency
    assert shares[2] > 0.99
