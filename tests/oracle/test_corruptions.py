"""The corruptions against closed forms, SciPy, Pillow and OpenCV; their constants against a table typed apart."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from freqrobust.attacks.corruption import Corruption
from freqrobust.attacks.corruptions import _linear as linear
from freqrobust.attacks.corruptions import spatter
from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import definition, module_of, names
from freqrobust.attacks.corruptions._textures import Procedural
from freqrobust.attacks.corruptions.brightness import brightness
from freqrobust.attacks.corruptions.checkerboard_cutout import checkerboard_cutout
from freqrobust.attacks.corruptions.defocus_blur import defocus_blur, disk
from freqrobust.attacks.corruptions.elastic_transform import elastic_transform
from freqrobust.attacks.corruptions.fog import fog, plasma_fractal
from freqrobust.attacks.corruptions.glass_blur import shuffled
from freqrobust.attacks.corruptions.motion_blur import smear
from freqrobust.attacks.corruptions.saturate import saturate
from freqrobust.attacks.corruptions.shot_noise import shot_noise
from freqrobust.attacks.corruptions.zoom_blur import zoom_blur
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.corruption_names import COMMON, EXTRA

#: CIFAR-C as its script lists it, one line a corruption; elastic_transform in pixels of a 32-pixel image.
CIFAR = """
gaussian_noise     .04 | .06 | .08 | .09 | .10
shot_noise         500 | 250 | 100 | 75 | 50
impulse_noise      .01 | .02 | .03 | .05 | .07
speckle_noise      .06 | .1 | .12 | .16 | .2
gaussian_blur      .4 | .6 | .7 | .8 | 1
glass_blur         .05 1 1 | .25 1 1 | .4 1 1 | .25 1 2 | .4 1 2
defocus_blur       .3 .4 | .4 .5 | .5 .6 | 1 .2 | 1.5 .1
motion_blur        6 1 | 6 1.5 | 6 2 | 8 2 | 9 2.5
zoom_blur          1.06 .01 | 1.11 .01 | 1.16 .01 | 1.21 .01 | 1.26 .01
fog                .2 3 | .5 3 | .75 2.5 | 1 2 | 1.5 1.75
frost              1 .2 | 1 .3 | .9 .4 | .85 .4 | .75 .45
snow               .1 .2 1 .6 8 3 .95 | .1 .2 1 .5 10 4 .9 | .15 .3 1.75 .55 10 4 .9 | .25 .3 2.25 .6 12 6 .85 | .3 .3 1.25 .65 14 12 .8
spatter            .62 .1 .7 .7 .5 0 | .65 .1 .8 .7 .5 0 | .65 .3 1 .69 .5 0 | .65 .1 .7 .69 .6 1 | .65 .1 .5 .68 .6 1
contrast           .75 | .5 | .4 | .3 | .15
brightness         .05 | .1 | .15 | .2 | .3
saturate           .3 0 | .1 0 | 1.5 0 | 2 .1 | 2.5 .2
jpeg_compression   80 | 65 | 58 | 50 | 40
pixelate           .95 | .9 | .85 | .75 | .65
elastic_transform  0 0 2.56 | 1.6 6.4 2.24 | 2.56 1.92 1.92 | 3.2 1.28 1.6 | 3.2 .96 .96
"""


def images(n: int = 6, height: int = 32, width: int = 32, channels: int = 3) -> torch.Tensor:
    """Smooth random pictures of whole 8-bit levels, ``(N, C, H, W)`` in [0, 1]."""
    rough = np.random.default_rng(0).normal(size=(n, channels, height, width))
    smooth = ndimage.gaussian_filter(rough, (0, 0, 2, 2))
    levels = np.clip(128 + 300 * smooth, 0, 255).round()
    return torch.from_numpy(levels).float() / 255


def draws(n: int, name: str = "test") -> Draws:
    return Draws(torch.arange(n), 0, name)


def corrupted(x: torch.Tensor, name: str, severity: int, ids: torch.Tensor | None = None, **given) -> torch.Tensor:
    attack = Corruption(name=name, severity=severity, **given)
    labels = torch.zeros(len(x), dtype=torch.int64)
    context = AttackContext(torch.arange(len(x)) if ids is None else ids)
    return attack.perturb(torch.nn.Identity(), x.clone(), labels, context)


def test_the_cifar_constants_are_the_published_ones() -> None:
    typed = {}
    for line in CIFAR.strip().splitlines():
        name, _, values = line.partition(" ")
        typed[name] = [tuple(float(v) for v in part.split()) for part in values.split("|")]
    assert set(typed) == set(COMMON + EXTRA)
    for name, severities in typed.items():
        scale = 32 if name == "elastic_transform" else 1
        ours = [tuple(scale * value for value in constants) for constants in definition(name).cifar]
        assert len(ours) == 5
        assert np.allclose(ours, severities, rtol=1e-12), name


def test_the_sets_are_chosen_by_size() -> None:
    for side, name in ((32, "cifar"), (63, "cifar"), (64, "imagenet"), (224, "imagenet")):
        x = torch.full((1, 3, side, 300), 0.5)
        auto, given = (corrupted(x, "contrast", 3, constants=c) for c in ("auto", name))
        assert torch.equal(auto, given)
        x[..., :150] = 0.7
        other = "cifar" if name == "imagenet" else "imagenet"
        assert not torch.equal(corrupted(x, "contrast", 3), corrupted(x, "contrast", 3, constants=other))


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("constants", ["cifar", "imagenet"])
def test_a_sample_does_not_depend_on_its_batch(name, constants) -> None:
    x = images(13, 20, 33)
    whole = corrupted(x, name, 3, constants=constants)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    for size in (1, 4):
        for part in order.split(size):
            assert torch.equal(corrupted(x[part], name, 3, ids=part, constants=constants), whole[part])


@pytest.mark.parametrize("name", names())
def test_eight_bits(name) -> None:
    x = images()
    whole, free = corrupted(x, name, 4), corrupted(x, name, 4, eight_bit=False)
    levels = whole.double() * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert (free - whole).min() > -1e-5
    assert (free - whole).max() < 1 / 255 + 1e-5
    if name not in ("impulse_noise", "pixelate", "jpeg_compression", "checkerboard_cutout"):
        assert not torch.equal(free, whole)


@pytest.mark.parametrize("name", names())
def test_severities_grow(name) -> None:
    x = images(40)
    changes = [float((corrupted(x, name, s, constants="imagenet") - x).square().mean()) for s in (1, 5)]
    assert changes[1] > 0.9 * changes[0]
    assert changes[0] > 0


def test_gaussian_and_speckle_noise_have_their_moments() -> None:
    x = torch.full((50, 3, 32, 32), 0.5)
    for name, sigma in (("gaussian_noise", 0.08), ("speckle_noise", 0.075)):
        change = corrupted(x, name, 1, constants="imagenet", eight_bit=False) - x
        n = change.numel()
        assert abs(float(change.mean())) < 4 * sigma / n**0.5
        assert float(change.std()) == pytest.approx(sigma, rel=4 / (2 * n) ** 0.5)
        assert stats.kstest(change.flatten().numpy() / sigma, "norm").pvalue > 1e-3


@pytest.mark.parametrize("photons", [3, 60, 500])
def test_shot_noise_is_poisson(photons) -> None:
    """Counts of each level against the Poisson probabilities, by chi-square."""
    for level in (1, 40, 255):
        x = torch.full((40, 1, 50, 50), level / 255)
        counts = (shot_noise(x, (photons,), draws(40)) * photons).round().flatten().long()
        rate = photons * level / 255
        edges = stats.poisson.ppf([1e-3, 1 - 1e-3], rate).astype(int)
        cells = np.arange(edges[0], edges[1] + 1)
        expected = stats.poisson.pmf(cells, rate) * len(counts)
        expected[0] = stats.poisson.cdf(edges[0], rate) * len(counts)
        expected[-1] = stats.poisson.sf(edges[1] - 1, rate) * len(counts)
        found = np.bincount(counts.clamp(edges[0], edges[1]).numpy() - edges[0], minlength=len(cells))
        statistic = ((found - expected) ** 2 / expected).sum()
        assert stats.chi2.sf(statistic, len(cells) - 1) > 1e-3, level


def test_shot_noise_is_the_quantile_of_its_uniform_number() -> None:
    x = images(4)
    u = draws(4).uniform((3, 32, 32), "noise").double().numpy()
    expected = stats.poisson.ppf(u, 12 * x.double().numpy())
    found = shot_noise(x, (12,), draws(4)).numpy() * 12
    assert (np.abs(found - np.maximum(expected, 0)) > 1e-3).mean() < 1e-4  # ties of float32


def test_impulse_noise_has_its_shares() -> None:
    x = torch.full((50, 3, 32, 32), 0.5)
    found = corrupted(x, "impulse_noise", 5, constants="imagenet")
    for value in (0.0, 1.0):
        share = float((found == value).float().mean())
        assert share == pytest.approx(0.135, abs=4 * (0.135 * 0.865 / x.numel()) ** 0.5)


@pytest.mark.parametrize("shape", [(32, 32), (20, 33), (5, 7)])
@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0])
def test_gaussian_blur_is_scipys(shape, sigma) -> None:
    x = images(2, *shape)
    expected = ndimage.gaussian_filter(x.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4)
    assert np.abs(linear.gaussian(x, sigma).numpy() - expected).max() < 1e-5
    expected = ndimage.gaussian_filter(x.double().numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=3)
    assert np.abs(linear.gaussian(x, sigma, "symmetric", 3).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("constants", ["cifar", "imagenet"])
def test_defocus_blur_is_a_correlation_with_the_disk(severity, constants) -> None:
    c = definition("defocus_blur").constants(constants, severity)
    kernel = disk(*c)
    assert kernel.sum() == pytest.approx(1, abs=0.02)
    x = images(2, 30, 41)
    expected = ndimage.correlate(x.double().numpy(), kernel[None, None], mode="mirror")
    assert np.abs(defocus_blur(x, c, draws(2)).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("c", [(1.11, 0.01), (1.31, 0.03)])
def test_zoom_blur_is_scipys_zoom(c) -> None:
    x = images(1, 32, 45)[0].double().numpy()
    total = x.copy()
    for factor in np.arange(1, *c):
        crops = [math.ceil(n / factor) for n in x.shape[1:]]
        tops = [(n - crop) // 2 for n, crop in zip(x.shape[1:], crops, strict=True)]
        part = x[:, tops[0] : tops[0] + crops[0], tops[1] : tops[1] + crops[1]]
        larger = ndimage.zoom(part, (1, factor, factor), order=1)
        trims = [(big - n) // 2 for big, n in zip(larger.shape[1:], x.shape[1:], strict=True)]
        total += larger[:, trims[0] : trims[0] + x.shape[1], trims[1] : trims[1] + x.shape[2]]
    expected = total / (len(np.arange(1, *c)) + 1)
    found = zoom_blur(torch.from_numpy(x).float()[None], c, draws(1))[0].numpy()
    assert np.abs(found - expected).max() < 1e-5


def test_motion_blur_of_a_point_is_the_kernel_along_the_angle() -> None:
    x = torch.zeros(3, 1, 21, 21)
    x[:, :, 10, 10] = 1
    degrees = torch.tensor([0.0, 45.0, -90.0])
    found = smear(x, 4, 2, degrees)
    weights = np.exp(-0.5 * (np.arange(9) / 2) ** 2)
    weights /= weights.sum()
    assert np.allclose(found[0, 0, 10, 2:11].flip(0), weights, atol=1e-6)  # smeared from the right
    assert np.allclose(found[2, 0, 10:19, 10], weights, atol=1e-6)
    diagonal = torch.stack([found[1, 0, 10 - k, 10 - k] for k in range(7)])  # 9 steps of 1 / sqrt(2) pixels
    steps = np.ceil(np.arange(9) * math.sqrt(0.5) - 0.5).astype(int)
    assert np.allclose(diagonal, np.bincount(steps, weights, minlength=7), atol=1e-6)


@pytest.mark.parametrize(("reach", "passes", "shape"), [(1, 1, (9, 12)), (2, 2, (11, 8)), (4, 1, (16, 16))])
def test_glass_moves_pixels_in_the_published_order(reach, passes, shape) -> None:
    """The fronts give what one loop over all pixels gives, from the last to the first, copies through views."""
    height, width = shape
    found = shuffled(3, height, width, reach, passes, draws(3), torch.device("cpu"))
    for i in range(3):
        pixels = np.arange(height * width).reshape(height, width, 1)  # rows are views, as for colour images
        for number in range(passes):
            step = draws(3).integers(2 * reach, (2, height * width), f"steps {number}")[i].numpy() - reach
            step = step.reshape(2, height, width)
            for h in range(height - reach, reach, -1):
                for w in range(width - reach, reach, -1):
                    h2, w2 = h + step[0, h, w], w + step[1, h, w]
                    pixels[h, w], pixels[h2, w2] = pixels[h2, w2], pixels[h, w]
        assert np.array_equal(found[i].view(height, width).numpy(), pixels[..., 0])


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_pixelate_is_pillows(severity) -> None:
    x = images(4, 37, 50)
    (share,) = definition("pixelate").constants("cifar", severity)
    found = corrupted(x, "pixelate", severity) * 255
    for ours, image in zip(found, x, strict=True):
        picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
        small = picture.resize((int(50 * share), int(37 * share)), Image.Resampling.BOX)
        expected = np.asarray(small.resize((50, 37), Image.Resampling.BOX)).astype(int)
        assert np.abs(ours.permute(1, 2, 0).round().numpy() - expected).max() <= 1
        assert (ours.permute(1, 2, 0).round().numpy() != expected).mean() < 1e-3


def test_jpeg_is_pillows() -> None:
    x = images(4, 37, 50)
    found = corrupted(x, "jpeg_compression", 3) * 255
    for ours, image in zip(found, x, strict=True):
        file = io.BytesIO()
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(file, "JPEG", quality=58)
        assert np.array_equal(ours.permute(1, 2, 0).round().numpy(), np.asarray(Image.open(file)))


@pytest.mark.parametrize("severity", [1, 3, 4, 5])
def test_brightness_and_saturation_are_those_of_hsv(severity) -> None:
    import colorsys

    x = images(2, 8, 9)
    x[0, :, 0] = 0.5  # gray
    x[0, :, 1] = 0  # black
    (added,) = definition("brightness").constants("imagenet", severity)
    factor, summand = definition("saturate").constants("imagenet", severity)
    brighter = brightness(x, (added,), draws(2)).permute(0, 2, 3, 1).reshape(-1, 3)
    coloured = saturate(x, (factor, summand), draws(2)).permute(0, 2, 3, 1).reshape(-1, 3)
    for pixel, bright, colour in zip(x.permute(0, 2, 3, 1).reshape(-1, 3), brighter, coloured, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*pixel.double().tolist())
        assert np.allclose(bright, colorsys.hsv_to_rgb(h, s, min(v + added, 1)), atol=1e-5)
        saturation = min(max(s * factor + summand, 0), 1)
        assert np.allclose(colour, colorsys.hsv_to_rgb(h, saturation, v), atol=1e-5)


def test_contrast_keeps_the_mean() -> None:
    x = images()
    found = corrupted(x, "contrast", 4, constants="imagenet", eight_bit=False)
    means = x.mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(found, 0.1 * x + 0.9 * means, atol=1e-6, rtol=0)


def test_elastic_transform_is_the_published_chain() -> None:
    """OpenCV's affine map, then SciPy's interpolation at displaced positions, with the same random numbers."""
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    n, side = 3, 48
    x = images(n, side, side)
    strength, sigma, reach = definition("elastic_transform").imagenet[1]
    found = elastic_transform(x, (strength, sigma, reach), draws(n))
    shift = draws(n).uniform((3, 2), "affine", -reach * side, reach * side).numpy()
    bend = draws(n).uniform((2, side, side), "displacement", -1, 1).double().numpy()
    square = side // 3
    corners = np.float32([[24 + square, 24 + square], [24 + square, 24 - square], [24 - square, 24 - square]])
    y, xx = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    for i in range(n):
        matrix = cv2.getAffineTransform(corners, corners + shift[i])
        dx, dy = (
            ndimage.gaussian_filter(part, sigma * side, mode="reflect", truncate=3) * strength * side
            for part in bend[i]
        )
        for channel in range(3):
            warped = cv2.warpAffine(
                x[i, channel].numpy(), matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )
            expected = ndimage.map_coordinates(warped, [y + dy, xx + dx], order=1, mode="reflect")
            # OpenCV rounds positions to 1/32 pixel
            assert np.abs(found[i, channel].numpy() - expected).mean() < 2e-3


def test_fog_mixes_towards_the_fractal() -> None:
    x = images(3, 20, 27)
    weight, decay = 2.0, 2.0
    found = fog(x, (weight, decay), draws(3))
    plasma = plasma_fractal(32, decay, draws(3))
    assert plasma.amin(dim=(1, 2)).tolist() == [0, 0, 0]
    assert plasma.amax(dim=(1, 2)).tolist() == [1, 1, 1]
    for i in range(3):
        highest = float(x[i].max())
        expected = (x[i] + weight * plasma[i, :20, :27]) * highest / (highest + weight)
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=0)


def test_the_plasma_fractal_is_diamond_square() -> None:
    """The published loops, point by point, with the same random numbers."""
    size, decay = 16, 1.7
    u = draws(2).uniform((size, size), "plasma", -1, 1).double().numpy()
    found = plasma_fractal(size, decay, draws(2)).numpy()
    for i in range(2):
        heights = np.zeros((size, size))
        step, wibble = size, 100.0
        while step >= 2:
            half = step // 2
            for a in range(0, size, step):
                for b in range(0, size, step):
                    four = [heights[(a + p) % size, (b + q) % size] for p in (0, step) for q in (0, step)]
                    heights[a + half, b + half] = np.mean(four) + wibble**2 * u[i, a + half, b + half]
            for a in range(0, size, half):
                for b in range((a + half) % step, size, step):
                    four = [
                        heights[(a + p) % size, (b + q) % size]
                        for p, q in ((half, 0), (-half, 0), (0, half), (0, -half))
                    ]
                    heights[a, b] = np.mean(four) + wibble**2 * u[i, a, b]
            step, wibble = half, wibble / decay
        heights -= heights.min()
        assert np.abs(found[i] - heights / heights.max()).max() < 1e-4


def test_snow_only_whitens() -> None:
    x = images(20)
    change = corrupted(x, "snow", 3) - x
    assert change.min() > -1.5 / 255  # truncation
    assert change.mean() > 0.05


def test_procedural_frost_has_the_tones_it_promises() -> None:
    pieces = Procedural().pieces(48, 40, draws(60)) * 255
    means, deviations = pieces.mean(dim=(1, 2, 3)), pieces.std(dim=(2, 3)).mean(dim=1)
    assert 85 < means.min() < 105
    assert 200 < means.max() < 220
    assert 13 < deviations.min() < 25
    assert 35 < deviations.max() < 47
    red, _, blue = pieces.mean(dim=(2, 3)).unbind(dim=1)
    assert (blue >= red - 1).all()
    assert len({piece.numpy().tobytes() for piece in pieces}) == 60


def test_frost_is_the_weighted_sum() -> None:
    x = images(5)
    texture = Procedural().pieces(32, 32, Draws(torch.arange(5), 0, "corruption frost 2"))
    found = corrupted(x, "frost", 2, eight_bit=False)
    torch.testing.assert_close(found, (x + 0.3 * texture).clamp(0, 1))


def test_spatter_through_opencvs_operators() -> None:
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    rough = np.random.default_rng(1).normal(0.65, 0.2, size=(12, 40, 33))
    levels = ndimage.gaussian_filter(rough, (0, 1, 1))
    levels[levels < 0.68] = 0
    levels = (levels * 255).clip(0, 255).astype(np.uint8)
    edges = spatter.canny(torch.from_numpy(levels).float(), 50, 150)
    distances, reliefs = spatter.chamfer(edges), spatter.relief(torch.from_numpy(levels).float())
    for i, level in enumerate(levels):
        expected = cv2.Canny(level, 50, 150)
        assert np.array_equal(edges[i].numpy(), expected > 0)
        distance = cv2.distanceTransform(255 - expected, cv2.DIST_L2, 5)
        assert np.abs(distances[i].numpy() - distance).max() < 1e-3
        flat = cv2.equalizeHist(cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8))
        embossed = cv2.filter2D(flat, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
        assert np.array_equal(reliefs[i].numpy(), cv2.blur(embossed, (3, 3)))


@pytest.mark.slow
def test_the_identity_of_a_cell_covers_its_corruption_alone() -> None:
    """The hash of the source is the same before and after the corruption is imported, and does not depend on others."""
    import subprocess
    import sys

    code = (
        "import sys\nfrom freqrobust.core.source_hash import _collect\n"
        "from freqrobust.plugins.registry import attacks\n"
        "spec = attacks.parse('corruption:name=snow,severity=1')[0]\n"
        "first, files = spec.code, {}\nfor module in spec.plugin.code_modules(): _collect(module, files)\n"
        "assert 'freqrobust.attacks.corruptions.snow' not in sys.modules and 'torch' not in sys.modules\n"
        "import freqrobust.attacks.corruptions.snow, freqrobust.attacks.corruptions.spatter\n"
        "parse = lambda name: attacks.parse(f'corruption:name={name},severity=1')[0].code\n"
        "assert parse('snow') == first != parse('fog')\n"
        "print(*sorted(name.rpartition('.')[2] for name, file in files.items() if file))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    covered = set(done.stdout.split())
    assert {"snow", "motion_blur", "_draws", "_linear", "_table"} <= covered
    assert not covered & {"fog", "spatter", "_textures", "checkerboard_cutout"}


def test_the_table_holds_every_module_of_the_package() -> None:
    assert names()[:19] == (*COMMON, *EXTRA)
    assert "checkerboard_cutout" in names()[19:]
    for name in names():
        corruption = definition(name)
        assert len(corruption.cifar) == len(corruption.imagenet) == 5
        parts = {len(constants) for constants in (*corruption.cifar, *corruption.imagenet)}
        assert parts == {len(corruption.meaning.split(","))} or name in ("spatter", "elastic_transform", "saturate"), (
            name
        )
        assert module_of(name).endswith(f".{name}")


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 33), (7, 5)])
def test_checkerboard_cutout_is_the_published_loop(height, width) -> None:
    """Point by point in float64, with the same random numbers; fields are looked up as Python indexes a list."""
    n, share = 5, 0.5
    x = images(n, height, width)
    found = checkerboard_cutout(x, (share,), draws(n))
    side = min(height, width)
    scales = np.maximum(draws(n).uniform((1, 1), "scale", 0.1, 0.25).double().numpy().ravel() * side, 1)
    angles = draws(n).uniform((1, 1), "angle", 0, 2 * math.pi).double().numpy().ravel()
    half = math.ceil(math.hypot(height, width) / max(0.1 * side, 1))
    fields = draws(n).uniform((2 * half + 1, 2 * half + 1), "fields").numpy() < share
    different = 0
    for i in range(n):
        for y in range(height):
            for u in range(width):
                nx = (np.cos(angles[i]) * y + np.sin(angles[i]) * u) / scales[i]
                ny = (-np.sin(angles[i]) * y + np.cos(angles[i]) * u) / scales[i]
                kept = int(nx % 2) != int(ny % 2) or not fields[i, int(nx) + half, int(ny) + half]
                expected = x[i, :, y, u] if kept else torch.full((3,), 128 / 255)
                different += not torch.equal(found[i, :, y, u], expected)
    assert different <= 2  # positions on the border of a field, in float32


def test_checkerboard_cutout_covers_its_share() -> None:
    """Half of the fields have one colour of the board, and the share of these turns gray."""
    x = torch.zeros(400, 1, 32, 32)
    for severity, share in enumerate((0.1, 0.2, 0.3, 0.4, 0.5), start=1):
        gray = (corrupted(x, "checkerboard_cutout", severity) > 0).float().mean(dim=(1, 2, 3))
        assert float(gray.mean()) == pytest.approx(share / 2, abs=5 * float(gray.std()) / 20)
        values = corrupted(x, "checkerboard_cutout", severity).unique()
        assert (values * 255).round().tolist() == [0, 128]
