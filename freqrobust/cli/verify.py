"""``freqrobust verify``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import IO, TYPE_CHECKING

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import pixel_text
from freqrobust.core.text import one_line, print_error
from freqrobust.harness.verify import Verified, verify
from freqrobust.numerics.threat import norm_name

if TYPE_CHECKING:
    pass


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


def execute(
    *,
    directory: str,
    model: str | None,
    arch: str,
    normalize: str,
    trust_checkpoint: bool,
    data: str | None,
    data_dir: str | None,
    split: str,
    train_data: str | None,
    defense: str,
    batch_size: str,
    device: str,
    json_file: str | None,
    quiet: bool,
) -> int:
    """One ``freqrobust verify``; the exit code: 1 where a budget does not hold."""
    from freqrobust.cli.eval import parse_batch_size
    from freqrobust.cli.failures import print_lines
    from freqrobust.core.files import cache_root, check_writable, user_path, write_atomically
    from freqrobust.data.adversarial_sets import read_all
    from freqrobust.data.loading import load_data
    from freqrobust.harness.devices import resolve_device
    from freqrobust.models.loading import load_model

    if model is None:
        raise SpecError("verify needs --model: the model that the saved examples are shown to")
    size, where = parse_batch_size(batch_size), resolve_device(device)
    if json_file is not None:
        check_writable(json_file, "--json")
    read_all(user_path(directory, "DIR"))  # damaged files are said before a model is loaded
    clean = load_data(data, data_dir=data_dir, split=split) if data is not None else None
    training = load_data(train_data, data_dir=data_dir, split="train") if train_data is not None else None
    network = load_model(model, arch=arch, normalize=normalize, trust=trust_checkpoint, data=clean, device=where)
    results = verify(
        directory,
        network,
        data=clean,
        defense=defense,
        train_data=training,
        device=where,
        batch_size=size,
        cache_dir=cache_root(),
    )
    if json_file is not None:
        write_atomically(json_file, json.dumps([asdict(one) for one in results], indent=1) + "\n")
    if not quiet:
        print(one_line(f"model: {network.arch} ({network.spec}), normalisation {network.normalization}"))
        render(results, sys.stdout)
    exceeded = [one for one in results if one.budget == "exceeded"]
    if exceeded and quiet:
        print_lines(f"{one.file}: {one.attack} exceeds its perturbation budget: {_budget(one)}" for one in exceeded)
        print_error(f"exit code 1: {len(exceeded)} of {len(results)} sets of examples exceeded the perturbation budget")
    return 1 if exceeded else 0
