"""Shows signatures without the types that only the package itself passes."""

import re

from sphinx.application import Sphinx
from sphinx.ext.autodoc import Options

# Entries that are computed on first use: the package makes them, users never do.
INTERNAL = re.compile(r" \| (?:~?circulant_attention\.matrix\.lazy\.)?(?:Deferred|LazyValues)\b")


def without_internal_types(
    app: Sphinx,
    what: str,
    name: str,
    thing: object,
    options: Options,
    signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    return signature and INTERNAL.sub("", signature), returned


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-signature", without_internal_types)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
