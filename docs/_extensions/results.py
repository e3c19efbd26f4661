"""A directive that shows the committed benchmark results, or says that there are none."""

import posixpath
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"
# The files in the order of the page: title and command. Others come last, under their own title.
KNOWN = {
    "cpu": ("Attention on a processor", "make bench"),
    "kernels": ("Each kernel against the FMA peak", "make bench-kernels"),
    "windows": ("Windows of other kinds", "make bench-windows"),
    "cuda": ("On a GPU", "python -m benchmarks.cuda --output benchmarks/results/cuda"),
    "cosine": (
        "Cosine and dense attention",
        "python -m benchmarks.bench_cosine --output benchmarks/results/cosine",
    ),
    "distributed": (
        "One grid on several processes",
        "python -m benchmarks.distributed --output benchmarks/results/distributed",
    ),
}


class BenchmarkResults(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        order = list(KNOWN)
        pages = sorted(
            RESULTS.glob("*.md"),
            key=lambda page: (order.index(page.stem) if page.stem in order else len(order), page),
        )
        self.env.note_dependency(str(RESULTS))
        for page in pages:
            self.env.note_dependency(str(page))
        text = "\n\n".join(as_section(page) for page in pages)
        return self.parse_text_to_nodes(
            text or "No results are committed; `make bench` makes them.",
            allow_section_headings=True,
        )


def as_name(link: re.Match[str]) -> str:
    """A link to a file of the repository as the name of the file."""
    return f"{link[1]} (`{posixpath.normpath('benchmarks/results/' + link[2])}`)"


def as_section(page: Path) -> str:
    """Headings one level down, links to files as their names, the command below the title."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^#", "##", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^]]*)\]\((?!https?:)([^)]*)\)", as_name, text)
    if page.stem in KNOWN:
        title, command = KNOWN[page.stem]
        again = f"`benchmarks/results/{page.name}`; `{command}` measures again."
        text = re.sub(r"\A##[^\n]*\n", f"## {title}\n\n{again}\n", text)
    return text


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("benchmark-results", BenchmarkResults)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
