"""The blocks of code in the README and the documentation, and what the tests do with each of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>parsed|not run|file): (?P<about>[^>]+?) -->\n)?^ *```(?P<language>python|sh|bash|shell|console)\n"
    r"(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
#: Tests that run the code of a page themselves, with what it needs; its commands are parsed here as well.
RUN_BY = {
    "docs/ci.md": "test_ci_docs.py",
    "docs/python.md": "test_docs_python.py",
    "docs/reading-frequency-results.md": "test_reading_doc.py",
    "docs/scaling.md": "test_scaling_doc.py",
    "docs/reports.md": "test_docs_reports.py",
    "docs/reproductions.md": "test_docs_reproductions.py",
    "docs/trackers.md": "test_docs_trackers.py",
    "docs/writing-a-defense.md": "test_docs.py",
    "docs/writing-a-report.md": "test_docs_plugins.py",
    "docs/writing-a-training-method.md": "test_docs_training.py",
    "docs/writing-an-analysis.md": "test_docs_plugins.py",
    "docs/writing-an-attack.md": "test_docs_plugins.py",
}
#: Files and downloads that are not there. A file that an earlier command of the page writes is.
ABSENT = re.compile(
    r"[\w./$-]+\.(?:th|pt|pth|npz|safetensors)\b|\bcifar\w+|\bimagenet\w*:|\bfolder:|\b(?:robustbench|torchvision|timm|hf):"
    r"|\$\w*SHARED|svhn"
)
WRITES = re.compile(r"--(?:out|save-model|save-adversarial|json|run-dir) ([\w./-]+)")


class Block(NamedTuple):
    """One block of code.

    Attributes:
        page: relative to the root of the project.
        line: its first line.
        mark: ``parsed``, ``not run`` or ``file``, from the comment before it; else empty.
        about: the reason of the mark, or the name of the file that the block is saved as.
    """

    page: str
    line: int
    language: str
    text: str
    mark: str
    about: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each call of freqrobust, after the name of the program."""
        if self.language == "python":
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines if re.match(r" *(?:\$ )?freqrobust ", line)]
        return [one[2:] if one[0] == "$" else one[1:] for one in words]

    @property
    def others(self) -> list[str]:
        """Lines of a shell block that call something else."""
        lines = (line.strip() for line in self.text.replace("\\\n", " ").splitlines())
        return [line for line in lines if line and not line.startswith(("#", "freqrobust ", "$ freqrobust "))]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(
            name, text[: m.start("text")].count("\n") + 1, m["language"], m["text"], m["mark"] or "", m["about"] or ""
        )
        for m in BLOCK.finditer(text)
    ]


def absent(block: Block, before: list[Block]) -> str:
    """The first file or download that a shell block needs and that no block before it writes, else an empty string."""
    written = WRITES.findall("\n".join(one.text for one in [*before, block]))
    for needed in ABSENT.findall(block.text):
        if not any(needed == path or needed.startswith(f"{path}/") for path in written):
            return str(needed)
    return ""


def treatment(block: Block, before: list[Block]) -> str:
    """``run``, ``written`` to a file, ``parsed``, ``marked`` as not run, or ``run by`` the test of the page."""
    if block.mark == "not run":
        return "marked"
    if block.page in RUN_BY or block.page.startswith("docs/reproductions/"):  # tests/experiments runs every experiment
        return "run by"
    if block.mark == "file":
        return "written"
    if block.mark == "parsed" or (block.language != "python" and (block.others or absent(block, before))):
        return "parsed"
    return "run"
