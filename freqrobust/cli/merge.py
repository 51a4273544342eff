"""``freqrobust merge``: the report of an evaluation that was measured in shards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freqrobust.core.command_config import MergeCommand


def execute(config: MergeCommand) -> int:
    """Write the report of what shards have measured, and print the table.

    Returns:
        The exit code: 0, 1 when the gate failed, 3 when cells failed, 130 when interrupted.

    Raises:
        FreqRobustError: bad input, shards that measured something else, or tasks that are missing.
    """
    from freqrobust.cli.lines import first_line
    from freqrobust.cli.shared_run import MergePart

    first_line("merging the shards in", [config.directory], None, config.quiet)
    from freqrobust.cli import eval
    from freqrobust.cli.rerun import check_loadable, recorded_options
    from freqrobust.core.command_config import EvalCommand
    from freqrobust.core.config_file import relocated_options
    from freqrobust.core.files import user_path
    from freqrobust.harness.shared_plan import PLAN, plan_of_shards

    run_dir = user_path(config.directory, "the run directory")
    known = plan_of_shards(run_dir)
    recorded = known.config
    if os.path.isdir(known.folder):  # paths are relative to where the shards were started
        recorded = relocated_options(EvalCommand, recorded, Path(known.folder), Path())
    options = recorded_options(EvalCommand, recorded, config, run_dir / PLAN)
    check_loadable(options, run_dir / PLAN)
    command = EvalCommand(**options, run_dir=run_dir, json_file=config.json_file, quiet=config.quiet)
    return eval.execute(command, part=MergePart())
