"""Settings of Sphinx; `make docs` builds the pages and runs their examples."""

import os
import sys
from pathlib import Path

import circulant_attention

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "circulant_attention"
author = "the circulant_attention contributors"
copyright = f"2026, {author}"
version = release = circulant_attention.__version__

extensions = [
    "mathml",
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "names",
    "results",
    "rooms",
    "signatures",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
]
bibtex_bibfiles = ["references.bib"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_extensions", "_templates", "gallery"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = "circulant_attention"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["style.css"]

autosummary_generate = True
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Examples in docstrings are run by pytest, those of the pages by Sphinx.
doctest_test_doctest_blocks = ""
doctest_global_setup = """
import warnings
import torch
from circulant_attention import *
torch.manual_seed(0)
# Torch warns once when the first sparse CSR tensor is made.
warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
"""

# Pictures of the pages, from the code above them.
plot_include_source = True
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [("png", 150)]
plot_rcparams = {"figure.constrained_layout.use": True, "font.size": 10}
plot_apply_rcparams = True

# The programs of the gallery run again when they changed.
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "generated/gallery",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "capture_repr": (),
    "download_all_examples": False,
    "image_srcset": ["2x"],
    "min_reported_time": 3600,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

# Links into the documentation of other projects need a network. Without it they are plain text.
if os.environ.get("CIRCULANT_ATTENTION_DOCS_LINKS") == "1":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }
nitpick_ignore_regex = [
    (r"py:.*", r"(abc|collections\.abc|matplotlib|torch)\..*"),
    # matplotlib is optional, so its types are imported for type checkers only.
    (r"py:class", "Axes"),
    # Left as written where autodoc does not evaluate, as beside Self, which only checkers know.
    (r"py:class", r"Number|Tensor|DTensor|WindowLike"),
    # Internal: the native kind of a similarity.
    (r"py:class", r"circulant_attention\.ops\.(\w+\.)*(Similarity)?Kind"),
]
