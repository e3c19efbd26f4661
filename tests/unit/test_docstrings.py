"""Every public name says what it is, takes, gives and refuses, and shows an example that runs.

What is asked for:

- of everything: a sentence or a formula first, sections in one order, an example;
- of what takes arguments: each of them described, tensors with their shape, what is returned
  (unless that is None), and what is raised (unless all arguments are flags, which cannot be wrong);
- of what takes none, as properties do: that the first sentence says what it gives;
- of operators: the sentence and the example, since the method that they stand for has the rest;
- of a module's methods: everything but the example, which is its class's and calls it;
- of what comes from CirculantAttention.jl or from a paper: that source.

`test_doctests.py` runs the examples.
"""

from __future__ import annotations

import inspect
import re

import pytest
from test_public import OF_JULIA

import circulant_attention
from circulant_attention import Circulant, denoising, nn

SECTIONS = ["Args", "Returns", "Raises", "Note", "Example", "References"]
OPERATORS = ["__eq__", "__getitem__", "__matmul__"]
# Members with a twin in Julia; those of Base that say the same in every package are left out.
MEMBERS_OF_JULIA = """
    add apply complex copy data dot neg real repeat reshape scale similar size softmax
    spatial_size sub sum window __eq__ __getitem__
""".split()
# What a text about a tensor says: its shape in symbols, or of what else it has the shape.
SHAPE = re.compile(r"``\(|\bshape\b|\b0-d\b|\b1-d\b")


def is_ours(thing: object) -> bool:
    return getattr(thing, "__module__", "").startswith("circulant_attention")


def members(cls: type) -> list[str]:
    """The public methods and properties that the package defines for a class."""
    names = {name for base in cls.__mro__ if is_ours(base) for name in vars(base)}
    documented = [
        name
        for name in names
        if isinstance(inspect.getattr_static(cls, name), property)
        or inspect.isroutine(inspect.getattr_static(cls, name))
    ]
    chosen = OPERATORS if cls is Circulant else []
    return sorted(name for name in documented if not name.startswith("_") or name in chosen)


NAMES = {
    **{name: getattr(circulant_attention, name) for name in circulant_attention.__all__},
    **{f"nn.{name}": getattr(nn, name) for name in nn.__all__},
    **{
        f"denoising.{name}": value
        for name, value in vars(denoising).items()
        if inspect.isfunction(value)
        if not name.startswith("_")
    },
}
MEMBERS = {
    f"{path}.{name}": inspect.getattr_static(thing, name)
    for path, thing in NAMES.items()
    if inspect.isclass(thing)
    for name in members(thing)
}
EVERYTHING = {**NAMES, **MEMBERS}


def docstring(thing: object) -> str:
    if isinstance(thing, classmethod | staticmethod):
        thing = thing.__func__
    return inspect.getdoc(thing) or ""


def sections(text: str) -> dict[str, str]:
    """The sections of a docstring in their order, dedented."""
    found = re.findall(r"^([A-Z]\w+):\n((?:    .*(?:\n|$)|\n)+)", text, re.MULTILINE)
    return {title: inspect.cleandoc(body) for title, body in found}


def entries(section: str) -> dict[str, str]:
    """The entries ``name: text`` of a section, also those of a list within it."""
    parts = re.findall(
        r"^(?:    - )?[`*\\]*(\w+)`*: (\S.*(?:\n(?! *- )(?: +.*|$))*)", section, re.MULTILINE
    )
    return dict(parts)


def parameters(thing: object) -> list[inspect.Parameter]:
    if isinstance(thing, property) or thing is circulant_attention.AbstractSimilarity:
        return []
    if not inspect.isclass(thing) and not inspect.isroutine(thing):
        thing = type(thing).__call__  # an object that is called, such as mh
    given = inspect.signature(thing).parameters.values()
    return [one for one in given if one.name not in ("self", "cls")]


def gives_something(thing: object) -> bool:
    if inspect.isclass(thing) or isinstance(thing, property):
        return False
    function = thing if inspect.isroutine(thing) else type(thing).__call__
    return inspect.signature(function).return_annotation not in ("None", "NoReturn")


def is_operator(path: str) -> bool:
    return path.rpartition(".")[2] in OPERATORS


@pytest.mark.parametrize("path", EVERYTHING)
def test_begins_with_a_description(path):
    text = docstring(EVERYTHING[path])
    first = text.split("\n\n")[0]
    assert re.match(r"r?[A-Z0-9`:]", first) and re.search(r"[.;]$", first), f"no sentence: {first}"


@pytest.mark.parametrize("path", EVERYTHING)
def test_sections_come_in_one_order(path):
    titles = list(sections(docstring(EVERYTHING[path])))
    assert titles == [title for title in SECTIONS if title in titles]


@pytest.mark.parametrize("path", [path for path in EVERYTHING if not is_operator(path)])
def test_arguments_are_described(path):
    thing = EVERYTHING[path]
    described = entries(sections(docstring(thing)).get("Args", ""))
    for parameter in parameters(thing):
        text = described.get(parameter.name)
        assert text, f"{parameter.name} is not described"
        if re.search(r"\bTensor\b", str(parameter.annotation)):
            assert SHAPE.search(text), f"the shape of {parameter.name} is not told: {text}"
    if not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters(thing)):
        assert set(described) == {parameter.name for parameter in parameters(thing)}


@pytest.mark.parametrize("path", [path for path in EVERYTHING if not is_operator(path)])
def test_results_and_errors_are_described(path):
    thing = EVERYTHING[path]
    found = sections(docstring(thing))
    given = parameters(thing)
    if given and gives_something(thing):
        assert found.get("Returns"), "the result is not described"
        # What stands before a colon there is shown as the type.
        assert not re.match(r".*?: ", found["Returns"]), "a type instead of a description"
    if any(parameter.annotation != "bool" for parameter in given):
        errors = entries(found.get("Raises", ""))
        assert errors, "no errors"
        for error, reason in errors.items():
            assert error.endswith("Error") and reason.startswith("If "), f"{error}: {reason}"


@pytest.mark.parametrize(
    "path", [path for path in EVERYTHING if not (path.startswith("nn.") and path in MEMBERS)]
)
def test_has_an_example(path):
    assert ">>> " in sections(docstring(EVERYTHING[path])).get("Example", "")


@pytest.mark.parametrize("path", [path for path in NAMES if path.startswith("nn.")])
def test_examples_of_modules_call_them(path):
    example = sections(docstring(NAMES[path]))["Example"]
    name = path.removeprefix("nn.")
    made = re.findall(rf"(\w+) = {name}\(", example)
    assert re.search(rf"{name}\(.*\)\(", example) or any(
        re.search(rf"\b{one}\(", example) for one in made
    )


@pytest.mark.parametrize(
    "path",
    [
        *sorted(OF_JULIA),
        *(f"Circulant.{name}" for name in MEMBERS_OF_JULIA),
        *(path for path in NAMES if path.startswith("nn.")),
        "denoising.nonlocal_means",
    ],
)
def test_names_its_source(path):
    source = sections(docstring(EVERYTHING[path])).get("References", "")
    if path.startswith(("nn.", "denoising.")):
        assert re.search(r"\b(19|20)\d\d\b|arXiv:\d|\.jl", source), "no source"
    else:
        assert re.search(r"``.+`` in CirculantAttention\.jl, ``src/\w+\.jl``", source), "no source"


@pytest.mark.parametrize(
    "path",
    [
        "DotSimilarity",
        "DistanceSimilarity",
        "Circulant",
        "Circulant.apply",
        "Circulant.dot",
        "Circulant.mT",
        "Circulant.softmax",
        "circulant_similarity",
        "softmax",
        "circulant_attention",
        "circulant_transposed_attention",
        "circulant_mh_transposed_attention",
        "dot",
        "denoising.nonlocal_means",
        "denoising.patches",
        "nn.AxialAttention",
        "nn.AxialImageTransformer",
        "nn.AxialPositionalEmbedding",
        "nn.CirculantAttention2d",
        "nn.CirculantTransformerBlock",
        "nn.CosAttn2d",
        "nn.CosMHSA",
        "nn.FusedAttention",
        "nn.NonlocalDenoiser",
        "nn.SelfAttention",
    ],
)
def test_what_is_mathematics_has_its_formula(path):
    assert re.search(r"\.\. math::|:math:`", docstring(EVERYTHING[path]))


def test_the_operator_says_how_it_is_written():
    text = docstring(circulant_attention.mh)
    assert "mh(A, x)" in text
    assert "A @ mh @ x" in text


def test_the_walk_finds_what_there_is():
    assert {"Circulant.sum", "Circulant.to", "Circulant.values", "nn.CosAttn1d.forward"} <= {
        *MEMBERS
    }
    assert len(NAMES) >= 45
    assert len(MEMBERS) >= 90
