"""Randomized smoothing as a certificate (Cohen, Rosenfeld, Kolter 2019, "Certified adversarial robustness")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import Count, Number
from freqrobust.plugins.base import Defense
from freqrobust.plugins.certificate import Certificate, CertificateContext, Certified, Guarantee

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Draws of a sample that pass through the model together. They share one stream, so another number is other noise.
DRAWS = 20


class Smoothing(Certificate):
    """L2 radius of a classifier smoothed by Gaussian noise, by sampling.  (Cohen et al. 2019, CERTIFY)

    The smoothed classifier is ``g(x) = argmax_c P(f(x + delta) = c)`` with ``delta ~ N(0, sigma^2 I)``, where ``f`` is
    the model behind the noise of the outermost defense. With ``n0`` draws the class ``c`` with the most votes is
    selected; of ``n`` further draws, ``k`` vote for it. With ``p`` the one-sided Clopper-Pearson bound of ``k`` of ``n``
    at confidence ``1 - alpha``, ``g`` predicts ``c`` within the L2 radius ``sigma * Phi^-1(p)`` if ``p > 1/2``; otherwise it
    abstains (Cohen et al. 2019, sec. 3.2.2, theorem 1). A sample is certified where ``c`` is its label and the radius is
    at least ``eps``. Samples whose selected class is another are not estimated: nothing could be certified.

    It is statistical: for each sample it is wrong with probability at most ``alpha``. It is about the smoothed
    classifier, which takes infinitely many votes, and not about the defended model that attacks are run on, which takes
    the votes of a few copies. The arithmetic is floating point, without directed rounding. The largest radius that can
    be certified is ``sigma * Phi^-1(alpha^(1/n))``.
    """

    guarantee: ClassVar[Guarantee] = "statistical"
    radius_decides: ClassVar[bool] = True
    expansion: ClassVar[int] = DRAWS

    eps: Number = Field(gt=0, description="L2 radius; 128/255 is accepted", examples=["0.25"])
    norm: Literal["l2"] = Field("l2", description="Gaussian noise certifies the L2 norm")
    n: Count = Field(1000, description="draws for the estimate, chosen for CPUs; papers use 100000")
    n0: Count = Field(100, description="draws to select the class")
    alpha: float = Field(0.001, gt=0, lt=1, description="probability, for each sample, that its radius is wrong")

    @model_validator(mode="after")
    def _enough_draws(self) -> Smoothing:
        if self.n < self.n0:
            raise ValueError(f"parameter 'n' should be at least n0 = {self.n0}, but got {self.n}")
        return self

    def check_defenses(self, defenses: Sequence[Defense]) -> None:
        sigma = defenses[-1].smoothing_sigma() if defenses else None
        if sigma is None:
            last = type(defenses[-1]).__name__ if defenses else "the undefended model"
            raise SpecError(
                f"smoothing needs Gaussian noise in the outermost defense, such as randomized-smoothing:sigma=0.25, "
                f"but {last} has none"
            )
        inner = next((defense for defense in defenses[:-1] if defense.stochastic), None)
        if inner is not None:
            raise SpecError(
                f"smoothing needs a deterministic model behind the noise, but {type(inner).__name__} is not"
            )
        largest = self.largest_radius(sigma)
        if self.eps > largest:
            raise SpecError(
                f"smoothing with n={self.n} and alpha={self.alpha:g} certifies at most the radius {largest:.4g} for "
                f"sigma={sigma:g}, but eps is {self.eps:g}; give a smaller eps, a larger n or a larger sigma"
            )

    def largest_radius(self, sigma: float) -> float:
        """The radius where all ``n`` draws vote for one class: ``sigma * Phi^-1(alpha^(1/n))``, at least 0."""
        from freqrobust.numerics.statistics import clopper_pearson_lower

        return _radius(sigma, clopper_pearson_lower(self.n, self.n, self.alpha))

    def statement(self) -> str:
        return (
            f"the smoothed classifier, which predicts the most likely class under Gaussian noise, predicts the label of a "
            f"certified sample under every perturbation within the L2 budget; estimated from {self.n:,} draws, and wrong "
            f"with probability at most {self.alpha:g} for each sample; it is another object than the defended model, which "
            f"takes the votes of a few copies; floating-point rounding is not covered"
        )

    def passes(self) -> int:
        return self.n0 + self.n

    def certify(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: CertificateContext
    ) -> Certified:
        import torch

        from freqrobust.numerics.statistics import clopper_pearson_lower

        sigma = context.defenses[-1].smoothing_sigma() if context.defenses else None
        base = getattr(model, "model", None)
        if sigma is None or base is None:
            raise SpecError("smoothing needs a defended model whose outermost defense votes under Gaussian noise")
        votes = self._votes(base, images, context.ids, sigma, self.n0, "selection", context.seed)
        selected = votes.argmax(dim=1)
        right = (selected == labels) & (votes.amax(dim=1) > 0)
        radius = torch.zeros(len(images), dtype=torch.float32, device=images.device)
        abstained = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        where = right.nonzero()[:, 0]
        if len(where):
            estimate = self._votes(base, images[where], context.ids[where], sigma, self.n, "estimation", context.seed)
            counts = estimate.gather(1, selected[where, None])[:, 0].tolist()
            radii = [_radius(sigma, clopper_pearson_lower(int(count), self.n, self.alpha)) for count in counts]
            radius[where] = torch.tensor(radii, dtype=torch.float32, device=images.device)
            abstained[where] = radius[where] == 0
        certified = (radius > 0) & (radius >= self.eps)
        return Certified(certified, radius, abstained, forwards=self.n0 * len(images) + self.n * len(where))

    def _votes(
        self, base: nn.Module, images: torch.Tensor, ids: torch.Tensor, sigma: float, draws: int, stream: str, seed: int
    ) -> torch.Tensor:
        """How often each class is predicted of noisy copies, int64 ``(N, K)``; NaN is no vote."""
        import torch

        from freqrobust.numerics import noise

        total: torch.Tensor | None = None
        ids = ids.to(images.device)
        for block in range(0, draws, DRAWS):
            shape = (DRAWS, *images.shape[1:])
            normal = noise.normal(ids, shape, seed=seed, stream=f"smoothing {stream} {block // DRAWS}")
            copies = images[:, None] + sigma * normal[:, : min(DRAWS, draws - block)]
            with torch.no_grad():
                logits: torch.Tensor = base(copies.flatten(0, 1)).float()
            valid = ~torch.isnan(logits).any(dim=1)
            votes = torch.zeros(logits.shape, dtype=torch.int64, device=logits.device)
            votes.scatter_(1, logits.argmax(dim=1, keepdim=True), valid[:, None].long())
            votes = votes.view(len(images), -1, logits.shape[1]).sum(dim=1)
            total = votes if total is None else total + votes
        assert total is not None
        return total


def _radius(sigma: float, share: float) -> float:
    """``sigma * Phi^-1(share)``; 0 where at most half of the draws are sure to vote for the class.

    Example:
        >>> round(_radius(0.5, 0.9), 4), _radius(0.5, 0.5)
        (0.6408, 0.0)
    """
    from statistics import NormalDist

    return sigma * NormalDist().inv_cdf(share) if share > 0.5 else 0.0
