"""The tables of README.md: complete, and true of what they name."""

import ast
import functools
import importlib
import pathlib
import re

import pytest

import circulant_attention as ca

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent

# What src/CirculantAttention.jl exports.
EXPORTED = set(
    """
    CircAtt Circulant circulant circulant_similarity circulant_similarity! DotSimilarity
    DistanceSimilarity circulant_adjacency circulant_adjacency! circulant_attention
    circulant_mh_attention circulant_mh_adjacency ⊗ ⨷
    """.split()
)
# What it does not export, and has twins here: what users call, and what decides the storage.
INTERNAL = set(
    """
    AbstractSimilarity cartesian_circulant circulant_attention! circulant_mh_transposed_attention
    circulant_transposed_attention circulant_transposed_attention! kernel_length scale spatial_dims
    spatial_size
    """.split()
)
# The functions of other packages to which it adds methods.
EXTENDED = set(
    """
    Adapt.adapt_structure LinearAlgebra.dot NNlib.batched_mul NNlib.batched_mul! NNlib.softmax
    NNlib.softmax! Zygote.accum Base.:+ Base.:- Base.:* Base.:(==) Base.cat Base.complex Base.copy
    Base.eltype Base.getindex Base.ndims Base.real Base.repeat Base.reshape Base.show Base.similar
    Base.size Base.sum
    """.split()
)
RULES = {
    "rrule(_circulant_reshape)",
    "rrule(circulant_attention)",
    "rrule(circulant_similarity)",
    "rrule(circulant_transposed_attention)",
    "rrule(NNlib.softmax)",
    "rrule(scale)",
}
NO_TWIN = {"CUDA.unsafe_free!"}

# How a test writes what is called by these names.
SPELLED = {
    "__add__": " + ",
    "__eq__": " == ",
    "__getitem__": "[",
    "__matmul__": " @ ",
    "__mul__": " * ",
    "__neg__": "-",
    "__rmul__": " * ",
    "__str__": "str(",
    "__sub__": " - ",
}


def rows() -> list[list[str]]:
    """Give the cells of every table row that names a test."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|") and "::" in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def spans(cell: str) -> list[str]:
    """Give the code in a cell, one string per span."""
    return re.findall(r"`([^`]+)`", cell)


NAMES = [row for row in rows() if len(row) == 5]
DIFFERENCES = [row for row in rows() if len(row) == 3]


@functools.cache
def functions_in(path: str) -> dict[str, str]:
    """Give the test functions of a file with their sources."""
    source = (ROOT / path).read_text(encoding="utf-8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return {
        node.name: ast.get_source_segment(source, node)
        for node in functions
        if node.name.startswith("test_")
    }


def resolve(name: str) -> object:
    """Find a name of the package, or the package itself."""
    if name == ca.__name__:
        return importlib.import_module(name)
    return functools.reduce(getattr, name.split("."), ca)


def test_every_julia_name_is_there():
    found = {name for row in NAMES for name in spans(row[0])}
    assert found == EXPORTED | INTERNAL | EXTENDED | RULES
    text = (HERE / "README.md").read_text(encoding="utf-8")
    section = text.split("### Without a twin")[1].split("## Every deliberate difference")[0]
    for name in NO_TWIN:
        assert f"`{name}" in section


def test_every_python_name_exists_and_is_tested():
    for *_, name, tests in NAMES:
        (name,) = spans(name)
        assert resolve(name) is not None
        last = name.rsplit(".", 1)[-1]
        for node in spans(tests):
            path, function = node.split("::")
            assert function in functions_in(path), node
            # The test's file writes the name, or what is written in its place.
            assert SPELLED.get(last, last) in (ROOT / path).read_text(encoding="utf-8"), node


def test_every_difference_has_a_test_of_its_own():
    for julia, here, tests in DIFFERENCES:
        assert julia and here and len(spans(tests)) == 1
        path, function = spans(tests)[0].split("::")
        assert path == "parity/test_differences.py" and function in functions_in(path)


def test_every_test_of_a_difference_is_in_the_table():
    named = [spans(row[2])[0].split("::")[1] for row in DIFFERENCES]
    assert len(set(named)) == len(named)
    assert set(functions_in("parity/test_differences.py")) == set(named)


def test_every_file_that_is_named_exists():
    text = (HERE / "README.md").read_text(encoding="utf-8")
    table = text.split("Run them with")[0]
    files = re.findall(r"`([\w/*]+(?:\.\w+|/))`", table)
    named = [name for name in files if not name.endswith(".jl")]
    assert len(named) > 8
    for name in named:
        assert list(HERE.glob(name.rstrip("/"))), name


def test_the_module_is_the_alias():
    circ_att = importlib.import_module("circulant_attention")
    assert circ_att is ca
    for name in circ_att.__all__:
        assert getattr(circ_att, name) is not None


def test_both_similarities_are_similarities():
    for simfun in (ca.DotSimilarity(), ca.DistanceSimilarity()):
        assert isinstance(simfun, ca.AbstractSimilarity)
    with pytest.raises(TypeError, match="DotSimilarity"):
        ca.AbstractSimilarity()
