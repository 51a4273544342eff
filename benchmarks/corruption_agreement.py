"""The corruptions with ImageNet constants beside an independent generator, imagecorruptions-imaug, as a table.

    python benchmarks/corruption_agreement.py [--images 500] [--size 64] [--write docs/corruptions.md]

Images are the first test images of CIFAR-10, enlarged. Deterministic corruptions are compared pixel by pixel, random
ones by the mean and the standard deviation of what they change, both in 8-bit levels. ``--write`` puts the table
between the two marks in that file.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from freqrobust.attacks.corruption import Corruption
from freqrobust.data.loading import load_data
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.corruption_names import COMMON, EXTRA, SEVERITIES

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- agreement: start -->", "<!-- agreement: end -->"
#: Corruptions without randomness.
DETERMINISTIC = (
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
)
#: Largest mean absolute difference that counts as equal, in 8-bit levels.
EQUAL = 0.2
#: Largest difference of means in levels, and of standard deviations as a share, that count as equal; beyond them, so
#: many standard errors, from what differs between images.
MEANS, DEVIATIONS, ERRORS = 0.5, 0.02, 4.0
#: Snow by a peer that cuts as the published script does.
SNOW_CENTRED = "snow, peer cut like the script"
#: Where the two differ, and why.
REASONS = {
    "brightness": "values that are whole levels fall below them by a rounding error of the peer's HSV conversion",
    "saturate": "the same; at severity 3 every value is a whole level",
    "elastic_transform": "the peer has no affine part and one sigma for all severities; ours is the published one",
    "frost": "other textures: the peer brings six photographs, ours are made procedurally",
    "snow": "the published script cuts the middle out of the enlarged flakes before it blurs them, the peer the upper "
    "left after it, where the edge of the flakes is smeared in",
    SNOW_CENTRED: "the peer as before, but with the middle cut out first",
}


@dataclass
class Agreement:
    """What a corruption changes, in 8-bit levels, on both sides.

    Attributes:
        difference: mean absolute difference of the two results.
        means: mean of result minus image, ours and the peer's.
        deviations: root mean square of the same.
        errors: by how many standard errors over the images the means, and the mean squares, differ.
    """

    name: str
    severity: int
    difference: float
    means: tuple[float, float]
    deviations: tuple[float, float]
    errors: tuple[float, float]

    @property
    def same_pixels(self) -> bool:
        return self.difference <= EQUAL

    @property
    def same_moments(self) -> bool:
        a, b = self.deviations
        near = abs(self.means[0] - self.means[1]) <= MEANS, abs(a / b - 1) <= DEVIATIONS
        return all(close or abs(errors) <= ERRORS for close, errors in zip(near, self.errors, strict=True))


def enlarged(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 images ``(N, C, H, W)``, bilinear."""
    larger = torch.nn.functional.interpolate(images.float(), size=(size, size), mode="bilinear", align_corners=False)
    return larger.round().clamp(0, 255).to(torch.uint8)


def ours(images: torch.Tensor, name: str, severity: int) -> np.ndarray:
    """8-bit results ``(N, H, W, C)``."""
    attack = Corruption(name=name, severity=severity, constants="imagenet")
    context = AttackContext(torch.arange(len(images)), 0)
    labels = torch.zeros(len(images), dtype=torch.int64)
    found = attack.perturb(torch.nn.Identity(), images.float() / 255, labels, context)
    return (found * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def peers(images: torch.Tensor, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """The same by the peer, whose global random state is put back afterwards."""
    from imagecorruptions import corrupt

    before = np.random.get_state()
    np.random.seed(seed)
    found = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own use of deprecated interfaces
            for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
                seeded: dict[str, Any] = {"seed": seed + i} if name in ("glass_blur", "impulse_noise") else {}
                found.append(corrupt(np.ascontiguousarray(image), severity, name, **seeded))
    finally:
        np.random.set_state(before)
    return np.stack(found)


@contextmanager
def middle_cut() -> Iterator[None]:
    """The peer's zoom, cut at once to the middle of the enlarged image."""
    import imagecorruptions.corruptions as peer

    enlarge = peer.clipped_zoom

    def cut(image: np.ndarray, factor: float) -> np.ndarray:
        found = enlarge(image, factor)
        top, left = ((found.shape[k] - image.shape[k]) // 2 for k in (0, 1))
        return found[top : top + image.shape[0], left : left + image.shape[1]]

    peer.clipped_zoom = cut
    try:
        yield
    finally:
        peer.clipped_zoom = enlarge


def agreement(images: torch.Tensor, name: str, severity: int) -> Agreement:
    """Both sides on the same uint8 images ``(N, C, H, W)``."""
    clean = images.permute(0, 2, 3, 1).numpy().astype(float)
    a, b = (side(images, name, severity).astype(float) for side in (ours, peers))
    changes = [(one - clean).reshape(len(clean), -1) for one in (a, b)]
    firsts = [change.mean(axis=1) for change in changes]
    squares = [(change**2).mean(axis=1) for change in changes]
    return Agreement(
        name,
        severity,
        float(np.abs(a - b).mean()),
        (float(firsts[0].mean()), float(firsts[1].mean())),
        (float(squares[0].mean() ** 0.5), float(squares[1].mean() ** 0.5)),
        (standard_errors(*firsts), standard_errors(*squares)),
    )


def standard_errors(a: np.ndarray, b: np.ndarray) -> float:
    """The mean of ``a - b``, of the same images, over its standard error."""
    difference = a - b
    spread = difference.std(ddof=1) / len(difference) ** 0.5
    return float(difference.mean() / spread) if spread > 0 else 0.0


def row(name: str, found: list[Agreement]) -> str:
    """One line of the table."""
    why = REASONS.get(name, "")
    if name in DETERMINISTIC:
        pixels = " ".join(f"{one.difference:.3f}" for one in found)
        return f"| {name} | {pixels} | {'equal' if all(one.same_pixels for one in found) else 'differs'} | {why} |"
    moments = ", ".join(
        f"{a:+.1f} / {b:+.1f} ({c:.1f} / {d:.1f})" for one in found for (a, b), (c, d) in [(one.means, one.deviations)]
    )
    return f"| {name} | {moments} | {'equal' if all(one.same_moments for one in found) else 'differs'} | {why} |"


def table(images: torch.Tensor) -> str:
    """Two tables in Markdown: pixel by pixel, and by moments."""
    parts = []
    for title, chosen in (
        ("mean absolute difference at severity 1 to 5", DETERMINISTIC),
        (
            "mean change, ours / peer (root mean square, ours / peer) at severity 1 to 5",
            [name for name in (*COMMON, *EXTRA) if name not in DETERMINISTIC],
        ),
    ):
        lines = [f"| corruption | {title} | | remark |", "|---|---|---|---|"]
        for name in chosen:
            found = [agreement(images, name, severity) for severity in SEVERITIES]
            lines.append(row(name, found))
            if name == "snow":
                with middle_cut():
                    lines.append(row(SNOW_CENTRED, [agreement(images, name, severity) for severity in SEVERITIES]))
            print(lines[-1], flush=True)
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    shared = os.environ.get("FREQROBUST_SHARED", ROOT.parent / "shared")
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/")
    parser.add_argument("--images", type=int, default=500, help="first test images of CIFAR-10, at most 500")
    parser.add_argument("--size", type=int, default=64, help="side they are enlarged to")
    parser.add_argument("--write", type=Path, help="file whose marked part becomes the table")
    given = parser.parse_args()
    data = load_data(str(given.shared / "data/cifar10/test_500.npz"), first=given.images)
    text = table(enlarged(data.images, given.size))
    if given.write is not None:
        before, _, rest = given.write.read_text(encoding="utf-8").partition(START)
        _, _, after = rest.partition(END)
        head = f"{given.images} images of {given.size} x {given.size} pixels:"
        given.write.write_text(f"{before}{START}\n{head}\n\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
