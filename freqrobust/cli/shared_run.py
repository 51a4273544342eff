"""What this process does of an evaluation: everything, the share of a shard, what a worker of torchrun does, or a merge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.core.command_config import EvalCommand, shard_of

if TYPE_CHECKING:
    from freqrobust.core.progress import Screen
    from freqrobust.gate.thresholds import Gate
    from freqrobust.harness.sharing import Shard, Sharing
    from freqrobust.results.report import Report


@dataclass
class Part:
    """A process that measures everything; its subclasses share the work.

    Attributes:
        says: whether it says what is evaluated.
        shares: whether other processes measure into the same run directory.
    """

    says: ClassVar[bool] = True
    shares: ClassVar[bool] = False

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
        failed = f", of which {len(record.failures)} failed" if record.failures else ""
        word = "task" if record.tasks == 1 else "tasks"
        screen.say(f"shard {self.number} of {self.count}: {record.tasks} {word}{failed}, in {record.seconds:.0f} s")
        screen.say(f"next, when all shards have ended: {command_line('merge', run_dir)}")
        return 0


class MergePart(Part):
    """Makes the report of what shards have measured."""

    says: ClassVar[bool] = False
    shares: ClassVar[bool] = True

    def sharing(self, screen: Screen) -> Sharing:
        from freqrobust.harness.sharing import Merge

        return Merge(screen)


def part_of(config: EvalCommand) -> Part:
    """What this process does, by its options."""
    return ShardPart(*shard_of(config.shard)) if config.shard is not None else Part()
