"""The losses that attacks increase, against loops in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from freqrobust.core.errors import SpecError
from freqrobust.numerics.losses import cross_entropy, dlr, loss_function, margin


def draw(classes: int, n: int = 40, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(classes)
    logits = torch.from_numpy(scale * rng.standard_normal((n, classes)))
    labels = torch.from_numpy(rng.integers(0, classes, n))
    targets = (labels + torch.from_numpy(rng.integers(1, classes, n))) % classes
    return logits, labels, targets


def reference(name: str, logits: np.ndarray, labels: np.ndarray, targets: np.ndarray | None) -> np.ndarray:
    found = []
    for i, row in enumerate(logits):
        label, target = labels[i], None if targets is None else targets[i]
        if name == "ce":
            wanted = label if target is None else target
            value = np.log(np.exp(row).sum()) - row[wanted]
            found.append(value if target is None else -value)
            continue
        other = max(v for k, v in enumerate(row) if k != label) if target is None else row[target]
        value = other - row[label]
        if name == "dlr":
            ordered = sorted(row, reverse=True)
            value /= ordered[0] - (ordered[2] if target is None else 0.5 * (ordered[2] + ordered[3]))
        found.append(value)
    return np.array(found)


@pytest.mark.parametrize("name", ["ce", "margin", "dlr"])
@pytest.mark.parametrize("classes", [4, 10, 100])
@pytest.mark.parametrize("targeted", [False, True])
def test_losses_equal_the_loop(name, classes, targeted) -> None:
    logits, labels, targets = draw(classes)
    found = loss_function(name)(logits, labels, targets if targeted else None)
    expected = reference(name, logits.numpy(), labels.numpy(), targets.numpy() if targeted else None)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(classes) -> None:
    logits, labels, _ = draw(classes)
    for name in ["ce", "margin"] + (["dlr"] if classes == 3 else []):
        found = loss_function(name)(logits, labels, None)
        np.testing.assert_allclose(found, reference(name, logits.numpy(), labels.numpy(), None), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("classes", "targeted", "needed"), [(2, False, 3), (2, True, 4), (3, True, 4)])
def test_dlr_says_how_many_classes_it_needs(classes, targeted, needed) -> None:
    logits, labels, targets = draw(classes)
    with pytest.raises(SpecError, match=f"at least {needed} classes, but the model has {classes}; use loss=margin"):
        dlr(logits, labels, targets if targeted else None)


def test_margin_is_positive_exactly_where_the_sample_is_broken() -> None:
    logits, labels, _ = draw(10, n=500)
    assert torch.equal(margin(logits, labels) > 0, logits.argmax(dim=1) != labels)
    assert torch.equal(dlr(logits, labels) > 0, logits.argmax(dim=1) != labels)


def test_dlr_does_not_see_the_scale_of_the_logits() -> None:
    logits, labels, targets = draw(10)
    torch.testing.assert_close(dlr(100 * logits + 7, labels), dlr(logits, labels))
    torch.testing.assert_close(dlr(100 * logits + 7, labels, targets), dlr(logits, labels, targets))


@pytest.mark.parametrize("function", [cross_entropy, margin, dlr])
def test_the_gradient_of_a_sample_does_not_depend_on_the_batch(function) -> None:
    logits, labels, _ = draw(10)
    logits.requires_grad_(True)
    (whole,) = torch.autograd.grad(function(logits, labels).sum(), logits)
    (alone,) = torch.autograd.grad(function(logits[3:4], labels[3:4]).sum(), logits)
    torch.testing.assert_close(whole[3], alone[3], rtol=1e-12, atol=0)
