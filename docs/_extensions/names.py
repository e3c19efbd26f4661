"""A directive that lists the public names by the file that defines them."""

from importlib import import_module

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGE = "circulant_attention"


def names_by_file() -> dict[str, list[str]]:
    """The public names of the package and of its public subpackages, by file."""
    files: dict[str, list[str]] = {}
    for module in (PACKAGE, f"{PACKAGE}.denoising", f"{PACKAGE}.distributed", f"{PACKAGE}.nn"):
        public = import_module(module)
        for name in public.__all__:
            thing = getattr(public, name)
            home = getattr(thing, "__module__", None) or type(thing).__module__
            if home.startswith(f"{PACKAGE}."):  # not the constants
                path = home.removeprefix(f"{PACKAGE}.").replace(".", "/") + ".py"
                files.setdefault(path, []).append(name)
    return files


class PublicNames(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        rows = [
            f"| `{path}` | {', '.join(f'`{name}`' for name in sorted(names))} |"
            for path, names in sorted(names_by_file().items())
        ]
        return self.parse_text_to_nodes("\n".join(["| file | public names |", "|---|---|", *rows]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
