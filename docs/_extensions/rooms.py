"""Draws the rooms of the package and its native code from the files: docs/images/rooms.svg.

``python docs/_extensions/rooms.py`` writes the picture. The build of the pages draws it again and
warns if the committed one differs.
"""

import re
import textwrap
from html import escape
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
PACKAGE = "circulant_attention"

# From top to bottom: a room imports only rooms below it.
ROOMS = {
    "demo": "command line: python -m circulant_attention",
    "distributed": "one grid on many processes",
    "nn": "layers for networks",
    "denoising": "non-local means, tile by tile",
    "attention": "attention with one head or several",
    "similarity": "similarity, softmax, adjacency",
    "matrix": "the Circulant: storage, algebra, indexing, display",
    "ops": "native ops, derivatives, dtypes",
    "geometry": "grid and pattern",
    "window": "size, dilation, boundary",
    "checks": "checks of arguments",
}
NATIVE = {
    "csrc/ops.cpp": "schemas, legend of symbols",
    "csrc/cpu": "checks, allocation, schedule",
    "csrc/cuda": "kernels, launches",
    "csrc/common": "index arithmetic, dtypes, checks",
}
AROUND = "tests, parity, benchmarks, examples, docs"

# In pixels. Narrow, so that the letters stay legible on a phone.
WIDTH, MARGIN, LINE, GAP = 460, 12, 16, 6
FILES_PER_LINE = 62  # characters


def names(folder: Path) -> list[str]:
    """The names of the source files of a folder, without their suffixes."""
    sources = (".py", ".cpp", ".h", ".cu", ".cuh")
    found = {path.stem for path in folder.iterdir() if path.suffix in sources}
    return sorted(found - {"__init__"})


def contents(path: Path) -> list[str]:
    """What a room holds, in lines: its files, then each folder with its files."""
    if not path.is_dir():
        return []
    lines = textwrap.wrap(", ".join(names(path)), FILES_PER_LINE)
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and names(folder):
            text = f"{folder.name}/: " + ", ".join(names(folder))
            lines += textwrap.wrap(text, FILES_PER_LINE, subsequent_indent="\u00a0\u00a0")
    return lines


def rooms() -> list[tuple[str, str, list[str]]]:
    """Name, words and contents of each room of the package that there is, from top to bottom."""
    folder = ROOT / PACKAGE
    there = {path.stem for path in folder.glob("[a-z]*.py")}
    there |= {path.parent.name for path in folder.glob("*/__init__.py")}
    if missing := there - ROOMS.keys():
        raise ValueError(f"docs/_extensions/rooms.py has no words for {sorted(missing)}")
    return [
        (
            f"{name}/" if (folder / name).is_dir() else f"{name}.py",
            words,
            contents(folder / name),
        )
        for name, words in ROOMS.items()
        if name in there
    ]


class Drawing:
    """Lines of SVG, from top to bottom."""

    def __init__(self) -> None:
        self.y = MARGIN
        self.parts: list[str] = []

    def text(self, x: float, text: str, kind: str) -> None:
        self.parts.append(f'<text x="{x}" y="{self.y}" class="{kind}">{escape(text)}</text>')

    def heading(self, text: str) -> None:
        self.y += LINE
        self.text(MARGIN, text, "heading")
        self.y += GAP

    def box(self, kind: str, name: str, words: str, lines: list[str]) -> None:
        height = LINE * (1 + len(lines)) + 2 * GAP
        width = WIDTH - 2 * MARGIN
        self.parts.append(
            f'<rect x="{MARGIN}" y="{self.y}" width="{width}" height="{height}" rx="4" '
            f'class="{kind}"/>'
        )
        self.y += LINE + 1
        self.text(MARGIN + 8, name, "name")
        self.parts.append(
            f'<text x="{WIDTH - MARGIN - 8}" y="{self.y}" class="words">{escape(words)}</text>'
        )
        for line in lines:
            self.y += LINE
            self.text(MARGIN + 8, line, "files")
        self.y += 2 * GAP + 4


STYLE = """
  text { fill: #1f2937; font-family: sans-serif; font-size: 12px; }
  .name { font-family: monospace; font-size: 13px; font-weight: bold; }
  .words { text-anchor: end; }
  .files { font-family: monospace; font-size: 11px; fill: #475569; }
  .heading { font-size: 12px; fill: #475569; }
  .page { fill: #ffffff; stroke: #cbd5e1; }
  .python { fill: #e0f2fe; stroke: #0284c7; }
  .native { fill: #ffedd5; stroke: #ea580c; }
  .around { fill: #f1f5f9; stroke: #64748b; }
"""


def picture() -> str:
    """The SVG."""
    drawing = Drawing()
    drawing.heading(f"{PACKAGE}/: a room imports only rooms below it")
    for room in rooms():
        drawing.box("python", *room)
    ops = re.findall(r'"(\w+)\(', (ROOT / "csrc" / "ops.cpp").read_text(encoding="utf-8"))
    drawing.heading(f"torch.ops.{PACKAGE}: how Python calls native code")
    drawing.box("around", "ops", "", textwrap.wrap(", ".join(ops), FILES_PER_LINE))
    drawing.heading("csrc/: no Python, LibTorch's stable ABI")
    for name, words in NATIVE.items():
        drawing.box("native", name, words, contents(ROOT / name))
    drawing.heading("beside them")
    drawing.box("around", AROUND, "", [])
    height = drawing.y + GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}">',
            f"<style>{STYLE}</style>",
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6" '
            'class="page"/>',
            *drawing.parts,
            "</svg>\n",
        ]
    )


def check(app: Sphinx) -> None:
    """Warns if the committed picture is not the one of the files; a warning fails the build."""
    try:
        current = PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == picture()
        error = "docs/images/rooms.svg is out of date: run python docs/_extensions/rooms.py"
    except ValueError as unknown:
        current, error = False, str(unknown)
    if not current:
        logging.getLogger(__name__).warning(error)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
