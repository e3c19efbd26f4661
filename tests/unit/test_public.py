"""The public names. (That they are annotated, mypy and ruff check.)"""

from __future__ import annotations

import re
import types
from pathlib import Path

import circulant_attention

# Those of CirculantAttention.jl, `!` written as `_`, and `mh` for its operator.
OF_JULIA = set(
    """
    AbstractSimilarity Circulant DistanceSimilarity DotSimilarity cat circulant circulant_adjacency
    circulant_adjacency_ circulant_attention circulant_attention_ circulant_mh_adjacency
    circulant_mh_attention circulant_mh_transposed_attention circulant_similarity
    circulant_similarity_ circulant_transposed_attention circulant_transposed_attention_ dot
    kernel_length mh scale similar softmax softmax_ spatial_dims spatial_size
    """.split()
)


def test_the_public_names():
    assert set(circulant_attention.__all__) >= OF_JULIA
    assert circulant_attention.__all__ == sorted(circulant_attention.__all__)
    for name in circulant_attention.__all__:
        assert hasattr(circulant_attention, name)


def test_nothing_else_is_public():
    visible = {
        name
        for name, value in vars(circulant_attention).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert visible == set(circulant_attention.__all__)


def test_a_star_import_hides_no_builtin():
    import builtins

    assert not set(circulant_attention.__all__) & set(dir(builtins))


def test_version():
    project = Path(__file__).parents[2] / "pyproject.toml"
    (version,) = re.findall(r'^version = "(.+)"$', project.read_text(), re.MULTILINE)
    assert circulant_attention.__version__ == version
