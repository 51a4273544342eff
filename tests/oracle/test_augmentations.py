"""Augmentations against their definitions, computed with NumPy and SciPy, and against torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from freqrobust.augmentations._draws import beta, dirichlet
from freqrobust.augmentations._mixing import partners
from freqrobust.augmentations._operations import ALL, operated
from freqrobust.augmentations.amplitude_phase import AmplitudePhase, recombined
from freqrobust.augmentations.augmix import AugMix, mixture
from freqrobust.augmentations.cutmix import CutMix, boxes
from freqrobust.augmentations.gaussian_noise import GaussianNoise
from freqrobust.augmentations.mixup import Mixup
from freqrobust.augmentations.policies import AutoAugment, RandAugment
from freqrobust.core.errors import SpecError
from freqrobust.plugins.training import Batch, StepContext

CLASSES = 4


def batch_of(n: int = 9, channels: int = 3, size: tuple[int, int] = (6, 5), seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, channels, *size), generator=generator).float() / 255
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    return Batch(images, labels, torch.arange(n) + 11, labels)


def context_of(batch: Batch, epoch: int = 0, seed: int = 0) -> StepContext:
    return StepContext(batch.ids, seed, epoch, CLASSES)


def one_hot(batch: Batch) -> np.ndarray:
    return np.eye(CLASSES)[batch.labels.numpy()]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_draws_have_their_distributions(alpha) -> None:
    uniform = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    assert scipy.stats.kstest(beta(uniform[:, 0], alpha).numpy(), scipy.stats.beta(alpha, alpha).cdf).pvalue > 0.001
    weights = dirichlet(uniform, alpha).numpy()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    for column in weights.T:  # each weight of a symmetric Dirichlet distribution of three is Beta(alpha, 2 alpha)
        assert scipy.stats.kstest(column, scipy.stats.beta(alpha, 2 * alpha).cdf).pvalue > 0.001
    extreme = torch.tensor([[0.0, 0.0, 0.0], [1 - 2**-24] * 3])
    assert bool(torch.isfinite(dirichlet(extreme, alpha)).all())
    assert bool(((beta(extreme, alpha) >= 0) & (beta(extreme, alpha) <= 1)).all())


def test_partners_are_a_permutation_that_does_not_depend_on_the_order() -> None:
    ids = torch.tensor([8, 3, 5, 1, 9])
    draws = torch.rand(5, generator=torch.Generator().manual_seed(2))
    partner = partners(ids, draws)
    assert sorted(partner.tolist()) == list(range(5))
    pairs = set(zip(ids.tolist(), ids[partner].tolist(), strict=True))
    order = torch.tensor([4, 0, 2, 1, 3])
    other = ids[order]
    assert set(zip(other.tolist(), other[partners(other, draws[order])].tolist(), strict=True)) == pairs


@pytest.mark.parametrize("draw", ["batch", "sample"])
def test_mixup(draw) -> None:
    batch = batch_of()
    context = context_of(batch)
    mixed = Mixup(alpha=0.7, draw=draw).augment(batch, context)
    partner = partners(context.ids, context.uniform((1,), "mixup partner")[:, 0]).numpy()
    images, targets = batch.images.numpy(), one_hot(batch)
    shares = []
    for i, j in enumerate(partner):
        # the share follows from the image by least squares; the target has to have the same one
        difference = (images[i] - images[j]).ravel()
        found = (mixed.images[i].numpy() - images[j]).ravel()
        share = 1.0 if i == j else float(found @ difference / (difference @ difference))
        np.testing.assert_allclose(mixed.images[i], share * images[i] + (1 - share) * images[j], atol=1e-6)
        np.testing.assert_allclose(mixed.targets[i], share * targets[i] + (1 - share) * targets[j], atol=1e-5)
        shares += [share] if i != j else []
    assert torch.equal(mixed.labels, batch.labels)
    assert (np.ptp(shares) < 1e-4) == (draw == "batch")


def test_the_share_of_mixup_is_drawn_from_the_beta_distribution() -> None:
    batch = batch_of(n=2000, size=(1, 1))
    draws = context_of(batch).uniform((1,), "mixup share")[:, 0]
    assert scipy.stats.kstest(beta(draws, 0.5).numpy(), scipy.stats.beta(0.5, 0.5).cdf).pvalue > 0.001
    epochs = [
        float(Mixup().augment(batch, context_of(batch, epoch)).targets.max(dim=1).values.min()) for epoch in (0, 1)
    ]
    assert epochs[0] != epochs[1]


def test_boxes_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    share, centre = torch.rand(40, generator=generator), torch.rand(40, 2, generator=generator)
    inside = boxes(7, 10, share, centre).numpy()
    for n in range(40):
        expected = np.zeros((7, 10), dtype=bool)
        for y in range(7):
            for x in range(10):
                side = np.sqrt(1 - float(share[n]))
                top, bottom = (round(float(centre[n, 0]) * 7 + sign * 7 * side / 2) for sign in (-1, 1))
                left, right = (round(float(centre[n, 1]) * 10 + sign * 10 * side / 2) for sign in (-1, 1))
                expected[y, x] = top <= y < bottom and left <= x < right
        np.testing.assert_array_equal(inside[n], expected)


@pytest.mark.parametrize("draw", ["batch", "sample"])
def test_cutmix(draw) -> None:
    batch = batch_of(n=12, size=(9, 8))
    context = context_of(batch)
    mixed = CutMix(p=1, draw=draw).augment(batch, context)
    partner = partners(context.ids, context.uniform((1,), "cutmix partner")[:, 0]).numpy()
    masks = set()
    for i, j in enumerate(partner):
        if i == j:
            assert torch.equal(mixed.images[i], batch.images[i])
            continue
        inside = (mixed.images[i] != batch.images[i]).any(dim=0)  # two random images differ at every pixel
        assert torch.equal(mixed.images[i][:, inside], batch.images[j][:, inside])
        area = float(inside.float().mean())
        np.testing.assert_allclose(
            mixed.targets[i], (1 - area) * one_hot(batch)[i] + area * one_hot(batch)[j], atol=1e-6
        )
        masks.add(inside.numpy().tobytes())
        rows, columns = inside.any(dim=1).sum(), inside.any(dim=0).sum()
        assert int(inside.sum()) == int(rows * columns)  # it is a box
    assert (len(masks) == 1) == (draw == "batch")


def test_the_probability_of_cutmix() -> None:
    batch = batch_of(n=2000, size=(4, 4))
    assert torch.equal(CutMix(p=0).augment(batch, context_of(batch)).images, batch.images)
    mixed = CutMix(p=0.3, draw="sample").augment(batch, context_of(batch))
    drawn = context_of(batch).uniform((4,), "cutmix box")[:, 3] < 0.3
    changed = (mixed.images != batch.images).flatten(1).any(dim=1)
    assert not bool((changed & ~drawn).any())
    assert abs(float(drawn.float().mean()) - 0.3) < 0.05
    assert float(changed[drawn].float().mean()) > 0.6


def test_recombination_against_the_definition() -> None:
    batch = batch_of(n=4, size=(6, 5))
    images = batch.images.numpy().astype(np.float64)
    for i in range(4):
        for j in range(4):
            expected = np.empty_like(images[i])
            for channel in range(3):
                phase = np.angle(np.fft.fft2(images[i, channel]))
                amplitude = np.abs(np.fft.fft2(images[j, channel]))
                product = np.fft.ifft2(amplitude * np.exp(1j * phase))
                assert np.abs(product.imag).max() < 1e-9
                expected[channel] = np.clip(product.real, 0, 1)
            found = recombined(batch.images[i : i + 1], batch.images[j : j + 1])[0]
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_amplitude_phase_changes_the_share_of_images_that_it_should() -> None:
    batch = batch_of(n=1500, channels=1, size=(4, 4))
    context = context_of(batch)
    partner = partners(context.ids, context.uniform((1,), "apr partner")[:, 0])
    for p, share in ((0.0, 0.0), (None, 0.6), (1.0, 1.0)):
        images = AmplitudePhase(p=p).augment(batch, context).images
        changed = (images != batch.images).flatten(1).any(dim=1)
        assert abs(float(changed.float().mean()) - share) < 0.05
        expected = recombined(batch.images, batch.images[partner])
        torch.testing.assert_close(images[changed], expected[changed])
    with_itself = recombined(batch.images, batch.images)
    torch.testing.assert_close(with_itself, batch.images, atol=1e-5, rtol=0)


def test_single_recombination_uses_two_copies_of_the_image() -> None:
    batch = batch_of(n=40, size=(8, 8))
    context = context_of(batch)
    plugin = AmplitudePhase(amplitude="single")
    first, second = (plugin._copies(batch.images, context, f"apr copy {number}") for number in (1, 2))
    images = plugin.augment(batch, context).images
    expected = recombined(first, second)
    kinds = [
        "first" if torch.equal(image, a) else "both" if torch.allclose(image, b, atol=1e-6) else "?"
        for image, a, b in zip(images, first, expected, strict=True)
    ]
    assert "?" not in kinds
    assert 8 < kinds.count("both") < 32


#: The same operation in torchvision's policies: its name there, and its magnitude for a level and a sign.
SAME = {
    "autocontrast": ("AutoContrast", lambda level, sign: 0.0),
    "equalize": ("Equalize", lambda level, sign: 0.0),
    "posterize": ("Posterize", lambda level, sign: 4 - int(level * 4 / 10)),
    "solarize": ("Solarize", lambda level, sign: 256 - int(level * 256 / 10)),
    "rotate": ("Rotate", lambda level, sign: sign * int(level * 30 / 10)),
    "shear-x": ("ShearX", lambda level, sign: sign * level * 0.03),
    "shear-y": ("ShearY", lambda level, sign: sign * level * 0.03),
    "translate-x": ("TranslateX", lambda level, sign: sign * int(level * 12 / 30)),
    "translate-y": ("TranslateY", lambda level, sign: sign * int(level * 9 / 30)),
    "colour": ("Color", lambda level, sign: level * 0.18 + 0.1 - 1),
    "contrast": ("Contrast", lambda level, sign: level * 0.18 + 0.1 - 1),
    "brightness": ("Brightness", lambda level, sign: level * 0.18 + 0.1 - 1),
    "sharpness": ("Sharpness", lambda level, sign: level * 0.18 + 0.1 - 1),
}


@pytest.mark.parametrize("name", ALL)
def test_operations_are_those_of_torchvision(name) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    other, magnitude = SAME[name]
    for level in (0.5, 3.0, 9.7):
        for sign in (-1, 1):
            found = operated(image, name, level, sign)
            expected = _apply_op(image, other, magnitude(level, sign), InterpolationMode.BILINEAR, None)
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_the_mixture_of_augmix() -> None:
    generator = torch.Generator().manual_seed(0)
    images, chains = torch.rand(3, 1, 2, 2, generator=generator), torch.rand(3, 4, 1, 2, 2, generator=generator)
    weights, share = dirichlet(torch.rand(3, 4, generator=generator), 1.0), torch.rand(3, generator=generator)
    found = mixture(images, chains, weights, share).numpy()
    for n in range(3):
        mixed = sum(float(weights[n, i]) * chains[n, i].numpy() for i in range(4))
        expected = float(share[n]) * images[n].numpy() + (1 - float(share[n])) * mixed
        np.testing.assert_allclose(found[n], expected, rtol=1e-5)


def test_augmix_of_operations_that_change_nothing_is_the_image(monkeypatch) -> None:
    batch = batch_of(n=20, size=(8, 8))
    augmented = AugMix().augment(batch, context_of(batch)).images
    assert (augmented != batch.images).flatten(1).any(dim=1).float().mean() > 0.8
    monkeypatch.setattr("freqrobust.augmentations._operations.operated", lambda image, *_: image)
    torch.testing.assert_close(AugMix().augment(batch, context_of(batch)).images, batch.images)


def test_augmix_applies_one_two_or_three_operations_of_every_kind(monkeypatch) -> None:
    batch = batch_of(n=150, size=(4, 4))
    applied = []

    def record(image, name, level, sign):
        applied.append((name, level, sign))
        return image

    monkeypatch.setattr("freqrobust.augmentations._operations.operated", record)
    AugMix(severity=5, all_ops=True).augment(batch, context_of(batch))
    assert {name for name, _, _ in applied} == set(ALL)
    assert {sign for _, _, sign in applied} == {-1, 1}
    levels = np.array([level for _, level, _ in applied])
    assert scipy.stats.kstest(levels, scipy.stats.uniform(0.1, 4.9).cdf).pvalue > 0.001
    assert abs(len(applied) / (150 * 3) - 2) < 0.2  # 2 on average
    applied.clear()
    AugMix(depth=4, width=2).augment(batch, context_of(batch))
    assert len(applied) == 150 * 2 * 4
    assert not {name for name, _, _ in applied} & {"colour", "contrast", "brightness", "sharpness"}


def test_augmix_with_views_leaves_the_image() -> None:
    batch = batch_of(n=8, size=(8, 8))
    augmented = AugMix(jsd=True).augment(batch, context_of(batch))
    assert torch.equal(augmented.images, batch.images)
    assert len(augmented.views) == 2
    assert not torch.equal(*augmented.views)
    assert AugMix(jsd=True).makes_views
    assert not AugMix().makes_views


@pytest.mark.parametrize(
    ("plugin", "transform"),
    [
        (AutoAugment(policy="svhn"), transforms.AutoAugment(transforms.AutoAugmentPolicy.SVHN)),
        (AutoAugment(), transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10)),
        (RandAugment(operations=3, magnitude=15), transforms.RandAugment(3, 15)),
    ],
    ids=["svhn", "cifar10", "randaugment"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_are_those_of_torchvision(plugin, transform, channels) -> None:
    batch = batch_of(n=12, size=(16, 16), channels=channels)
    context = context_of(batch)
    found = plugin.augment(batch, context).images
    (stream,) = {"autoaugment"} if isinstance(plugin, AutoAugment) else {"randaugment"}
    draws = context.uniform((2,), stream).double()
    seeds = ((draws[:, 0] * 2**24).long() * 2**24 + (draws[:, 1] * 2**24).long()).tolist()
    assert len(set(seeds)) == 12
    for i, seed in enumerate(seeds):
        pixels = (batch.images[i] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = np.asarray(transform(Image.fromarray(pixels[..., 0] if channels == 1 else pixels)))
        eight = (found[i] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(eight.squeeze(), expected)


def test_gaussian_noise_has_the_standard_deviation_that_it_should() -> None:
    batch = batch_of(n=400, size=(16, 16))
    fixed = GaussianNoise(sigma=0.1).augment(batch, context_of(batch)).images - batch.images
    assert scipy.stats.kstest(fixed.flatten()[:20_000].numpy(), scipy.stats.norm(0, 0.1).cdf).pvalue > 0.001
    random = GaussianNoise(sigma=0.1, random=True).augment(batch, context_of(batch)).images - batch.images
    deviations = random.flatten(1).std(dim=1).numpy()
    # 768 pixels estimate a standard deviation to 2.6 %
    assert scipy.stats.kstest(deviations, scipy.stats.uniform(0, 0.1).cdf).pvalue > 0.001
    clipped = GaussianNoise(sigma=0.5, clip=True).augment(batch, context_of(batch)).images
    assert float(clipped.min()) == 0
    assert float(clipped.max()) == 1


@pytest.mark.parametrize("plugin", [AutoAugment(), RandAugment(), AugMix(), AmplitudePhase(amplitude="single")])
def test_operations_need_one_or_three_channels(plugin) -> None:
    batch = batch_of(channels=2)
    with pytest.raises(SpecError, match="needs images of 1 or 3 channels, but these have 2"):
        plugin.augment(batch, context_of(batch))
