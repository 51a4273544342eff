"""The ensemble of the package's own attacks: its parts, their counts, and the library's ensemble."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from freqrobust import evaluate
from freqrobust.attacks.aa import AA
from freqrobust.numerics.norms import norms
from freqrobust.plugins.context import AttackContext
from support.networks import tiny, untrained

PARTS = ["apgd-pm", "apgd-ce", "apgd-t", "fmn", "square"]


@pytest.mark.parametrize(("classes", "left_out"), [(2, ["apgd-t"]), (3, ["apgd-t"]), (4, [])])
def test_the_counts_of_the_parts_add_up(classes, left_out) -> None:
    model, data = tiny(classes, 8)
    cell = evaluate(model, data, attacks=["aa:eps=1/255,queries=20"], device="cpu", batch_size=3, diagnose=None).cells[
        1
    ]
    assert cell.status == "ok", cell.error
    assert list(cell.breakdown) == [part for part in PARTS if part not in left_out]
    assert sum(cell.breakdown.values()) == cell.n - cell.correct
    assert bool(left_out) == ("without apgd-t, which needs 4 classes" in cell.notes)


class Masked(nn.Module):
    """A linear model behind a sign-like step: correct gradients vanish, and queries still see the margin."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(2, 48, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) * 1e4).round() / 1e4 @ self.weight.T


def test_masked_gradients_get_all_queries() -> None:
    model = Masked().eval()
    x = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = model(x).argmax(dim=1)
    cell = evaluate(model, (x, labels), attacks=["aa:eps=0.02,queries=300"], device="cpu", diagnose=None).cells[1]
    assert cell.status == "ok", cell.error
    assert any("square was run with 300 queries" in note for note in cell.notes)
    assert cell.forwards > 300 * cell.correct
    # with useful gradients a robust sample gets a tenth of the queries
    smooth, data = tiny(4, 8)
    few, more = (
        evaluate(smooth, data, attacks=[f"aa:eps=0.01/255,queries={q}"], device="cpu", diagnose=None).cells[1]
        for q in (10, 300)
    )
    assert few.correct == more.correct == 8
    assert more.forwards - few.forwards == 8 * (30 - 1)
    assert not any("queries on some" in note for note in more.notes)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.1), ("l1", 0.5)])
def test_is_as_strong_as_its_parts_and_within_its_budget(norm, eps) -> None:
    model = untrained(1, classes=6, channels=3, width=8).eval().requires_grad_(False)
    x = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    labels = model(x).argmax(dim=1)
    spec = f"norm={norm},eps={eps}"
    _, whole, part = evaluate(
        model,
        (x, labels),
        attacks=[f"aa:{spec},queries=20", f"apgd:{spec},steps=100,targets=0"],
        device="cpu",
        diagnose=None,
    ).cells
    assert whole.status == "ok", whole.error
    assert 0 < whole.correct < 12
    assert not (whole.right() & ~part.right()).any()
    attack = AA(norm=norm, eps=eps, queries=20)
    decided, most = (
        attack.perturb(model, x, labels, AttackContext(torch.arange(12), 0, goal)) for goal in ("decide", "maximize")
    )
    assert norms(most - x, norm).max() <= eps + 1e-6
    robust = model(decided).argmax(dim=1) == labels
    assert torch.equal(robust, model(most).argmax(dim=1) == labels)
    assert (norms(most - x, norm) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["decide", "maximize"])
def test_contract(goal) -> None:
    """Each sample alone gives what the batch gives; images and model stay as they are; no budget, no change."""
    model, data = tiny(4, 5)
    model.requires_grad_(False)
    x, labels, ids = data.batch(torch.arange(5), torch.device("cpu"))
    kept, state = x.clone(), {k: v.clone() for k, v in model.state_dict().items()}
    attack = AA(eps=1 / 255, queries=20)
    whole = attack.perturb(model, x, labels, AttackContext(ids, 3, goal))
    for i in range(5):
        alone = attack.perturb(model, x[i : i + 1], labels[i : i + 1], AttackContext(ids[i : i + 1], 3, goal))
        assert bool(model(alone).argmax() != labels[i]) == bool(model(whole[i : i + 1]).argmax() != labels[i])
    assert torch.equal(x, kept)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(AA(eps=0).perturb(model, x, labels, AttackContext(ids, 3, goal)), x)


@pytest.mark.slow
def test_agrees_with_the_library() -> None:
    pytest.importorskip("pyautoattack", reason="the extra 'zoo' is not installed")
    model = untrained(3, classes=6, channels=3, width=8).eval().requires_grad_(False)
    x = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    labels = model(x).argmax(dim=1)
    ours = evaluate(model, (x, labels), attacks=["aa:eps=0.02"], device="cpu", batch_size=4, diagnose=None).cells[1]
    theirs = evaluate(model, (x, labels), attacks=["autoattack:eps=0.02"], device="cpu", diagnose=None).cells[1]
    assert ours.status == theirs.status == "ok"
    assert 0 < theirs.correct < 10
    assert abs(ours.correct - theirs.correct) <= 1
    assert ours.forwards < theirs.forwards / 2


@pytest.mark.slow
def test_a_random_model_gets_no_minimum_norm_attack() -> None:
    model, data = tiny(4, 4)
    cell = evaluate(
        model, data, attacks=["aa:eps=1/255,queries=10"], defenses=["gaussian-noise:sigma=0.01"],
        undefended=False, device="cpu", diagnose=None,
    ).cells[1]  # fmt: skip
    assert cell.status == "ok", cell.error
    assert "fmn" not in cell.breakdown
    assert any("without fmn" in note for note in cell.notes)
