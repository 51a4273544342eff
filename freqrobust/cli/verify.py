"""``freqrobust verify``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import pixel_text
from freqrobust.core.text import brief, print_error
from freqrobust.numerics.threat import norm_name

if TYPE_CHECKING:
    from freqrobust.core.command_config import VerifyCommand
    from freqrobust.harness.verify import Verified
    from freqrobust.results.analysis import AnalysisTable


def table(results: Sequence[Verified]) -> AnalysisTable:
    """A row for each set of examples."""
    from freqrobust.results.analysis import AnalysisTable

    clean = any(one.robust is not None for one in results)
    numbers = ["n", "wrong when saved", "wrong now", "wrong in 8 bits", *(["robust"] if clean else [])]
    rows = []
    for one in results:
        counts = [one.n, one.misclassified_when_saved, one.misclassified, one.survive_rounding]
        robust = [one.robust] if clean else []
        model = "the same" if one.same_model else "another"
        rows.append([one.attack, one.defense, *map(str, [*counts, *robust]), _budget(one), model])
    return AnalysisTable(
        title="Saved examples: numbers of samples",
        columns=["attack", "defense", *numbers, "budget", "model"],
        rows=rows,
    )


def _budget(one: Verified) -> str:
    if one.threat is None or one.largest is None:
        return one.budget
    return f"{one.budget}: {norm_name(one.threat['norm'])} {one.largest:.6g} of {pixel_text(one.threat['eps'])}"


def execute(config: VerifyCommand) -> int:
    """One ``freqrobust verify``; the exit code: 1 where a perturbation budget is exceeded."""
    from freqrobust.cli.analyze import render
    from freqrobust.cli.lines import command_line, first_line

    if len(config.model) != 1:
        count = "is missing" if not config.model else f"is given {len(config.model)} times"
        raise SpecError(f"verify needs --model once, but it {count}: the model that gets the saved examples")
    first_line(f"verifying {brief(str(config.directory))} on", config.model, None, config.quiet)
    from freqrobust.cli.failures import print_lines
    from freqrobust.core.config import VerifyConfig
    from freqrobust.core.files import cache_root, check_writable, user_path, write_atomically
    from freqrobust.core.progress import Screen
    from freqrobust.data.adversarial_sets import read_all
    from freqrobust.harness.devices import resolve_device
    from freqrobust.harness.inputs import open_inputs, open_train_data
    from freqrobust.harness.verify import verify

    device = resolve_device(config.device)
    if config.json_file is not None:
        check_writable(config.json_file, "--json")
    read_all(user_path(config.directory, "DIR"))  # a damaged file is an error before a model is loaded
    cache = user_path(config.cache_dir, "--cache-dir") if config.cache_dir is not None else cache_root()
    screen = Screen(config.quiet, config.verbose, not config.no_progress)
    (network,), clean = open_inputs(config.model, config.data, config, device, cache_dir=cache, progress=screen)
    loaded = {"device": device, "cache_dir": cache, "train_data": open_train_data(config, clean)}
    with screen:
        results = verify(config.directory, network, clean, progress=screen, **config.settings(VerifyConfig, **loaded))
    if config.json_file is not None:
        write_atomically(config.json_file, json.dumps([asdict(one) for one in results], indent=1) + "\n")
    if not config.quiet:
        render([table(results)], sys.stdout)
        sys.stdout.flush()
        if config.json_file is not None:
            screen.say(f"written: {config.json_file}")
        if config.data is not None:
            source = ("--model", config.model[0], "--data", config.data, "--attack", f"replay:{config.directory}")
            screen.say(f"next: {command_line('eval', *source)}")
    exceeded = [one for one in results if one.budget == "exceeded"]
    if exceeded:
        if config.quiet:
            print_lines(f"{one.file}: {one.attack} exceeds its perturbation budget: {_budget(one)}" for one in exceeded)
        print_error(f"exit code 1: {len(exceeded)} of {len(results)} sets of examples exceeded the perturbation budget")
    return 1 if exceeded else 0
