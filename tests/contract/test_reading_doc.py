"""docs/reading-frequency-results.md: its commands exist as they stand there, and its pictures are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from freqrobust.harness.analysis import analyses

DOC = Path(__file__).parents[2] / "docs" / "reading-frequency-results.md"
TEXT = DOC.read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^look (?!\()(.*)$", TEXT, flags=re.MULTILINE)]
#: All but those that say nothing about frequencies.
NAMES = sorted(set(analyses.names()) - {"robustness-curve", "aum"})


def test_every_analysis_is_read_once_with_options_it_has() -> None:
    shared = {"--limit", "--first", "--out", "--defense"}
    assert sorted(name for name, *_ in COMMANDS) == NAMES
    for name, *arguments in COMMANDS:
        given = {a[2:].replace("-", "_"): b for a, b in zip(arguments[::2], arguments[1::2], strict=True)}
        own = {key: [value] for key, value in given.items() if f"--{key}" not in shared}
        (plugin_spec,) = analyses.parse(name, own)
        assert set(plugin_spec.given) == set(own), f"{name} has no {sorted(set(own) - set(plugin_spec.given))}"


def test_its_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"!\[.+?\]\((pictures/.+?)\)", TEXT)
    assert sorted(pictures) == [f"pictures/{name}.png" for name in NAMES]
    for picture in pictures:
        assert 10_000 < (DOC.parent / picture).stat().st_size < 300_000
