"""``freqrobust verify``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import pixel_text
from freqrobust.core.text import brief, one_line, print_error
from freqrobust.numerics.threat import norm_name

if TYPE_CHECKING:
    from freqrobust.core.config import VerifyCommand
    from freqrobust.harness.verify import Verified


def render(results: list[Verified], target: IO[str]) -> None:
    """A table, plain where it is not for a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = target.isatty()
    console = Console(
        file=target, width=None if terminal else 200, highlight=False, emoji=False, markup=False, soft_wrap=not terminal
    )
    table = Table(box=box.SIMPLE_HEAD if terminal else box.ASCII2, pad_edge=False, show_edge=False)
    table.add_column("attack", overflow="fold")
    table.add_column("defense", overflow="fold")
    clean = any(one.robust is not None for one in results)
    numbers = ["n", "wrong when saved", "wrong now", "wrong after 8-bit rounding"]
    for title in [*numbers, *(["right, clean and attacked"] if clean else [])]:
        table.add_column(title, justify="right")
    table.add_column("budget")
    table.add_column("model")
    for one in results:
        counts = [one.n, one.misclassified_when_saved, one.misclassified]
        robust = [str(one.robust)] if clean else []
        survive = f"{one.survive_rounding} of {one.misclassified}"
        model = "the same" if one.same_model else "another"
        names = [one_line(one.attack), one_line(one.defense)]
        table.add_row(*names, *map(str, counts), survive, *robust, _budget(one), model)
    console.print(table)


def _budget(one: Verified) -> str:
    if one.threat is None or one.largest is None:
        return one.budget
    return f"{one.budget}: {norm_name(one.threat['norm'])} {one.largest:.6g} of {pixel_text(one.threat['eps'])}"


def execute(config: VerifyCommand) -> int:
    """One ``freqrobust verify``; the exit code: 1 where a perturbation budget is exceeded."""
    from freqrobust.cli.lines import command_line, first_line

    first_line(f"verifying {brief(str(config.directory))} on", config.model, None, config.quiet)
    from freqrobust.cli.failures import print_lines
    from freqrobust.core.config import VerifyConfig
    from freqrobust.core.files import cache_root, check_writable, user_path, write_atomically
    from freqrobust.core.progress import Screen
    from freqrobust.data.adversarial_sets import read_all
    from freqrobust.harness.devices import resolve_device
    from freqrobust.harness.inputs import open_data, open_models, open_train_data
    from freqrobust.harness.verify import verify

    if len(config.model) != 1:
        count = "is missing" if not config.model else f"is given {len(config.model)} times"
        raise SpecError(f"verify needs --model once, but it {count}: the model that gets the saved examples")
    device = resolve_device(config.device)
    if config.json_file is not None:
        check_writable(config.json_file, "--json")
    read_all(user_path(config.directory, "DIR"))  # a damaged file is an error before a model is loaded
    cache = user_path(config.cache_dir, "--cache-dir") if config.cache_dir is not None else cache_root()
    clean = open_data(config.data, config) if config.data is not None else None
    (network,) = open_models(config.model, config, clean, device, cache_dir=cache)
    loaded = {"device": device, "cache_dir": cache, "train_data": open_train_data(config)}
    results = verify(config.directory, network, clean, **config.settings(VerifyConfig, **loaded))
    if config.json_file is not None:
        write_atomically(config.json_file, json.dumps([asdict(one) for one in results], indent=1) + "\n")
    if not config.quiet:
        network_: Any = network
        print(one_line(f"model: {network_.arch} ({brief(network_.spec)}), normalisation {network_.normalization}"))
        render(results, sys.stdout)
        sys.stdout.flush()
        screen = Screen(config.quiet)
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
