"""How fast a defended model is, how many samples it can be expected to keep, and how much memory a batch takes."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from freqrobust.data.decoders import cores
from freqrobust.data.lazy_images import LazyImages
from freqrobust.harness.run import DefenseRun, Run
from freqrobust.harness.target_model import TargetModel
from freqrobust.numerics.norms import project, steepest
from freqrobust.numerics.threat import Norm, Threat

#: Timed batches, and the seconds that they may take for one defense, if one batch does not take longer.
BATCHES, SECONDS = 3, 2.0
#: Steps of the attacks that the share of robust samples is estimated with, and the seconds for all of them.
STEPS, PROBING = 4, 4.0
#: Images that are decoded together to see how long that takes, and the seconds after which no more are.
_DECODED, _DECODING = 32, 0.5
#: Images of the first batch, from which follows how many images can be afforded.
_FIRST = 8
#: Batches of an attack become smaller with each sample that it leaves, so that memory which the C library took for one
#: does not fit the next. On a CPU a run takes so much more than one batch, as a share and at most: larger arrays are
#: given back to the system at once. Measured with ResNet-20, ResNet-18 and SqueezeNet.
_GAPS, _LARGEST_GAPS = 0.8, 256 * 2**20
#: Bytes of PyTorch's code and data that a process uses only when it ends. Measured with torch 2.15 for Linux.
_ENDING = 112 * 2**20


def largest_batch(run: Run) -> int:
    """Images in the largest batch of a run: batches are parts of blocks."""
    return min(run.batch_size, max(map(len, run.blocks(None))))


class Duration(NamedTuple):
    """How long something takes for a batch: a part for each call, and one for each image.

    Attributes:
        call: seconds for each call, however few images there are.
        image: seconds for each image.
    """

    call: float
    image: float

    @classmethod
    def fitted(cls, few: int, short: float, many: int, long: float) -> Duration:
        """From the seconds that two numbers of images take."""
        if many <= few or long <= short:
            return cls(0.0, long / many)
        image = min((long - short) / (many - few), long / many)
        return cls(long - many * image, image)

    def mean(self, images: int) -> float:
        """Seconds of one image in a batch of so many."""
        return self.image + self.call / images


@dataclass
class Speed:
    """What was measured of one defended model.

    Attributes:
        forward: seconds of a forward pass, as predictions are made.
        step: seconds of a step of an attack: forward, backward, and the change of the image; 0 where none was timed.
        images: images in a timed batch.
        batches: how many batches were timed.
        clean: share of the images in it that are classified correctly.
        robust: share that stays correct, by threat.
        peak: bytes that the process, or its CUDA device, is expected to take at most; None where that is not known.
    """

    forward: Duration
    step: Duration
    images: int
    batches: int
    clean: float
    robust: dict[Threat, float] = field(default_factory=dict)
    peak: int | None = None

    def kept(self, threat: Threat) -> float:
        """Share of the samples that an attack within this threat is expected not to succeed on.

        Between measured budgets it is interpolated; there is nothing to interpolate for another norm, where it is 0.5.
        """
        known = sorted((found.eps, share) for found, share in self.robust.items() if found.norm == threat.norm)
        if not known:
            return 0.5 * self.clean
        points = [(0.0, self.clean), *known]
        for (low, above), (high, below) in itertools.pairwise(points):
            if threat.eps <= high:
                return above if high == low else above + (below - above) * (threat.eps - low) / (high - low)
        return points[-1][1]


def measure_speed(
    one: DefenseRun,
    threats: Sequence[Threat],
    probing: float = PROBING,
    *,
    steps: bool = True,
    before: int | None = None,
) -> Speed:
    """Time a few batches of the defended model, with short attacks at some of the threats.

    Args:
        one: the defense; its model is made, unless it was made before.
        threats: the budgets of the attacks.
        probing: seconds for the short attacks, of which each may begin as long as they are not over.
        steps: whether anything in the run differentiates the model.
        before: bytes that were taken before the first batch of any defense; None stands for now.

    Raises:
        FreqRobustError: the model fails.
    """
    run, model = one.run, one.target_model()
    device, most = run.device, largest_batch(run)
    before = taken(device) if before is None else before
    few = min(_FIRST, most)
    small = run.data.batch(torch.arange(few), device)
    _timed(model, *small, steps)  # prepares what the following ones use
    first = _timed(model, *small, steps)
    count = max(1, min(most, int(SECONDS * few / max(sum(first), 1e-9))))
    images, labels, ids = run.data.batch(torch.arange(count), device)
    forwards, backwards = list[float](), list[float]()
    until = time.perf_counter() + SECONDS
    while len(forwards) < BATCHES and (not forwards or time.perf_counter() < until):
        for found, seconds in zip((forwards, backwards), _timed(model, images, labels, ids, steps), strict=True):
            found.append(seconds)
    used = slice(1 if len(forwards) > 1 else 0, None)  # the first one also takes memory from the system
    correct = model.predict(images, ids).is_correct(labels)
    forward, step = (
        Duration.fitted(few, short, count, _mean(long[used]))
        for short, long in zip(first, (forwards, backwards), strict=True)
    )
    speed = Speed(forward, step, count, len(forwards), float(correct.float().mean()))
    until = time.perf_counter() + probing
    for threat in _in_order(threats) if steps else ():
        if time.perf_counter() > until:
            break
        if model.stochastic or threat.norm == "l1":
            continue
        speed.robust[threat] = _robust(model, images, labels, ids, correct, threat)
    after = taken(device)
    if before is not None and after is not None:
        batch = (after - before) * most // count
        gaps = min(int(_GAPS * batch), _LARGEST_GAPS) if steps else 0
        speed.peak = before + (max(batch + gaps, _ENDING) if device.type == "cpu" else batch)
    return speed


def seconds_to_decode(images: LazyImages) -> float:
    """Seconds in which an image is read and decoded, by all threads together: from a few of them.

    Raises:
        ImageFileError: one of them cannot be decoded.
    """
    taken, count = 0.0, 0
    for positions in torch.arange(len(images)).split(_DECODED):
        start = time.perf_counter()
        images.decode(positions)
        taken, count = taken + time.perf_counter() - start, count + len(positions)
        if taken > _DECODING:
            break
    return taken / count


def decoding(
    images: torch.Tensor | LazyImages, batch_size: int, device: torch.device, *work: tuple[float, float]
) -> tuple[float, list[float]]:
    """What the decoding of images in files takes: seconds for one image, and all that the passes do not hide; 0 without files.

    Args:
        images: of the data.
        batch_size: images in a batch.
        device: where the model runs.
        work: for each case, how many images are used, each of them counted as often as it is, and the seconds of the passes.

    Raises:
        ImageFileError: a file cannot be decoded.
    """
    if not isinstance(images, LazyImages):
        return 0.0, [0.0] * len(work)
    once = images.to_decode
    if once is None and len(images) <= 2 * batch_size:  # the batch at work and the next one stay decoded
        once = len(images)
    counts = [uses if once is None else min(once, uses) for uses, _ in work]
    if not any(counts):
        return 0.0, [0.0] * len(work)
    each = seconds_to_decode(images)
    # the share of the cores that the passes leave to the threads that decode meanwhile
    left = 1.0 if device.type != "cpu" else max(0.0, 1.0 - torch.get_num_threads() / cores())
    return each, [max(0.0, count * each - passes * left) for count, (_, passes) in zip(counts, work, strict=True)]


def _in_order(threats: Sequence[Threat]) -> list[Threat]:
    """The smallest and the largest budget of each norm first, as those between can be interpolated."""
    groups: dict[Norm, list[Threat]] = {}
    for threat in sorted(set(threats), key=lambda threat: threat.eps):
        if threat.eps > 0:
            groups.setdefault(threat.norm, []).append(threat)
    ranked = []
    for group in groups.values():
        middle = len(group) // 2
        order = dict.fromkeys([0, len(group) - 1, middle, *range(len(group))])
        ranked += [(place, group[index]) for place, index in enumerate(order)]
    return [threat for _, threat in sorted(ranked, key=lambda pair: pair[0])]


def _timed(
    model: TargetModel, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, steps: bool
) -> tuple[float, float]:
    """Seconds of a prediction, for each vote, and of a step of an attack, unless there are none."""
    _wait(images.device)
    start = time.perf_counter()
    model.predict(images, ids)
    _wait(images.device)
    middle = time.perf_counter()
    if not steps:
        return (middle - start) / model.votes, 0.0
    _step(model, images, images, labels, ids, Threat("linf", 1e-3))
    _wait(images.device)
    return (middle - start) / model.votes, time.perf_counter() - middle


def _step(
    model: TargetModel,
    images: torch.Tensor,
    origin: torch.Tensor,
    labels: torch.Tensor,
    ids: torch.Tensor,
    threat: Threat,
) -> torch.Tensor:
    """A step of half of the budget, upwards in the cross-entropy."""
    assert threat.norm != "l1"
    with model.attacked(ids, "dry run") as view, torch.enable_grad():
        images = images.detach().requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(view(images), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
    moved = images.detach() + 0.5 * threat.eps * steepest(gradient, threat.norm)
    return project(moved, origin, threat.norm, threat.eps).detach()


def _robust(
    model: TargetModel,
    images: torch.Tensor,
    labels: torch.Tensor,
    ids: torch.Tensor,
    correct: torch.Tensor,
    threat: Threat,
) -> float:
    """Share of the images that are still classified correctly after a few steps."""
    kept, changed = correct.clone(), images
    for _ in range(STEPS):
        changed = _step(model, changed, images, labels, ids, threat)
    kept &= ~model.predict(changed, ids).is_adversarial(labels)
    return float(kept.float().mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def taken(device: torch.device) -> int | None:
    """Bytes that the process, or its CUDA device, has taken at most so far; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    with suppress(OSError, StopIteration):  # on Linux, getrusage counts the process that started this one as well
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
