"""The directive that shows the committed benchmark results, and says so if there are none."""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"


class BenchmarkResults(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        pages = sorted(RESULTS.glob("*.md"))
        self.env.note_dependency(str(RESULTS))
        for page in pages:
            self.env.note_dependency(str(page))
        text = "\n\n".join(as_section(page.read_text(encoding="utf-8")) for page in pages)
        return self.parse_text_to_nodes(
            text or "No results are committed.", allow_section_headings=True
        )


def as_section(results: str) -> str:
    """Headings one level down, links to files of the repository as their names."""
    results = re.sub(r"^#", "##", results, flags=re.MULTILINE)
    return re.sub(r"\[([^]]*)\]\((?!https?:)[./]*([^)]*)\)", r"\1 (`\2`)", results)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("benchmark-results", BenchmarkResults)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
