"""Batch sizes, memory that runs out, precision, and devices that are not there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from freqrobust import evaluate
from freqrobust.core.errors import SpecError
from freqrobust.core.memory import is_out_of_memory
from freqrobust.harness.devices import auto_batch_size, resolve_device

CPU = torch.device("cpu")


class Net(nn.Module):
    """Runs out of memory above ``most`` images; keeps the sizes and types that it saw."""

    def __init__(self, most: int = 10**9, error: type[Exception] = RuntimeError) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3)
        self.linear = nn.Linear(4 * 36, 5)
        self.most, self.error = most, error
        self.sizes: list[int] = []
        self.types: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        logits = self.linear(self.conv(x).relu().flatten(1))
        self.types.add(logits.dtype)
        return logits


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(90, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return images, Net()(images).argmax(dim=1)


def cells(report):
    return [(cell.attack, cell.status, cell.outcomes) for cell in report.cells]


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_auto_goes_on_with_smaller_batches(data, error) -> None:
    attacks = ["pgd:eps=0.05,steps=3", "lfc:radius=2"]
    model = Net(most=9, error=error)
    report = evaluate(model, data, attacks=attacks, device="cpu")
    assert cells(report) == cells(evaluate(Net(), data, attacks=attacks, device="cpu", batch_size=9))
    assert max(model.sizes) > 9
    assert {64, 32, 16, 8} <= set(model.sizes)  # halved until it fitted
    assert max(size for size in model.sizes if size <= 9) == 8
    assert report.status == "complete"
    assert {cell.batch_size for cell in report.cells} == {8}


def test_a_given_batch_size_is_kept(data) -> None:
    report = evaluate(Net(most=40), data, attacks=["lfc:radius=2"], device="cpu", batch_size=64)
    assert report.status == "partial"
    assert "out of memory with batch size 64; give a smaller --batch-size, or auto" in report.cells[0].error


def test_not_even_one_image_fits(data) -> None:
    class Never(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(self.sizes) > 30:
                raise MemoryError
            return super().forward(x)

    model = Never()
    model.sizes = [0] * 25  # the checks before the first cell pass
    report = evaluate(model, data, attacks=["clean"], device="cpu", batch_size=2)
    assert report.cells[0].status == "failed"
    assert "out of memory" in report.cells[0].error


def test_auto_is_a_fixed_power_of_two() -> None:
    sizes = {auto_batch_size(Net(), (1, 8, 8), CPU) for _ in range(3)}
    assert len(sizes) == 1
    (size,) = sizes
    assert 1 <= size <= 256
    assert size & (size - 1) == 0

    class Huge(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    large = nn.Sequential(nn.Upsample(scale_factor=1000), Huge())
    assert auto_batch_size(large, (1, 8, 8), CPU) < size
    assert not any(module._forward_hooks for module in large.modules())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected) -> None:
    assert is_out_of_memory(error) is expected


def test_reduced_precision_is_for_attacks_only(data) -> None:
    """Predictions stay in fp32, images too, and budgets hold."""
    model = Net()
    report = evaluate(model, data, attacks=["pgd:eps=0.05,steps=3"], device="cpu", precision="bf16")
    assert model.types == {torch.float32, torch.bfloat16}
    exact = Net()
    reference = evaluate(exact, data, attacks=["pgd:eps=0.05,steps=3"], device="cpu")
    assert exact.types == {torch.float32}
    assert report.environment.precision == "bf16"
    assert report.cells[0].outcomes == reference.cells[0].outcomes
    assert report.cells[1].status == "ok"
    assert abs(report.cells[1].correct - reference.cells[1].correct) <= 9
    assert report.cells[1].perturbation.linf_max <= 0.05 + 1e-6


@pytest.mark.parametrize(
    "name",
    ["tpu", "cuda:99", "cpuu", "", None, torch.device("cuda", 99), torch.device("meta"), torch.device("vulkan")],
)
def test_devices_that_are_not_there(name) -> None:
    with pytest.raises(SpecError, match="device"):
        resolve_device(name)


def test_a_model_is_not_moved_to_a_device_without_values(data) -> None:
    model = Net()
    with pytest.raises(SpecError, match="device"):
        evaluate(model, data, attacks=["fgsm"], device=torch.device("meta"))
    assert next(model.parameters()).device == CPU


def test_devices_that_are_there() -> None:
    assert resolve_device("cpu") == resolve_device(CPU) == CPU
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device("auto").type == expected


@pytest.mark.gpu
def test_noise_and_counts_on_a_gpu(data) -> None:
    """Integer arithmetic: the same bits on every device; and the same network breaks on about the same samples."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    from freqrobust.numerics import noise

    ids = torch.tensor([0, 5, 10**12, -1])
    here = noise.uniform(ids, (3, 7, 7), seed=3, stream="s")
    there = noise.uniform(ids.cuda(), (3, 7, 7), seed=3, stream="s")
    assert torch.equal(here, there.cpu())
    attacks = ["pgd:eps=0.05,steps=5", "pgd:eps=0.5,norm=l2,steps=5", "lfc:radius=2", "fgsm:eps=0.05"]
    reports = [evaluate(Net(), data, attacks=attacks, device=device) for device in ("cpu", "cuda")]
    assert reports[1].environment.device.startswith("cuda")
    for a, b in zip(reports[0].cells, reports[1].cells, strict=True):
        assert abs(a.correct - b.correct) <= 1


#: The tests of these run on the CPU as well, which says that the tests themselves are right.
DEVICES = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return request.param


@pytest.mark.parametrize(
    "spec",
    [
        "apgd:eps=0.05,steps=10",
        "square:eps=0.2,queries=30",
        "fmn:steps=30",
        "ddn:steps=20",
        "deepfool",
        "noise:eps=0.3",
    ],
)
def test_counts_are_those_of_the_cpu(data, device, spec) -> None:
    here, there = (evaluate(Net(), data, attacks=[spec], device=where) for where in ("cpu", device))
    assert {cell.status for cell in there.cells} == {"ok"}
    for a, b in zip(here.cells, there.cells, strict=True):
        assert abs(a.correct - b.correct) <= (0 if device == "cpu" else 2)


def test_memory_that_really_runs_out(data, device) -> None:
    """An allocation that no device can make, above nine images."""

    class Greedy(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 9:
                torch.empty(2**58, dtype=torch.uint8, device=x.device)
            return super().forward(x)

    attacks = ["pgd:eps=0.05,steps=3"]
    report = evaluate(Greedy(), data, attacks=attacks, device=device)
    assert {cell.status for cell in report.cells} == {"ok"}
    assert {cell.batch_size for cell in report.cells} == {8}
    same = evaluate(Net(), data, attacks=attacks, device=device, batch_size=8)
    assert [cell.outcomes for cell in report.cells] == [cell.outcomes for cell in same.cells]


def test_reduced_precision_on_the_device(data, device) -> None:
    exact, reduced = (
        evaluate(Net(), data, attacks=["pgd:eps=0.05,steps=5"], device=device, precision=precision)
        for precision in ("fp32", "bf16")
    )
    assert reduced.cells[0].outcomes == exact.cells[0].outcomes
    assert abs(reduced.cells[1].correct - exact.cells[1].correct) <= 9
    assert reduced.cells[1].perturbation.linf_max <= 0.05 + 1e-6


@pytest.mark.gpu
def test_steps_do_not_wait_for_the_device(monkeypatch) -> None:
    """torch raises at every synchronisation, in the mode that it has for that."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    from freqrobust.attacks import active_set
    from freqrobust.plugins.context import AttackContext
    from freqrobust.plugins.selection import parse_attacks

    monkeypatch.setattr(active_set, "steps_between", lambda device: 1000)
    model, attack = Net().cuda().eval().requires_grad_(False), parse_attacks(["pgd:eps=0.05,steps=5"])[0].plugin
    images, ids = torch.rand(8, 1, 8, 8, device="cuda"), torch.arange(8, device="cuda")
    labels = model(images).argmax(dim=1)
    attack.perturb(model, images, labels, AttackContext(ids))  # what is set up once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        attack.perturb(model, images, labels, AttackContext(ids))
    finally:
        torch.cuda.set_sync_debug_mode("default")
