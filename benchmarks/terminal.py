"""Pictures of an evaluation in a terminal of 80 and of 120 columns, as SVG.

    python benchmarks/terminal.py --model resnet20.th --data test.npz --out docs/pictures

The command is run in a pseudo-terminal; what it leaves on the screen becomes the picture.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.terminal import run

OPTIONS = ["--first", "100", "--suite", "quick", "--defense", "smooth", "--rho", "0.25"]


def picture(ansi: str, columns: int, title: str) -> str:
    """Text with colours as an SVG.

    Args:
        ansi: the text.
        columns: width of the terminal.
        title: of its window.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=columns, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(ansi), soft_wrap=True)
    svg = console.export_svg(title=title, unique_id=f"terminal-{columns}")
    svg = re.sub(r"@font-face\s*\{[^}]*\}", "", svg)  # a picture loads nothing; the font of the reader is used
    return re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL).replace("Fira Code", "ui-monospace, Menlo, Consolas")


def main() -> None:
    """Run the evaluation once for each width, the second time from its journal; write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    given = parser.parse_args()
    out = given.out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        for path, name in ((given.model, "resnet20.th"), (given.data, "test.npz")):
            os.symlink(path.resolve(), Path(folder, name))
        os.chdir(folder)
        command = ["freqrobust", "eval", "--model", "resnet20.th", "--data", "test.npz", *OPTIONS]
        arguments = [sys.executable, "-c", "from freqrobust.cli.main import main; main()", *command[1:]]
        for columns in (80, 120):
            shown = run(arguments, columns, timeout=3600)
            if shown.code or shown.screen.wrapped:
                raise SystemExit(f"exit code {shown.code}, {shown.screen.wrapped} lines too long:\n{shown.text}")
            text = "\n".join(["$ " + " ".join(command[:6]) + " \\", "    " + " ".join(OPTIONS), shown.screen.ansi()])
            file = out / f"terminal-{columns}.svg"
            file.write_text(picture(text, columns, "freqrobust eval"), encoding="utf-8")
            print(file)


if __name__ == "__main__":
    main()
