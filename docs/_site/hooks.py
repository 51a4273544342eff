"""What the site adds to the pages as they stand in the repository.

Links of a page are relative to its file, so that they work where the repository is shown. The site has no source code:
there, a link to a file outside docs/ becomes plain text, except for the pages below, which the site contains as well.
Notebooks are shown as they were executed; the build runs no code and needs neither torch nor Jupyter.
"""

from __future__ import annotations

import base64
import html
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
#: Pages of the repository's root, and what they are called in the site.
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root and the notebooks."""
    for name, uri in PAGES.items():
        if uri != "index.md":
            text = relinked((ROOT / name).read_text(encoding="utf-8"), folder="", base="docs")
            files.append(File.generated(config, uri, content=text))
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
            notebook = json.loads(Path(file.abs_src_path).read_text(encoding="utf-8"))
            files.append(File.generated(config, file.src_uri.replace(".ipynb", ".md"), content=markdown(notebook)))
    return files


def on_page_markdown(text: str, page: Any, **_: Any) -> str:
    return relinked(text, folder=posixpath.join("docs", posixpath.dirname(page.file.src_uri)), base="docs")


def relinked(text: str, folder: str, base: str) -> str:
    """The text of a page in ``folder`` with links as the site, which is made of ``base``, has them."""

    def changed(match: re.Match[str]) -> str:
        mark, label, link = match.groups()
        address, hash_, anchor = link.partition("#")
        if not address or re.match(r"[a-z]+:", address):
            return match[0]
        target = posixpath.normpath(posixpath.join(folder, address))
        if target in PAGES:
            target = f"{base}/{PAGES[target]}"
        elif not target.startswith(f"{base}/"):
            return str(label)
        start = folder if folder.startswith(base) else base
        site = posixpath.relpath(target.replace(".ipynb", ".md"), start)
        return f"{mark}[{label}]({site}{hash_}{anchor})"

    parts = CODE.split(text)
    # a link whose text is code is split by it: only blocks of code are left out then
    blocks = re.split(r"(```.*?```)", text, flags=re.DOTALL)
    assert "".join(parts) == text
    return "".join(part if part.startswith("```") else LINK.sub(changed, part) for part in blocks)


def markdown(notebook: dict[str, Any]) -> str:
    """A notebook as a page: its text, its code and the outputs that are stored in it."""
    shown: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            shown.append(source)
        elif cell["cell_type"] == "code":
            language = "sh" if source.startswith("!") else "python"
            shown.append(f"```{language}\n{source}\n```")
            shown.extend(filter(None, (output_markdown(output) for output in cell["outputs"])))
    return "\n\n".join(shown) + "\n"


def output_markdown(output: dict[str, Any]) -> str:
    """The richest form of one output that a page can show."""
    data = output.get("data", {})
    if "image/png" in data:
        png = "".join(data["image/png"]).strip()
        base64.b64decode(png, validate=False)
        return f'<img class="output" alt="Picture drawn by the cell above" src="data:image/png;base64,{"".join(png.split())}">'
    if "text/html" in data:
        inner = "".join(data["text/html"])
        return f'<div class="output">{"".join(line.strip() for line in inner.splitlines())}</div>'
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f'<pre class="output">{html.escape(text)}</pre>'.replace("\n\n", "\n&#8203;\n") if text.strip() else ""
