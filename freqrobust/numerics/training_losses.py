"""Losses of adversarial training: one value per sample, to be minimised in the parameters of the network.

``clean (N, K)`` and ``adversarial (N, K)`` are logits on images and on their adversarial examples, ``labels (N,)``; the result
is ``(N,)``. Gradients flow through both logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def kl_divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """``KL(p || q) = sum_k p_k (log p_k - log q_k)`` of the softmax probabilities of two logits ``(N, K)``."""
    log_p, log_q = _precise(p).log_softmax(dim=1), _precise(q).log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def trades(clean: torch.Tensor, adversarial: torch.Tensor, labels: torch.Tensor, beta: float) -> torch.Tensor:
    """``CE(clean, y) + beta * KL(clean || adversarial)``.  (Zhang et al. 2019, eq. 5, with ``beta = 1 / lambda``)"""
    return F.cross_entropy(_precise(clean), labels, reduction="none") + beta * kl_divergence(clean, adversarial)


def boosted_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """``-log p_y - log(1 - max_{k != y} p_k)``: cross-entropy and a margin.  (Wang et al. 2020, "MART", sec. 3.2)

    The second logarithm is computed from the logits of the other classes, so that it stays finite where one wrong class
    has a probability of almost 1.
    """
    logits = _precise(logits)
    own = labels[:, None]
    strongest = logits.detach().scatter(1, own, float("-inf")).argmax(dim=1, keepdim=True)
    rest = logits.scatter(1, strongest, float("-inf")).logsumexp(dim=1) - logits.logsumexp(dim=1)
    return F.cross_entropy(logits, labels, reduction="none") - rest


def mart(clean: torch.Tensor, adversarial: torch.Tensor, labels: torch.Tensor, weight: float) -> torch.Tensor:
    """``BCE(adversarial, y) + weight * KL(clean || adversarial) * (1 - p_y(clean))``.  (Wang et al. 2020, "MART", sec. 3.2)

    ``BCE`` is :func:`boosted_cross_entropy`.
    """
    own = _precise(clean).softmax(dim=1).gather(1, labels[:, None])[:, 0]
    return boosted_cross_entropy(adversarial, labels) + weight * kl_divergence(clean, adversarial) * (1 - own)


def _precise(logits: torch.Tensor) -> torch.Tensor:
    """The logits in float32, or in float64 where they are given so."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
