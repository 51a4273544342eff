"""What this process does of an evaluation: everything, the share of a shard, what a worker of torchrun does, or a merge."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.core.command_config import EvalCommand, shard_of
from freqrobust.core.errors import SpecError
from freqrobust.core.launch import Launch, launch

if TYPE_CHECKING:
    import torch

    from freqrobust.core.progress import Screen
    from freqrobust.gate.thresholds import Gate
    from freqrobust.harness.sharing import Shard, Sharing
    from freqrobust.harness.task_queue import Store
    from freqrobust.results.report import Report


@dataclass
class Part:
    """A process that measures everything; its subclasses share the work.

    Attributes:
        says: whether it says what is evaluated.
        shares: whether other processes measure into the same run directory.
    """

    says: bool = field(default=True, init=False)
    shares: ClassVar[bool] = False

    def begin(self, gate: Gate | None) -> int | None:
        """Refuse what does not go together; an exit code where there is nothing to do.

        Raises:
            SpecError: the gate stops early, for which one process has to see all samples.
        """
        if self.shares and gate is not None and gate.early:
            raise SpecError("--sequential looks at the samples one after the other, so that one process has to do it")
        return None

    def device(self, device: torch.device) -> torch.device:
        """The device of this process, where ``device`` was asked for."""
        return device

    def cache(self, given: Path, run_dir: Path) -> Path:
        """Where trained defenses are kept, unless the user said it.

        Of a run directory that processes have shared it is that directory, so that all measure the same models.

        Args:
            given: the cache of this user.
            run_dir: the run directory.
        """
        return run_dir if self.shares or (run_dir / "models").is_dir() else given

    def sharing(self, screen: Screen) -> Sharing | None:
        """How it shares the work; None where it does not."""
        return None

    def measure(
        self,
        gate: Gate | None,
        models: Any,
        data: Any,
        settings: dict[str, Any],
        options: dict[str, Any],
        screen: Screen,
    ) -> Report | None:
        """The report; None from a process that only measures.

        Args:
            gate: what judges the report.
            models: the models.
            data: the samples.
            settings: the options of ``evaluate``.
            options: as the report records them.
            screen: shows the progress.

        Raises:
            FreqRobustError: bad input, or the processes do not fit together.
        """
        from freqrobust.core.config import EvalConfig
        from freqrobust.harness.evaluate import Evaluation

        if gate is not None and gate.early:
            report = gate.measure(models, data, **settings, progress=screen)
            report.config = options
            return report
        evaluation = Evaluation(models, data, EvalConfig(**settings), screen, options)
        return evaluation.report(self.sharing(screen))

    def ended(self, screen: Screen, run_dir: Path) -> int:
        """Say what there is to say where there is no report; the exit code."""
        return 0

    def judged(self, code: int) -> int:
        """The exit code of the process, where that of the evaluation is ``code``."""
        return code


@dataclass
class ShardPart(Part):
    """A shard.

    Attributes:
        number: from 1.
        count: how many there are.
    """

    number: int
    count: int
    shard: Shard | None = None
    shares: ClassVar[bool] = True

    def sharing(self, screen: Screen) -> Sharing:
        from freqrobust.harness.sharing import Shard

        self.shard = Shard(self.number, self.count, screen)
        return self.shard

    def ended(self, screen: Screen, run_dir: Path) -> int:
        """Say what failed; the exit code is 0 all the same, as the report keeps the other cells and says why."""
        from freqrobust.cli.lines import command_line
        from freqrobust.core.text import print_error

        assert self.shard is not None
        record = self.shard.record
        for failure in record.failures if screen.quiet else ():
            print_error(f"{failure['task']}: failed: {failure['error']}")
        others = f", {record.taken_over} of them of other shards" if record.taken_over else ""
        failed = f", {len(record.failures)} failed" if record.failures else ""
        word = "task" if record.measured == 1 else "tasks"
        screen.say(
            f"shard {self.number} of {self.count}: measured {record.measured} {word}{others}{failed}, in {record.seconds:.0f} s"
        )
        screen.say(f"next, when all shards have ended: {command_line('merge', run_dir)}")
        return 0


@dataclass
class WorkerPart(Part):
    """One of the processes that ``torchrun`` started.

    Attributes:
        launch: these processes.
    """

    launch: Launch
    store: Store | None = None
    shares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.says = self.launch.rank == 0

    def begin(self, gate: Gate | None) -> int | None:
        """Connect to the others; the exit code where a former attempt has judged the report."""
        super().begin(gate)
        from freqrobust.harness.task_queue import connect, verdict

        self.store = connect(self.launch)
        code = verdict(self.store)
        if code is None or self.launch.attempt == 0:
            return None
        return code if self.says else 0

    def device(self, device: torch.device) -> torch.device:
        """Of several GPUs of a machine, each process takes its own, unless one is named."""
        import torch

        if str(device) != "cuda":
            return device
        own = torch.device("cuda", self.launch.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(own)
        return own

    def sharing(self, screen: Screen) -> Sharing:
        from freqrobust.harness.task_queue import Queue, of_attempt

        assert self.store is not None
        store = of_attempt(self.store, self.launch.attempt)
        return Queue(store, self.launch.rank, self.launch.size, screen, hosts=not self.launch.has_store)

    def judged(self, code: int) -> int:
        """The same; a gate that failed does so in further attempts too, which then have nothing to do."""
        from freqrobust.cli.failures import GATE_FAILED
        from freqrobust.harness.task_queue import set_verdict

        if code == GATE_FAILED and self.store is not None:
            set_verdict(self.store, code)
        return code


@dataclass
class MergePart(Part):
    """Makes the report of what shards have measured."""

    shares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.says = False  # the command has said it

    def sharing(self, screen: Screen) -> Sharing:
        from freqrobust.harness.sharing import Merge

        return Merge(screen)


def part_of(config: EvalCommand) -> Part:
    """What this process does, by its options and by whether ``torchrun`` started it.

    Raises:
        SpecError: a shard is divided further.
    """
    together = launch()
    if config.shard is None:
        return Part() if together is None else WorkerPart(together)
    if together is not None:
        raise SpecError(
            "--shard is for processes that are started independently, but torchrun started this one: omit it"
        )
    return ShardPart(*shard_of(config.shard))
