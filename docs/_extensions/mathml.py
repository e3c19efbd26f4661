"""Renders formulas as MathML with docutils: pages need no scripts, fonts or network."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.writers.html5 import HTML5Translator


def mathml(node: nodes.Element, *, as_block: bool) -> str:
    # Browsers choose the style of a sum themselves, and docutils knows no \textstyle.
    tex = node.astext().replace(r"\textstyle", "").replace(r"\dots", r"\ldots")
    # docutils reads \frac12 as 12 over the next token, and sets an index below an accent.
    tex = re.sub(r"\\([td]?frac)(\d)(\d)", r"\\\1{\2}{\3}", tex)
    tex = re.sub(r"\\(bar|hat|tilde) ?([A-Za-z])_", r"\\\1{\2}{}_", tex)
    try:
        return tex2mathml(tex, as_block=as_block)
    except MathError as error:
        raise SphinxError(f"{node.source}: no MathML for {tex!r}: {error}") from error


def visit_math(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
