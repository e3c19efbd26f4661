"""The public names: which they are, and that they are annotated."""

from __future__ import annotations

import inspect
import re
import types
from pathlib import Path

import pytest

import circulant_attention
from circulant_attention import Circulant

# Those of CirculantAttention.jl, `!` written as `_`, and `mh` for its operator.
OF_JULIA = {
    "AbstractSimilarity",
    "Circulant",
    "DistanceSimilarity",
    "DotSimilarity",
    "cat",
    "circulant",
    "circulant_adjacency",
    "circulant_adjacency_",
    "circulant_attention",
    "circulant_attention_",
    "circulant_mh_adjacency",
    "circulant_mh_attention",
    "circulant_mh_transposed_attention",
    "circulant_similarity",
    "circulant_similarity_",
    "circulant_transposed_attention",
    "circulant_transposed_attention_",
    "dot",
    "kernel_length",
    "mh",
    "scale",
    "similar",
    "softmax",
    "softmax_",
    "spatial_dims",
    "spatial_size",
}

FUNCTIONS = sorted(
    name
    for name in circulant_attention.__all__
    if inspect.isfunction(getattr(circulant_attention, name))
)
MEMBERS = sorted(
    name for name in vars(Circulant) if not name.startswith("_") and name != "geometry"
)


def _parameters(function):
    return [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in ("self", "cls")
    ]


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


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_annotated(name):
    _check_annotations(getattr(circulant_attention, name))


@pytest.mark.parametrize("name", MEMBERS)
def test_members_of_circulant_are_annotated(name):
    member = inspect.getattr_static(Circulant, name)
    _check_annotations(member.fget if isinstance(member, property) else member)


def test_the_constructor_is_annotated():
    _check_annotations(Circulant.__init__)


@pytest.mark.parametrize("name", [n for n in vars(Circulant) if n.startswith("__")])
def test_operators_are_annotated(name):
    member = inspect.getattr_static(Circulant, name)
    if inspect.isfunction(member) and member.__module__.startswith("circulant_attention"):
        _check_annotations(member)


def _check_annotations(function):
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty, "no type of the result"
    for parameter in _parameters(function):
        assert parameter.annotation is not parameter.empty, f"no type of {parameter.name}"


def test_the_operator_is_annotated():
    _check_annotations(type(circulant_attention.mh).__call__)
